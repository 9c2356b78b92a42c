  ;; Answers with five MiB.
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (call $grow_to (i32.const 8388608))
    (memory.fill (i32.const 1048576) (i32.const 120) (i32.const 5242880))
    (call $finished (i32.const 1048576) (i32.const 5242880)))
