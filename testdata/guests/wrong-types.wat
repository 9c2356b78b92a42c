(component
  ;; Has the contract's names and not its functions.
  (instance $empty)
  (export "forge:plugin/executor@0.1.0" (instance $empty)))
