//! What `GET /events` sends as things change, beside tasks and runners in their own shapes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{RevisionState, Timestamp};

/// The header with which a client says what it has seen last.
pub const LAST_EVENT_ID_HEADER: &str = "last-event-id";

/// The data of a `config` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigNews {
    /// Which revision; empty where the source gave none.
    pub revision: String,
    /// What became of it.
    pub state: RevisionState,
    /// When.
    pub at: Timestamp,
}

/// The data of a `runner_removed` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunnerRemoved {
    /// Which runner is neither registered nor declared any more.
    pub name: String,
}
