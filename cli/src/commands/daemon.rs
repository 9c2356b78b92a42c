//! `forge daemon`: serve until a signal says otherwise; with `use_remote_runner = false` also run jobs here.

mod own_runner;

use std::convert::Infallible;
use std::process::ExitCode;

use forge_daemon::Liveness;
use tokio_util::sync::CancellationToken;

use self::own_runner::OwnRunner;
use crate::args::{DaemonArguments, DaemonCommand};
use crate::error::CliError;
use crate::printer::Printer;
use crate::runtime::{Hangups, Signals};
use crate::service::ServiceManager;
use crate::{logging, runtime, settings};

pub(crate) fn run(arguments: &DaemonArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    match arguments.command {
        Some(DaemonCommand::RotateSigningKey) => rotate_signing_key(arguments, printer),
        None => serve(arguments, printer),
    }
}

fn rotate_signing_key(arguments: &DaemonArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let data_dir = settings::daemon(&arguments.config, &settings::environment(), printer)?.data_dir;
    let rotated = forge_daemon::rotate_signing_key(&data_dir).map_err(CliError::failed)?;
    printer.done(&format!(
        "jobs are signed with {} from the daemon's next start on, which {} vouches for",
        rotated.to, rotated.from
    ));
    printer.hint(
        "restart the daemon (`systemctl restart forge-daemon`): tasks run on meanwhile, and runners of forge 0.1.0 or newer follow by themselves",
    );
    printer.hint("if the old key was stolen, this is not enough: whoever has it can vouch for a key, too. Remove daemon.key in each runner's tmp_path and register it again");
    Ok(ExitCode::SUCCESS)
}

fn serve(arguments: &DaemonArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    logging::start(arguments.log_format)?;
    let environment = settings::environment();
    let manager = ServiceManager::of(&environment);
    let mut settings = settings::daemon(&arguments.config, &environment, printer)?;
    let own_runner = if settings.use_remote_runner { None } else { Some(OwnRunner::prepare(&mut settings)?) };
    runtime::run(runtime::server_threads(), async {
        // Listened for before the start: whoever sees the daemon serve may stop it at once.
        let (signals, hangups) = (Signals::listen()?, Hangups::listen()?);
        let shutdown = CancellationToken::new();
        // A daemon has one way to stop: a second signal changes nothing, since the drain is bounded.
        let mut forwarding = std::pin::pin!(signals.forward(shutdown.clone(), CancellationToken::new()));
        let daemon = tokio::select! {
            started = forge_daemon::start(settings) => started.map_err(start_error)?,
            () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
            never = &mut forwarding => match never {},
        };
        manager.ready();
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
            never = forwarding => match never {},
            never = hangups.each(reload) => match never {},
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
