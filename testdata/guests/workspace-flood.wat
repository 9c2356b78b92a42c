  ;; Writes into the workspace until it is refused. Without arguments: 16 MiB into one file, over and over. With one: a file of no bytes, and
  ;; another, and another.
  (import "forge:plugin/workspace@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32 i32)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $bytes i32) (local $data i32) (local $number i32) (local $rest i32) (local $digit i32)
    (if (i32.eqz (call $argument_count (local.get $job))) (then
      (local.set $bytes (i32.const 16777216))
      (local.set $data (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (local.get $bytes)))))
    (loop $again
      ;; A name of eight letters at 100.
      (local.set $rest (local.get $number))
      (local.set $digit (i32.const 100))
      (loop $digits
        (i32.store8 (local.get $digit) (i32.add (i32.const 97) (i32.and (local.get $rest) (i32.const 15))))
        (local.set $rest (i32.shr_u (local.get $rest) (i32.const 4)))
        (local.set $digit (i32.add (local.get $digit) (i32.const 1)))
        (br_if $digits (i32.lt_u (local.get $digit) (i32.const 108))))
      (call $write (i32.const 100) (i32.const 8) (local.get $data) (local.get $bytes) (i32.const 0) (i32.const 4096))
      (if (i32.eqz (local.get $bytes)) (then (local.set $number (i32.add (local.get $number) (i32.const 1)))))
      (br_if $again (i32.eqz (i32.load8_u (i32.const 4096)))))
    (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))
