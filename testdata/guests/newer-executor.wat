(component
  ;; An executor of a version that is not there yet.
  (instance $empty)
  (export "forge:plugin/executor@0.2.0" (instance $empty)))
