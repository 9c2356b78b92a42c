  ;; Runs the program that its first argument names with the arguments that follow it. Ends it well, the first attempt waits for
  ;; approval and carries the file `plan` to the next one, which runs the same again and is finished.
  (import "forge:plugin/process@0.1.0" "run" (func $run
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  (data (i32.const 32) "one thing to do")
  (data (i32.const 48) "plan")
  (data (i32.const 56) "the process failed")
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
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    (if (i32.or (i32.load8_u (i32.const 4100)) (i32.load (i32.const 4104)))
      (then (return (call $refused (i32.const 56) (i32.const 18)))))
    (drop (call $finished (i32.const 32) (i32.const 15)))
    ;; ok(pending { outcome, ["plan"] }) where nobody has approved anything yet; the list stands at 8192.
    (if (i32.eqz (i32.load8_u offset=128 (local.get $job))) (then
      (i32.store (i32.const 8192) (i32.const 48)) (i32.store (i32.const 8196) (i32.const 4))
      (i32.store8 (i32.const 2056) (i32.const 1))
      (i32.store (i32.const 2088) (i32.const 8192)) (i32.store (i32.const 2092) (i32.const 1))))
    (i32.const 2048))
