//! From a watched folder to the revision that serves: watch, read, check, apply; the whole of a change or nothing of it.
//!
//! | module | what it does |
//! |---|---|
//! | `watch` | sees that something changed, and waits until it stands still |
//! | `read` | the folder's files in memory, bounded, and their revision |
//! | `check` | the verdict: a tree, or every mistake at once |
//! | `last_good` | the last good revision's files on disk, for a restart on a broken tree |
//! | `apply` | swaps the revision that serves, and keeps what is known of it |
//!
//! It never serves half of a tree, and never lets go of a good one for a broken one.

mod apply;
pub(crate) mod check;
mod last_good;
pub(crate) mod read;
mod watch;

use std::sync::Arc;

use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::CancellationToken;

pub(crate) use apply::{Applier, ApplyOptions, ConfigCounters, ConfigView};

use crate::core::Applied;
use watch::FolderWatch;

/// The watched folder and what applies it.
pub(crate) struct GitOps {
    applier: Arc<Applier>,
    watch: FolderWatch,
}

impl GitOps {
    /// Begins to watch and settles what serves first. It blocks while it reads and checks.
    pub(crate) async fn start(options: ApplyOptions) -> Self {
        let watch = FolderWatch::new(&options.root);
        let applier = Arc::new(Applier::new(options));
        let first = Arc::clone(&applier);
        run_blocking(move || first.first()).await;
        Self { applier, watch }
    }

    /// The revision that serves, now and later.
    pub(crate) fn applied(&self) -> channel::Receiver<Arc<Applied>> {
        self.applier.applied()
    }

    /// The revision and its mistakes.
    pub(crate) fn view(&self) -> ConfigView {
        self.applier.view()
    }

    /// Ring it to have the folder looked at now.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        self.watch.bell()
    }

    /// Applies changes until `shutdown`. Call it once the data folder is certainly ours alone: it writes there.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let applier = Arc::clone(&self.applier);
        run_blocking(move || applier.own_data_folder()).await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.watch.settled() => {}
            }
            let applier = Arc::clone(&self.applier);
            run_blocking(move || applier.look()).await;
        }
    }
}

/// Runs what blocks on a thread for it, off the serving path; a panic in it is logged by the panic hook and changes nothing.
async fn run_blocking(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "reading the configuration failed: what served before keeps serving");
    }
}
