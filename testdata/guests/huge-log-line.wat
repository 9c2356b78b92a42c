  ;; One line of a MiB: cut. Then one of 40 MiB: more than a call may bring in.
  (import "forge:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (call $grow_to (i32.const 50331648))
    (memory.fill (i32.const 1048576) (i32.const 120) (i32.const 41943040))
    (call $log (i32.const 2) (i32.const 1048576) (i32.const 1048576) (i32.const 0) (i32.const 0))
    (call $log (i32.const 2) (i32.const 1048576) (i32.const 41943040) (i32.const 0) (i32.const 0))
    (unreachable))
