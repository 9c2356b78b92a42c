  ;; What a Rust guest of the sdk does when it panics: its hook logs, and it runs into `unreachable`.
  (import "forge:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (data (i32.const 100) "panicked at src/lib.rs:67:5: no inventory")
  (func $give_up (unreachable))
  (func $plan_the_work
    (call $log (i32.const 4) (i32.const 100) (i32.const 41) (i32.const 0) (i32.const 0))
    (call $give_up))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (call $plan_the_work) (unreachable))
