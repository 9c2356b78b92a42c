  ;; Spawns the program that its first argument names with the arguments that follow it, reads what it prints to the end, and
  ;; answers with the first 64 KiB of that as its summary. It never frees anything: who prints much costs it its memory.
  (import "forge:plugin/process@0.1.0" "spawn" (func $spawn
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  (import "forge:plugin/process@0.1.0" "[method]child.next" (func $next (param i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $a i32) (local $n i32) (local $child i32) (local $text i32) (local $length i32) (local $more i32)
    (local.set $a (call $arguments (local.get $job)))
    (local.set $n (call $argument_count (local.get $job)))
    (call $spawn
      (i32.load (local.get $a)) (i32.load offset=4 (local.get $a))
      (i32.add (local.get $a) (i32.const 8)) (i32.sub (local.get $n) (i32.const 1))
      (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i64.const 0)
      (i32.const 4096))
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    (local.set $child (i32.load (i32.const 4100)))
    (local.set $text (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 65536)))
    (loop $read
      (call $next (local.get $child) (i32.const 4096))
      (if (i32.load8_u (i32.const 4096))
        (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
      ;; stdout is 0, stderr 1, the end 2.
      (if (i32.eq (i32.load8_u (i32.const 4100)) (i32.const 2))
        (then (return (call $finished (local.get $text) (local.get $length)))))
      (if (i32.eqz (i32.load8_u (i32.const 4100))) (then
        (local.set $more (i32.load (i32.const 4108)))
        (if (i32.gt_u (i32.add (local.get $length) (local.get $more)) (i32.const 65536))
          (then (local.set $more (i32.sub (i32.const 65536) (local.get $length)))))
        (memory.copy (i32.add (local.get $text) (local.get $length)) (i32.load (i32.const 4104)) (local.get $more))
        (local.set $length (i32.add (local.get $length) (local.get $more)))))
      (br $read))
    (unreachable))
