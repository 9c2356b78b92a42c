  ;; Takes a MiB at a time and writes to all of it, for as long as it is given.
  (func $bomb (local $pages i32)
    (loop $again
      (local.set $pages (memory.grow (i32.const 16)))
      (memory.fill (i32.mul (local.get $pages) (i32.const 65536)) (i32.const 1) (i32.const 1048576))
      (br $again)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (call $bomb) (unreachable))
