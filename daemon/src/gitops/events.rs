//! `config.applied` and `config.failed`: what happened to the configuration, as it is recorded for whoever wants to be told of it.

use forge_api::{ConfigCommit, Diagnostic, Timestamp};
use serde::Serialize;

/// The most mistakes that an event names; `forge config status` shows all.
const DIAGNOSTICS_MAX: usize = 20;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// A revision serves.
    Applied,
    /// A revision was refused, waits, or cannot be fetched.
    Failed,
}

impl Happened {
    /// The event's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "config.applied",
            Self::Failed => "config.failed",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigEvent {
    /// Which.
    pub(crate) happened: Happened,
    /// When.
    pub(crate) at: Timestamp,
    /// What it is about.
    pub(crate) config: EventConfig,
}

/// The `config` of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EventConfig {
    /// The revision; empty where the source gives none.
    revision: String,
    /// Its commit.
    commit: Option<ConfigCommit>,
    /// What is wrong with it; without the user's own lines, which stay where only admins look.
    diagnostics: Vec<Diagnostic>,
}

impl ConfigEvent {
    /// What happened to `revision`.
    pub(super) fn new(
        happened: Happened,
        revision: &str,
        commit: Option<ConfigCommit>,
        mut diagnostics: Vec<Diagnostic>,
        at: Timestamp,
    ) -> Self {
        diagnostics.truncate(DIAGNOSTICS_MAX);
        for found in &mut diagnostics {
            found.source_line.clear();
        }
        Self { happened, at, config: EventConfig { revision: revision.to_owned(), commit, diagnostics } }
    }
}
