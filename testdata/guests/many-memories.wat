(component
  ;; As many memories at a time as no pool has for one call.
  (core module $m (memory (export "memory") 1))
  (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
  (core instance (instantiate $m)) (core instance (instantiate $m)))
