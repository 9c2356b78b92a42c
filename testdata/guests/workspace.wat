  ;; Touches the path that its first argument names. One argument: read. Two: write the second there. Three: remove. Four: list.
  (import "forge:plugin/workspace@0.1.0" "read" (func $read (param i32 i32 i64 i32 i32)))
  (import "forge:plugin/workspace@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32 i32)))
  (import "forge:plugin/workspace@0.1.0" "remove" (func $remove (param i32 i32 i32)))
  (import "forge:plugin/workspace@0.1.0" "list" (func $list (param i32 i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $a i32) (local $n i32)
    (local.set $a (call $arguments (local.get $job)))
    (local.set $n (call $argument_count (local.get $job)))
    (if (i32.eq (local.get $n) (i32.const 1)) (then
      (call $read (i32.load (local.get $a)) (i32.load offset=4 (local.get $a)) (i64.const 0) (i32.const -1)
        (i32.const 4096))))
    (if (i32.eq (local.get $n) (i32.const 2)) (then
      (call $write (i32.load (local.get $a)) (i32.load offset=4 (local.get $a))
        (i32.load offset=8 (local.get $a)) (i32.load offset=12 (local.get $a)) (i32.const 0) (i32.const 4096))))
    (if (i32.eq (local.get $n) (i32.const 3)) (then
      (call $remove (i32.load (local.get $a)) (i32.load offset=4 (local.get $a)) (i32.const 4096))))
    (if (i32.eq (local.get $n) (i32.const 4)) (then
      (call $list (i32.load (local.get $a)) (i32.load offset=4 (local.get $a)) (i32.const 4096))))
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    ;; What was read; and of a list, the first entry's name.
    (if (i32.eq (local.get $n) (i32.const 1))
      (then (return (call $finished (i32.load (i32.const 4100)) (i32.load (i32.const 4104))))))
    (if (i32.and (i32.eq (local.get $n) (i32.const 4)) (i32.ne (i32.load (i32.const 4104)) (i32.const 0)))
      (then (return (call $finished
        (i32.load (i32.load (i32.const 4100))) (i32.load offset=4 (i32.load (i32.const 4100)))))))
    (call $finished (i32.const 16) (i32.const 0)))
