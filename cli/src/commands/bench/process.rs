//! A `forge` process of the bench: this very program in a process of its own, so that what it uses is counted by itself.
//!
//! It is in a process group of its own, so that Ctrl-C reaches the bench alone, which then ends its processes in order.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{CliError, file_error};

/// How long a process has from its signal to its end before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How often its end is looked for.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// How much of what it said last is shown when it ends too early, in bytes.
const LAST_WORDS_BYTES: usize = 2_000;

/// A process that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    name: String,
    said: PathBuf,
    ending: Signal,
}

impl Process {
    /// Starts `forge` with `arguments`; what it says goes to a file in `folder`. `ending` is the signal that stops it.
    pub(super) fn start(folder: &Path, name: &str, arguments: &[&str], ending: Signal) -> Result<Self, CliError> {
        let program = std::env::current_exe()
            .map_err(|error| CliError::failed(format_args!("cannot tell where this program lies: {error}")))?;
        // A folder below: what is written beside the watched tree would wake its watcher with every line.
        let said = folder.join("said").join(format!("{name}.log"));
        std::fs::create_dir_all(folder.join("said"))
            .map_err(|error| file_error("make", &folder.join("said"), &error))?;
        let failed = |error: std::io::Error| file_error("write", &said, &error);
        let output = std::fs::File::create(&said).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let mut command = Command::new(&program);
        // Variables of a real daemon or runner on this machine must not reach into the bench.
        command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).env("LANG", "C.UTF-8");
        for kept in ["PATH", "TMPDIR", "FORGE_LOG"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0).spawn();
        let child = child.map_err(|error| file_error("start", &program, &error))?;
        Ok(Self { child, name: name.to_owned(), said, ending })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when it has ended, with what it said last.
    pub(super) fn check_alive(&mut self) -> Result<(), CliError> {
        let status = match self.child.try_wait() {
            Ok(None) => return Ok(()),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = std::fs::read(&self.said).unwrap_or_default();
        let last = String::from_utf8_lossy(said.get(said.len().saturating_sub(LAST_WORDS_BYTES)..).unwrap_or_default())
            .into_owned();
        Err(CliError::drawn(last, format_args!("{} ended too early: {status}", self.name)))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    /// Waits for its end: the folder that it works in goes next.
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // The child is not waited for yet, so that its id is still its own.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _signaled = kill_process(pid, self.ending);
        }
        let begin = Instant::now();
        while begin.elapsed() < STOP_DEADLINE {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(STOP_LOOK);
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
