  ;; Plans many requests whose bodies are all the same MiB: few bytes for the guest, many for whoever copies them.
  (func $plan (export "forge:plugin/webhook-target@0.1.0#plan")
    (param i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (local $at i32)
    (call $grow_to (i32.const 4194304))
    (local.set $at (i32.const 8192))
    (loop $again
      (i32.store offset=20 (local.get $at) (i32.const 1048576)) (i32.store offset=24 (local.get $at) (i32.const 1048576))
      (local.set $at (i32.add (local.get $at) (i32.const 84)))
      (br_if $again (i32.lt_u (local.get $at) (i32.const 50192))))
    (i32.store (i32.const 2052) (i32.const 8192)) (i32.store (i32.const 2056) (i32.const 500))
    (i32.const 2048))
  (func $judge (export "forge:plugin/webhook-target@0.1.0#judge") (param i32) (result i32)
    (unreachable))
