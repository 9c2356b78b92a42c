  ;; Spawns the program that its first argument names with the arguments that follow it, three times, waits until each has printed something,
  ;; and traps while it holds them all.
  (import "forge:plugin/process@0.1.0" "spawn" (func $spawn
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  (import "forge:plugin/process@0.1.0" "[method]child.next" (func $next (param i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $a i32) (local $n i32) (local $started i32)
    (local.set $a (call $arguments (local.get $job)))
    (local.set $n (call $argument_count (local.get $job)))
    (loop $again
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
      (call $next (i32.load (i32.const 4100)) (i32.const 4096))
      (local.set $started (i32.add (local.get $started) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $started) (i32.const 3))))
    (unreachable))
