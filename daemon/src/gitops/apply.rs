//! Swaps the revision that serves, by one pointer and off the serving path.
//!
//! A revision goes live after it passed every check and guard and its plugins lie where runners fetch them. A refused one changes nothing
//! but what `GET /config`, the log and the events say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forge_api::{ConfigCommit, ConfigFailure, Timestamp};
use forge_config::meant::Tree;
use forge_config::{CheckOptions, Code, Colour, Diagnostic, Severity};
use tokio::sync::watch;

use super::accepted::{self, Accepted};
use super::changes;
use super::check::{Verdict, check, for_api};
use super::events::{ConfigEvent, Happened};
use super::failure::{SourceCode, SourceFailure};
use super::git::{Descent, FETCH_TIME_MAX, FIRST_FETCH_TIME_MAX, Git};
use super::last_good::{self, Facts, LastGood};
use super::prune;
use super::read::{ReadTree, read_until_still};
use super::view::ConfigView;
use crate::clock::Clock;
use crate::components;
use crate::core::Applied;
use crate::files;
use crate::hex;
use crate::plugins::Catalog;

/// The most events that wait to be recorded; beyond it the oldest goes.
const EVENTS_WAITING_MAX: usize = 64;

/// Where the tree comes from.
pub(crate) enum Source {
    /// A folder of this host.
    Folder(PathBuf),
    /// A repository; boxed, since it is much the larger of the two.
    Git(Box<Git>),
}

/// What applying needs.
pub(crate) struct ApplyOptions {
    /// Where the last good revision is kept.
    pub(crate) data_dir: PathBuf,
    /// Where components are kept for runners.
    pub(crate) plugin_dir: PathBuf,
    /// What knows plugins.
    pub(crate) catalog: Arc<Catalog>,
    /// What a check knows beyond the tree.
    pub(crate) check: CheckOptions,
    /// The daemon's identity: a change of it has the tree checked again.
    pub(crate) identity_file: Option<PathBuf>,
    /// The clock.
    pub(crate) clock: Clock,
}

/// What an admin lets pass, each one revision and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// It may remove more than the guard lets through.
    pub(crate) prune: Option<String>,
    /// It may follow without descending from the one that serves.
    pub(crate) rewrite: Option<String>,
}

/// Why a look was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// At the start, which waits for it.
    First,
    /// Something changed, or it is time.
    Again,
    /// An admin asks: what was refused before is tried once more.
    Asked(Acceptance),
}

/// Applies what the source holds.
pub(crate) struct Applier {
    options: ApplyOptions,
    applied: watch::Sender<Arc<Applied>>,
    view: ConfigView,
    progress: Mutex<Progress>,
}

/// What looks leave for the next one.
struct Progress {
    source: Source,
    /// What was found last. Finding the same again changes nothing.
    seen: Option<Seen>,
    /// The commit that the next one must descend from.
    anchor: Option<String>,
    /// The last good revision of the run before, until something serves.
    kept: Option<LastGood>,
    /// The applied revision that is still to be kept for a restart.
    unkept: Option<(ReadTree, Facts)>,
    /// Whether the data folder is certainly ours, so that it may be kept there.
    owns_data: bool,
    /// What happened and is not recorded yet.
    events: Vec<ConfigEvent>,
}

/// What a verdict depends on.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    revision: String,
    /// What could not be read is not part of a folder's hash.
    findings: Vec<Diagnostic>,
    /// The daemon's identity, which may be exchanged while it runs.
    identity: Option<String>,
}

/// A revision of the source.
struct Candidate {
    read: ReadTree,
    commit: Option<ConfigCommit>,
}

impl Applier {
    /// Serves an empty tree until [`Self::first`].
    pub(crate) fn new(options: ApplyOptions, source: Source) -> Self {
        let empty =
            Applied { revision: String::new(), tree: Arc::new(Tree::default()), applied_at: None, commit: None };
        let shown = match &source {
            Source::Folder(root) => root.display().to_string(),
            Source::Git(git) => git.shown(),
        };
        let progress = Progress {
            source,
            seen: None,
            anchor: None,
            kept: None,
            unkept: None,
            owns_data: false,
            events: Vec::new(),
        };
        Self {
            options,
            applied: watch::Sender::new(Arc::new(empty)),
            view: ConfigView::new(shown),
            progress: Mutex::new(progress),
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

    /// The first look: a broken tree falls back to the last good revision, and without one to an empty tree and the error. Answers
    /// whether the source was looked at.
    pub(crate) fn first(&self) -> bool {
        let mut progress = self.progress();
        progress.kept = last_good::load(&self.kept_at());
        let identity = progress.identity();
        progress.anchor = progress
            .kept
            .as_ref()
            .filter(|kept| !identity.is_empty() && kept.facts.source == identity)
            .map(|kept| kept.read.revision.clone());
        if let Some(accepted) = accepted::load(&self.accepted_at())
            && accepted.source == identity
            && progress.anchor.as_ref() == Some(&accepted.serving)
        {
            progress.anchor = Some(accepted.commit);
        }
        // A server that is away does not keep a daemon from starting: what served before serves, and the first poll comes at once.
        let waits_for_source = match &progress.source {
            Source::Folder(_) => true,
            Source::Git(_) => !self.serve_kept(&mut progress),
        };
        drop(progress);
        if waits_for_source {
            self.look(&Look::First);
        }
        let mut progress = self.progress();
        if !self.serves_something() && !self.serve_kept(&mut progress) {
            tracing::warn!("an empty tree serves until the source gives a revision that passes the checks");
        }
        progress.kept = None;
        waits_for_source
    }

    /// Looks at the source, and applies what it holds when that is new and good. Answers the newest revision, where there is one.
    pub(crate) fn look(&self, look: &Look) -> Option<String> {
        let mut progress = self.progress();
        match self.find(&mut progress, look) {
            Ok(Found::Nothing) => None,
            Ok(Found::Known(revision)) => {
                self.view.source_works();
                Some(revision)
            }
            Ok(Found::New(candidate)) => {
                self.view.source_works();
                let revision = candidate.read.revision.clone();
                self.judge(*candidate, &mut progress, look);
                Some(revision)
            }
            Err(failure) => {
                self.source_failed(&failure, &mut progress);
                Some(failure.revision).filter(|revision| !revision.is_empty())
            }
        }
    }

    /// From now on revisions are kept for a restart, the one that serves already included.
    pub(crate) fn own_data_folder(&self) {
        let mut progress = self.progress();
        progress.owns_data = true;
        self.keep(&mut progress);
    }

    /// What happened since this was asked last.
    pub(crate) fn take_events(&self) -> Vec<ConfigEvent> {
        std::mem::take(&mut self.progress().events)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serves_something(&self) -> bool {
        self.applied.borrow().applied_at.is_some()
    }

    /// The source's newest revision.
    fn find(&self, progress: &mut Progress, look: &Look) -> Result<Found, SourceFailure> {
        let identity = self.identity();
        match &progress.source {
            Source::Folder(root) => match read_until_still(root) {
                Ok(read) => Ok(found_in_folder(read, progress, identity, look)),
                Err(error) => {
                    tracing::warn!(%error, "the tree did not stand still");
                    Ok(Found::Nothing)
                }
            },
            Source::Git(_) => {
                let found = self.find_commit(progress, identity.clone(), look);
                let Err(failure) = &found else { return found };
                // A clone is a copy: one that is spoiled is no reason to serve nothing new.
                let recovers = match &mut progress.source {
                    Source::Git(git) => git.recover(failure),
                    Source::Folder(_) => false,
                };
                let found = if recovers { self.find_commit(progress, identity, look) } else { found };
                found.map_err(|failure| match &progress.source {
                    Source::Git(git) => failure.by(|revision| git.describe(revision, None).ok()),
                    Source::Folder(_) => failure,
                })
            }
        }
    }

    fn find_commit(
        &self,
        progress: &mut Progress,
        identity: Option<String>,
        look: &Look,
    ) -> Result<Found, SourceFailure> {
        let Progress { source: Source::Git(git), seen, anchor, .. } = progress else { return Ok(Found::Nothing) };
        let time_max: Duration = if *look == Look::First { FIRST_FETCH_TIME_MAX } else { FETCH_TIME_MAX };
        let head = git.fetch(time_max)?;
        self.view.fetched(self.options.clock.now());
        let known = seen.as_ref().is_some_and(|seen| seen.revision == head && seen.identity == identity);
        if known && !matches!(look, Look::Asked(_)) {
            return Ok(Found::Known(head));
        }
        let is_accepted = match look {
            Look::Asked(Acceptance { rewrite, .. }) => rewrite.as_ref() == Some(&head),
            Look::First | Look::Again => false,
        };
        if let Some(anchor) = anchor.as_ref().filter(|_| !is_accepted) {
            follows(git, anchor, &head)?;
        }
        let signed_by = git.verify(&head)?;
        if is_accepted {
            tracing::warn!(revision = head, before = anchor, "another history of the configuration is accepted");
            // Also should it be broken: what mends it stands on top of it.
            *anchor = Some(head.clone());
            let serving = self.applied.borrow().revision.clone();
            let accepted = Accepted { source: git.identity(), serving, commit: head.clone() };
            if let Err(error) = accepted::save(&self.accepted_at(), &accepted) {
                tracing::warn!(%error, "the accepted history could not be kept: a restart before it serves asks again");
            }
        }
        let commit = git.describe(&head, signed_by)?;
        let read = git.read(&head)?;
        Ok(Found::New(Box::new(Candidate { read, commit: Some(commit) })))
    }

    /// The verdict on a candidate, and what follows from it.
    fn judge(&self, candidate: Candidate, progress: &mut Progress, look: &Look) {
        let Candidate { read, commit } = candidate;
        let now = self.options.clock.now();
        let identity = self.identity();
        if !self.serves_something() && progress.kept.as_ref().is_some_and(|kept| kept.read.revision != read.revision) {
            // What the guard compares with, and what serves should this one be refused.
            self.serve_kept(progress);
        }
        let seen = Seen { revision: read.revision.clone(), findings: read.findings.clone(), identity };
        let Verdict { tree, diagnostics } = check(&read, &self.options.catalog, &self.options.check);
        let Some(tree) = tree else {
            self.refuse(&read.revision, commit, &diagnostics, now, progress);
            // What is wrong with the host is mended there: then the next look tries the same tree again.
            let is_host = diagnostics.iter().any(|found| found.code == Code::NoIdentity);
            progress.seen = (!is_host).then_some(seen);
            return;
        };
        if let Some(waits) = self.guard(&tree, &read.revision, look) {
            self.refuse_for(&read.revision, commit, waits, now, progress);
            progress.seen = Some(seen);
            return;
        }
        // Not remembered as seen when it fails: the next look tries again, whether or not the tree has changed.
        if let Err(error) = components::store(&self.options.plugin_dir, &tree, &read.files) {
            let message = format!("the revision's plugins cannot be kept: {error}");
            tracing::error!(revision = read.revision, "{message}");
            self.refuse_for(&read.revision, commit, vec![no_space(&message)], now, progress);
            return;
        }
        log_all(&diagnostics);
        self.apply(tree, Candidate { read, commit }, now, progress);
        progress.seen = Some(seen);
    }

    /// What the revision would remove too much of, unless an admin has let it pass.
    fn guard(&self, tree: &Tree, revision: &str, look: &Look) -> Option<Vec<forge_api::Diagnostic>> {
        let accepted = match look {
            Look::Asked(Acceptance { prune, .. }) => prune.as_deref(),
            Look::First | Look::Again => None,
        };
        let pruned = prune::prunes(&self.applied.borrow().tree, tree);
        if pruned.is_empty() || accepted == Some(revision) {
            return None;
        }
        let hint = format!("if that is meant, run `forge config apply --prune {revision}` as an admin");
        let failure = |pruned: &prune::Pruned| {
            SourceFailure::new(SourceCode::Prunes, pruned.message(), hint.clone()).about(revision).for_api()
        };
        tracing::warn!(revision, "a revision waits for an admin, since it removes too much at once");
        Some(pruned.iter().map(failure).collect())
    }

    fn apply(&self, tree: Tree, candidate: Candidate, now: Timestamp, progress: &mut Progress) {
        let Candidate { read, commit } = candidate;
        let serving = self.applied.borrow().clone();
        progress.anchor = Some(read.revision.clone());
        if serving.applied_at.is_some() && serving.revision == read.revision {
            tracing::info!(revision = read.revision, "the tree is again the revision that serves");
            return self.view.mended();
        }
        // A restart on the same revision is no new application of it.
        let kept = progress.kept.as_ref().filter(|kept| kept.read.revision == read.revision);
        let is_restart = kept.is_some();
        let applied_at = kept.map_or(now, |kept| kept.facts.applied_at);
        let facts = Facts { applied_at, source: progress.identity(), commit: commit.clone() };
        // Nothing served before the first.
        let changes = serving.applied_at.map(|_| changes::between(&serving.tree, &tree)).unwrap_or_default();
        self.serve(tree, &read.revision, &facts);
        self.view.mended();
        tracing::info!(
            revision = read.revision,
            files = read.files.len(),
            author = commit.as_ref().map(|commit| commit.author.as_str()),
            subject = commit.as_ref().map(|commit| commit.subject.as_str()),
            "a revision of the configuration was applied"
        );
        if !is_restart {
            let event = ConfigEvent::new(Happened::Applied, &read.revision, commit, Vec::new(), now);
            progress.add(event.changing(changes));
        }
        progress.unkept = Some((read, facts));
        self.keep(progress);
    }

    fn keep(&self, progress: &mut Progress) {
        if !progress.owns_data {
            return;
        }
        let Some((read, facts)) = progress.unkept.take() else { return };
        match last_good::save(&self.kept_at(), &read, &facts) {
            Ok(()) => accepted::forget(&self.accepted_at()),
            Err(error) => {
                tracing::error!(%error, "the revision serves, and could not be kept for a restart on a broken tree");
            }
        }
    }

    fn accepted_at(&self) -> PathBuf {
        accepted::path_in(&self.options.data_dir)
    }

    fn kept_at(&self) -> PathBuf {
        last_good::path_in(&self.options.data_dir)
    }

    /// Serves the last good revision of the run before; answers whether there is one that passes the checks.
    fn serve_kept(&self, progress: &mut Progress) -> bool {
        let Some(kept) = progress.kept.take() else { return false };
        let verdict = check(&kept.read, &self.options.catalog, &self.options.check);
        match verdict.tree {
            Some(tree) if components::store(&self.options.plugin_dir, &tree, &kept.read.files).is_ok() => {
                tracing::info!(
                    revision = kept.read.revision,
                    "the last good revision serves until the source gives a newer one"
                );
                self.serve(tree, &kept.read.revision, &kept.facts);
                true
            }
            Some(_) | None => {
                log_all(&verdict.diagnostics);
                tracing::error!(
                    revision = kept.read.revision,
                    "the last good revision does not pass the checks any more (were settings changed?)"
                );
                false
            }
        }
    }

    fn serve(&self, tree: Tree, revision: &str, facts: &Facts) {
        let applied = Applied {
            revision: revision.to_owned(),
            tree: Arc::new(tree),
            applied_at: Some(facts.applied_at),
            commit: facts.commit.clone(),
        };
        // The view first: whoever meets the new tree finds the status that goes with it.
        self.view.serves(revision, facts.commit.clone(), facts.applied_at);
        self.applied.send_replace(Arc::new(applied));
    }

    fn refuse(
        &self,
        revision: &str,
        commit: Option<ConfigCommit>,
        diagnostics: &[Diagnostic],
        now: Timestamp,
        progress: &mut Progress,
    ) {
        log_all(diagnostics);
        let errors = diagnostics.iter().filter(|found| found.is_error()).count();
        let serving = self.applied.borrow().revision.clone();
        tracing::error!(revision, errors, serving, "a revision of the configuration was refused");
        self.refuse_for(revision, commit, diagnostics.iter().map(for_api).collect(), now, progress);
    }

    fn refuse_for(
        &self,
        revision: &str,
        commit: Option<ConfigCommit>,
        diagnostics: Vec<forge_api::Diagnostic>,
        at: Timestamp,
        progress: &mut Progress,
    ) {
        progress.add(ConfigEvent::new(Happened::Failed, revision, commit.clone(), diagnostics.clone(), at));
        self.view.refused(ConfigFailure { revision: revision.to_owned(), commit, at, diagnostics });
    }

    fn source_failed(&self, failure: &SourceFailure, progress: &mut Progress) {
        let at = self.options.clock.now();
        let diagnostics = vec![failure.for_api()];
        let commit = failure.commit.as_deref().cloned();
        let shown = ConfigFailure {
            revision: failure.revision.clone(),
            commit: commit.clone(),
            at,
            diagnostics: diagnostics.clone(),
        };
        if self.view.source_failed(shown) {
            let (code, message, hint) = (failure.code.as_str(), &failure.message, &failure.hint);
            tracing::error!(code, revision = failure.revision, hint, "{message}");
            progress.add(ConfigEvent::new(Happened::Failed, &failure.revision, commit, diagnostics, at));
        }
    }

    /// What tells the daemon's identity from another one; its hash, so that no secret is kept.
    fn identity(&self) -> Option<String> {
        // One that cannot be read is like none: the check says what is wrong with it.
        let bytes = files::read_optional(self.options.identity_file.as_deref()?).ok().flatten()?;
        Some(hex::encode(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref()))
    }
}

/// What a look finds.
enum Found {
    /// Nothing that could be judged.
    Nothing,
    /// What was judged before.
    Known(String),
    /// A revision to be judged.
    New(Box<Candidate>),
}

impl Progress {
    /// What tells the source's history from another's; empty for a folder.
    fn identity(&self) -> String {
        match &self.source {
            Source::Folder(_) => String::new(),
            Source::Git(git) => git.identity(),
        }
    }

    fn add(&mut self, event: ConfigEvent) {
        if self.events.len() >= EVENTS_WAITING_MAX {
            self.events.remove(0);
        }
        self.events.push(event);
    }
}

fn found_in_folder(read: ReadTree, progress: &Progress, identity: Option<String>, look: &Look) -> Found {
    let found = Seen { revision: read.revision.clone(), findings: read.findings.clone(), identity };
    if progress.seen.as_ref() == Some(&found) && !matches!(look, Look::Asked(_)) {
        return Found::Known(read.revision);
    }
    Found::New(Box::new(Candidate { read, commit: None }))
}

/// Refuses a commit that does not descend from the one before.
fn follows(git: &Git, anchor: &str, head: &str) -> Result<(), SourceFailure> {
    let (code, message) = match git.descent(anchor, head)? {
        Descent::Descends => return Ok(()),
        Descent::SetBack => (
            SourceCode::SetBack,
            format!("the branch was set back to {head}, an older commit than {anchor}, which serves"),
        ),
        Descent::Rewritten => (
            SourceCode::Rewritten,
            format!("the branch's history was rewritten: {head} does not descend from {anchor}, which serves"),
        ),
    };
    let hint = format!(
        "push a commit on top of {anchor}; if the other history is meant, run `forge config apply --accept-rewrite {head}` as an admin"
    );
    Err(SourceFailure::new(code, message, hint).about(head))
}

/// A failure of the data folder, which is no mistake of the tree.
fn no_space(message: &str) -> forge_api::Diagnostic {
    let hint = "free space in the data folder, or let the daemon's user write there; it is tried again within a minute";
    SourceFailure::new(SourceCode::Host, message, hint).for_api()
}

/// Each on its own, drawn as people know it from `forge config check`.
fn log_all(diagnostics: &[Diagnostic]) {
    for found in diagnostics {
        let drawn = found.draw(Colour::Never);
        match found.severity {
            Severity::Error => tracing::error!(code = found.code.as_str(), "{drawn}"),
            Severity::Warning => tracing::warn!(code = found.code.as_str(), "{drawn}"),
            Severity::Note => tracing::info!(code = found.code.as_str(), "{drawn}"),
        }
    }
}
