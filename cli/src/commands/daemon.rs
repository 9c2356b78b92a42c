//! `forge daemon`: serve until a signal says otherwise; with `use_remote_runner = false` also run jobs here.

mod own_runner;

use std::convert::Infallible;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use self::own_runner::OwnRunner;
use crate::args::DaemonArguments;
use crate::error::CliError;
use crate::printer::Printer;
use crate::{logging, runtime, settings};

pub(crate) fn run(arguments: &DaemonArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    logging::start(arguments.log_format)?;
    let mut settings = settings::daemon(&arguments.config, &settings::environment(), printer)?;
    let own_runner = if settings.use_remote_runner { None } else { Some(OwnRunner::prepare(&mut settings)?) };
    runtime::run(runtime::server_threads(), async {
        let daemon = forge_daemon::start(settings).await.map_err(start_error)?;
        let shutdown = CancellationToken::new();
        // A daemon has one way to stop: a second signal changes nothing, since the drain is bounded.
        let ignored = CancellationToken::new();
        let reloader = daemon.reloader();
        let addresses = daemon.addresses().clone();
        let beside = async {
            match own_runner {
                Some(runner) => runner.run(&addresses, shutdown.clone()).await,
                None => std::future::pending::<Result<Infallible, CliError>>().await,
            }
        };
        tokio::select! {
            ended = daemon.run_until(shutdown.clone()) => ended.map_err(CliError::failed).map(|()| ExitCode::SUCCESS),
            Err(error) = beside => Err(error),
            Err(error) = runtime::forward_signals(shutdown.clone(), ignored) => Err(error),
            Err(error) = runtime::on_hangup(|| reloader.reload()) => Err(error),
        }
    })
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
