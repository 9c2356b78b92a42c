  ;; Takes a MiB at a time, for as long as it is given.
  (func $bomb (loop $again (drop (memory.grow (i32.const 16))) (br $again)))
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (call $bomb) (unreachable))
