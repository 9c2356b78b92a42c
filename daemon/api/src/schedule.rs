//! Schedules as people see them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A schedule and when it fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// Its project.
    pub project: String,
    /// `projects/<project>/schedules/NAME.toml`.
    pub name: String,
    /// The template that it starts.
    pub template: String,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// The zone of those fields, by its IANA name.
    pub timezone: String,
    /// Whether it fires.
    pub enabled: bool,
    /// What a firing does while a task of this schedule is open: `skip` or `queue`.
    pub overlap: String,
    /// The next firings, the nearest first; none for one that does not fire.
    pub next: Vec<Timestamp>,
    /// Until when it was looked at: what comes after that and not after now is due. Null before the first look.
    pub looked_at: Option<Timestamp>,
    /// The newest firing.
    pub last: Option<Firing>,
}

/// One firing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Firing {
    /// The time that it was meant for.
    pub nominal_at: Timestamp,
    /// When it came: later where the daemon was away at that time.
    pub fired_at: Timestamp,
    /// The task that it made; null where it made none.
    pub task: Option<u64>,
    /// Why it made none.
    pub message: Option<String>,
}
