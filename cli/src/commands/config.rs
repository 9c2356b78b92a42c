//! `forge config`: make, check and compare trees before they are pushed, and ask what a daemon serves.

mod check;
mod diff;
mod git_tree;
mod init;
mod schema;
mod serving;

use std::process::ExitCode;

use crate::args::{Ask, ConfigCommand};
use crate::error::CliError;
use crate::printer::Printer;

pub(crate) fn run(command: ConfigCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    match command {
        ConfigCommand::Check { directory, config, output, timings } => {
            let timings = if timings { check::Timings::Shown } else { check::Timings::Hidden };
            let check = check::Check { directory: &directory, config: config.as_deref(), output, timings };
            check::run(&check, printer)
        }
        ConfigCommand::Diff { before, after, config, at } => {
            let Ask { output, connection } = &at;
            let (before, after) = (&before, &after);
            diff::run(&diff::Diff { before, after, config: config.as_deref(), output: *output, connection }, printer)
        }
        ConfigCommand::Schema { kind } => schema::run(&kind, printer),
        ConfigCommand::Init { directory } => init::run(&directory, printer),
        ConfigCommand::Apply { prune, accept_rewrite, at } => serving::apply(prune, accept_rewrite, &at, printer),
        ConfigCommand::Status { config, at } => serving::status(config.as_deref(), &at, printer),
    }
}
