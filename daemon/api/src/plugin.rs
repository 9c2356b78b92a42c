//! Plugins as people see them: what each is, what it may do, and what it asks for beyond that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginRole {
    /// It runs jobs, on runners.
    Executor,
    /// It plans webhook requests, in the daemon.
    WebhookTarget,
}

/// A plugin of the tree, as `GET /plugins` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginSummary {
    /// `plugins/NAME.toml`.
    pub name: String,
    /// Where its component comes from: `builtin:NAME`, or a file of the tree.
    pub source: String,
    /// Its own version; null where it does not say.
    pub version: Option<String>,
    /// What it is.
    pub kind: PluginRole,
    /// The SHA-256 of its component, in lower-case hex.
    pub sha256: String,
    /// What it may use.
    pub grants: PluginAccess,
    /// What it asks for and was not granted.
    pub not_granted: PluginAccess,
    /// The memory that it may have, in bytes.
    pub memory_bytes: u64,
    /// How long it may compute, in milliseconds.
    pub time_ms: u64,
    /// Who uses it: `PROJECT/TEMPLATE` for an executor, the webhook target's name for a target.
    pub used_by: Vec<String>,
}

/// What a plugin may use, or asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginAccess {
    /// Programs by their bare names.
    pub programs: Vec<String>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Variables of the runner's own environment.
    pub env: Vec<String>,
}
