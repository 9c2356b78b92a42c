//! The embedder's part, as small as it can be: processes of the standard library, and a log that the test looks at.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use forge_plugin_host::{CapabilityError, ChildProcess, Command, Event, Exit, Finished, Level, Services};

/// What a test sees of a call.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) log: Arc<Mutex<String>>,
    pub(crate) canceled: Arc<AtomicBool>,
    /// Where programs are found, when it is not the test's own PATH.
    pub(crate) path: Option<OsString>,
}

impl Seen {
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no test panics while it logs").clone()
    }

    pub(crate) fn services(&self) -> Box<dyn Services> {
        Box::new(Processes(self.clone()))
    }
}

struct Processes(Seen);

fn exit(status: ExitStatus) -> Exit {
    status.code().map_or_else(|| Exit::Signal(status.signal().expect("one of the two")), Exit::Code)
}

fn start(command: Command, path: Option<OsString>) -> Result<Child, CapabilityError> {
    let Command { program, args, env, cwd, stdin, timeout_ms: _ } = command;
    let mut child = std::process::Command::new(&program)
        .args(args)
        .env_clear()
        .env("PATH", path.or_else(|| std::env::var_os("PATH")).expect("tests have a PATH"))
        .envs(env)
        .current_dir(cwd)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CapabilityError::NotFound(format!("{program} on PATH")),
            _ => CapabilityError::Io(error.to_string()),
        })?;
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin) {
        pipe.write_all(&bytes).map_err(|error| CapabilityError::Io(error.to_string()))?;
    }
    Ok(child)
}

impl Services for Processes {
    fn log(&mut self, _level: Level, message: &str, _fields: &[(String, String)]) {
        self.0.log.lock().expect("no test panics while it logs").push_str(message);
    }

    fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

    fn canceled(&self) -> bool {
        self.0.canceled.load(Ordering::Relaxed)
    }

    fn run(&mut self, command: Command) -> Result<Finished, CapabilityError> {
        if self.canceled() {
            return Err(CapabilityError::Canceled);
        }
        let output = start(command, self.0.path.clone())?
            .wait_with_output()
            .map_err(|error| CapabilityError::Io(error.to_string()))?;
        let mut log = self.0.log.lock().expect("no test panics while it logs");
        log.push_str(&String::from_utf8_lossy(&output.stdout));
        log.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Finished { exit: exit(output.status), stdout_tail: output.stdout, stderr_tail: output.stderr })
    }

    fn spawn(&mut self, command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        Ok(Box::new(Spawned(start(command, self.0.path.clone())?)))
    }
}

struct Spawned(Child);

impl ChildProcess for Spawned {
    fn next(&mut self) -> Result<Event, CapabilityError> {
        let mut chunk = vec![0; 4096];
        let read = self.0.stdout.as_mut().expect("it is piped").read(&mut chunk);
        match read.map_err(|error| CapabilityError::Io(error.to_string()))? {
            0 => {
                let status = self.0.wait().map_err(|error| CapabilityError::Io(error.to_string()))?;
                Ok(Event::Exited(exit(status)))
            }
            length => {
                chunk.truncate(length);
                Ok(Event::Stdout(chunk))
            }
        }
    }

    fn kill(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.kill();
        drop(self.0.wait());
    }
}
