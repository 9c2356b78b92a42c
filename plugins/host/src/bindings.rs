//! What wasmtime makes of `plugins/wit`. The modules beside this one turn it into [`crate::types`]; nothing else sees it.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "executor-plugin",
    imports: { default: trappable },
    with: { "forge:plugin/process.child": crate::process::RunningChild },
});

/// The world of webhook targets: what both worlds know is the same types.
pub(crate) mod webhook {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "webhook-plugin",
        imports: { default: trappable },
        with: {
            "forge:plugin/types": crate::bindings::forge::plugin::types,
            "forge:plugin/host": crate::bindings::forge::plugin::host,
        },
    });
}
