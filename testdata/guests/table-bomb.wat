  ;; Takes a million table elements.
  (table $table 1 funcref)
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32)
    (drop (table.grow $table (ref.null func) (i32.const 1000000))) (unreachable))
