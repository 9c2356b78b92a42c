//! A task as the user's side of the API shows it, and what creates one.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Timestamp;

/// Where a task stands. It only moves forward, but for a retry, which puts it back to `queued` with a new attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for an eligible runner.
    Queued,
    /// Given to a runner that has not said yet that it starts.
    Assigned,
    /// Its process may run.
    Running,
    /// Waits for a person's word, without holding a slot.
    AwaitingApproval,
    /// Ended well.
    Succeeded,
    /// Ended badly; the reason says how.
    Failed,
    /// Ended by a person, or rejected.
    Canceled,
    /// An attempt took longer than the template allows.
    TimedOut,
    /// Its runner was gone for longer than the template's `runner_grace`.
    Lost,
    /// Still unassigned at the end of `queue_timeout`.
    Expired,
    /// Not run, since the template's `concurrency` says so.
    Skipped,
}

/// The text names no state.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no task state; the states are: {states}", states = TaskState::ALL.map(TaskState::as_str).join(", "))]
pub struct TaskStateError {
    text: String,
}

impl TaskState {
    /// Every state, in the order of a task's life.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::AwaitingApproval,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::TimedOut,
        Self::Lost,
        Self::Expired,
        Self::Skipped,
    ];

    /// The state's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Expired => "expired",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nothing more will happen to the task by itself.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Assigned | Self::Running | Self::AwaitingApproval => false,
            Self::Succeeded
            | Self::Failed
            | Self::Canceled
            | Self::TimedOut
            | Self::Lost
            | Self::Expired
            | Self::Skipped => true,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = TaskStateError;

    fn from_str(text: &str) -> Result<Self, TaskStateError> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| TaskStateError { text: text.to_owned() })
    }
}

/// What made a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// A person, or a program with an access token.
    User,
    /// A schedule of the tree.
    Schedule,
    /// An inbound hook.
    Integration,
    /// `forge task retry`, or the template's `retry`.
    Retry,
}

/// Who or what made a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trigger {
    /// What made it.
    pub kind: TriggerKind,
    /// The access token's, schedule's or integration's name.
    pub by: String,
}

/// A task, as `GET /tasks/{n}` answers. Times are UTC; what has not happened yet is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// The task's number, unique in this daemon.
    pub number: u64,
    /// The project's name.
    pub project: String,
    /// The template's name.
    pub template: String,
    /// Whether the configuration that serves has no such template any more; absent where it has. Its history stays.
    #[serde(default, skip_serializing_if = "is_false")]
    pub template_removed: bool,
    /// Where it stands.
    pub state: TaskState,
    /// Why, for every end but `succeeded`; null otherwise.
    pub reason: Option<String>,
    /// The number of the newest attempt; 0 before the first.
    pub attempt: u32,
    /// The runner of the newest attempt.
    pub runner: Option<String>,
    /// The tag that its runner must have.
    pub required_tag: Option<String>,
    /// The revision of the configuration that it was created from.
    pub revision: String,
    /// Who made that revision, as `Name <address>`; absent where the tree is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_author: Option<String>,
    /// The first line of what its author said; absent where the tree is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_subject: Option<String>,
    /// The repository's commit, once the first attempt has resolved it.
    pub commit: Option<String>,
    /// The exit code of its process, where there was one.
    pub exit_code: Option<i32>,
    /// Who or what made it.
    pub trigger: Trigger,
    /// The answers to the survey that are not secret.
    pub variables: Map<String, Value>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the newest attempt was given to its runner.
    pub assigned_at: Option<Timestamp>,
    /// When the newest attempt's runner said that it starts.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How many bytes of the newest attempt's log the daemon holds.
    pub log_bytes: u64,
    /// Whether the newest attempt's log is not all that its process wrote, and never will be; absent where nothing is known to be wrong.
    #[serde(default, skip_serializing_if = "is_false")]
    pub log_damaged: bool,
    /// What the executor plugin reported; of a task that awaits approval, what it has planned.
    pub summary: Option<Value>,
    /// Who approved what the task had planned, and when; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
}

/// A person's word that a task goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approved {
    /// The access token's name.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What `POST /tasks/{n}/approve` and `/reject` take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The attempt whose plan was looked at: another one's is a conflict. Absent: the newest.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Why, in words; at most [`crate::DECISION_REASON_BYTES_MAX`] bytes. It becomes part of a rejected task's reason.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What `POST /tasks/{n}/retry` may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryTask {
    /// Whether it runs at once although its last attempt may still run: its runner was lost and has not said how that ended. Otherwise the task
    /// waits for that word, and at most until the attempt's own timeout is over. It is taken for a task that waits so, too.
    #[serde(default)]
    pub now: bool,
}

/// What an answer leaves out.
fn is_false(value: &bool) -> bool {
    !*value
}

/// What `POST /projects/{p}/templates/{t}/tasks` takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTask {
    /// Answers to the template's survey, secret ones included.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// Arguments to append, where the template has `allow_arguments`.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// The answer to a creation: the task, and whether an Idempotency-Key found it made already.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatedTask {
    /// The task.
    pub task: Task,
    /// True when an earlier request with the same key made it.
    pub replayed: bool,
}

/// One page of a listing, newest first where that makes sense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// What to hand back as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// A project, as `GET /projects` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectSummary {
    /// Its name.
    pub name: String,
    /// Its description, empty when it has none.
    pub description: String,
}

/// A template, as `GET /projects/{p}/templates` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateSummary {
    /// Its name.
    pub name: String,
    /// Its project's name.
    pub project: String,
    /// Its description, empty when it has none.
    pub description: String,
    /// The plugin that runs it.
    pub executor: String,
    /// The tag that a runner must have.
    pub required_tag: Option<String>,
    /// What a trigger asks for, by name.
    pub survey: Vec<SurveyQuestion>,
    /// Whether a trigger may append arguments.
    #[serde(default)]
    pub allow_arguments: bool,
    /// The names of the schedules that start it, those that are off included.
    #[serde(default)]
    pub schedules: Vec<String>,
}

/// One question of a template's survey.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SurveyQuestion {
    /// The variable that the answer becomes.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `choice` or `secret`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What to ask, empty when the name says it.
    pub description: String,
    /// Whether an answer is needed.
    pub required: bool,
    /// The answer when none is given.
    pub default: Option<Value>,
    /// What a `choice` allows.
    pub choices: Vec<String>,
    /// The regular expression that a string must match.
    pub pattern: Option<String>,
    /// The least that a number may be; null where there is no bound.
    #[serde(default)]
    pub min: Option<f64>,
    /// The most that a number may be; null where there is no bound.
    #[serde(default)]
    pub max: Option<f64>,
}

/// Why a task is where it is, as `GET /tasks/{n}/why` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The task's number.
    pub number: u64,
    /// Where it stands.
    pub state: TaskState,
    /// The whole answer in words.
    pub message: String,
    /// When the reconciler acts by itself; null once the task is final.
    pub deadline: Option<Timestamp>,
    /// What the reconciler does then, as in "the task expires".
    pub at_deadline: Option<String>,
    /// What would change it, in words; null once the task is final.
    #[serde(default)]
    pub remedy: Option<String>,
    /// One entry for each runner or rule that holds the task back.
    pub unmet: Vec<UnmetReason>,
}

/// One thing that holds a task back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnmetReason {
    /// A stable name: `no_runner_with_tag`, `runner_offline`, `runner_disabled`, `runner_full`, `project_limit`,
    /// `template_concurrency`, `template_awaits_approval`, `runner_draining`, `runner_not_asking`, `wrong_project`, `untagged_refused`, `cancel_pending`, `runner_unreachable`,
    /// `attempt_not_held`, `may_still_run`, `retry_delay`, `turn`, `storage_full`, `no_configuration`.
    pub code: String,
    /// The runner that it is about, where it is about one.
    pub runner: Option<String>,
    /// The same in words.
    pub message: String,
    /// What would change it, in words.
    #[serde(default)]
    pub remedy: String,
}
