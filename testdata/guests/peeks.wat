  ;; Reads the file of all variables, the secret ones included, whose path it was told to pass on, and answers with what stands there.
  (import "forge:plugin/workspace@0.1.0" "read" (func $read (param i32 i32 i64 i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (call $read
      (i32.load offset=52 (local.get $job)) (i32.load offset=56 (local.get $job))
      (i64.const 0) (i32.const -1) (i32.const 4096))
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    (call $finished (i32.load (i32.const 4100)) (i32.load (i32.const 4104))))
