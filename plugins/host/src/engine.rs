//! [`Host`]: the engine that compiles and runs guests, and the thread that makes it look up while they compute.
//!
//! Where calls are rare, memory is taken on demand ([`Memory::OnDemand`]): a supervisor makes one call in its life, and a pool would cost it
//! its bookkeeping. Where they are many, as for webhook targets, a pool saves half of what a call costs (`docs/performance.md`).
//! The ticker sleeps while no guest runs, so an idle process is never woken; it starts with the first call, so that a process
//! which only loads plugins keeps one thread and may fork.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::ExecutorPlugin;
use crate::bindings::webhook::WebhookPlugin;
use crate::cache::{Cache, CacheError};
use crate::limits::{
    POOL_INSTANCES_PER_CALL, POOL_KEPT_BYTES, POOL_KEPT_TABLE_BYTES, POOL_MEMORIES_PER_CALL, POOL_MEMORY_BYTES_MAX,
    STACK_BYTES_MAX, TABLE_ELEMENTS_MAX, TICK_MS,
};
use crate::load::Loaded;
use crate::state::State;

/// How a host is made.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Where compiled plugins are kept: made with mode 0700. `None` compiles anew in each process.
    pub cache_dir: Option<PathBuf>,
    /// Who makes the engine look up while guests compute.
    pub ticks: Ticks,
    /// Where calls take their memory from.
    pub memory: Memory,
}

/// Where calls take their memory from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// From the system, each time, for as much as the limits allow.
    #[default]
    OnDemand,
    /// From slots that are reserved once, as address space and not as memory, and used again. What does not fit into a slot is refused.
    Pool {
        /// How many calls may run at a time; one more is refused.
        calls: u32,
    },
}

impl Memory {
    fn strategy(self) -> InstanceAllocationStrategy {
        let Self::Pool { calls } = self else { return InstanceAllocationStrategy::OnDemand };
        let mut pool = PoolingAllocationConfig::new();
        let of_all = |of_one: u32| calls.saturating_mul(of_one);
        pool.total_component_instances(calls)
            .total_core_instances(of_all(POOL_INSTANCES_PER_CALL))
            .total_memories(of_all(POOL_MEMORIES_PER_CALL))
            .total_tables(of_all(POOL_INSTANCES_PER_CALL))
            .max_core_instances_per_component(POOL_INSTANCES_PER_CALL)
            .max_tables_per_component(POOL_INSTANCES_PER_CALL)
            .max_memories_per_component(POOL_MEMORIES_PER_CALL)
            .table_elements(TABLE_ELEMENTS_MAX)
            .max_memory_size(POOL_MEMORY_BYTES_MAX)
            .linear_memory_keep_resident(POOL_KEPT_BYTES)
            .table_keep_resident(POOL_KEPT_TABLE_BYTES)
            // Where the kernel says which pages were touched, only those are emptied.
            .pagemap_scan(Enabled::Auto);
        InstanceAllocationStrategy::Pooling(pool)
    }
}

/// Who makes the engine look up while guests compute: without it nothing bounds a guest's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ticks {
    /// A thread of the host's own, which the first call starts.
    #[default]
    OwnThread,
    /// The embedder, which calls [`Host::tick`] every [`TICK_MS`] while a guest computes.
    Embedder,
}

/// Why a host could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine refused its settings, or the contract.
    #[error("the WASM engine does not start: {0:#}")]
    Engine(wasmtime::Error),
    /// The folder for compiled plugins cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Loads and runs plugins. Cloning it is cheap and shares everything.
#[derive(Clone)]
pub struct Host {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    /// What an executor may import.
    pub(crate) linker: Linker<State>,
    /// What a webhook target may import: no workspace and no processes.
    pub(crate) target_linker: Linker<State>,
    pub(crate) cache: Option<Cache>,
    /// What is loaded now, by digest. Its lock is held while one is compiled: each digest is compiled once.
    pub(crate) loaded: Mutex<HashMap<String, Weak<Loaded>>>,
    /// `None` where the embedder ticks.
    pub(crate) ticker: Option<Ticker>,
    pub(crate) memory: Memory,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Host").field("cache", &self.shared.cache).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts the engine. Neither this nor [`Host::load_cached`] starts a thread.
    ///
    /// # Errors
    /// The engine does not start, or the cache folder cannot be made or is not this user's alone.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let HostOptions { cache_dir, ticks, memory } = options;
        let mut config = Config::new();
        config.epoch_interruption(true).max_wasm_stack(STACK_BYTES_MAX).allocation_strategy(memory.strategy());
        let engine = Engine::new(&config).map_err(HostError::Engine)?;
        let mut linker = Linker::new(&engine);
        ExecutorPlugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)
            .map_err(HostError::Engine)?;
        let mut target_linker = Linker::new(&engine);
        WebhookPlugin::add_to_linker::<_, HasSelf<_>>(&mut target_linker, |state: &mut State| state)
            .map_err(HostError::Engine)?;
        let cache = cache_dir.map(|folder| Cache::open(folder, &engine)).transpose()?;
        let ticker = match ticks {
            Ticks::OwnThread => Some(Ticker::new(engine.weak())),
            Ticks::Embedder => None,
        };
        let loaded = Mutex::new(HashMap::new());
        Ok(Self { shared: Arc::new(Shared { engine, linker, target_linker, cache, loaded, ticker, memory }) })
    }

    /// Makes the engine look up once: see [`Ticks::Embedder`].
    pub fn tick(&self) {
        self.shared.engine.increment_epoch();
    }
}

/// Increments the engine's epoch every [`TICK_MS`] while at least one call runs. Dropping it ends its thread.
pub(crate) struct Ticker {
    beat: Arc<Beat>,
    engine: EngineWeak,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Beat {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    calls: usize,
    stop: bool,
    /// Whether the ticker waits for a call. While it waits for the next tick nobody needs to wake it.
    is_asleep: bool,
}

/// Keeps the ticker awake while it lives.
pub(crate) struct Ticking<'a>(&'a Beat);

impl Ticker {
    fn new(engine: EngineWeak) -> Self {
        Self { beat: Arc::default(), engine, thread: Mutex::new(None) }
    }

    /// Ticks until what it returns is dropped; the first call starts the thread.
    pub(crate) fn tick(&self) -> std::io::Result<Ticking<'_>> {
        {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if thread.is_none() {
                let (beat, engine) = (Arc::clone(&self.beat), self.engine.clone());
                let ticker = std::thread::Builder::new().name("plugin-ticker".to_owned());
                *thread = Some(ticker.spawn(move || beat.run(&engine))?);
            }
        }
        let mut wanted = self.beat.lock();
        wanted.calls += 1;
        let is_asleep = wanted.is_asleep;
        drop(wanted);
        if is_asleep {
            self.beat.changed.notify_all();
        }
        Ok(Ticking(&self.beat))
    }
}

impl Beat {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // The fields are plain values: a panic between two writes cannot leave them half changed.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, engine: &EngineWeak) {
        let mut wanted = self.lock();
        loop {
            // Only this thread changes it, so a call that comes and goes before this one wakes leaves it asleep.
            wanted.is_asleep = true;
            wanted = self
                .changed
                .wait_while(wanted, |wanted| wanted.calls == 0 && !wanted.stop)
                .unwrap_or_else(PoisonError::into_inner);
            wanted.is_asleep = false;
            wanted = self
                .changed
                .wait_timeout_while(wanted, Duration::from_millis(TICK_MS), |wanted| !wanted.stop)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if wanted.stop {
                return;
            }
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.lock().calls -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.beat.lock().stop = true;
        self.beat.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It only counts: a panic in it has nothing to say here.
            drop(thread.join());
        }
    }
}
