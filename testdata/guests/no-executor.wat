(component
  ;; Is a component, and exports nothing that Forge calls.
)
