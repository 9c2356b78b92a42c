//! The part of Forge that runs on a job's machine: it asks the daemon for work, runs each attempt in a supervisor process
//! of its own and hands in the log and the result until both are acknowledged.
//!
//! The runner only dials out. It never decides what runs: a job is believed only when it is sealed to this runner's key and
//! signed by the daemon whose key was pinned at registration. What an attempt does happens in its supervisor
//! ([`supervise`]), which outlives this process: a runner that is killed finds its attempts again through the spool.
//!
//! | module | what it does |
//! |---|---|
//! | `settings` | what the runner was told |
//! | `trust`, `client` | HTTPS to the daemon, and errors in words |
//! | `registration` | becoming known to the daemon, and leaving |
//! | `session` (pure), `backoff` (pure) | the link: what to ask next |
//! | `link` | the loop that does what `session` says |
//! | `job`, `begin`, `attend`, `upload` | one attempt seen from the runner |
//! | `orphans`, `procfs` | what a dead supervisor leaves |
//! | `launch`, `launcher` | the process that supervisors are forked from: the runner's side and its own |
//! | `open` | unsealing and checking a job |
//! | `spool` | what is not yet acknowledged, on disk |
//! | `wire` | what runner and supervisor say to each other |
//! | `supervisor`, `warden` (pure) | the attempt's own process, and when it must end |
//! | `executor`, `child`, `process`, `log`, `mask` (pure) | running the plugin and its processes, keeping their output |
//! | `placeholder` | secrets of a plugin's own `[config]` |
//! | `user` | whose processes a job's are |
//! | `workspace`, `git` | the folder that the job works in |
//! | `cache` | what stays between attempts of one project and plugin |
//! | `upkeep` | removing what was kept for too long |
//! | `shelf`, `kept` | what stays of it: nothing, or with `keep_failed_workspaces` all that a failed job left |

mod attend;
mod attendant;
mod backoff;
mod begin;
mod bell;
mod cache;
mod carry;
mod cgroup;
mod child;
mod client;
mod delivery;
mod executor;
mod files;
mod fit;
mod git;
mod guest;
mod health;
mod job;
mod kept;
mod launch;
mod launcher;
mod link;
mod log;
mod mask;
mod open;
mod orphans;
mod pin;
mod placeholder;
mod preparing;
mod process;
mod procfs;
mod registration;
mod session;
mod settings;
mod shelf;
mod spool;
mod state;
mod supervisor;
pub mod trust;
mod upkeep;
mod upload;
mod user;
mod warden;
mod wire;
mod workspace;

/// The rules of a runner that do no I/O, for a simulation of the whole protocol: the same functions that `link` and the
/// supervisor go by.
#[doc(hidden)]
pub mod rules {
    pub use crate::delivery::{Again, Delivery, PieceFault, ResultFault, Spool, Step};
    pub use crate::link::{Start, failure};
    pub use crate::open::{OpenError, Opener};
    pub use crate::pin::{PinError, follow};
    pub use crate::session::{Action, Ask, EndWhy, Failure, Input, Session};
    pub use crate::warden::{Contact, Terms, Verdict, alive_interval_ms, is_fresh, verdict};
    pub use crate::wire::Order;
}

use std::process::ExitCode;

use forge_api::{AttemptId, AttemptOutcome, Secret};
use tokio_util::sync::CancellationToken;

pub use registration::{RegisterError, Registered, UnregisterError};
pub use settings::{OBEY_MARGIN_MS_DEFAULT, RunAs, STOP_GRACE_MS_DEFAULT, Settings, SettingsError, base_url};
pub use user::RunAsError;

/// How a running runner is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take nothing new, finish what runs however long that takes, then return.
    pub drain: CancellationToken,
    /// End every attempt (as `lost`, "the runner was stopped"), hand the results in, return.
    pub abort: CancellationToken,
}

/// What a runner tells whoever watches it; each comes once per change, not once per try.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// All that the runner needs of its own machine is in order: it asks the daemon from now on.
    Ready,
    /// The loop that starts, ends and hands in attempts took a turn; see [`Settings::alive_interval`].
    Alive,
    /// Something about the settings that the operator should know.
    Warning(String),
    /// The daemon answers.
    Connected {
        /// Where it is.
        web_host: String,
    },
    /// The daemon does not answer: the runner waits and tries again.
    WaitingForDaemon {
        /// Why, in words that say what to do.
        reason: String,
    },
    /// The daemon or an operator wants the runner to take nothing new, or that is over.
    Draining(bool),
    /// There is too little room on the disk for new work, or that is over.
    DiskFull(bool),
    /// An attempt begins.
    AttemptStarted {
        /// Which one.
        attempt: AttemptId,
        /// Its project.
        project: String,
        /// Its template.
        template: String,
    },
    /// A predecessor's attempt was found alive, or its rest is handed in.
    AttemptFound {
        /// Which one.
        attempt: AttemptId,
        /// Whether its supervisor lives.
        alive: bool,
    },
    /// An attempt's end is acknowledged.
    AttemptEnded {
        /// Which one.
        attempt: AttemptId,
        /// How it ended.
        outcome: AttemptOutcome,
        /// Why, for every outcome but `succeeded`.
        reason: Option<String>,
    },
    /// The daemon signs with another key from now on, as the one before has said; the runner has pinned it.
    KeyFollowed,
    /// A job was refused since it is not for this runner, not signed by its daemon, or garbled.
    JobRefused {
        /// Which one.
        attempt: AttemptId,
        /// Why.
        reason: String,
    },
}

/// Why a runner returned without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to drain and nothing runs any more.
    Drained,
    /// It was told to abort and everything is handed in.
    Aborted,
    /// A one-off runner did its attempt.
    OneOff {
        /// Which one.
        attempt: AttemptId,
    },
}

/// Why a runner could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `run_as`.
    #[error(transparent)]
    RunAs(#[from] RunAsError),
    /// The certificates.
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
    /// There is no token yet.
    #[error("there is no runner token at {path}: register this runner first with `forge runner register --config ...`")]
    NotRegistered {
        /// Where the token would lie.
        path: std::path::PathBuf,
    },
    /// A file that the runner needs.
    #[error("{what} at {path}: {reason}")]
    File {
        /// What it is.
        what: &'static str,
        /// Where it is.
        path: std::path::PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Another runner works in the same folder.
    #[error("another runner works in {path}: give each runner a tmp_path of its own, or stop the other one")]
    InUse {
        /// The folder.
        path: std::path::PathBuf,
    },
    /// The token is not valid any more.
    #[error(
        "the daemon does not know this runner's token ({detail}): register it again with `forge runner register --config ...`"
    )]
    Unauthorized {
        /// The daemon's words.
        detail: String,
    },
    /// Another live runner uses this name, or the daemon refuses this runner for good.
    #[error("{detail}{}", hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused {
        /// The daemon's words.
        detail: String,
        /// What the daemon says to do.
        hint: Option<String>,
    },
}

/// Works until told to stop, or until it cannot go on. `observer` hears what a person at a terminal wants to know.
pub async fn run(
    settings: Settings,
    shutdown: Shutdown,
    observer: impl Fn(Event) + Send + Sync + 'static,
) -> Result<Ended, RunError> {
    link::run(settings, shutdown, std::sync::Arc::new(observer)).await
}

/// Makes this runner known to the daemon: makes the key pair when there is none, sends the public key, stores the token that
/// comes back and pins the daemon's signing key. Doing it again keeps the key pair.
pub async fn register(settings: &Settings, token: Secret) -> Result<Registered, RegisterError> {
    registration::register(settings, token).await
}

/// Ends this runner's registration with the daemon, then removes the token file.
pub async fn unregister(settings: &Settings) -> Result<(), UnregisterError> {
    registration::unregister(settings).await
}

/// The main function of the launcher, the process that a runner starts with the other end of a socket as standard input, and
/// of the supervisors that are forked from it: each sees one attempt to its end. Call it before any thread is started that does
/// more than wait: a fork takes no other thread along, and would keep what such a one had locked.
pub fn supervise() -> ExitCode {
    launcher::main()
}
