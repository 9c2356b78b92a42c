//! What the configuration must know of plugins, and whom it asks. It runs none itself.

use serde_json::Value;

use crate::meant::PluginKind;
use crate::name::Digest;

/// What a plugin says of itself.
#[derive(Clone, Debug)]
pub struct PluginFacts {
    /// SHA-256 of the component.
    pub sha256: Digest,
    /// What it is.
    pub kind: PluginKind,
    /// JSON Schema of a template's `[params]` (executors).
    pub params_schema: Option<Value>,
    /// JSON Schema of the plugin's own `[config]`.
    pub config_schema: Option<Value>,
}

/// What knows plugins: the daemon's plugin host, or a table in tests.
pub trait PluginCatalog {
    /// The names of the built-in plugins.
    fn builtin_names(&self) -> Vec<String>;
    /// What a built-in plugin says of itself; `None` when there is none of that name.
    fn builtin(&self, name: &str) -> Option<Result<PluginFacts, String>>;
    /// What the component in `bytes` says of itself, or why it cannot be used, in words.
    fn inspect(&self, bytes: &[u8]) -> Result<PluginFacts, String>;
}
