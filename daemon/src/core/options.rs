//! What the core is started with, what its callers hand around, and what it refuses to start on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use forge_api::{AttemptId, ConfigCommit, DeliveryState, RunnerStatus, Secret, TaskState, Timestamp};
use forge_config::SecretsAllow;
use forge_config::meant::Tree;
use tokio::sync::watch;

use crate::clock::Clock;

/// What the core is started with.
#[derive(Debug)]
pub struct CoreOptions {
    /// The data folder; it exists and is ours.
    pub data_dir: PathBuf,
    /// Where components lie as `<sha256>.wasm`, put there before a revision that names them is applied.
    pub plugin_dir: PathBuf,
    /// The revision that serves, now and later.
    pub config: watch::Receiver<Arc<Applied>>,
    /// The single registration token of forge.toml: it registers any name.
    pub registration_token: Option<Secret>,
    /// What decrypts age values of the tree.
    pub identity_file: Option<PathBuf>,
    /// `[secrets.allow.<project>]` by project.
    pub secrets_allow: BTreeMap<String, SecretsAllow>,
    /// The clock.
    pub clock: Clock,
    /// `[logs]`.
    pub log_limits: LogLimits,
    /// How long rows of the audit log are kept, in milliseconds; 0 is for ever.
    pub audit_retention_ms: u64,
    /// How much space is left.
    pub free_space: FreeSpace,
}

/// Where it is known from how much space is left for logs and the store.
#[derive(Clone, Debug, Default)]
pub enum FreeSpace {
    /// The file system that the data folder lies on is asked.
    #[default]
    Measured,
    /// So many bytes, by somebody else's word: no test fills a disk.
    Told(Arc<AtomicU64>),
}

/// A revision of the tree that passed every check and serves.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The commit or the tree's hash; empty while an empty tree serves.
    pub revision: String,
    /// The tree.
    pub tree: Arc<Tree>,
    /// When it was applied; `None` while an empty tree serves.
    pub applied_at: Option<Timestamp>,
    /// Its commit, where it comes from a repository.
    pub commit: Option<ConfigCommit>,
}

/// How much logs may take.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// The most bytes of one attempt's log; then the attempt fails.
    pub attempt_bytes_max: u64,
    /// With less free space than this no new work is accepted.
    pub disk_reserve_bytes: u64,
}

/// Which tasks a listing shows.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only this project's.
    pub project: Option<String>,
    /// Only this state's.
    pub state: Option<TaskState>,
    /// Only this template's.
    pub template: Option<String>,
    /// Only projects that the caller may see; `None` is all.
    pub visible: Option<Vec<String>>,
}

/// A runner that proved its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerIdentity {
    pub(crate) name: String,
    pub(crate) key: i64,
}

impl RunnerIdentity {
    /// The runner's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A bearer that proved an attempt's own token. Whether the attempt still stands is asked at each write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptAccess {
    pub(crate) attempt: AttemptId,
    pub(crate) runner: String,
    /// Whether every byte of its log was there when it proved itself.
    pub(crate) log_whole: bool,
}

impl AttemptAccess {
    /// Which attempt.
    pub fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// The runner that the attempt was given to.
    pub fn runner(&self) -> &str {
        &self.runner
    }
}

/// What metrics show of the core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How many tasks stand in each state; every state is there.
    pub tasks: BTreeMap<TaskState, u64>,
    /// How many runners have each status.
    pub runners: Vec<(RunnerStatus, u64)>,
    /// Writes of closed attempts that were refused or kept without counting, since the start.
    pub fenced_writes: u64,
    /// Claims that wait right now.
    pub parked_claims: u64,
    /// Bytes of logs taken since the start.
    pub log_bytes: u64,
    /// How long the oldest waiting task could have run already that only lacks a runner, in milliseconds; 0 when there is none.
    pub oldest_ready_ms: u64,
    /// Attempts given to runners since the start.
    pub assignments: u64,
    /// Attempts lost since the start since their runner stayed away.
    pub lease_expiries: u64,
    /// Jobs that runners did not begin since they do not trust them, since the start.
    pub jobs_refused: u64,
    /// How many deliveries of each webhook target stand in each state.
    pub deliveries: BTreeMap<String, BTreeMap<DeliveryState, u64>>,
    /// How long the oldest delivery waits that has not arrived, in milliseconds; 0 when none waits.
    pub oldest_delivery_ms: u64,
    /// Tries of deliveries since the start, by what they came to.
    pub tries: BTreeMap<TryOutcome, u64>,
    /// How far the clock of the runner that is farthest off is from the daemon's, either way, in milliseconds.
    pub clock_skew_ms_max: u64,
    /// What the runner that is there has left on its disk that has the least; `None` while no runner is there.
    pub runner_disk_free_bytes_min: Option<u64>,
    /// What is free where `data_dir` lies; `None` when the system does not say.
    pub disk_free_bytes: Option<u64>,
    /// `[logs] disk_reserve`.
    pub disk_reserve_bytes: u64,
}

/// What a try of a delivery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TryOutcome {
    /// It arrived.
    Delivered,
    /// There was nothing to send.
    Skipped,
    /// It is tried again.
    Again,
    /// It is given up.
    Dead,
}

impl TryOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Skipped, Self::Again, Self::Dead];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::Again => "again",
            Self::Dead => "dead",
        }
    }
}

/// Why the core did not start.
#[derive(Debug, thiserror::Error)]
pub enum CoreStartError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The keys could not be read or made.
    #[error(transparent)]
    Keys(#[from] crate::secrets::KeysError),
    /// The folder of logs could not be made or read.
    #[error(transparent)]
    Logs(#[from] crate::logs::LogError),
    /// The folder of what attempts carry could not be made or read.
    #[error(transparent)]
    Carries(#[from] crate::files::FileError),
}
