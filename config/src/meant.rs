//! What Forge reads: the tree with defaults applied and references resolved to names that exist.
//!
//! Nothing here has a span or an option that stands for "not written": no default is decided twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::name::{Digest, Name};
use crate::secret::SecretValue;

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

/// What follows when a task's runner is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRunnerLost {
    /// The task ends as `lost`.
    Fail,
    /// It is queued again.
    Retry,
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
    /// Its `[config]`.
    pub config: Map<String, Value>,
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
    /// Starts, cancels and retries tasks.
    Operator,
    /// Approves tasks.
    Owner,
    /// Also manages runners and configuration.
    Admin,
}
