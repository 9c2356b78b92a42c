  ;; What every guest here shares: memory, an allocator that never frees, a description, and two ways to answer.
  ;; Nothing here may come before a guest's own imports, so it stands behind them.
  (memory (export "memory") 2)
  (data (i32.const 16) "hostile")
  (global $free (mut i32) (i32.const 65536))

  (func $grow_to (param $end i32)
    (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow
        (i32.add (i32.const 1)
          (i32.div_u (i32.sub (local.get $end) (i32.mul (memory.size) (i32.const 65536))) (i32.const 65536))))))))

  (func $allocate (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
    (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (call $grow_to (global.get $free))
    (local.get $at))

  ;; name, version and summary "hostile", no schemas, no wants; it stands at 1024.
  (func (export "forge:plugin/executor@0.1.0#describe") (result i32)
    (i32.store (i32.const 1024) (i32.const 16)) (i32.store (i32.const 1028) (i32.const 7))
    (i32.store (i32.const 1032) (i32.const 16)) (i32.store (i32.const 1036) (i32.const 7))
    (i32.store (i32.const 1040) (i32.const 16)) (i32.store (i32.const 1044) (i32.const 7))
    (i32.const 1024))

  ;; ok(finished(outcome { summary, none, none }))
  (func $finished (param $text i32) (param $length i32) (result i32)
    (memory.fill (i32.const 2048) (i32.const 0) (i32.const 64))
    (i32.store (i32.const 2060) (local.get $text)) (i32.store (i32.const 2064) (local.get $length))
    (i32.const 2048))

  ;; err(invalid(text))
  (func $refused (param $text i32) (param $length i32) (result i32)
    (memory.fill (i32.const 2048) (i32.const 0) (i32.const 64))
    (i32.store8 (i32.const 2048) (i32.const 1))
    (i32.store (i32.const 2064) (local.get $text)) (i32.store (i32.const 2068) (local.get $length))
    (i32.const 2048))

  ;; The arguments of a job, as (pointer, length) pairs, and how many there are.
  (func $arguments (param $job i32) (result i32) (i32.load (i32.add (local.get $job) (i32.const 104))))
  (func $argument_count (param $job i32) (result i32) (i32.load (i32.add (local.get $job) (i32.const 108))))
