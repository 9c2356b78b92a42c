//! The async runtime and the signals that end it: built here, so that libraries take shutdown as an argument.

use std::convert::Infallible;
use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// Runs `work` on a runtime of `threads` worker threads to its end.
pub(crate) fn run<T>(threads: usize, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("forge")
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format_args!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // What still blocks (a read of stdin, say) must not hold the process's exit.
    runtime.shutdown_background();
    outcome
}

/// How many threads a server of this machine uses.
pub(crate) fn server_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}

/// The signals that end a process, listened for from [`Signals::listen`] on: one that comes before they are forwarded is kept, not lost
/// and not left to the system, which would end the process at once.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    /// Listens from now on. Called before anything is started that a signal has to end in good order.
    pub(crate) fn listen() -> Result<Self, CliError> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    /// Waits for SIGTERM or SIGINT and cancels `drain`; SIGQUIT, or a second SIGINT, cancels `abort`.
    pub(crate) async fn forward(mut self, drain: CancellationToken, abort: CancellationToken) -> Infallible {
        let mut interrupted = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => drain.cancel(),
                _ = self.interrupt.recv() => {
                    if interrupted { abort.cancel() }
                    interrupted = true;
                    drain.cancel();
                }
                _ = self.quit.recv() => {
                    drain.cancel();
                    abort.cancel();
                }
            }
        }
    }
}

/// SIGHUP, which ends no process that listens for it.
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, CliError> {
        listen(SignalKind::hangup()).map(Self)
    }

    /// Does `act` at every SIGHUP, also one since [`Hangups::listen`]; several that come meanwhile count as one.
    pub(crate) async fn each(mut self, act: impl AsyncFn()) -> Infallible {
        loop {
            self.0.recv().await;
            act().await;
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::failed(format_args!("cannot listen for signals: {error}")))
}
