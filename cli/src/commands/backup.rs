//! `forge backup` and `forge restore`: what a daemon remembers, in one file and back again. What goes in is the daemon's to say.

use std::process::ExitCode;

use crate::args::{BackupArguments, RestoreArguments};
use crate::error::CliError;
use crate::printer::Printer;
use crate::settings;

pub(crate) fn backup(arguments: &BackupArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let data_dir = settings::daemon(&arguments.config, &settings::environment(), printer)?.data_dir;
    let working = printer.spinner("backing up");
    let report = forge_daemon::backup(&data_dir, &arguments.file).map_err(CliError::failed)?;
    drop(working);
    printer.done(&format!(
        "{} holds {} tasks and {} logs of {}, {} bytes",
        arguments.file.display(),
        report.tasks,
        report.logs,
        data_dir.display(),
        report.bytes
    ));
    printer.hint("it holds the daemon's keys: keep it where secrets are kept. Not in it: forge.toml, the files that it names, and the tree, which is in git");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restore(arguments: &RestoreArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let data_dir = settings::daemon(&arguments.config, &settings::environment(), printer)?.data_dir;
    let working = printer.spinner("restoring");
    let report = forge_daemon::restore(&arguments.file, &data_dir).map_err(CliError::failed)?;
    drop(working);
    printer.done(&format!(
        "{} has the {} tasks of the backup of {}",
        data_dir.display(),
        report.tasks,
        report.taken_at
    ));
    printer.hint(&format!("start it with `forge daemon --config {}`", arguments.config.display()));
    Ok(ExitCode::SUCCESS)
}
