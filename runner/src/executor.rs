//! Runs the executor plugin inside the supervisor, and does for it what it may ask for: log lines and processes.
//!
//! The host crate has checked grants and bounds before anything arrives here. This module adds what a guest may neither see
//! nor choose: the task's environment with its secrets, and where output goes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use forge_api::{AttemptOutcome, Carry, Job};
use forge_plugin_host::{
    Capability, CapabilityError, ChildProcess, Command, Done, ExecuteError, ExecuteRequest, Exit, Finished, Grants,
    Host, HostOptions, Level, Limits, Outcome, Plugin, Services, Ticks,
};
use serde_json::{Value, json};

use crate::bell::Bell;
use crate::child::Child;
use crate::guest::Guest;
use crate::health;
use crate::log::Log;
use crate::placeholder::Placeholders;
use crate::process::{self, Processes, Running, Scope, Start};
use crate::state::Shared;
use crate::user::JobUser;
use crate::warden::Contact;
use crate::wire::Brief;
use crate::workspace::{CHECKOUT, INSIDE, Prepared};

/// The signal that the kernel ends processes with when memory runs out.
const KILL: i32 = 9;

/// How many of a plugin's wishes are shown.
const WANTS_MAX: usize = 64;

/// What a shell makes of it.
const KILLED_CODE: i32 = 128 + KILL;

/// What to say of a process that was killed while the kernel killed for want of memory.
pub(crate) const MEMORY_RAN_OUT: &str = "memory ran out: the kernel ended processes of this machine meanwhile, most likely this one; give the runner more \
     memory, or let it run fewer tasks at a time (max_parallel_tasks)";

/// What an execution amounts to.
pub(crate) struct Verdict {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) reason: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) summary: Option<Value>,
    /// What an attempt that awaits approval leaves for the next one.
    pub(crate) carry: Option<Carry>,
    /// Whether the plugin refuses what it is asked for, and always will.
    pub(crate) no_retry: bool,
    /// How long the plugin asks to be left alone.
    pub(crate) retry_after_ms: Option<u64>,
    /// Whether the plugin was never called.
    pub(crate) nothing_ran: bool,
}

impl Verdict {
    /// A failure that no process reported.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self {
            outcome: AttemptOutcome::Failed,
            reason: Some(reason.into()),
            exit_code: None,
            summary: None,
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        }
    }

    /// A failure that came before the plugin was called.
    pub(crate) fn unbegun(reason: impl Into<String>) -> Self {
        Self { nothing_ran: true, ..Self::failed(reason) }
    }
}

/// What all of a job's processes share.
pub(crate) struct Ground {
    pub(crate) log: Arc<Log>,
    pub(crate) processes: Processes,
    pub(crate) shared: Arc<Shared>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) guest: Guest,
    pub(crate) stop_grace_ms: u64,
}

/// The plugin, loaded and not yet called.
pub(crate) struct Ready {
    host: Host,
    plugin: Plugin,
}

/// Touches what a call of the plugin will need: a forked process has its memory only once it was touched.
pub(crate) fn warm_up(host: &Host, plugin_sha256: &str) {
    // What fails here fails again where somebody hears it.
    if let Ok(Some(plugin)) = host.load_cached(plugin_sha256) {
        plugin.warm_up();
    }
}

/// Loads the job's plugin, in the launcher's `host` where there is one; the error is what the task fails with.
pub(crate) fn make_ready(brief: &Brief, host: Option<Host>) -> Result<Ready, String> {
    let plugin = &brief.job.plugin;
    let host = host
        .map_or_else(|| Host::new(host_options(&brief.plugin_cache)), Ok)
        .map_err(|error| format!("the plugin host does not start: {error}"))?;
    match host.load_cached(&plugin.sha256) {
        Ok(Some(plugin)) => Ok(Ready { host, plugin }),
        Ok(None) => Err(format!("the compiled plugin {} is gone from the runner's cache; try again", plugin.name)),
        Err(error) => Err(format!("the plugin {} cannot be loaded: {error}", plugin.name)),
    }
}

/// Runs the job's plugin to its end.
pub(crate) fn execute(
    brief: &Brief,
    ready: Result<Ready, String>,
    prepared: &Prepared,
    cache: Option<&Path>,
    ground: &Arc<Ground>,
) -> Verdict {
    let job = &brief.job;
    let plugin_name = &job.plugin.name;
    let Ready { host, plugin } = match ready {
        Ok(ready) => ready,
        Err(reason) => return Verdict::unbegun(reason),
    };
    ground.guest.is_in(&host);
    let placeholders = match Placeholders::new(&job.plugin_secrets) {
        Ok(placeholders) => placeholders,
        Err(error) => return Verdict::unbegun(format!("the plugin cannot be told of its secrets: {error}")),
    };
    let state = ground.shared.now();
    let request = ExecuteRequest {
        job: guest_job(job, placeholders.told(&job.plugin.config), prepared, cache, state.contact),
        workspace: brief.workspace.clone(),
        grants: Grants { plugin_name: plugin_name.clone(), programs: job.plugin.grants.programs.clone() },
        limits: Limits { memory_bytes: job.plugin.limits.memory_bytes, time_ms: job.plugin.limits.time_ms },
        file_user: brief.user.as_ref().map(JobUser::file_user),
    };
    for name in own_places(brief).into_keys() {
        if job.env.contains_key(&name) || job.secret_env.contains_key(&name) {
            ground.log.forge(&format!("{name} of the environment does not count: each attempt has one of its own"));
        }
    }
    let services = JobServices {
        ground: Arc::clone(ground),
        environment: environment(brief, prepared),
        user: brief.user.clone(),
        plugin_name: plugin_name.clone(),
        placeholders,
    };
    ground.guest.computes(&ground.bell);
    let ended = plugin.execute(request, Box::new(services));
    ground.guest.pauses();
    let verdict = judge(brief, ended);
    if matches!(verdict.outcome, AttemptOutcome::Failed | AttemptOutcome::Retry) {
        ground.guest.computes(&ground.bell);
        let described = plugin.describe();
        ground.guest.pauses();
        // One that cannot say what it wants has failed for another reason.
        let wants = described.map(|info| info.wants).unwrap_or_default();
        if let Some(words) = lacking_env(plugin_name, &wants, &job.plugin.grants.env) {
            ground.log.forge(&words);
        }
    }
    name_cause(verdict, ground.shared.now().memory_ran_out)
}

/// What to say of the variables that a plugin asks for and nobody granted, where its work failed: no program says that it misses one. A list
/// that lacks some may be meant so, hence nothing is said of work that ended well.
fn lacking_env(plugin_name: &str, wants: &[Capability], granted: &[String]) -> Option<String> {
    let wanted = wants.iter().filter_map(|want| match want {
        Capability::Env(names) => Some(names),
        Capability::Process(_) | Capability::Http(_) => None,
    });
    let lacking: Vec<&str> =
        wanted.flatten().filter(|name| !granted.contains(name)).take(WANTS_MAX).map(String::as_str).collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "{plugin_name} asks for variables of the runner's environment that are not in [allow].env of plugins/{plugin_name}.toml: {}; \
             its programs ran without them: if one needs them, add them there",
            lacking.join(", ")
        )
    })
}

/// Adds to the reason of a failure what its process could not say itself.
fn name_cause(verdict: Verdict, memory_ran_out: bool) -> Verdict {
    let reason = match verdict.reason {
        Some(reason) if memory_ran_out => Some(format!("{reason}; {MEMORY_RAN_OUT}")),
        reason => reason,
    };
    Verdict { reason, ..verdict }
}

/// A host whose engine the attendant makes look up.
pub(crate) fn host_options(plugin_cache: &Path) -> HostOptions {
    HostOptions { cache_dir: Some(plugin_cache.to_owned()), ticks: Ticks::Embedder, ..HostOptions::default() }
}

fn judge(brief: &Brief, ended: Result<Done, ExecuteError>) -> Verdict {
    match ended {
        Ok(Done::Finished(Outcome { summary, output, exit_code })) => Verdict {
            outcome: AttemptOutcome::Succeeded,
            reason: None,
            exit_code,
            summary: Some(summary_of(&summary, output)),
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        },
        Ok(Done::Pending { outcome: Outcome { summary, output, exit_code }, carry }) => {
            match brief.carrier().pack(brief.job.attempt, &carry) {
                Ok(carry) => Verdict {
                    outcome: AttemptOutcome::AwaitsApproval,
                    reason: Some(format!("waits for approval: {summary}")),
                    exit_code,
                    summary: Some(summary_of(&summary, output)),
                    carry: Some(carry),
                    no_retry: false,
                    retry_after_ms: None,
                    nothing_ran: false,
                },
                Err(error) => Verdict::failed(error.to_string()),
            }
        }
        Err(ExecuteError::Failed { message, exit_code, output }) => Verdict {
            outcome: AttemptOutcome::Failed,
            summary: output.map(|output| summary_of(&message, Some(output))),
            reason: Some(message),
            exit_code,
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        },
        Err(ExecuteError::Retry { message, after_ms }) => {
            Verdict { outcome: AttemptOutcome::Retry, retry_after_ms: after_ms, ..Verdict::failed(message) }
        }
        Err(ExecuteError::Canceled) => Verdict { outcome: AttemptOutcome::Canceled, ..Verdict::failed("canceled") },
        Err(ExecuteError::Invalid(message)) => Verdict { no_retry: true, ..Verdict::failed(message) },
        Err(error @ (ExecuteError::Trapped(_) | ExecuteError::BadAnswer(_) | ExecuteError::Workspace { .. })) => {
            Verdict::failed(error.to_string())
        }
    }
}

/// The plugin's report as an object: its own fields, and `text` for people.
fn summary_of(text: &str, output: Option<Value>) -> Value {
    match output {
        Some(Value::Object(mut fields)) => {
            fields.entry("text").or_insert_with(|| Value::from(text));
            Value::Object(fields)
        }
        Some(Value::Null) | None => json!({ "text": text }),
        Some(other) => json!({ "text": text, "output": other }),
    }
}

fn guest_job(
    job: &Job,
    config: Value,
    prepared: &Prepared,
    cache: Option<&Path>,
    contact: Contact,
) -> forge_plugin_host::Job {
    let ends_ms = contact.started_ms.saturating_add(job.timeout_ms);
    forge_plugin_host::Job {
        id: job.attempt.task.to_string(),
        attempt: job.attempt.attempt,
        project: job.project.clone(),
        template: job.template.clone(),
        params: job.params.clone(),
        config,
        variables: job.variables.clone(),
        variables_file: prepared.variables_file.display().to_string(),
        inventory: prepared.inventory.clone(),
        checkout: prepared.commit.is_some().then(|| CHECKOUT.to_owned()),
        key_files: prepared.key_files.clone(),
        cache: cache.map(|path| path.display().to_string()),
        arguments: job.arguments.clone(),
        deadline_ms: Some(ends_ms.saturating_sub(crate::state::boottime_ms())),
        resume: job.resume.is_some(),
    }
}

/// Where a process is at home and who it is: an attempt's own, whatever the tree says.
fn own_places(brief: &Brief) -> BTreeMap<String, String> {
    let [home, temporary] = INSIDE.map(|name| brief.workspace.join(name).display().to_string());
    let mut own = BTreeMap::from([("HOME".to_owned(), home), ("TMPDIR".to_owned(), temporary)]);
    if let Some(user) = &brief.user {
        own.extend(["USER", "LOGNAME"].map(|name| (name.to_owned(), user.name.clone())));
    }
    own
}

/// What every process of the job sees. Later entries win: the runner's own, the task's, the attempt's own places, and what only Forge says.
fn environment(brief: &Brief, prepared: &Prepared) -> Environment {
    let job = &brief.job;
    let mut task: BTreeMap<String, String> = brief.environment.clone();
    task.extend(job.env.clone());
    task.extend(job.secret_env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())));
    // After the tree's: a HOME of another place would be shared by attempts, and stay.
    task.extend(own_places(brief));
    let mut own = BTreeMap::from([
        ("FORGE_TASK".to_owned(), job.attempt.task.to_string()),
        ("FORGE_PROJECT".to_owned(), job.project.clone()),
        ("FORGE_TEMPLATE".to_owned(), job.template.clone()),
        ("FORGE_REVISION".to_owned(), job.revision.clone()),
        ("FORGE_COMMIT".to_owned(), prepared.commit.clone().unwrap_or_default()),
        (crate::orphans::MARK.to_owned(), brief.workspace.display().to_string()),
        ("FORGE_RUNNER".to_owned(), job.runner.clone()),
    ]);
    for name in &job.survey {
        let value = match (job.secret_variables.get(name), job.variables.get(name)) {
            (Some(secret), _) => secret.reveal().to_owned(),
            (None, Some(Value::String(text))) => text.clone(),
            (None, Some(value)) => value.to_string(),
            (None, None) => continue,
        };
        own.insert(format!("FORGE_VAR_{}", name.to_uppercase().replace('-', "_")), value);
    }
    Environment { task, own }
}

struct Environment {
    task: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
}

struct JobServices {
    ground: Arc<Ground>,
    environment: Environment,
    user: Option<JobUser>,
    plugin_name: String,
    /// What stands for the secrets of the plugin's own `[config]`.
    placeholders: Placeholders,
}

impl Drop for JobServices {
    /// The call is over. The host drops this before the children that the guest still holds, each of which would be ended by itself and
    /// have a grace of its own: here all are ended at once.
    fn drop(&mut self) {
        self.ground.end_all();
    }
}

impl JobServices {
    fn start(&self, command: &Command, output: Output) -> Result<Start, CapabilityError> {
        if let Some(field) = command.args.iter().find_map(|argument| self.placeholders.field_in(argument)) {
            return Err(CapabilityError::Denied(format!(
                "the secret config.{field} of plugins/{}.toml stands in an argument of {}, which everyone on the runner's machine can read: \
                 give it in a variable or on standard input",
                self.plugin_name, command.program
            )));
        }
        let of_plugin: Vec<(&String, String)> =
            command.env.iter().map(|(name, value)| (name, self.placeholders.fill_text(value))).collect();
        let env: BTreeMap<&String, &String> = self
            .environment
            .task
            .iter()
            .chain(of_plugin.iter().map(|(name, value)| (*name, value)))
            .chain(&self.environment.own)
            .collect();
        let path = self.environment.task.get("PATH").cloned().unwrap_or_default();
        let program = process::find_program(&command.program, &path, &command.cwd).ok_or_else(|| {
            CapabilityError::NotFound(format!(
                "the program {} is not on PATH ({path}) of this runner: install it there",
                command.program
            ))
        })?;
        let Output { stdout, stderr } = output;
        let start = Start {
            program,
            args: command.args.iter().map(OsString::from).collect(),
            env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: command.cwd.clone(),
            stdin: command.stdin.as_deref().map(|bytes| self.placeholders.fill(bytes)),
            stdout,
            stderr,
            user: self.user.clone(),
        };
        // Until here nothing was changed but the attempt's own folders and the gate of its cache.
        if !self.ground.shared.may_begin() || self.ground.shared.is_ending() {
            return Err(CapabilityError::Canceled);
        }
        Ok(start)
    }

    /// Runs a process to its end, while the guest waits.
    fn run_waiting(&self, command: &Command) -> Result<Finished, CapabilityError> {
        let ground = &self.ground;
        let writer = || ground.log.writer().map_err(|error| io_failed(&error));
        let start = self.start(command, Output { stdout: writer()?, stderr: writer()? })?;
        ground.log.mark();
        let mut running = ground
            .processes
            .start(start)
            .map_err(|error| CapabilityError::Io(format!("{} cannot be started: {error}", command.program)))?;
        let exit = ground.wait(&mut running, command.timeout_ms)?;
        drop(running);
        if !ground.processes.none_left() {
            // What it left behind goes on writing.
            ground.log.start_pump();
        }
        ground.log.drain();
        if ground.shared.is_ending() {
            return Err(CapabilityError::Canceled);
        }
        // One pipe carries both streams so that their order is kept; the tail is of both.
        Ok(Finished { exit, stdout_tail: ground.log.tail(), stderr_tail: Vec::new() })
    }
}

struct Output {
    stdout: std::os::fd::OwnedFd,
    stderr: std::os::fd::OwnedFd,
}

fn io_failed(error: &std::io::Error) -> CapabilityError {
    CapabilityError::Io(error.to_string())
}

fn exit_of(status: ExitStatus) -> Exit {
    match process::code_or_signal(status) {
        Ok(code) => Exit::Code(code),
        Err(signal) => Exit::Signal(signal),
    }
}

/// Whether the kernel most likely killed a process that ended so: it says how many it has killed for want of memory, not which.
fn is_of_memory(exit: Exit, kills_before: Option<u64>, kills_after: Option<u64>) -> bool {
    // A shell reports a child's signal as 128 and the signal's number.
    let is_killed = matches!(exit, Exit::Signal(KILL) | Exit::Code(KILLED_CODE));
    is_killed && health::has_more(kills_before, kills_after)
}

impl Ground {
    /// Waits for a process; one that outlives its own time is ended with everything below it. Notes when memory ran out meanwhile.
    pub(crate) fn wait(&self, running: &mut Running<'_>, timeout_ms: Option<u64>) -> Result<Exit, CapabilityError> {
        let kills_before = health::oom_kills();
        let exit = self.wait_for_exit(running, timeout_ms)?;
        if is_of_memory(exit, kills_before, health::oom_kills()) && !self.shared.is_ending() {
            self.shared.memory_ran_out();
        }
        Ok(exit)
    }

    fn wait_for_exit(&self, running: &mut Running<'_>, timeout_ms: Option<u64>) -> Result<Exit, CapabilityError> {
        if self.shared.is_ending() {
            // The order came while the process started: whoever ends everything may have looked just before.
            self.end(Scope::Under(running.pid()));
        }
        let timeout = timeout_ms.map(Duration::from_millis);
        if let Some(status) = running.wait(timeout, &self.log).map_err(|error| io_failed(&error))? {
            return Ok(exit_of(status));
        }
        self.end(Scope::Under(running.pid()));
        Ok(Exit::TimedOut)
    }

    /// Ends everything of the job; answers what cannot be ended.
    pub(crate) fn end_all(&self) -> Vec<i32> {
        self.end(Scope::All)
    }

    fn end(&self, scope: Scope) -> Vec<i32> {
        if !self.processes.none_left() {
            // A process that is told to end may have much to say first, and nobody else may be reading.
            self.log.start_pump();
        }
        self.processes.end(scope, self.stop_grace_ms)
    }
}

impl Services for JobServices {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let mark = match level {
            Level::Trace | Level::Debug => return,
            Level::Info => "",
            Level::Warn => "warning: ",
            Level::Error => "error: ",
        };
        let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        self.ground.log.forge(&format!("{mark}{message}{fields}"));
    }

    fn progress(&mut self, current: u64, total: Option<u64>, message: Option<&str>) {
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        let words = message.map(|message| format!(": {message}")).unwrap_or_default();
        self.ground.log.forge(&format!("progress: {current}{of}{words}"));
    }

    fn canceled(&self) -> bool {
        self.ground.shared.is_ending()
    }

    fn run(&mut self, command: Command) -> Result<Finished, CapabilityError> {
        self.ground.guest.pauses();
        let finished = self.run_waiting(&command);
        self.ground.guest.computes(&self.ground.bell);
        finished
    }

    fn spawn(&mut self, command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        let pipe =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| io_failed(&error.into()));
        let ((stdout_reader, stdout), (stderr_reader, stderr)) = (pipe()?, pipe()?);
        if let Some(user) = &self.user {
            // So that it may open /dev/stdout.
            user.owns_open(&stdout).and_then(|()| user.owns_open(&stderr)).map_err(|error| io_failed(&error))?;
        }
        self.ground.guest.pauses();
        let start = self.start(&command, Output { stdout, stderr });
        self.ground.guest.computes(&self.ground.bell);
        let start = start?;
        let ground = Arc::clone(&self.ground);
        let child = Child::start(ground, start, (stdout_reader, stderr_reader), command.timeout_ms)
            .map_err(|error| CapabilityError::Io(format!("{} cannot be started: {error}", command.program)))?;
        Ok(Box::new(child))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_named_only_with_evidence() {
        assert!(is_of_memory(Exit::Signal(9), Some(1), Some(2)));
        assert!(is_of_memory(Exit::Code(137), Some(1), Some(2)));
        assert!(!is_of_memory(Exit::Signal(9), Some(2), Some(2)));
        assert!(!is_of_memory(Exit::Signal(9), None, Some(2)));
        assert!(!is_of_memory(Exit::Code(1), Some(1), Some(2)));
    }

    #[test]
    fn what_is_asked_for_and_not_granted_is_named_with_its_place() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let wants =
            [Capability::Process(names(&["bash"])), Capability::Env(names(&["LANG", "HTTPS_PROXY", "NO_PROXY"]))];
        let said = lacking_env("x", &wants, &names(&["LANG"])).expect("two are lacking");
        assert!(said.contains("[allow].env of plugins/x.toml: HTTPS_PROXY, NO_PROXY; "), "{said}");
        assert_eq!(lacking_env("x", &wants, &names(&["LANG", "NO_PROXY", "HTTPS_PROXY"])), None);
        assert_eq!(lacking_env("x", &wants[..1], &[]), None);
    }

    /// Complaint 24 ("lost communication"): the cause stands in the result's reason, where a person looks first.
    #[test]
    fn want_of_memory_stands_in_the_reason_of_a_failure() {
        let failed = || Verdict { exit_code: Some(137), ..Verdict::failed("bash ended with exit code 137") };
        let named = name_cause(failed(), true);
        let reason = named.reason.expect("a reason");
        assert!(reason.starts_with("bash ended with exit code 137; memory ran out"), "{reason}");
        assert!(reason.contains("max_parallel_tasks"), "it says what to do: {reason}");
        assert_eq!((named.outcome, named.exit_code), (AttemptOutcome::Failed, Some(137)));
        assert_eq!(name_cause(failed(), false).reason, failed().reason);
        let succeeded = || Verdict {
            outcome: AttemptOutcome::Succeeded,
            reason: None,
            exit_code: Some(0),
            summary: None,
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        };
        assert_eq!(name_cause(succeeded(), true).reason, None, "a plugin that got over it has nothing to explain");
    }
}
