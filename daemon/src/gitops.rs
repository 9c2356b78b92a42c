//! From a watched folder or a repository to the revision that serves: find, read, check, apply; the whole of a change or nothing of it.
//!
//! | module | what it does |
//! |---|---|
//! | `watch` | sees that a folder changed, and waits until it stands still |
//! | `poll` | says when a repository is fetched |
//! | `read` | a folder's files in memory, bounded, and their revision |
//! | `git` | a repository's newest commit: fetched, compared with the one before, its signature checked, its files read |
//! | `check` | the verdict: a tree, or every mistake at once |
//! | `prune` | what a revision removes too much of |
//! | `last_good` | the last good revision's files on disk, for a restart on a broken tree |
//! | `accepted` | another history that an admin accepted and that does not serve yet, over a restart |
//! | `apply` | swaps the revision that serves |
//! | `changes` | what differs from the revision before |
//! | `view`, `events`, `failure` | what is known of it, what happened to it, and what keeps a newer one away |
//!
//! It never serves half of a tree, and never lets go of a good one for a broken one.

mod accepted;
mod apply;
mod changes;
pub(crate) mod check;
#[cfg(test)]
mod clone_tests;
mod events;
mod failure;
mod git;
mod last_good;
mod poll;
mod prune;
pub(crate) mod read;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod sequence_tests;
mod view;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch as channel};
use tokio_util::sync::CancellationToken;

pub(crate) use apply::{Acceptance, ApplyOptions};
pub(crate) use changes::is_of_projects;
pub(crate) use events::{ConfigEvent, Happened};
pub(crate) use git::GitOptions;
pub(crate) use view::{ConfigCounters, ConfigView};

use crate::core::{Applied, Core};
use apply::{Applier, Look, Source};
use git::Git;
use poll::Poll;
use watch::FolderWatch;

/// The most requests of admins that wait for their turn.
const REQUESTS_MAX: usize = 16;

/// Where the tree lives.
#[derive(Debug)]
pub(crate) enum SourceOptions {
    /// A folder of this host.
    Folder(PathBuf),
    /// A repository.
    Git(Box<GitOptions>),
}

/// What a look that an admin asked for has found: the source's newest revision, where it gave one.
pub(crate) type Newest = Option<String>;

struct Request {
    acceptance: Acceptance,
    answer: oneshot::Sender<Newest>,
}

/// What the rest of the daemon asks of it; cheap to clone.
#[derive(Clone)]
pub(crate) struct GitOpsHandle {
    bell: Arc<Notify>,
    requests: mpsc::Sender<Request>,
    has_history: bool,
}

impl GitOpsHandle {
    /// Has the source looked at soon.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Whether the source has a history that could be rewritten.
    pub(crate) fn has_history(&self) -> bool {
        self.has_history
    }

    /// Looks at the source now, letting pass what `acceptance` names. `None` while the daemon stops.
    pub(crate) async fn apply(&self, acceptance: Acceptance) -> Option<Newest> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { acceptance, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// What says when the source is looked at.
enum Trigger {
    Watch(FolderWatch),
    Poll(Poll),
}

impl Trigger {
    fn bell(&self) -> Arc<Notify> {
        match self {
            Self::Watch(watch) => watch.bell(),
            Self::Poll(poll) => poll.bell(),
        }
    }

    async fn due(&mut self) {
        match self {
            Self::Watch(watch) => watch.settled().await,
            Self::Poll(poll) => poll.due().await,
        }
    }
}

/// The source and what applies it.
pub(crate) struct GitOps {
    applier: Arc<Applier>,
    trigger: Trigger,
    handle: GitOpsHandle,
    requests: mpsc::Receiver<Request>,
}

impl GitOps {
    /// Begins to watch and settles what serves first. It waits while it reads and checks.
    pub(crate) async fn start(options: ApplyOptions, source: SourceOptions, poll_interval: Duration) -> Self {
        let (source, mut trigger) = match source {
            SourceOptions::Folder(root) => {
                let watch = FolderWatch::new(&root, poll_interval);
                (Source::Folder(root), Trigger::Watch(watch))
            }
            SourceOptions::Git(options) => {
                (Source::Git(Box::new(Git::new(*options))), Trigger::Poll(Poll::new(poll_interval)))
            }
        };
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let has_history = matches!(source, Source::Git(_));
        let handle = GitOpsHandle { bell: trigger.bell(), requests, has_history };
        let applier = Arc::new(Applier::new(options, source));
        let first = Arc::clone(&applier);
        let was_looked_at = run_blocking(move || first.first()).await == Some(true);
        if let Trigger::Poll(poll) = &mut trigger
            && was_looked_at
        {
            poll.fetched();
        }
        Self { applier, trigger, handle, requests: queue }
    }

    /// The revision that serves, now and later.
    pub(crate) fn applied(&self) -> channel::Receiver<Arc<Applied>> {
        self.applier.applied()
    }

    /// The revision and its mistakes.
    pub(crate) fn view(&self) -> ConfigView {
        self.applier.view()
    }

    /// What the rest of the daemon asks of it.
    pub(crate) fn handle(&self) -> GitOpsHandle {
        self.handle.clone()
    }

    /// Applies changes until `shutdown`. Call it once the data folder is certainly ours alone: it writes there.
    pub(crate) async fn run(mut self, core: Core, shutdown: CancellationToken) {
        let applier = Arc::clone(&self.applier);
        run_blocking(move || applier.own_data_folder()).await;
        loop {
            self.record(&core).await;
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                request = self.requests.recv() => request,
                () = self.trigger.due() => None,
            };
            let applier = Arc::clone(&self.applier);
            match request {
                None => {
                    run_blocking(move || applier.look(&Look::Again)).await;
                }
                Some(Request { acceptance, answer }) => {
                    let newest = run_blocking(move || applier.look(&Look::Asked(acceptance))).await.flatten();
                    // Who asked may have hung up: it is done all the same.
                    let _ = answer.send(newest);
                }
            }
        }
    }

    async fn record(&self, core: &Core) {
        let events = self.applier.take_events();
        if events.is_empty() {
            return;
        }
        if let Err(error) = core.record_config_events(events).await {
            tracing::error!(%error, "what happened to the configuration could not be recorded");
        }
    }
}

/// Runs what blocks on a thread for it, off the serving path; a panic in it is logged by the panic hook and changes nothing.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!(%error, "reading the configuration failed: what served before keeps serving");
            None
        }
    }
}
