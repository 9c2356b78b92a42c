//! The words of the contract as Rust types: what the runner and the daemon see of it. They hold data and decide nothing.

use std::path::PathBuf;

use serde_json::Value;

use crate::Limits;

/// What a component is, by what it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs jobs, on a runner.
    Executor,
    /// Plans webhook requests, in the daemon.
    WebhookTarget,
}

/// What a plugin says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// JSON Schema of a template's `[params]`, or of a webhook target's `[config]`.
    pub params_schema: Option<Value>,
    /// JSON Schema of its `[config]`.
    pub config_schema: Option<Value>,
    /// What it asks for; only the operator's TOML grants it.
    pub wants: Vec<Capability>,
}

/// What a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Programs to run, by bare name.
    Process(Vec<String>),
    /// Variables of the runner's own environment that its processes see.
    Env(Vec<String>),
    /// Hosts that a webhook target's requests go to.
    Http(Vec<String>),
}

/// One call of an executor.
#[derive(Clone, Debug)]
pub struct ExecuteRequest {
    /// What to do.
    pub job: Job,
    /// The attempt's folder, absolute: what the guest sees of the file system.
    pub workspace: PathBuf,
    /// What the operator allows.
    pub grants: Grants,
    /// How much it may use.
    pub limits: Limits,
    /// Whom the workspace belongs to, when that is not this process's user: its files are touched as this one.
    pub file_user: Option<FileUser>,
}

/// A user, as files know one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileUser {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

/// What `plugins/NAME.toml` allows. Nothing else is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The plugin's name in the tree: messages point to `plugins/NAME.toml`.
    pub plugin_name: String,
    /// Programs by bare name.
    pub programs: Vec<String>,
}

/// What the guest is told of the job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// The task's number, as people see it.
    pub id: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// The project's name.
    pub project: String,
    /// The template's name.
    pub template: String,
    /// The template's `[params]`.
    pub params: Value,
    /// The plugin's `[config]`.
    pub config: Value,
    /// Variables that are not secret.
    pub variables: serde_json::Map<String, Value>,
    /// The path of a 0600 file with all variables.
    pub variables_file: String,
    /// The path of the inventory.
    pub inventory: Option<String>,
    /// The checkout, relative to the workspace.
    pub checkout: Option<String>,
    /// Paths of 0600 key files, by role.
    pub key_files: Vec<(String, String)>,
    /// The path of a folder that stays between attempts of this project and plugin.
    pub cache: Option<String>,
    /// What the trigger appended.
    pub arguments: Vec<String>,
    /// How long the attempt may still take, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Whether a person approved what an earlier attempt left pending.
    pub resume: bool,
}

/// How an executor ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// The work is done.
    Finished(Outcome),
    /// The work waits for a person's word.
    Pending {
        /// What was planned.
        outcome: Outcome,
        /// Workspace files that the attempt which follows gets back.
        carry: Vec<String>,
    },
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// One line for people.
    pub summary: String,
    /// For machines.
    pub output: Option<Value>,
    /// Of the process that did the work.
    pub exit_code: Option<i32>,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the plugin's author, in detail.
    Trace,
    /// For the plugin's author.
    Debug,
    /// For everyone.
    Info,
    /// Something is off.
    Warn,
    /// Something failed.
    Error,
}

/// A command that the host has checked: granted, bounded, inside the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// A bare name, to be found on the runner's PATH.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What the guest adds to the task's environment. No name in it is one of the host's.
    pub env: Vec<(String, String)>,
    /// Absolute, and inside the workspace when it was checked.
    pub cwd: PathBuf,
    /// Standard input; empty when `None`.
    pub stdin: Option<Vec<u8>>,
    /// When to end it, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Its command's `timeout_ms` passed.
    TimedOut,
}

/// A process that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How.
    pub exit: Exit,
    /// The last bytes of its output.
    pub stdout_tail: Vec<u8>,
    /// The last bytes of its errors.
    pub stderr_tail: Vec<u8>,
}

/// What a running child tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of its output.
    Stdout(Vec<u8>),
    /// Bytes of its errors.
    Stderr(Vec<u8>),
    /// The last one.
    Exited(Exit),
}

/// Why a capability did not do what the guest asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Nobody granted it.
    #[error("denied: {0}")]
    Denied(String),
    /// It is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// It makes no sense.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The task is to end.
    #[error("canceled")]
    Canceled,
    /// The system refused.
    #[error("{0}")]
    Io(String),
}

/// What the embedder does for a guest. The host has checked grants and bounds before it calls.
pub trait Services: Send {
    /// A line of the task's log, bounded.
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]);
    /// How far the work is.
    fn progress(&mut self, current: u64, total: Option<u64>, message: Option<&str>);
    /// Whether the task is to end. Asked every 10 ms while the guest computes: answer at once.
    fn canceled(&self) -> bool;
    /// Runs a process to its end, its output going to the task's log.
    ///
    /// # Errors
    /// The program is not there, the task is canceled, or the system refuses.
    fn run(&mut self, command: Command) -> Result<Finished, CapabilityError>;
    /// Starts a process whose output the guest reads. Dropping the child ends its whole process tree.
    ///
    /// # Errors
    /// As for `run`.
    fn spawn(&mut self, command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError>;
}

/// A process whose output the guest reads.
pub trait ChildProcess: Send {
    /// Waits for what comes next. After [`Event::Exited`] it answers that again.
    ///
    /// # Errors
    /// The task is canceled, or the system refuses.
    fn next(&mut self) -> Result<Event, CapabilityError>;
    /// Ends the whole process tree.
    fn kill(&mut self);
}
