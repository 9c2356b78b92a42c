//! The configuration's revision and its mistakes, as `GET /config` and `forge config check --output json` show them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// How bad a diagnostic is. Only an error keeps a revision from being applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is applied.
    #[default]
    Error,
    /// Applied, and likely not what was meant.
    Warning,
    /// Applied; something is not used.
    Note,
}

/// One mistake in the tree. `file`, `line` and `column` point to the user's own text; line and column count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// The file's path relative to the tree's root.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// A stable code such as `FORGE-C012`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead; null when nothing helps.
    pub hint: Option<String>,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// The user's own line; empty where there is none.
    #[serde(default)]
    pub source_line: String,
}

/// A revision that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigFailure {
    /// Which revision.
    pub revision: String,
    /// Its commit; absent for a folder, and where the source gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<ConfigCommit>,
    /// When it was refused.
    pub at: Timestamp,
    /// Every mistake in it.
    pub diagnostics: Vec<Diagnostic>,
}

/// The commit that a revision is, where its source is a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigCommit {
    /// Who wrote it, as `Name <address>`.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Whose signature it carries, as the allowed signers name them; null where none is asked for.
    pub signed_by: Option<String>,
}

/// What `POST /config/apply` takes: nothing has the source looked at now, and either field lets one revision pass a guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyConfig {
    /// The revision that may remove more than the prune guard lets through.
    #[serde(default)]
    pub prune: Option<String>,
    /// The commit that may follow without descending from the one that serves.
    #[serde(default)]
    pub accept_rewrite: Option<String>,
}

/// What `GET /config` and `POST /config/apply` answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigStatus {
    /// The revision that serves; empty while an empty tree does.
    pub revision: String,
    /// When it was applied; null while an empty tree serves.
    pub applied_at: Option<Timestamp>,
    /// Where the tree lives.
    pub source: String,
    /// The commit of the revision that serves; absent for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<ConfigCommit>,
    /// When the repository was last fetched; absent for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<Timestamp>,
    /// The newest revision when it was refused, or the source's own failure, whose revision may be empty.
    pub last_error: Option<ConfigFailure>,
}
