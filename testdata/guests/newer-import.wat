(component
  ;; Wants a version of the contract that this host does not have.
  (import "forge:plugin/host@0.9.0" (instance)))
