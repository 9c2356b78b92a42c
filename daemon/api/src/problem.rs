//! Errors as RFC 9457 problem details, with what to do next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of every error's body.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// One error of the API (RFC 9457). `detail` says what happened, `hint` what to do; neither holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// A stable name of the kind of error, as a relative reference such as `/problems/name-taken`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// What to do next, where there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The length of the log that the daemon holds, where the error is about a log's offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_length: Option<u64>,
}

impl Problem {
    /// A problem of the kind `/problems/{slug}`.
    pub fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{slug}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            hint: None,
            log_length: None,
        }
    }

    /// The same problem with what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The last part of the kind: `name-taken` of `/problems/name-taken`.
    pub fn slug(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or(&self.kind)
    }
}
