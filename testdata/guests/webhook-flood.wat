  ;; Plans 17 requests, and says `then` with 17 more. Memory that nobody wrote is a GET without a URL; one request has 84 bytes.
  (func $plan (export "forge:plugin/webhook-target@0.1.0#plan")
    (param i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.store (i32.const 2052) (i32.const 8192)) (i32.store (i32.const 2056) (i32.const 17))
    (i32.const 2048))
  (func $judge (export "forge:plugin/webhook-target@0.1.0#judge") (param i32) (result i32)
    (i32.store8 (i32.const 2048) (i32.const 4))
    (i32.store (i32.const 2056) (i32.const 8192)) (i32.store (i32.const 2060) (i32.const 17))
    (i32.const 2048))
