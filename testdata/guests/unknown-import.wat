(component
  ;; Wants a clock, which no guest gets.
  (import "wasi:clocks/wall-clock@0.2.0" (instance)))
