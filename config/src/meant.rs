//! What Forge reads: the tree with defaults applied and references resolved to names that exist.
//!
//! Nothing here has a span or an option that stands for "not written": no default is decided twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::json_path::JsonPath;
use crate::name::{Digest, Name};
use crate::secret::SecretValue;

/// How long a plan may wait for a person's word where the template does not say, in milliseconds.
pub const APPROVAL_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1_000;

/// A whole tree that passed every check.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The age recipients to which values of this tree are encrypted: `secrets.toml`.
    pub recipients: Vec<String>,
    /// Projects by name.
    pub projects: BTreeMap<Name, Arc<Project>>,
    /// Declared runners by name.
    pub runners: BTreeMap<Name, RunnerRule>,
    /// Registration tokens by name.
    pub registration_tokens: BTreeMap<Name, RegistrationToken>,
    /// Plugins by name.
    pub plugins: BTreeMap<Name, Arc<Plugin>>,
    /// Webhook targets by name.
    pub webhooks: BTreeMap<Name, Webhook>,
    /// Access tokens by name.
    pub access: BTreeMap<Name, AccessToken>,
}

/// A project and what belongs to it.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name.
    pub name: Name,
    /// For people; may be empty.
    pub description: String,
    /// Whether global runners take its tasks.
    pub global_runners: bool,
    /// How many of its tasks run at a time; 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// How much history each template keeps.
    pub retention: Retention,
    /// Templates by name.
    pub templates: BTreeMap<Name, Arc<Template>>,
    /// Inventories by name.
    pub inventories: BTreeMap<Name, Inventory>,
    /// Environments by name.
    pub environments: BTreeMap<Name, Environment>,
    /// Repositories by name.
    pub repositories: BTreeMap<Name, Repository>,
    /// Keys by name.
    pub keys: BTreeMap<Name, Key>,
    /// Schedules by name.
    pub schedules: BTreeMap<Name, Schedule>,
    /// Integrations by name.
    pub integrations: BTreeMap<Name, Integration>,
    /// Targets that are told of every task; they stand in [`Tree::webhooks`].
    pub webhooks: Vec<Name>,
}

/// How much history a template keeps: what is beyond either goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many finished tasks; 0 is unlimited.
    pub tasks: u32,
    /// Finished tasks younger than this, in milliseconds; 0 is unlimited.
    pub age_ms: u64,
}

/// A template: what a task is made from.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its name.
    pub name: Name,
    /// For people; may be empty.
    pub description: String,
    /// The plugin's name; it stands in [`Tree::plugins`] and is an executor.
    pub executor: Name,
    /// The repository's name; it stands in [`Project::repositories`].
    pub repository: Option<Name>,
    /// The branch to check out: the template's, else the repository's, else the remote's own default (`None`).
    pub branch: Option<String>,
    /// The inventory's name; it stands in [`Project::inventories`].
    pub inventory: Option<Name>,
    /// The environment's name; it stands in [`Project::environments`].
    pub environment: Option<Name>,
    /// Names of keys by the id of the vault that they open; they stand in [`Project::keys`].
    pub vault_keys: BTreeMap<String, Name>,
    /// The tag that a runner must have: the template's, else the inventory's, else the project's.
    pub required_tag: Option<String>,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long a task may wait for a runner, in milliseconds.
    pub queue_timeout_ms: u64,
    /// How long a plan of a task may wait for a person's word, in milliseconds.
    pub approval_timeout_ms: u64,
    /// What a task does while another of the same template is open.
    pub concurrency: Concurrency,
    /// What follows when its runner is gone.
    pub on_runner_lost: OnRunnerLost,
    /// How long its runner may be unreachable, in milliseconds.
    pub runner_grace_ms: u64,
    /// How many further attempts a failed one gets.
    pub retry_attempts: u32,
    /// How long to wait before each, in milliseconds.
    pub retry_delay_ms: u64,
    /// -100 to 100; higher first within a project.
    pub priority: i32,
    /// Whether a trigger may append arguments.
    pub allow_arguments: bool,
    /// What the executor is told, checked against its schema.
    pub params: Map<String, Value>,
    /// What a trigger asks for, by variable name.
    pub survey: BTreeMap<String, Question>,
    /// Targets that are told of its tasks, in addition to the project's and the runner's; they stand in [`Tree::webhooks`].
    pub webhooks: Vec<Name>,
}

/// What a task does while another of the same template is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// Waits for its turn.
    Queue,
    /// Runs beside it.
    Parallel,
    /// Ends as `skipped`.
    Skip,
    /// Cancels the other.
    Replace,
}

impl Concurrency {
    /// Its name in a template.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Parallel => "parallel",
            Self::Skip => "skip",
            Self::Replace => "replace",
        }
    }
}

/// What follows when a task's runner is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRunnerLost {
    /// The task ends as `lost`.
    Fail,
    /// It is queued again.
    Retry,
}

impl OnRunnerLost {
    /// Its name in a template.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Retry => "retry",
        }
    }
}

/// One question of a survey.
#[derive(Clone, Debug)]
pub struct Question {
    /// What an answer must be.
    pub kind: QuestionKind,
    /// What to ask; may be empty.
    pub description: String,
    /// Whether an answer is needed.
    pub required: bool,
    /// The answer when none is given; it passed the same checks as an answer. Never set for a secret.
    pub default: Option<Value>,
}

/// What an answer must be.
#[derive(Clone, Debug)]
pub enum QuestionKind {
    /// Any text, or what the pattern matches.
    String {
        /// An anchored-as-written regular expression.
        pattern: Option<regex::Regex>,
    },
    /// A whole number within both bounds.
    Integer {
        /// The least.
        min: Option<i64>,
        /// The most.
        max: Option<i64>,
    },
    /// A number within both bounds.
    Number {
        /// The least.
        min: Option<f64>,
        /// The most.
        max: Option<f64>,
    },
    /// True or false.
    Boolean,
    /// One of these texts.
    Choice(Vec<String>),
    /// A text that is never shown or stored in clear.
    Secret,
}

/// What an executor works on.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Where it comes from.
    pub source: InventorySource,
    /// The key that opens its hosts; it stands in [`Project::keys`].
    pub ssh_key: Option<Name>,
    /// The key for becoming another user on them.
    pub become_key: Option<Name>,
}

/// Where an inventory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InventorySource {
    /// INI text.
    Static(String),
    /// YAML text.
    StaticYaml(String),
    /// A file, in the inventory's own repository or (`None`) in the template's.
    File {
        /// The repository's name.
        repository: Option<Name>,
        /// A relative path that stays inside.
        path: String,
    },
    /// The name of a workspace of Terraform or OpenTofu.
    TerraformWorkspace(String),
}

/// Variables and secrets for a job.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Extra variables.
    pub variables: Map<String, Value>,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, EnvironmentSecret>,
}

/// A secret of an environment.
#[derive(Clone, Debug)]
pub struct EnvironmentSecret {
    /// Where the job sees it.
    pub destination: SecretDestination,
    /// Where its value comes from.
    pub value: SecretValue,
}

/// Where a job sees a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretDestination {
    /// In the process's environment.
    Env,
    /// Among the variables.
    Variable,
}

/// A git repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Checked by [`crate::repository_url`]: https, ssh, file or an absolute path, never beginning with `-`.
    pub url: String,
    /// The branch; `None` is the remote's own default.
    pub branch: Option<String>,
    /// What opens it; it stands in [`Project::keys`].
    pub ssh_key: Option<Name>,
    /// Whether submodules are checked out.
    pub submodules: bool,
    /// How many commits of history; `None` is all.
    pub depth: Option<u32>,
}

/// A key.
#[derive(Clone, Debug)]
pub enum Key {
    /// A private key for ssh.
    Ssh {
        /// The user, where the key names one.
        login: Option<String>,
        /// The private key.
        private_key: SecretValue,
        /// What opens it, where it is locked.
        passphrase: Option<SecretValue>,
    },
    /// A user and a password or access token.
    LoginPassword {
        /// The user; may be empty.
        login: String,
        /// The password.
        password: SecretValue,
    },
    /// A text such as a vault password.
    String {
        /// The text.
        value: SecretValue,
    },
}

/// How long a one-off runner waits for a task where nothing else is said, in milliseconds.
pub const ONE_OFF_WAIT_MS: u64 = 600_000;

/// What a runner of a name may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerRule {
    /// Its tags.
    pub tags: Vec<String>,
    /// The project that it belongs to; `None` is a global runner.
    pub project: Option<Name>,
    /// 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// Whether it takes tasks without a tag.
    pub run_untagged: bool,
    /// Whether it takes tasks at all.
    pub enabled: bool,
    /// The only registration token that may register it; it stands in [`Tree::registration_tokens`].
    pub registration_token: Option<Name>,
    /// Targets that are told of tasks that wait for it, and of its idleness; they stand in [`Tree::webhooks`].
    pub webhooks: Vec<Name>,
    /// How long a one-off runner of this name waits for a task, in milliseconds; 0 is for ever.
    pub one_off_wait_ms: u64,
}

/// A token that registers runners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationToken {
    /// The token's SHA-256.
    pub hash: Digest,
    /// The project of runners without a file.
    pub project: Option<Name>,
    /// The tags of runners without a file.
    pub tags: Vec<String>,
    /// The limit of runners without a file; 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// Refused from this moment on: microseconds since the Unix epoch.
    pub expires_unix_micros: Option<i64>,
    /// How many registrations it is good for; `None` is any number.
    pub uses: Option<u32>,
    /// The only runner that it registers.
    pub runner: Option<Name>,
}

/// A plugin and what it may do.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name.
    pub name: Name,
    /// Where the component comes from.
    pub source: PluginSource,
    /// SHA-256 of the component.
    pub sha256: Digest,
    /// What it is, as it says itself.
    pub kind: PluginKind,
    /// Programs by bare name.
    pub programs: Vec<String>,
    /// Hosts for webhook targets.
    pub hosts: Vec<String>,
    /// Variables of the runner's own environment.
    pub env: Vec<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Its own computing, in milliseconds.
    pub time_ms: u64,
    /// Its `[config]`, with `{{secret:field}}` in the place of each secret.
    pub config: Map<String, Value>,
    /// The secrets of its `[config]`, by field.
    pub config_secrets: BTreeMap<String, SecretValue>,
}

/// Where a plugin's component comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginSource {
    /// Built into this binary, by name.
    Builtin(String),
    /// A file of the tree, by its path relative to the root.
    File(String),
}

/// What a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginKind {
    /// Runs jobs, on the runner.
    Executor,
    /// Plans webhook requests, in the daemon.
    WebhookTarget,
}

/// What an access token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The token's SHA-256.
    pub hash: Digest,
    /// Its role.
    pub role: Role,
    /// The projects that it reaches; `None` is all of them.
    pub projects: Option<Vec<Name>>,
    /// Refused from this moment on: microseconds since the Unix epoch.
    pub expires_unix_micros: Option<i64>,
}

/// How far an access token reaches. Later ones may all that earlier ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Starts, cancels, retries, approves and rejects tasks.
    Operator,
    /// Also changes the runners of its projects and reads what was done in them.
    Owner,
    /// Also manages what belongs to no project: global runners, webhooks, tokens, the configuration.
    Admin,
}

/// Starts a template's tasks at certain times.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The template; it stands in [`Project::templates`].
    pub template: Name,
    /// Five fields that were checked, one space between each: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// The IANA name of a zone that exists.
    pub timezone: String,
    /// Answers to the template's survey that passed its checks; defaults are not among them.
    pub answers: Map<String, Value>,
    /// Whether it fires.
    pub enabled: bool,
    /// What a firing does while a task of this schedule is open.
    pub overlap: Overlap,
}

/// What a firing does while a task of the same schedule is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Starts nothing.
    Skip,
    /// Starts a task that follows the template's `concurrency`.
    Queue,
}

impl Overlap {
    /// Its name in a schedule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
        }
    }
}

/// A program elsewhere that starts a template's tasks.
#[derive(Clone, Debug)]
pub struct Integration {
    /// The template; it stands in [`Project::templates`].
    pub template: Name,
    /// How the sender proves itself.
    pub auth: IntegrationAuth,
    /// What a request must hold: all of them.
    pub matches: Vec<Match>,
    /// Answers to the template's survey, by question.
    pub extract: BTreeMap<String, Extract>,
}

/// How a sender proves itself, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntegrationAuth {
    /// `X-Hub-Signature-256`.
    Github(SecretValue),
    /// HMAC-SHA256 of the body.
    Hmac(SecretValue),
    /// The secret itself.
    Token(SecretValue),
    /// Not at all: anyone may send.
    None,
}

/// Which part of a request is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestPart {
    /// A header, by its lower-case name.
    Header(String),
    /// A part of the JSON body.
    Json(JsonPath),
}

/// What a request must hold.
#[derive(Clone, Debug)]
pub struct Match {
    /// Where.
    pub part: RequestPart,
    /// What.
    pub test: MatchTest,
}

/// What a part of a request must be.
#[derive(Clone, Debug)]
pub enum MatchTest {
    /// This text.
    Equals(String),
    /// What the expression matches.
    Pattern(regex::Regex),
}

/// Where an answer is found.
#[derive(Clone, Debug)]
pub struct Extract {
    /// Where.
    pub part: RequestPart,
    /// Its first group, or the whole match, is the answer; `None` takes the whole text.
    pub pattern: Option<regex::Regex>,
}

impl Extract {
    /// The answer in the text that stands there; `None` where the pattern does not match.
    pub fn answer(&self, text: &str) -> Option<String> {
        let Some(pattern) = &self.pattern else { return Some(text.to_owned()) };
        let captures = pattern.captures(text)?;
        captures.get(1).or_else(|| captures.get(0)).map(|found| found.as_str().to_owned())
    }
}

/// Who is told of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The plugin's name; it stands in [`Tree::plugins`] and is a webhook target.
    pub plugin: Name,
    /// What it is told of, each once.
    pub events: Vec<Event>,
    /// Which ends of tasks it is told of.
    pub on: On,
    /// How long a task that it was told of goes on waiting until it is told again, in milliseconds.
    pub waiting_again_ms: u64,
    /// Its `[config]`, with `{{secret:field}}` in the place of each secret.
    pub config: Map<String, Value>,
    /// The secrets of its `[config]`, by field.
    pub config_secrets: BTreeMap<String, SecretValue>,
    /// What deliveries are signed with.
    pub secret: Option<SecretValue>,
    /// How many further attempts a delivery gets.
    pub retry_attempts: u32,
    /// How long to wait before the first, in milliseconds.
    pub retry_delay_ms: u64,
}

/// Which ends of tasks a target is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Every one.
    Always,
    /// Those that failed, timed out, were lost or expired.
    Failure,
}

impl On {
    /// Its name in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Failure => "failure",
        }
    }
}

/// What a webhook target may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A task was made.
    TaskQueued,
    /// A task waits, and no runner that could take it is online.
    TaskWaiting,
    /// A task's process runs.
    TaskStarted,
    /// A task has planned, and waits for a person.
    TaskAwaitingApproval,
    /// A task reached its final state.
    TaskFinished,
    /// A runner came.
    RunnerOnline,
    /// A runner is gone.
    RunnerOffline,
    /// A runner's last task ended.
    RunnerIdle,
    /// A revision serves.
    ConfigApplied,
    /// A revision was refused.
    ConfigFailed,
}

impl Event {
    /// Every event, in the order in which a reference lists them.
    pub const ALL: &[Self] = &[
        Self::TaskQueued,
        Self::TaskWaiting,
        Self::TaskStarted,
        Self::TaskAwaitingApproval,
        Self::TaskFinished,
        Self::RunnerOnline,
        Self::RunnerOffline,
        Self::RunnerIdle,
        Self::ConfigApplied,
        Self::ConfigFailed,
    ];

    /// Its name in a file and in a delivery.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskQueued => "task.queued",
            Self::TaskWaiting => "task.waiting",
            Self::TaskStarted => "task.started",
            Self::TaskAwaitingApproval => "task.awaiting_approval",
            Self::TaskFinished => "task.finished",
            Self::RunnerOnline => "runner.online",
            Self::RunnerOffline => "runner.offline",
            Self::RunnerIdle => "runner.idle",
            Self::ConfigApplied => "config.applied",
            Self::ConfigFailed => "config.failed",
        }
    }
}
