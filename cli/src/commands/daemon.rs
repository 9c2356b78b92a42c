//! `forge daemon`: serve until a signal says otherwise; with `use_remote_runner = false` also run jobs here.

mod own_runner;

use std::convert::Infallible;
use std::process::ExitCode;

use forge_daemon::Liveness;
use tokio_util::sync::CancellationToken;

use self::own_runner::OwnRunner;
use crate::args::DaemonArguments;
use crate::error::CliError;
use crate::printer::Printer;
use crate::service::ServiceManager;
use crate::{logging, runtime, settings};

pub(crate) fn run(arguments: &DaemonArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    logging::start(arguments.log_format)?;
    let environment = settings::environment();
    let manager = ServiceManager::of(&environment);
    let mut settings = settings::daemon(&arguments.config, &environment, printer)?;
    let own_runner = if settings.use_remote_runner { None } else { Some(OwnRunner::prepare(&mut settings)?) };
    runtime::run(runtime::server_threads(), async {
        let daemon = forge_daemon::start(settings).await.map_err(start_error)?;
        manager.ready();
        let shutdown = CancellationToken::new();
        // A daemon has one way to stop: a second signal changes nothing, since the drain is bounded.
        let ignored = CancellationToken::new();
        let (reloader, liveness) = (daemon.reloader(), daemon.liveness());
        let reload = async || {
            manager.reloading();
            reloader.reload().await;
            manager.ready();
        };
        let addresses = daemon.addresses().clone();
        let beside = async {
            match own_runner {
                Some(runner) => runner.run(&addresses, shutdown.clone()).await,
                None => std::future::pending::<Result<Infallible, CliError>>().await,
            }
        };
        let stopping = async {
            shutdown.cancelled().await;
            manager.stopping();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            ended = daemon.run_until(shutdown.clone()) => ended.map_err(CliError::failed).map(|()| ExitCode::SUCCESS),
            Err(error) = beside => Err(error),
            Err(error) = runtime::forward_signals(shutdown.clone(), ignored) => Err(error),
            Err(error) = runtime::on_hangup(reload) => Err(error),
            never = stopping => match never {},
            never = show_life(&manager, &liveness) => match never {},
        }
    })
}

/// Tells the service manager that the daemon lives, each time after it was proved. A part that hangs ends that, and the manager
/// ends the daemon.
async fn show_life(manager: &ServiceManager, liveness: &Liveness) -> Infallible {
    let Some(interval) = manager.sign_interval() else { return std::future::pending().await };
    loop {
        liveness.proved().await;
        manager.alive();
        tokio::time::sleep(interval).await;
    }
}

/// A daemon that could not start, with what to do about it.
pub(crate) fn start_error(error: forge_daemon::StartError) -> CliError {
    let hint = error.hint();
    let shown = CliError::failed(error);
    match hint {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}
