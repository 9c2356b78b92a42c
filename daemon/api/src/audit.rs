//! Who did what: rows of the audit log, as people see them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Timestamp;

/// What kind of actor did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditActor {
    /// A holder of an access token.
    Access,
    /// A person who is signed in to the dashboard.
    Session,
    /// A runner, with its own token.
    Runner,
    /// A holder of a registration token.
    Registration,
    /// A schedule of the tree.
    Schedule,
    /// An integration of the tree.
    Integration,
    /// Somebody on the daemon's own host, without a token.
    Host,
    /// The daemon itself.
    Forge,
}

impl AuditActor {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Session => "session",
            Self::Runner => "runner",
            Self::Registration => "registration",
            Self::Schedule => "schedule",
            Self::Integration => "integration",
            Self::Host => "host",
            Self::Forge => "forge",
        }
    }
}

/// Declares the actions and their names.
macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What was done, or tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum AuditAction {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl AuditAction {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

actions! {
    /// A task was made.
    TaskCreate = "task.create",
    /// A task's end was asked for.
    TaskCancel = "task.cancel",
    /// A task was queued again.
    TaskRetry = "task.retry",
    /// A plan was approved.
    TaskApprove = "task.approve",
    /// A plan was rejected.
    TaskReject = "task.reject",
    /// A runner registered, or registered again.
    RunnerRegister = "runner.register",
    /// A runner ended its registration.
    RunnerUnregister = "runner.unregister",
    /// A runner was removed.
    RunnerRemove = "runner.remove",
    /// A runner was drained.
    RunnerDrain = "runner.drain",
    /// A runner was given work again.
    RunnerResume = "runner.resume",
    /// A token was revoked.
    TokenRevoke = "token.revoke",
    /// An admin had the configuration looked at, and let something pass a guard where the detail says so.
    ConfigApply = "config.apply",
    /// A revision began to serve.
    ConfigApplied = "config.applied",
    /// A revision was refused, or could not be had.
    ConfigFailed = "config.failed",
    /// A delivery was sent once more.
    WebhookRedeliver = "webhook.redeliver",
    /// A webhook target was told of an event that was made up.
    WebhookTest = "webhook.test",
    /// Somebody signed in to the dashboard.
    SessionBegin = "session.begin",
    /// Somebody signed out.
    SessionEnd = "session.end",
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no action {text:?}; the actions are {}", known())]
pub struct AuditActionError {
    text: String,
}

fn known() -> String {
    AuditAction::ALL.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(", ")
}

impl FromStr for AuditAction {
    type Err = AuditActionError;

    fn from_str(text: &str) -> Result<Self, AuditActionError> {
        let found = Self::ALL.iter().copied().find(|action| action.as_str() == text);
        found.ok_or_else(|| AuditActionError { text: text.to_owned() })
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// It was done.
    Ok,
    /// It was not: who asked may not, or it does not go with how things stand.
    Refused,
    /// It was not, by the daemon's own fault or what it needs.
    Failed,
}

impl AuditResult {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One row of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Its number; a later row has a higher one.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What kind of actor.
    pub actor_kind: AuditActor,
    /// The actor's name: an access token's, a runner's, a schedule's. Empty where nobody proved who they are.
    pub actor: String,
    /// The address that the request came from, where there was one.
    pub remote: Option<String>,
    /// What was done, or tried.
    pub action: AuditAction,
    /// The project that it is about; null for what belongs to none.
    pub project: Option<String>,
    /// What it was done to, such as `task 7` or `runner ny-1`.
    pub object: String,
    /// How it ended.
    pub result: AuditResult,
    /// The kind of the problem, where it was not done.
    pub problem: Option<String>,
    /// What else is known of it. It holds no secret.
    pub detail: Option<Value>,
}
