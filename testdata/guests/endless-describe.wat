  ;; Never gets as far as its first answer: its start function does not end.
  (func $spin (loop $again (br $again)))
  (start $spin)
  (func $execute (export "forge:plugin/executor@0.1.0#execute") (param i32) (result i32) (unreachable))
