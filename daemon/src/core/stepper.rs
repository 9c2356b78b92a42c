//! A core that does nothing by itself: whoever drives it says when deadlines are looked at and logs are brought to disk.
//!
//! For a simulation of the whole protocol, in which the same seed makes the same run: its store works without threads of its own. What is done
//! is what the daemon does.

use std::sync::Arc;

use super::{Core, CoreError, CoreOptions, CoreStartError, CoreTasks, internal, stored};
use crate::scheduler::reconcile::Reconciler;
use crate::store::Opened;

/// What the core's own tasks would do.
#[doc(hidden)]
pub struct Stepper {
    core: Core,
    reconciler: Reconciler,
}

impl std::fmt::Debug for Stepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stepper")
    }
}

impl Core {
    /// Like [`Core::start`], without anything that acts by itself.
    #[doc(hidden)]
    pub async fn start_stepwise(options: CoreOptions) -> Result<(Self, CoreTasks, Stepper), CoreStartError> {
        let (core, tasks, reconciler) = Self::open(options, Opened::serve_here).await?;
        let stepper = Stepper { core: core.clone(), reconciler };
        Ok((core, tasks, stepper))
    }
}

impl Stepper {
    /// Acts on what is due; answers how long there is nothing more to do, in milliseconds.
    pub async fn reconcile(&self) -> Result<u64, CoreError> {
        self.reconciler.check_space();
        self.reconciler.reconcile().await.map_err(stored)
    }

    /// Brings logs to disk for good.
    pub async fn sync_logs(&self) -> Result<(), CoreError> {
        self.core.inner.logs.sync().await.map_err(internal)
    }

    /// Lets the store have so many pages of its database at most, and no less than it has: a disk that is full.
    pub async fn limit_store(&self, pages_max: u32) -> Result<(), CoreError> {
        self.core.inner.store.limit_pages(pages_max).await.map_err(internal)
    }

    /// How many claims wait.
    pub fn parked_claims(&self) -> u64 {
        Arc::clone(&self.core.inner.scheduler).parked_claims()
    }
}
