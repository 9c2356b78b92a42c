//! What wasmtime makes of `plugins/wit`. The modules beside this one turn it into [`crate::types`]; nothing else sees it.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "executor-plugin",
    imports: { default: trappable },
    with: { "forge:plugin/process.child": crate::process::RunningChild },
});
