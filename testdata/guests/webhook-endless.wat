  ;; Neither plans nor judges: it computes.
  (func $spin (loop $again (br $again)))
  (func $plan (export "forge:plugin/webhook-target@0.1.0#plan")
    (param i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (call $spin) (unreachable))
  (func $judge (export "forge:plugin/webhook-target@0.1.0#judge") (param i32) (result i32)
    (call $spin) (unreachable))
