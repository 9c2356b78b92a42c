  ;; Plans one POST, whose body is the `[config]` of the plugin as it was told of it, and finds every answer good. A test writes the port.
  ;; A schema for that, where the description has its place: any table.
  (data (i32.const 1060) "\01\00\00\00\d0\20\00\00\11\00\00\00")
  (data (i32.const 8400) "{\"type\":\"object\"}")
  (data (i32.const 8300) "http://127.0.0.1:00000/")
  (func $plan (export "forge:plugin/webhook-target@0.1.0#plan")
    (param i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 8192) (i32.const 1))
    (i32.store (i32.const 8196) (i32.const 8300)) (i32.store (i32.const 8200) (i32.const 23))
    (i32.store (i32.const 8212) (local.get 9)) (i32.store (i32.const 8216) (local.get 10))
    (i32.store (i32.const 2052) (i32.const 8192)) (i32.store (i32.const 2056) (i32.const 1))
    (i32.const 2048))
  (func $judge (export "forge:plugin/webhook-target@0.1.0#judge") (param i32) (result i32)
    (i32.const 2048))
