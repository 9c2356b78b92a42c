  ;; Asks for another try in an hour: err(retry(retry { "hostile", some(3600000) })).
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (drop (call $refused (i32.const 16) (i32.const 7)))
    (i32.store8 (i32.const 2056) (i32.const 2))
    (i32.store8 (i32.const 2072) (i32.const 1))
    (i64.store (i32.const 2080) (i64.const 3600000))
    (i32.const 2048))
