  ;; Counts its calls in a global and in its memory, and answers with both counts: what one call leaves, the next one would find.
  (global $calls (mut i32) (i32.const 0))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store8 (i32.const 40) (i32.add (i32.load8_u (i32.const 40)) (i32.const 1)))
    ;; Two digits at 48.
    (i32.store8 (i32.const 48) (i32.add (i32.const 48) (global.get $calls)))
    (i32.store8 (i32.const 49) (i32.add (i32.const 48) (i32.load8_u (i32.const 40))))
    (call $finished (i32.const 48) (i32.const 2)))
