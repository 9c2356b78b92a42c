(component
  ;; Wants a clock, randomness and what the contract does not have.
  (import "wasi:clocks/wall-clock@0.2.0" (instance))
  (import "forge:plugin/types@0.1.0" (instance))
  (import "wasi:random/random@0.2.0" (instance))
  (import "forge:plugin/clock@0.1.0" (instance)))
