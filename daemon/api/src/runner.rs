//! A runner as the API shows it, and what runners send: registration, claims and heartbeats.
//!
//! Runner and daemon may be of different versions. What one does not know it passes over, and what it misses is the default, so a
//! new field of any of these has `#[serde(default)]`; `testdata/wire` holds what each version said.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, KeyChange, SealedJob, Timestamp};

/// How a runner stands with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunnerStatus {
    /// In contact within the last 30 s.
    Online,
    /// Out of contact for longer.
    Offline,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// `enabled = false` in its file.
    Disabled,
    /// Declared or registered, and never in contact.
    NeverConnected,
}

impl RunnerStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Online, Self::Offline, Self::Draining, Self::Disabled, Self::NeverConnected];

    /// The status's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::NeverConnected => "never_connected",
        }
    }
}

/// What a runner measures of its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The load average of the last minute.
    pub load1: f64,
    /// Memory that is available, in bytes.
    pub memory_bytes_free: u64,
    /// Space left where workspaces and spool lie, in bytes.
    pub disk_bytes_free: u64,
    /// How far the runner's clock is ahead of the daemon's, in milliseconds; negative behind. The daemon measures it as a request comes in,
    /// so that it holds the request's way, too. Null until then.
    #[serde(default)]
    pub clock_skew_ms: Option<i64>,
}

/// A runner, as `GET /runners` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Runner {
    /// Its name.
    pub name: String,
    /// The project that it belongs to; null for a global one.
    pub project: Option<String>,
    /// Its tags, from its file or from the token that registered it.
    pub tags: Vec<String>,
    /// How it stands.
    pub status: RunnerStatus,
    /// How many attempts it holds.
    pub running: u32,
    /// The most tasks at a time, the smaller of its file's and its own; 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// The runner program's version; empty before its first contact.
    pub version: String,
    /// When it was last heard of.
    pub last_contact_at: Option<Timestamp>,
    /// What it last measured.
    pub health: Option<Health>,
    /// Its public key (an age recipient); null before it registered.
    pub public_key: Option<String>,
}

/// What `POST /runners` takes; the bearer is the registration token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegisterRequest {
    /// The runner's name.
    pub name: String,
    /// Its public key, an age recipient (`age1...`): jobs and the new token are sealed to it.
    pub public_key: String,
    /// The runner program's version.
    #[serde(default)]
    pub version: String,
    /// Its own limit; 0 is unlimited.
    #[serde(default)]
    pub max_parallel_tasks: u32,
    /// Whether it takes one task and leaves.
    #[serde(default)]
    pub one_off: bool,
    /// The daemon's signing key that it has pinned, as [`RegisterResponse::signing_key`] says it; empty when it has none.
    #[serde(default)]
    pub signing_key: String,
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegisterResponse {
    /// The runner's name.
    pub name: String,
    /// The new token, sealed with age to the runner's public key, in base64.
    pub sealed_token: String,
    /// The daemon's public Ed25519 key in base64: jobs are signed with it, and the runner pins it.
    pub signing_key: String,
    /// The project that it belongs to; null for a global runner.
    pub project: Option<String>,
    /// The tags that it was given.
    pub tags: Vec<String>,
    /// From the key that the runner has pinned to `signing_key`; empty when they are the same, or when no way leads from one to the other.
    #[serde(default)]
    pub key_changes: Vec<KeyChange>,
    /// What keeps it from taking work for now, in words; absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<String>,
}

/// What `POST /runner/claim` takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimRequest {
    /// Random, made anew at every start of the runner: one live session a runner.
    pub session: String,
    /// The sessions of the runner processes before this one on the same machine, proving that this is no clone.
    #[serde(default)]
    pub previous_sessions: Vec<String>,
    /// How long to wait for a task, in milliseconds; at most [`crate::CLAIM_WAIT_MS_MAX`].
    pub wait_ms: u64,
    /// How many tasks it takes at most, beside what it runs, as far as its limit leaves room; 0 waits for cancels only.
    pub slots: u32,
    /// Its own limit; 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// The attempts that it holds: one that was assigned and is not here is delivered again.
    pub held: Vec<AttemptId>,
    /// The runner program's version.
    pub version: String,
    /// What it measures.
    #[serde(default)]
    pub health: Option<Health>,
    /// The moment of sending, by the runner's clock.
    #[serde(default)]
    pub sent_at: Option<Timestamp>,
    /// The daemon's signing key that it has pinned: an answer says how today's follows from it.
    #[serde(default)]
    pub signing_key: String,
    /// Jobs that were delivered and that it does not begin: their attempts end. At most [`crate::REFUSED_JOBS_MAX`] at a time.
    #[serde(default)]
    pub refused: Vec<RefusedJob>,
    /// Whether it does the plan of a job that says so ([`crate::Job::resume`]): only such a runner is given one.
    #[serde(default)]
    pub resumes: bool,
}

/// A job that its runner does not begin, such as one that the daemon's pinned key did not sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedJob {
    /// The attempt that the job was delivered for.
    pub attempt: AttemptId,
    /// Why, in words; at most [`crate::REFUSED_REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// The answer to a claim. Both lists may be empty when the wait ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimResponse {
    /// Attempts to run, each sealed to this runner.
    pub jobs: Vec<SealedJob>,
    /// Attempts to end: someone canceled their tasks.
    pub cancels: Vec<AttemptId>,
    /// Attempts that are no longer this runner's: end what still runs and hand in the rest of the log.
    pub lost: Vec<AttemptId>,
    /// True while the daemon or an operator wants it to take nothing new.
    #[serde(default)]
    pub draining: bool,
    /// The daemon program's version.
    #[serde(default)]
    pub daemon_version: String,
    /// True for a one-off runner whose one task has ended: it leaves.
    #[serde(default)]
    pub over: bool,
    /// From the key that the runner has pinned to the one that signed `jobs`; empty when they are the same, or when no way leads from one
    /// to the other.
    #[serde(default)]
    pub key_changes: Vec<KeyChange>,
}

/// What `POST /runner/heartbeat` takes: it renews the lease of every attempt held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatRequest {
    /// As in [`ClaimRequest`].
    pub session: String,
    /// As in [`ClaimRequest`]: a restarted runner that holds attempts may renew them before its first claim.
    #[serde(default)]
    pub previous_sessions: Vec<String>,
    /// The attempts that it holds.
    pub held: Vec<AttemptId>,
    /// The runner program's version.
    #[serde(default)]
    pub version: String,
    /// What it measures.
    #[serde(default)]
    pub health: Option<Health>,
    /// The moment of sending, by the runner's clock.
    #[serde(default)]
    pub sent_at: Option<Timestamp>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatResponse {
    /// Attempts to end: someone canceled their tasks.
    pub cancels: Vec<AttemptId>,
    /// Attempts that are no longer this runner's.
    pub lost: Vec<AttemptId>,
}

impl RegisterResponse {
    /// The sealed token as bytes; `None` when it is no base64.
    pub fn sealed_token_bytes(&self) -> Option<Vec<u8>> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(&self.sealed_token).ok()
    }
}
