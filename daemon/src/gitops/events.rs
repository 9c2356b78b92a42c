//! `config.applied` and `config.failed`: what happened to the configuration, as it is recorded for whoever wants to be told of it.

use forge_api::{ConfigChange, ConfigCommit, ConfigRevision, Diagnostic, RevisionState, Timestamp};
use serde::Serialize;

/// The most mistakes that an event names; `forge config status` shows all.
const DIAGNOSTICS_MAX: usize = 20;

/// The most mistakes that the list of revisions keeps of one.
const REVISION_DIAGNOSTICS_MAX: usize = 100;

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
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfigEvent {
    /// Which.
    pub(crate) happened: Happened,
    /// When.
    pub(crate) at: Timestamp,
    /// What it is about.
    pub(crate) config: EventConfig,
    /// The same for the list of revisions.
    pub(crate) revision: ConfigRevision,
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

impl EventConfig {
    /// The revision; empty where the source gives none.
    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }

    /// Its commit.
    pub(crate) fn commit(&self) -> Option<&ConfigCommit> {
        self.commit.as_ref()
    }
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
        let kept = ConfigRevision {
            revision: revision.to_owned(),
            commit: commit.clone(),
            at,
            state: match happened {
                Happened::Applied => RevisionState::Applied,
                Happened::Failed => RevisionState::Refused,
            },
            changes: Vec::new(),
            changes_cut: false,
            diagnostics: diagnostics.iter().take(REVISION_DIAGNOSTICS_MAX).cloned().collect(),
        };
        diagnostics.truncate(DIAGNOSTICS_MAX);
        for found in &mut diagnostics {
            found.source_line.clear();
        }
        let config = EventConfig { revision: revision.to_owned(), commit, diagnostics };
        Self { happened, at, config, revision: kept }
    }

    /// The same with what differs from the revision that served before.
    pub(super) fn changing(mut self, (changes, cut): (Vec<ConfigChange>, bool)) -> Self {
        (self.revision.changes, self.revision.changes_cut) = (changes, cut);
        self
    }
}
