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

use forge_api::{AttemptOutcome, Job};
use forge_plugin_host::{
    CapabilityError, ChildProcess, Command, Done, ExecuteError, ExecuteRequest, Exit, Finished, Grants, Host,
    HostOptions, Level, Limits, Outcome, Services, Ticks,
};
use serde_json::{Value, json};

use crate::bell::Bell;
use crate::child::Child;
use crate::guest::Guest;
use crate::health;
use crate::log::Log;
use crate::process::{self, Processes, Running, Scope, Start};
use crate::state::Shared;
use crate::user::JobUser;
use crate::warden::Contact;
use crate::wire::Brief;
use crate::workspace::{CHECKOUT, Prepared};

/// The signal that the kernel ends processes with when memory runs out.
const KILL: i32 = 9;

/// What a shell makes of it.
const KILLED_CODE: i32 = 128 + KILL;

/// What an execution amounts to.
pub(crate) struct Verdict {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) reason: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) summary: Option<Value>,
}

impl Verdict {
    /// A failure that no process reported.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self { outcome: AttemptOutcome::Failed, reason: Some(reason.into()), exit_code: None, summary: None }
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

/// Runs the job's plugin to its end, in the launcher's `host` where there is one.
pub(crate) fn execute(brief: &Brief, host: Option<Host>, prepared: &Prepared, ground: &Arc<Ground>) -> Verdict {
    let job = &brief.job;
    let plugin_name = &job.plugin.name;
    let host = match host.map_or_else(|| Host::new(host_options(&brief.plugin_cache)), Ok) {
        Ok(host) => host,
        Err(error) => return Verdict::failed(format!("the plugin host does not start: {error}")),
    };
    let plugin = match host.load_cached(&job.plugin.sha256) {
        Ok(Some(plugin)) => plugin,
        Ok(None) => {
            return Verdict::failed(format!(
                "the compiled plugin {plugin_name} is gone from the runner's cache; try again"
            ));
        }
        Err(error) => return Verdict::failed(format!("the plugin {plugin_name} cannot be loaded: {error}")),
    };
    ground.guest.is_in(&host);
    let state = ground.shared.now();
    let request = ExecuteRequest {
        job: guest_job(job, prepared, state.contact),
        workspace: brief.workspace.clone(),
        grants: Grants { plugin_name: plugin_name.clone(), programs: job.plugin.grants.programs.clone() },
        limits: Limits { memory_bytes: job.plugin.limits.memory_bytes, time_ms: job.plugin.limits.time_ms },
        file_user: brief.user.as_ref().map(JobUser::file_user),
    };
    let services =
        JobServices { ground: Arc::clone(ground), environment: environment(brief, prepared), user: brief.user.clone() };
    ground.guest.computes(&ground.bell);
    let ended = plugin.execute(request, Box::new(services));
    ground.guest.pauses();
    judge(ended)
}

/// A host whose engine the attendant makes look up.
pub(crate) fn host_options(plugin_cache: &Path) -> HostOptions {
    HostOptions { cache_dir: Some(plugin_cache.to_owned()), ticks: Ticks::Embedder }
}

fn judge(ended: Result<Done, ExecuteError>) -> Verdict {
    match ended {
        Ok(Done::Finished(Outcome { summary, output, exit_code })) => Verdict {
            outcome: AttemptOutcome::Succeeded,
            reason: None,
            exit_code,
            summary: Some(summary_of(&summary, output)),
        },
        Ok(Done::Pending { outcome, carry: _ }) => Verdict::failed(format!(
            "the plugin waits for an approval, which this version cannot give: {}",
            outcome.summary
        )),
        Err(ExecuteError::Failed { message, exit_code, output }) => Verdict {
            outcome: AttemptOutcome::Failed,
            summary: output.map(|output| summary_of(&message, Some(output))),
            reason: Some(message),
            exit_code,
        },
        Err(ExecuteError::Retry { message, after_ms: _ }) => {
            Verdict { outcome: AttemptOutcome::Retry, ..Verdict::failed(message) }
        }
        Err(ExecuteError::Canceled) => Verdict { outcome: AttemptOutcome::Canceled, ..Verdict::failed("canceled") },
        Err(ExecuteError::Invalid(message)) => Verdict::failed(message),
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

fn guest_job(job: &Job, prepared: &Prepared, contact: Contact) -> forge_plugin_host::Job {
    let ends_ms = contact.started_ms.saturating_add(job.timeout_ms);
    forge_plugin_host::Job {
        id: job.attempt.task.to_string(),
        attempt: job.attempt.attempt,
        project: job.project.clone(),
        template: job.template.clone(),
        params: job.params.clone(),
        config: job.plugin.config.clone(),
        variables: job.variables.clone(),
        variables_file: prepared.variables_file.display().to_string(),
        inventory: prepared.inventory.clone(),
        checkout: prepared.commit.is_some().then(|| CHECKOUT.to_owned()),
        key_files: prepared.key_files.clone(),
        arguments: job.arguments.clone(),
        deadline_ms: Some(ends_ms.saturating_sub(crate::state::boottime_ms())),
        resume: false,
    }
}

/// What every process of the job sees. Later entries win: the runner's own, the task's, and what only Forge says.
fn environment(brief: &Brief, prepared: &Prepared) -> Environment {
    let job = &brief.job;
    let mut task: BTreeMap<String, String> = brief.environment.clone();
    task.insert("HOME".to_owned(), brief.workspace.join("home").display().to_string());
    task.insert("TMPDIR".to_owned(), brief.workspace.join("tmp").display().to_string());
    if let Some(user) = &brief.user {
        task.extend(["USER", "LOGNAME"].map(|name| (name.to_owned(), user.name.clone())));
    }
    task.extend(job.env.clone());
    task.extend(job.secret_env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())));
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
}

impl JobServices {
    fn start(&self, command: &Command, output: Output) -> Result<Start, CapabilityError> {
        if self.ground.shared.is_ending() {
            return Err(CapabilityError::Canceled);
        }
        let env: BTreeMap<&String, &String> = self
            .environment
            .task
            .iter()
            .chain(command.env.iter().map(|(name, value)| (name, value)))
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
        Ok(Start {
            program,
            args: command.args.iter().map(OsString::from).collect(),
            env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: command.cwd.clone(),
            stdin: command.stdin.clone(),
            stdout,
            stderr,
            user: self.user.clone(),
        })
    }

    /// Runs a process to its end, while the guest waits.
    fn run_waiting(&self, command: &Command) -> Result<Finished, CapabilityError> {
        let ground = &self.ground;
        let writer = || ground.log.writer().map_err(|error| io_failed(&error));
        let start = self.start(command, Output { stdout: writer()?, stderr: writer()? })?;
        ground.log.mark();
        let kills_before = health::oom_kills();
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
        if let Some(words) = memory_words(exit, kills_before, health::oom_kills()) {
            ground.log.forge(words);
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

/// What to say of a process that was killed while the kernel killed for want of memory: it cannot say so itself.
fn memory_words(exit: Exit, kills_before: Option<u64>, kills_after: Option<u64>) -> Option<&'static str> {
    // A shell reports a child's signal as 128 and the signal's number.
    let is_killed = matches!(exit, Exit::Signal(KILL) | Exit::Code(KILLED_CODE));
    let has_more = matches!((kills_before, kills_after), (Some(before), Some(after)) if after > before);
    (is_killed && has_more).then_some(
        "memory ran out: the kernel ended processes of this machine while this one ran, most likely this one; give the \
         runner more memory, or let it run fewer tasks at a time (max_parallel_tasks)",
    )
}

impl Ground {
    /// Waits for a process; one that outlives its own time is ended with everything below it.
    pub(crate) fn wait(&self, running: &mut Running<'_>, timeout_ms: Option<u64>) -> Result<Exit, CapabilityError> {
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
        let start = self.start(&command, Output { stdout, stderr })?;
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
        assert!(memory_words(Exit::Signal(9), Some(1), Some(2)).is_some_and(|words| words.contains("memory ran out")));
        assert!(memory_words(Exit::Code(137), Some(1), Some(2)).is_some());
        assert_eq!(memory_words(Exit::Signal(9), Some(2), Some(2)), None);
        assert_eq!(memory_words(Exit::Signal(9), None, Some(2)), None);
        assert_eq!(memory_words(Exit::Code(1), Some(1), Some(2)), None);
    }
}
