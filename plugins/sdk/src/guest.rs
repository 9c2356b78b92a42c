//! Between the generated exports and an author's [`Executor`] or [`WebhookTarget`]: the panic hook, and the host of the sandbox.

use std::marker::PhantomData;

use crate::bindings::exports::forge::plugin::executor;
use crate::bindings::forge::plugin::{host, process, workspace};
use crate::bindings::webhook::exports::forge::plugin::webhook_target;
use crate::webhook::{Disposition, Request, Response, Sent, WebhookTarget};
use crate::{Child, Command, Done, Entry, Event, Executor, Failure, Finished, Host, HostError, Info, Job, Level, Pair};

/// The guest that [`crate::export!`] exports.
#[derive(Debug)]
pub struct Exported<E>(PhantomData<E>);

impl<E: Executor> executor::Guest for Exported<E> {
    fn describe() -> Info {
        log_panics();
        E::describe()
    }

    fn execute(job: Job) -> Result<Done, Failure> {
        log_panics();
        E::execute(job, &mut Sandbox)
    }
}

/// The guest that `export!(... as WebhookTarget)` exports.
#[derive(Debug)]
pub struct ExportedTarget<T>(PhantomData<T>);

impl<T: WebhookTarget> webhook_target::Guest for ExportedTarget<T> {
    fn describe() -> Info {
        log_panics();
        T::describe()
    }

    fn plan(event: webhook_target::Event) -> Result<Vec<Request>, String> {
        log_panics();
        T::plan(&event)
    }

    fn judge(event: webhook_target::Event, sent: Sent, response: Response) -> Disposition {
        log_panics();
        T::judge(&event, &sent, &response)
    }
}

/// Writes a line for the operator, from a webhook target: an executor has its [`Host`] for that. In a test on another machine than the
/// sandbox it goes nowhere.
pub fn log(level: Level, message: &str) {
    if cfg!(target_arch = "wasm32") {
        host::log(level, message, &[]);
    }
}

/// Without it a panic is an opaque `unreachable` to the host.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // "panicked at src/lib.rs:67:5:\nmessage", on one line.
        let message = panic.to_string().replacen(":\n", ": ", 1);
        host::log(Level::Error, &message, &[]);
    }));
}

/// The host of the sandbox that this guest runs in.
struct Sandbox;

impl Host for Sandbox {
    fn log(&mut self, level: Level, message: &str, fields: &[(&str, &str)]) {
        let fields: Vec<Pair> = fields.iter().map(|&pair| pair.into()).collect();
        host::log(level, message, &fields);
    }

    fn progress(&mut self, current: u64, total: Option<u64>, message: Option<&str>) {
        host::progress(current, total, message);
    }

    fn elapsed_ms(&self) -> u64 {
        host::elapsed_ms()
    }

    fn canceled(&self) -> bool {
        host::canceled()
    }

    fn read(&mut self, path: &str, offset: u64, max_bytes: u32) -> Result<Vec<u8>, HostError> {
        workspace::read(path, offset, max_bytes)
    }

    fn write(&mut self, path: &str, data: &[u8]) -> Result<(), HostError> {
        workspace::write(path, data, false)
    }

    fn append(&mut self, path: &str, data: &[u8]) -> Result<(), HostError> {
        workspace::write(path, data, true)
    }

    fn list(&mut self, path: &str) -> Result<Vec<Entry>, HostError> {
        workspace::list(path)
    }

    fn remove(&mut self, path: &str) -> Result<(), HostError> {
        workspace::remove(path)
    }

    fn run(&mut self, command: Command) -> Result<Finished, HostError> {
        process::run(&command)
    }

    fn spawn(&mut self, command: Command) -> Result<Box<dyn Child>, HostError> {
        process::spawn(&command).map(|child| Box::new(child) as Box<dyn Child>)
    }
}

impl Child for process::Child {
    fn next(&mut self) -> Result<Event, HostError> {
        process::Child::next(self)
    }

    fn kill(&mut self) {
        process::Child::kill(self);
    }
}
