//! Numbers over time that people would rather look at than read: how a template's tasks went, and how busy the runners were.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{TaskState, Timestamp};

/// How a template's newest finished tasks went, as `GET /projects/{p}/templates/{t}/stats` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateStats {
    /// The tasks, the newest number first.
    pub items: Vec<TaskOutcome>,
    /// How many of them ended in each state; a state that none ended in is left out.
    pub outcomes: BTreeMap<TaskState, u64>,
}

/// How one task went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskOutcome {
    /// The task's number.
    pub number: u64,
    /// How it ended.
    pub state: TaskState,
    /// From the start of its newest attempt to its end, in milliseconds; null for one that never started.
    pub duration_ms: Option<u64>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// How busy the daemon's runners were, as `GET /stats/load` answers: a sample a minute, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// The samples. A minute in which the daemon was away has none.
    pub items: Vec<LoadSample>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadSample {
    /// When.
    pub at: Timestamp,
    /// Tasks that waited for a runner.
    pub queued: u64,
    /// Tasks that a runner held.
    pub running: u64,
    /// The slots of the runners that were online; null where one of them has no limit.
    pub slots: Option<u64>,
    /// Runners that were online.
    pub runners_online: u64,
}
