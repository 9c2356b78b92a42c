//! What happened to the configuration, revision by revision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ConfigCommit, Diagnostic, Timestamp};

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    /// It served from then on.
    Applied,
    /// It was refused, or the source gave none.
    Refused,
}

/// A revision that was applied or refused, as `GET /config/revisions` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigRevision {
    /// Which revision; empty where the source gave none.
    pub revision: String,
    /// Its commit; absent for a folder, and where the source gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<ConfigCommit>,
    /// When.
    pub at: Timestamp,
    /// What became of it.
    pub state: RevisionState,
    /// What differs from the revision that served before it; none for one that was refused, and for the first.
    pub changes: Vec<ConfigChange>,
    /// Whether there are more changes than are kept.
    pub changes_cut: bool,
    /// What is wrong with one that was refused.
    pub diagnostics: Vec<Diagnostic>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has other fields.
    Changed,
}

/// One object that changed. No secret is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigChange {
    /// Its file's path without `.toml`.
    pub object: String,
    /// What happened to it.
    pub change: ConfigChangeKind,
    /// Its fields that differ.
    pub fields: Vec<ConfigFieldChange>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigFieldChange {
    /// Its dotted path.
    pub field: String,
    /// Its value before; null where there was none.
    pub before: Value,
    /// Its value now; null where there is none.
    pub after: Value,
}
