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

/// Waits for SIGTERM or SIGINT and cancels `drain`; SIGQUIT, or a second SIGINT, cancels `abort`.
pub(crate) async fn forward_signals(
    drain: CancellationToken,
    abort: CancellationToken,
) -> Result<Infallible, CliError> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    let mut interrupted = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => drain.cancel(),
            _ = interrupt.recv() => {
                if interrupted { abort.cancel() }
                interrupted = true;
                drain.cancel();
            }
            _ = quit.recv() => {
                drain.cancel();
                abort.cancel();
            }
        }
    }
}

/// Does `act` at every SIGHUP, which would end the process otherwise; several that come meanwhile count as one.
pub(crate) async fn on_hangup(act: impl AsyncFn()) -> Result<Infallible, CliError> {
    let mut hangup = listen(SignalKind::hangup())?;
    loop {
        hangup.recv().await;
        act().await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::failed(format_args!("cannot listen for signals: {error}")))
}
