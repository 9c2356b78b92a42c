//! What one call holds while it runs: its store's data. It is made for the call and dropped with it, trap or not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};

use crate::engine::Host;
use crate::limits::{CHILDREN_MAX, HOST_CALL_BYTES_MAX};
use crate::log::LogBudget;
use crate::memory::MemoryLimiter;
use crate::meter::{Meter, Verdict, thread_time};
use crate::trap::Stop;
use crate::workspace::{Workspace, Written};
use crate::{Grants, Limits, Services};

/// What one call holds.
pub(crate) struct State {
    /// It goes first: an embedder may end at once what the children below would end one after the other.
    pub(crate) services: Box<dyn Services>,
    pub(crate) grants: Grants,
    /// `None` while a plugin only describes itself.
    pub(crate) workspace: Option<Workspace>,
    pub(crate) workspace_path: PathBuf,
    pub(crate) children: ResourceTable,
    pub(crate) log: LogBudget,
    pub(crate) written: Written,
    pub(crate) started_at: Instant,
    meter: Meter,
    memory: MemoryLimiter,
}

impl State {
    pub(crate) fn new(
        services: Box<dyn Services>,
        grants: Grants,
        workspace: Option<(Workspace, PathBuf)>,
        limits: Limits,
    ) -> Self {
        let mut children = ResourceTable::new();
        children.set_max_capacity(CHILDREN_MAX);
        let (workspace, workspace_path) = workspace.unzip();
        Self {
            services,
            grants,
            workspace,
            workspace_path: workspace_path.unwrap_or_default(),
            children,
            log: LogBudget::default(),
            written: Written::default(),
            started_at: Instant::now(),
            meter: Meter::new(Duration::from_millis(limits.time_ms)),
            memory: MemoryLimiter::new(limits.memory_bytes),
        }
    }

    /// Leaves the guest's time alone while the embedder works for it.
    pub(crate) fn outside<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        if !self.meter.has_begun() {
            return work(self);
        }
        let before = thread_time();
        let result = work(self);
        self.meter.exclude(thread_time().saturating_sub(before));
        result
    }

    fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let canceled = self.services.canceled();
        match self.meter.verdict(thread_time(), canceled) {
            Verdict::Continue => Ok(UpdateDeadline::Continue(1)),
            Verdict::OutOfTime => Err(wasmtime::Error::new(Stop::Time)),
            Verdict::Canceled => Err(wasmtime::Error::new(Stop::Canceled)),
        }
    }

    /// A store that is bounded in every way before a guest sees it.
    pub(crate) fn into_store(self, host: &Host) -> Store<Self> {
        let mut store = Store::new(&host.shared.engine, self);
        store.data_mut().memory.takes_from(host.shared.memory);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| context.data_mut().on_tick());
        store
    }
}
