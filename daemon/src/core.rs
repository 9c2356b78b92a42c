//! The face of scheduler, store and logs: every route of the API ends here, in the API's own types.
//!
//! A [`Core`] is a handle, cheap to clone. It never prints, never reads a socket, and gives nothing away that its caller did
//! not prove: who may see which project is the routes' business, what a runner or an attempt may do is decided here.

mod approvals;
mod attempts;
mod audit;
mod config;
mod error;
mod events;
mod insight;
mod integrations;
mod jobs;
mod load;
mod log_lines;
mod news;
mod options;
mod registration;
mod runners;
mod schedules;
mod sessions;
mod stepper;
mod tasks;
mod tokens;
mod versions;
mod webhooks;

use std::path::PathBuf;
use std::sync::Arc;

use forge_api::{AttemptId, Secret};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::carries::Carries;
use crate::clock::Clock;
pub use crate::logs::LogReader;
use crate::logs::{self, LogError, Logs};
use crate::scheduler::Scheduler;
use crate::scheduler::reconcile::{Minded, Reconciler};
use crate::secrets::{Keys, Resolver};
pub use crate::store::Actor;
use crate::store::{Opened, Planner, Refused, Store, StoreError, WriterThread};
pub use approvals::CarryIn;
pub(crate) use audit::AuditFilter;
pub use audit::Origin;
pub use error::CoreError;
use events::Feed;
pub(crate) use events::{Event, EventId, Listener, RESET};
pub use forge_config::SecretsAllow;
pub use insight::STATS_TASKS_MAX;
pub(crate) use integrations::Proved;
pub use load::LOAD_HOURS_MAX;
pub use log_lines::{LinesWanted, LogSearch};
pub use options::{
    Applied, AttemptAccess, CoreOptions, CoreStartError, Counters, FreeSpace, LogLimits, RunnerIdentity, TaskFilter,
    TryOutcome,
};
pub(crate) use sessions::{SESSION_AGE_MS, session_note};
pub use stepper::Stepper;
pub use tokens::revoke_token_on_host;
pub use versions::{DAEMON_VERSION, RUNNER_VERSION_MIN};
pub use webhooks::DeliveryFilter;

/// The handle.
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    store: Store,
    logs: Arc<Logs>,
    carries: Arc<Carries>,
    scheduler: Arc<Scheduler>,
    keys: Arc<Keys>,
    resolver: Arc<Resolver>,
    plugin_dir: PathBuf,
    registration_token: Option<Secret>,
    log_limits: LogLimits,
    refusals: audit::Refusals,
    feed: Feed,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Core")
    }
}

/// What the core runs beside its callers; awaited at drain.
#[derive(Debug)]
pub struct CoreTasks {
    tasks: JoinSet<()>,
    writer: WriterThread,
}

impl CoreTasks {
    /// Waits until everything that the core runs has ended and is stored; call [`Core::drain`] and drop every [`Core`] first.
    pub async fn join(mut self) {
        while self.tasks.join_next().await.is_some() {}
        let writer = self.writer;
        // A thread that cannot be joined has ended with the process's panic hook; nothing more can be waited for.
        let _joined = tokio::task::spawn_blocking(move || writer.join()).await;
    }
}

/// How a store serves.
type Serve = fn(Opened, Arc<dyn Planner>) -> Result<(Store, WriterThread), StoreError>;

impl Core {
    /// Opens the store, reconciles every open row, and starts the scheduler.
    pub async fn start(options: CoreOptions) -> Result<(Self, CoreTasks), CoreStartError> {
        let (core, mut tasks, reconciler) = Self::open(options, Opened::serve).await?;
        let Inner { logs, shutdown, .. } = &*core.inner;
        tasks.tasks.spawn(reconciler.run(shutdown.clone()));
        tasks.tasks.spawn(sync_logs(Arc::clone(logs), shutdown.clone()));
        tasks.tasks.spawn(core.clone().look_for_news(shutdown.clone()));
        tasks.tasks.spawn(core.clone().fire_schedules(shutdown.clone()));
        tasks.tasks.spawn(core.clone().sample_load(shutdown.clone()));
        tasks.tasks.spawn(core.clone().fold_refusals(shutdown.clone()));
        tasks.tasks.spawn(core.clone().tell_listeners(shutdown.clone()));
        Ok((core, tasks))
    }

    /// All but what acts by itself.
    async fn open(options: CoreOptions, serve: Serve) -> Result<(Self, CoreTasks, Reconciler), CoreStartError> {
        let CoreOptions {
            data_dir,
            plugin_dir,
            config,
            registration_token,
            identity_file,
            secrets_allow,
            clock,
            log_limits,
            audit_retention_ms,
            free_space,
        } = options;
        let opened = blocking_start(move || {
            // The lock comes first: a second daemon changes nothing in the folder.
            let opened = Opened::open(&data_dir)?;
            let keys = Keys::open(&data_dir)?;
            let logs = Logs::open(&data_dir, log_limits, free_space)?;
            let carries = Carries::open(&data_dir)?;
            Ok((opened, Arc::new(keys), Arc::new(logs), Arc::new(carries)))
        });
        let (opened, keys, logs, carries) = opened.await?;
        let scheduler = Arc::new(Scheduler::new(config, clock.clone(), Arc::clone(&keys)));
        let planner: Arc<dyn Planner> = Arc::<Scheduler>::clone(&scheduler);
        let (store, writer) = serve(opened, planner)?;
        let live = store.boot(clock.now()).await?;
        let (registrations, _live) = store.runners().await?;
        scheduler.boot(registrations, live);
        let reconciler = Reconciler {
            scheduler: Arc::clone(&scheduler),
            store: store.clone(),
            logs: Arc::clone(&logs),
            carries: Arc::clone(&carries),
            plugin_dir: plugin_dir.clone(),
            disk_reserve_bytes: log_limits.disk_reserve_bytes,
            minded: std::sync::Mutex::new(Minded { look: clock.look(), set_ms: None }),
            audit_retention_ms,
        };
        let resolver = Arc::new(Resolver { identity_file, allow: secrets_allow });
        // Numbers of another run say another moment.
        let feed = Feed::new(clock.now().unix_micros());
        let inner = Inner {
            clock,
            store,
            logs,
            carries,
            scheduler,
            keys,
            resolver,
            plugin_dir,
            registration_token,
            log_limits,
            refusals: audit::Refusals::default(),
            feed,
            shutdown: CancellationToken::new(),
        };
        Ok((Self { inner: Arc::new(inner) }, CoreTasks { tasks: JoinSet::new(), writer }, reconciler))
    }

    /// Answers every parked claim and takes no new work; requests under way are finished.
    pub fn drain(&self) {
        self.inner.scheduler.drain();
        self.inner.shutdown.cancel();
    }

    /// Waits until the store's writer has committed and the reconciler has looked. It waits for ever for one that is gone.
    pub async fn work_a_turn(&self) {
        match self.inner.store.turn().await {
            // A store that refuses (a full disk, say) says so to everyone who asks, and a restart would not mend it.
            Ok(()) => {}
            Err(StoreError::Closed) => std::future::pending().await,
            Err(error) => tracing::warn!(%error, "the store works and could not commit nothing"),
        }
        self.inner.scheduler.turn().await;
    }

    fn now(&self) -> forge_api::Timestamp {
        self.inner.clock.now()
    }
}

async fn blocking_start<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CoreStartError> + Send + 'static,
) -> Result<T, CoreStartError> {
    let ended = |_| CoreStartError::Store(StoreError::Closed);
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// Brings logs to disk for good, many at a time.
async fn sync_logs(logs: Arc<Logs>, shutdown: CancellationToken) {
    let interval = std::time::Duration::from_millis(logs::SYNC_INTERVAL_MS);
    while shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        if let Err(error) = logs.sync().await {
            tracing::error!(%error, "logs could not be brought to disk; it is tried again in a moment");
        }
    }
}

/// What the store refused, in words; `attempt` is who asked, where an attempt did.
fn refused(error: StoreError, what: &'static str, name: &str, attempt: Option<AttemptId>) -> CoreError {
    let not_found = |what, name: &str| CoreError::NotFound { what, name: name.to_owned(), nearest: None };
    let StoreError::Refused(refusal) = error else {
        return stored(error);
    };
    match refusal {
        Refused::NoTask | Refused::NoAttempt | Refused::NoRunner | Refused::NoDelivery => not_found(what, name),
        Refused::Ended { state } => match attempt {
            Some(attempt) => CoreError::Gone { attempt, reason: format!("its task is {state}") },
            None => CoreError::Conflict {
                detail: format!("{what} {name} ended already: it is {state}"),
                hint: Some(format!("`forge task retry {name}` gives it another attempt")),
            },
        },
        Refused::Open { state } => CoreError::Conflict {
            detail: format!("{what} {name} is {state}, and this needs one that ended"),
            hint: Some(format!("wait for its end, or cancel it with `forge task cancel {name}`")),
        },
        Refused::Gone { reason } => match attempt {
            Some(attempt) => CoreError::Gone { attempt, reason },
            None => CoreError::Conflict { detail: reason, hint: None },
        },
        Refused::Older { newest } => match attempt {
            Some(attempt) => CoreError::Older { attempt, newest },
            None => CoreError::Conflict { detail: format!("attempt {newest} is newer"), hint: None },
        },
        Refused::KeyReused { task } => CoreError::Conflict {
            detail: format!("the idempotency key made task {task} from another request"),
            hint: Some("send a new key with a new request".to_owned()),
        },
        Refused::NameTaken => CoreError::NameTaken { name: name.to_owned() },
        Refused::TokenUsedUp { uses } => CoreError::Forbidden {
            detail: format!("the registration token is used up: it was good for {uses} registrations"),
            hint: Some("raise `uses` in its file, or use another token".to_owned()),
        },
    }
}

/// The number that a listing by numbers goes on from.
fn cursor_number(cursor: Option<String>) -> Result<Option<u64>, CoreError> {
    let parse = |cursor: String| {
        cursor.parse().map_err(|_| CoreError::Invalid {
            detail: format!("{cursor:?} is no cursor"),
            hint: Some("hand back `next_cursor` of the page before, unchanged".to_owned()),
        })
    };
    cursor.map(parse).transpose()
}

/// What the store failed to do: a disk that is full passes, and is said so.
fn stored(error: StoreError) -> CoreError {
    if error.is_full() { CoreError::StoreFull } else { internal(error) }
}

fn internal(error: impl std::fmt::Display) -> CoreError {
    CoreError::Internal(error.to_string())
}

fn log_error(error: LogError, attempt: AttemptId) -> CoreError {
    match error {
        LogError::Gap { length } => CoreError::RangeNotSatisfiable { log_length: length },
        LogError::Differs { length } => CoreError::LogDiffers { attempt, length },
        LogError::WrongLength { range, body } => CoreError::Invalid {
            detail: format!("Content-Range covers {range} bytes and the body has {body}"),
            hint: Some("send `bytes FIRST-LAST/*` with LAST inclusive".to_owned()),
        },
        LogError::TooLong { bytes_max } => CoreError::LogLimit { attempt, bytes_max },
        error @ (LogError::Io { .. } | LogError::Ended) => internal(error),
    }
}
