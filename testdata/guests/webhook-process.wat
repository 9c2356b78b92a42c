(component
  ;; A webhook target that would like to run programs.
  (import "forge:plugin/process@0.1.0" (instance))
  (instance $empty)
  (export "forge:plugin/webhook-target@0.1.0" (instance $empty)))
