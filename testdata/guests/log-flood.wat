  ;; Logs for as long as it may.
  (import "forge:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (loop $again
      (call $log (i32.const 2) (i32.const 16) (i32.const 7) (i32.const 0) (i32.const 0))
      (br $again))
    (unreachable))
