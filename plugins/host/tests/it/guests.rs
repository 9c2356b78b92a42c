//! Guests out of `testdata/guests`, packed into components, and an embedder that records what it is asked.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use forge_plugin_host::{
    CapabilityError, ChildProcess, Command, Done, Event, ExecuteError, ExecuteRequest, Exit, Finished, Grants, Host,
    HostOptions, Job, Level, Limits, Plugin, Services,
};

use crate::packed::{component, pack};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bytes of the guest of this name.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    component(&root(), name)
}

/// A guest whose compiled code takes some time to write, in bytes.
pub(crate) fn large(bytes: usize) -> Vec<u8> {
    let run = std::fs::read_to_string(root().join("testdata/guests/run.wat")).expect("the guest is there");
    pack(&root(), "large", &format!("{run}\n(data \"{}\")", "x".repeat(bytes)))
}

pub(crate) fn host() -> Host {
    Host::new(HostOptions::default()).expect("the engine starts")
}

pub(crate) fn load(name: &str) -> Plugin {
    host().load(&bytes(name)).expect("it loads")
}

/// What a call looks like from outside.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) log: Arc<Mutex<Vec<(Level, String)>>>,
    /// Whether it lets go of every line at once.
    pub(crate) forgets: bool,
    pub(crate) commands: Arc<Mutex<Vec<Command>>>,
    pub(crate) children: Arc<Mutex<usize>>,
    pub(crate) canceled: Arc<AtomicBool>,
    /// What the embedder does while it runs a command.
    pub(crate) while_running: Option<fn()>,
    /// Where it stands in the middle of a command, and how long.
    pub(crate) waits: Option<(Arc<Barrier>, Arc<Barrier>)>,
}

impl Services for Seen {
    fn log(&mut self, level: Level, message: &str, _fields: &[(String, String)]) {
        if !self.forgets {
            self.log.lock().expect("nobody panics with it").push((level, message.to_owned()));
        }
    }

    fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

    fn canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }

    fn run(&mut self, command: Command) -> Result<Finished, CapabilityError> {
        self.commands.lock().expect("nobody panics with it").push(command);
        if let Some(work) = self.while_running {
            work();
        }
        if let Some((inside, over)) = &self.waits {
            inside.wait();
            over.wait();
        }
        Ok(Finished { exit: Exit::Code(0), stdout_tail: Vec::new(), stderr_tail: Vec::new() })
    }

    fn spawn(&mut self, _command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        *self.children.lock().expect("nobody panics with it") += 1;
        Ok(Box::new(SilentChild(Arc::clone(&self.children))))
    }
}

struct SilentChild(Arc<Mutex<usize>>);

impl ChildProcess for SilentChild {
    fn next(&mut self) -> Result<Event, CapabilityError> {
        Ok(Event::Exited(Exit::Code(0)))
    }

    fn kill(&mut self) {}
}

impl Drop for SilentChild {
    fn drop(&mut self) {
        *self.0.lock().expect("nobody panics with it") -= 1;
    }
}

/// Calls the plugin `x`, which may run `true` and nothing else, with these arguments.
pub(crate) fn execute(
    plugin: &Plugin,
    seen: &Seen,
    workspace: &Path,
    limits: Limits,
    arguments: &[&str],
) -> Result<Done, ExecuteError> {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let request = ExecuteRequest {
        job: Job { arguments, ..Job::default() },
        workspace: workspace.to_owned(),
        grants: Grants { plugin_name: "x".to_owned(), programs: vec!["true".to_owned()] },
        limits,
        file_user: None,
    };
    plugin.execute(request, Box::new(seen.clone()))
}
