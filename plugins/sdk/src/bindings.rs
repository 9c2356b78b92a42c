//! What wit-bindgen makes of `plugins/wit`. Authors see [`crate`]'s names and never this module.

wit_bindgen::generate!({
    path: "../wit",
    world: "executor-plugin",
    pub_export_macro: true,
    export_macro_name: "__export_executor_plugin",
    default_bindings_module: "forge_plugin::bindings",
    additional_derives: [PartialEq],
});

/// The world of webhook targets. What both worlds know is the same types; what each exports is only linked where it is exported.
pub mod webhook {
    wit_bindgen::generate!({
        path: "../wit",
        world: "webhook-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_webhook_plugin",
        default_bindings_module: "forge_plugin::bindings::webhook",
        additional_derives: [PartialEq],
        with: {
            "forge:plugin/types@0.1.0": crate::bindings::forge::plugin::types,
            "forge:plugin/host@0.1.0": crate::bindings::forge::plugin::host,
        },
    });
}
