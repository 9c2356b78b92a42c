//! What wit-bindgen makes of `plugins/wit`. Authors see [`crate`]'s names and never this module.

wit_bindgen::generate!({
    path: "../wit",
    world: "executor-plugin",
    pub_export_macro: true,
    export_macro_name: "__export_executor_plugin",
    default_bindings_module: "forge_plugin::bindings",
    additional_derives: [PartialEq],
});
