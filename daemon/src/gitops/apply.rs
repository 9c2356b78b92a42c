//! Swaps the revision that serves, by one pointer and off the serving path, and keeps what is known of it for whoever asks.
//!
//! A revision goes live after its plugins lie where runners fetch them. A refused one changes nothing but what `GET /config` and the log say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use forge_api::{ConfigFailure, ConfigStatus, Timestamp};
use forge_config::meant::Tree;
use forge_config::{CheckOptions, Colour, Diagnostic};
use tokio::sync::watch;

use super::check::{Verdict, check, for_api};
use super::last_good;
use super::read::{ReadTree, read_until_still};
use crate::clock::Clock;
use crate::core::Applied;
use crate::plugins::{Catalog, store_components};

/// What applying needs.
pub(crate) struct ApplyOptions {
    /// The watched folder.
    pub(crate) root: PathBuf,
    /// Where the last good revision is kept.
    pub(crate) data_dir: PathBuf,
    /// Where components are kept for runners.
    pub(crate) plugin_dir: PathBuf,
    /// What knows plugins.
    pub(crate) catalog: Catalog,
    /// What a check knows beyond the tree.
    pub(crate) check: CheckOptions,
    /// The clock.
    pub(crate) clock: Clock,
}

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
}

impl Known {
    /// The newest revision serves: what was wrong before it is over.
    fn mend(&mut self) {
        self.status.last_error = None;
        self.counters.broken = false;
    }
}

impl ConfigView {
    /// What `GET /config` answers.
    pub(crate) fn status(&self) -> ConfigStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// What metrics show.
    pub(crate) fn counters(&self) -> ConfigCounters {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counters
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What a revision that goes live is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    /// What the folder holds.
    Newest,
    /// An older one, since what the folder holds is refused.
    Fallback,
}

/// Applies what the folder holds.
pub(crate) struct Applier {
    options: ApplyOptions,
    applied: watch::Sender<Arc<Applied>>,
    view: ConfigView,
    progress: Mutex<Progress>,
}

/// What looks leave for the next one.
#[derive(Default)]
struct Progress {
    /// The revision found last, with what could not be read, since that is not part of its hash. Finding the same again changes nothing.
    seen: Option<(String, Vec<Diagnostic>)>,
    /// The applied revision that is still to be kept for a restart.
    unkept: Option<(ReadTree, Timestamp)>,
    /// Whether the data folder is certainly ours, so that it may be kept there.
    owns_data: bool,
}

impl Applier {
    /// Serves an empty tree until [`Self::first`].
    pub(crate) fn new(options: ApplyOptions) -> Self {
        let empty = Applied { revision: String::new(), tree: Arc::new(Tree::default()), applied_at: None };
        let status = ConfigStatus {
            revision: String::new(),
            applied_at: None,
            source: options.root.display().to_string(),
            last_error: None,
        };
        let known = Known { status, counters: ConfigCounters::default() };
        Self {
            options,
            applied: watch::Sender::new(Arc::new(empty)),
            view: ConfigView(Arc::new(Mutex::new(known))),
            progress: Mutex::new(Progress::default()),
        }
    }

    /// The revision that serves, now and later.
    pub(crate) fn applied(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.subscribe()
    }

    /// What is known of it.
    pub(crate) fn view(&self) -> ConfigView {
        self.view.clone()
    }

    /// The first look: a broken tree falls back to the last good revision, and without one to an empty tree and the error.
    pub(crate) fn first(&self) {
        self.look();
        if self.applied.borrow().applied_at.is_some() {
            return;
        }
        let Some(kept) = last_good::load(&self.kept_at()) else {
            tracing::warn!("no revision was ever applied here: an empty tree serves until the tree is mended");
            return;
        };
        let verdict = check(&kept.read, &self.options.catalog, &self.options.check);
        match verdict.tree {
            Some(tree) if self.store_plugins(&tree, &kept.read).is_ok() => {
                tracing::warn!(revision = kept.read.revision, "the last good revision serves until the tree is mended");
                self.serve(tree, &kept.read.revision, kept.applied_at, Serving::Fallback);
            }
            Some(_) | None => {
                log_all(&verdict.diagnostics);
                tracing::error!(
                    revision = kept.read.revision,
                    "the last good revision does not pass the checks any more (were settings changed?): an empty tree serves"
                );
            }
        }
    }

    /// Looks at the folder, and applies what it holds when that is new and good.
    pub(crate) fn look(&self) {
        let read = match read_until_still(&self.options.root) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the tree did not stand still");
                return;
            }
        };
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let found = (read.revision.clone(), read.findings.clone());
        if progress.seen.as_ref() == Some(&found) {
            return;
        }
        let now = self.options.clock.now();
        let Verdict { tree, diagnostics } = check(&read, &self.options.catalog, &self.options.check);
        match tree {
            None => {
                self.refuse(&read.revision, &diagnostics, now);
                // What is wrong with the host is mended there: then the next look tries the same tree again.
                let is_host = diagnostics.iter().any(|found| found.code == forge_config::Code::NoIdentity);
                progress.seen = (!is_host).then_some(found);
            }
            Some(tree) => match self.store_plugins(&tree, &read) {
                // Not remembered as seen: the next look tries again, whether or not the tree has changed.
                Err(error) => {
                    let message = format!("the revision's plugins cannot be kept: {error}");
                    tracing::error!(revision = read.revision, "{message}");
                    self.refuse_for(&read.revision, vec![failure("plugins", &message)], now);
                }
                Ok(()) => {
                    log_all(&diagnostics);
                    self.apply(tree, read, now, &mut progress);
                    progress.seen = Some(found);
                }
            },
        }
    }

    fn apply(&self, tree: Tree, read: ReadTree, now: Timestamp, progress: &mut Progress) {
        let serving = self.applied.borrow().clone();
        if serving.applied_at.is_some() && serving.revision == read.revision {
            tracing::info!(revision = read.revision, "the tree is again the revision that serves");
            self.view.change(Known::mend);
        } else {
            // A restart on the same revision is no new application of it.
            let before = if serving.applied_at.is_none() { last_good::load(&self.kept_at()) } else { None };
            let applied_at =
                before.filter(|kept| kept.read.revision == read.revision).map_or(now, |kept| kept.applied_at);
            self.serve(tree, &read.revision, applied_at, Serving::Newest);
            tracing::info!(
                revision = read.revision,
                files = read.files.len(),
                "a revision of the configuration was applied"
            );
            progress.unkept = Some((read, applied_at));
            self.keep(progress);
        }
    }

    /// From now on revisions are kept for a restart, the one that serves already included.
    pub(crate) fn own_data_folder(&self) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.owns_data = true;
        self.keep(&mut progress);
    }

    fn keep(&self, progress: &mut Progress) {
        if !progress.owns_data {
            return;
        }
        if let Some((read, applied_at)) = progress.unkept.take()
            && let Err(error) = last_good::save(&self.kept_at(), &read, applied_at)
        {
            tracing::error!(%error, "the revision serves, and could not be kept for a restart on a broken tree");
        }
    }

    fn kept_at(&self) -> PathBuf {
        last_good::path_in(&self.options.data_dir)
    }

    fn serve(&self, tree: Tree, revision: &str, applied_at: Timestamp, serving: Serving) {
        let applied = Applied { revision: revision.to_owned(), tree: Arc::new(tree), applied_at: Some(applied_at) };
        // The view first: whoever meets the new tree finds the status that goes with it.
        self.view.change(|known| {
            known.status.revision = revision.to_owned();
            known.status.applied_at = Some(applied_at);
            known.counters.applied += 1;
            match serving {
                Serving::Newest => known.mend(),
                Serving::Fallback => {}
            }
        });
        self.applied.send_replace(Arc::new(applied));
    }

    fn refuse(&self, revision: &str, diagnostics: &[Diagnostic], now: Timestamp) {
        log_all(diagnostics);
        let errors = diagnostics.iter().filter(|found| found.is_error()).count();
        let serving = self.applied.borrow().revision.clone();
        tracing::error!(revision, errors, serving, "a revision of the configuration was refused");
        self.refuse_for(revision, diagnostics.iter().map(for_api).collect(), now);
    }

    fn refuse_for(&self, revision: &str, diagnostics: Vec<forge_api::Diagnostic>, at: Timestamp) {
        self.view.change(|known| {
            known.status.last_error = Some(ConfigFailure { revision: revision.to_owned(), at, diagnostics });
            known.counters.failed += 1;
            known.counters.broken = true;
        });
    }

    fn store_plugins(&self, tree: &Tree, read: &ReadTree) -> Result<(), crate::files::FileError> {
        store_components(&self.options.plugin_dir, tree, &read.files)
    }
}

/// A failure that is no mistake of the tree.
fn failure(file: &str, message: &str) -> forge_api::Diagnostic {
    forge_api::Diagnostic {
        file: file.to_owned(),
        line: 1,
        column: 1,
        code: forge_config::Code::Unreadable.as_str().to_owned(),
        message: message.to_owned(),
        hint: Some(
            "free space in the data folder, or let the daemon's user write there; it is tried again within a minute"
                .to_owned(),
        ),
        severity: forge_api::Severity::Error,
        source_line: String::new(),
    }
}

/// Each on its own, drawn as people know it from `forge config check`.
fn log_all(diagnostics: &[Diagnostic]) {
    for found in diagnostics {
        let drawn = found.draw(Colour::Never);
        match found.severity {
            forge_config::Severity::Error => tracing::error!(code = found.code.as_str(), "{drawn}"),
            forge_config::Severity::Warning => tracing::warn!(code = found.code.as_str(), "{drawn}"),
            forge_config::Severity::Note => tracing::info!(code = found.code.as_str(), "{drawn}"),
        }
    }
}
