  ;; Runs the program that its first argument names with the arguments that follow it, with its own `[config]` in the variable CONFIG and on
  ;; standard input, and answers with that `[config]`, as it was told of it, as its summary. Where no argument follows, the `[config]` is one.
  (import "forge:plugin/process@0.1.0" "run" (func $run
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))
  ;; A schema for that, where the description has its place: any table.
  (data (i32.const 1060) "\01\00\00\00\d0\20\00\00\11\00\00\00")
  (data (i32.const 8400) "{\"type\":\"object\"}")
  (data (i32.const 32) "CONFIG")
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param $job i32) (result i32)
    (local $a i32) (local $n i32)
    (local.set $a (call $arguments (local.get $job)))
    (local.set $n (call $argument_count (local.get $job)))
    ;; The pair ("CONFIG", config) at 8192: its second half is a list of one text, too.
    (i32.store (i32.const 8192) (i32.const 32)) (i32.store (i32.const 8196) (i32.const 6))
    (i64.store (i32.const 8200) (i64.load offset=36 align=4 (local.get $job)))
    (call $run
      (i32.load (local.get $a)) (i32.load offset=4 (local.get $a))
      (select (i32.const 8200) (i32.add (local.get $a) (i32.const 8)) (i32.eq (local.get $n) (i32.const 1)))
      (select (i32.const 1) (i32.sub (local.get $n) (i32.const 1)) (i32.eq (local.get $n) (i32.const 1)))
      (i32.const 8192) (i32.const 1)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 1) (i32.load offset=36 (local.get $job)) (i32.load offset=40 (local.get $job))
      (i32.const 0) (i64.const 0)
      (i32.const 4096))
    (if (i32.load8_u (i32.const 4096))
      (then (return (call $refused (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))))
    (call $finished (i32.load offset=36 (local.get $job)) (i32.load offset=40 (local.get $job))))
