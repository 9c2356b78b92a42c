//! What is known of the configuration, for whoever asks: the revision that serves, and what keeps a newer one away.
//!
//! Two failures are kept apart: a revision that was refused, and a source that gives none. The second hides the first for as long as it
//! lasts, and ends without taking it away.

use std::sync::{Arc, Mutex, PoisonError};

use forge_api::{ConfigCommit, ConfigFailure, ConfigStatus, Timestamp};

/// How often revisions were applied and refused since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigCounters {
    /// Applied, the first one included.
    pub(crate) applied: u64,
    /// Refused.
    pub(crate) failed: u64,
    /// Whether the newest one is refused.
    pub(crate) broken: bool,
}

/// What is known of the configuration, for whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct ConfigView(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    status: ConfigStatus,
    counters: ConfigCounters,
    /// Why the newest revision was refused.
    refused: Option<ConfigFailure>,
    /// Why the source gives none.
    source_failure: Option<ConfigFailure>,
}

impl ConfigView {
    /// Nothing is known yet but where the tree lives.
    pub(super) fn new(source: String) -> Self {
        let status = ConfigStatus {
            revision: String::new(),
            applied_at: None,
            source,
            commit: None,
            fetched_at: None,
            last_error: None,
        };
        let counters = ConfigCounters::default();
        Self(Arc::new(Mutex::new(Known { status, counters, refused: None, source_failure: None })))
    }

    /// What `GET /config` answers.
    pub(crate) fn status(&self) -> ConfigStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// What metrics show.
    pub(crate) fn counters(&self) -> ConfigCounters {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counters
    }

    /// A revision serves.
    pub(super) fn serves(&self, revision: &str, commit: Option<ConfigCommit>, applied_at: Timestamp) {
        self.change(|known| {
            known.status.revision = revision.to_owned();
            known.status.commit = commit;
            known.status.applied_at = Some(applied_at);
            known.counters.applied += 1;
        });
    }

    /// The newest revision serves: what was wrong before it is over.
    pub(super) fn mended(&self) {
        self.change(|known| known.refused = None);
    }

    /// The newest revision was refused.
    pub(super) fn refused(&self, failure: ConfigFailure) {
        self.change(|known| {
            known.refused = Some(failure);
            known.counters.failed += 1;
        });
    }

    /// The source gives no revision; answers whether that is news. The same failure keeps the moment of its beginning.
    pub(super) fn source_failed(&self, failure: ConfigFailure) -> bool {
        let mut news = false;
        self.change(|known| {
            let before = known.source_failure.as_ref();
            news = before.is_none_or(|before| {
                (&before.revision, &before.diagnostics) != (&failure.revision, &failure.diagnostics)
            });
            if news {
                known.source_failure = Some(failure);
                known.counters.failed += 1;
            }
        });
        news
    }

    /// The source gave a revision.
    pub(super) fn source_works(&self) {
        self.change(|known| known.source_failure = None);
    }

    /// The source was asked, and answered.
    pub(super) fn fetched(&self, at: Timestamp) {
        self.change(|known| known.status.fetched_at = Some(at));
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        known.status.last_error = known.source_failure.clone().or_else(|| known.refused.clone());
        known.counters.broken = known.status.last_error.is_some();
    }
}
