//! All that crosses Forge's HTTPS API, versioned: paths, requests, answers, problems and the shapes that tools rely on.
//!
//! This crate depends on no other crate of Forge. It holds data and says what it means; it never opens a socket, reads a
//! clock or a file. A change here that an older runner or client would not understand needs a new version of the API;
//! what older ones say is kept in `testdata/wire`, and read by a test for ever.

mod attempt;
mod audit;
mod config;
mod events;
mod id;
mod integration;
mod job;
mod log_lines;
mod plugin;
mod problem;
mod revision;
mod runner;
mod schedule;
mod secret;
mod served;
mod signing;
mod stats;
mod task;
mod time;
mod token;
mod version;
mod webhook;

pub use attempt::{
    Attempt, AttemptOutcome, AttemptResult, Carry, ContentRange, ContentRangeError, LogAccepted, LogState,
    ResultAccepted, StartRequest, StartResponse,
};
pub use audit::{AuditAction, AuditActionError, AuditActor, AuditEntry, AuditResult};
pub use config::{ApplyConfig, ConfigCommit, ConfigFailure, ConfigStatus, Diagnostic, Severity};
pub use events::{ConfigNews, LAST_EVENT_ID_HEADER, RunnerRemoved};
pub use id::{AttemptId, AttemptIdError};
pub use integration::{IntegrationAnswer, IntegrationOutcome, IntegrationRequest};
pub use job::{
    Grants, Inventory, InventorySource, Job, JobKey, KeyMaterial, Limits, OnRunnerLost, PluginRef, Repository,
    SIGNED_JOB_CONTEXT, SealedJob,
};
pub use log_lines::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LogLine, LogLines, LogMatch, LogMatches, LogSegment};
pub use plugin::{PluginAccess, PluginRole, PluginSummary};
pub use problem::{PROBLEM_MEDIA_TYPE, Problem};
pub use revision::{ConfigChange, ConfigChangeKind, ConfigFieldChange, ConfigRevision, RevisionState};
pub use runner::{
    ClaimRequest, ClaimResponse, Health, HeartbeatRequest, HeartbeatResponse, RefusedJob, RegisterRequest,
    RegisterResponse, Runner, RunnerStatus,
};
pub use schedule::{Firing, Schedule};
pub use secret::Secret;
pub use served::ServedConfig;
pub use signing::KeyChange;
pub use stats::{Load, LoadSample, TaskOutcome, TemplateStats};
pub use task::{
    Approved, CreateTask, CreatedTask, Decision, Page, ProjectSummary, RetryTask, SurveyQuestion, Task, TaskState,
    TaskStateError, TemplateSummary, Trigger, TriggerKind, UnmetReason, Why,
};
pub use time::{Timestamp, TimestampError};
pub use token::{RevokeToken, RevokedToken};
pub use version::{Version, VersionError};
pub use webhook::{DeliveryState, DeliveryStateError, TestWebhook, WebhookDelivery, WebhookExchange, WebhookTarget};

/// The path under which every route of this version stands.
pub const API_PREFIX: &str = "/api/v1";

/// The longest that a claim may be parked, in milliseconds.
pub const CLAIM_WAIT_MS_MAX: u64 = 30_000;

/// A claim's answer that arrives later than this after it was sent is dropped by the runner, in milliseconds.
pub const CLAIM_ANSWER_AGE_MS_MAX: u64 = 45_000;

/// The most jobs that one claim refuses; a runner says the rest with its next.
pub const REFUSED_JOBS_MAX: usize = 64;

/// The most bytes of the reason for which a runner refuses a job.
pub const REFUSED_REASON_BYTES_MAX: usize = 1024;

/// How often a runner with work renews its leases, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 5_000;

/// Without contact for this long a runner is `offline`, in milliseconds.
pub const RUNNER_OFFLINE_AFTER_MS: u64 = 30_000;

/// The most bytes that one log patch carries.
pub const LOG_CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of any JSON body that this API accepts.
pub const JSON_BODY_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of a plugin component that a daemon serves and a runner takes.
pub const PLUGIN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most bytes of the files that an attempt carries over an approval, before they are encrypted.
pub const CARRY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What encrypting and packing may add to them.
pub const CARRY_OVERHEAD_BYTES_MAX: usize = 1024 * 1024;

/// The slug of the problem that a result is answered with when what it carries is not there.
pub const CARRY_MISSING: &str = "carry-missing";

/// The slug of the problem that a runner is answered with while another session of it is at work.
pub const SESSION_CLASH: &str = "session-clash";

/// The slug of the problem that a piece of a log is answered with when the daemon holds other bytes there.
pub const LOG_DIFFERS: &str = "log-differs";

/// The most bytes of the reason of a result.
pub const RESULT_REASON_BYTES_MAX: usize = 64 * 1024;

/// The most bytes of the summary of a result, as JSON.
pub const RESULT_SUMMARY_BYTES_MAX: usize = 512 * 1024;

/// The most files that an attempt carries over an approval.
pub const CARRY_FILES_MAX: usize = 256;

/// The most bytes of a reason that a person gives for a decision.
pub const DECISION_REASON_BYTES_MAX: usize = 1024;

/// The slug of the problem that a request is answered with when its token has asked too much; nothing of it was done.
pub const RATE_LIMITED: &str = "rate-limited";

/// The header that carries the length of the log that the daemon holds, on every answer about a log.
pub const LOG_LENGTH_HEADER: &str = "forge-log-length";

/// The header under which a repeated creation of a task is recognised.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
