(component
  ;; A webhook target that would like to read files.
  (import "forge:plugin/workspace@0.1.0" (instance))
  (instance $empty)
  (export "forge:plugin/webhook-target@0.1.0" (instance $empty)))
