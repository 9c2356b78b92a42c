  ;; Runs the program that its first argument names with the arguments that follow it, reads the file `x` of the workspace, and answers
  ;; with what stands there as its summary.
  (import "forge:plugin/process@0.1.0" "run" (func $run
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  (import "forge:plugin/workspace@0.1.0" "read" (func $read (param i32 i32 i64 i32 i32)))
  (data (i32.const 32) "x")
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $a i32) (local $n i32)
    (local.set $a (call $arguments (local.get $job)))
    (local.set $n (call $argument_count (local.get $job)))
    (call $run
      (i32.load (local.get $a)) (i32.load offset=4 (local.get $a))
      (i32.add (local.get $a) (i32.const 8)) (i32.sub (local.get $n) (i32.const 1))
      (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i64.const 0)
      (i32.const 4096))
    (if (i32.eqz (i32.load8_u (i32.const 4096)))
      (then (call $read (i32.const 32) (i32.const 1) (i64.const 0) (i32.const -1) (i32.const 4096))))
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    (call $finished (i32.load (i32.const 4100)) (i32.load (i32.const 4104))))
