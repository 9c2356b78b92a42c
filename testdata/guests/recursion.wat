  ;; Calls itself until its stack is used up.
  (func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (call $deeper (local.get 0)))
