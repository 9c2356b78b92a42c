  ;; Runs the program that its first argument names. A second one names a variable; a third one, the folder.
  (import "forge:plugin/process@0.1.0" "run" (func $run
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $a i32) (local $n i32)
    (local.set $a (call $arguments (local.get $job)))
    (local.set $n (call $argument_count (local.get $job)))
    ;; The pair (name, "hostile") at 8192.
    (if (i32.ge_u (local.get $n) (i32.const 2)) (then
      (i64.store (i32.const 8192) (i64.load offset=8 align=4 (local.get $a)))))
    (i32.store (i32.const 8200) (i32.const 16)) (i32.store (i32.const 8204) (i32.const 7))
    (call $run
      (i32.load (local.get $a)) (i32.load offset=4 (local.get $a))
      (i32.const 0) (i32.const 0)
      (i32.const 8192) (i32.ge_u (local.get $n) (i32.const 2))
      (i32.ge_u (local.get $n) (i32.const 3))
      (select (i32.load offset=16 (local.get $a)) (i32.const 0) (i32.ge_u (local.get $n) (i32.const 3)))
      (select (i32.load offset=20 (local.get $a)) (i32.const 0) (i32.ge_u (local.get $n) (i32.const 3)))
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i64.const 0)
      (i32.const 4096))
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    (call $finished (i32.const 16) (i32.const 7)))
