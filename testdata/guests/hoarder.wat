  ;; Starts children for as long as it may, and keeps them all.
  (import "forge:plugin/process@0.1.0" "spawn" (func $spawn
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  (data (i32.const 100) "true")
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (loop $again
      (call $spawn (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0)
        (i32.const 4096))
      (br_if $again (i32.eqz (i32.load8_u (i32.const 4096)))))
    (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))
