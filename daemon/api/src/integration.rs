//! Integrations: what a sender is answered, and what is remembered of its requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What became of a request to an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntegrationOutcome {
    /// It made a task.
    Started,
    /// It came again: its task was there.
    Repeated,
    /// It is not what the integration waits for.
    NotMatched,
    /// It is, and its answers do not fit the template's survey, or no task can be made now.
    Refused,
}

impl IntegrationOutcome {
    /// As people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Repeated => "repeated",
            Self::NotMatched => "not matched",
            Self::Refused => "refused",
        }
    }
}

/// A request to an integration, as it is remembered: nothing of its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IntegrationRequest {
    /// When it came.
    pub at: Timestamp,
    /// What its sender calls it; null where it said nothing.
    pub delivery: Option<String>,
    /// What became of it.
    pub outcome: IntegrationOutcome,
    /// Why.
    pub message: String,
    /// The task.
    pub task: Option<u64>,
}

/// What a sender is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IntegrationAnswer {
    /// Whether the request is what the integration waits for.
    pub matched: bool,
    /// The task that it made, now or when it came before.
    pub task: Option<u64>,
    /// Whether it came before.
    pub repeated: bool,
    /// Why there is no task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
