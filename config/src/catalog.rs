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
    /// JSON Schema of a template's `[params]` (executors), or of a target's `[config]` (webhook targets).
    pub params_schema: Option<Value>,
    /// JSON Schema of the plugin's own `[config]`.
    pub config_schema: Option<Value>,
    /// What it asks for.
    pub wants: Wants,
}

/// What a plugin asks for. Only `[allow]` of its file grants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Programs by bare name.
    pub programs: Vec<String>,
    /// Hosts for webhook targets.
    pub hosts: Vec<String>,
    /// Variables of the runner's own environment.
    pub env: Vec<String>,
}

/// What knows plugins: the daemon's plugin host, or a table in tests.
pub trait PluginCatalog {
    /// The names of the built-in plugins.
    fn builtin_names(&self) -> Vec<String>;
    /// What a built-in plugin says of itself; `None` when there is none of that name.
    fn builtin(&self, name: &str) -> Option<Result<PluginFacts, String>>;
    /// The SHA-256 of `bytes`. It runs nothing: what nobody has reviewed is not even compiled.
    fn digest(&self, bytes: &[u8]) -> Digest;
    /// What the component in `bytes` says of itself, or why it cannot be used, in words.
    fn inspect(&self, bytes: &[u8]) -> Result<PluginFacts, String>;
}
