(component
  ;; Would be an executor and a webhook target at once.
  (instance $empty)
  (export "forge:plugin/executor@0.1.0" (instance $empty))
  (export "forge:plugin/webhook-target@0.1.0" (instance $empty)))
