//! One file a subcommand. Each takes its arguments and the printer and says how the process ends.

mod audit;
mod backup;
mod bench;
mod completions;
mod config;
mod daemon;
mod demo;
mod doctor;
mod follow;
mod integration;
mod man;
mod plugin;
mod rekey;
mod run;
mod runner;
mod runners;
mod schedule;
mod scratch;
mod secret;
mod setup;
mod task;
mod token;
mod webhook;

use std::process::ExitCode;

use crate::args::{Arguments, Command};
use crate::error::CliError;
use crate::printer::Printer;

/// How many threads a command that only asks uses.
const CLIENT_THREADS: usize = 1;

/// Runs the command that was asked for.
pub(crate) fn dispatch(arguments: Arguments, printer: &Printer) -> Result<ExitCode, CliError> {
    match arguments.command {
        Command::Daemon(arguments) => daemon::run(&arguments, printer),
        Command::Runner(arguments) => runner::run(arguments, printer),
        Command::Run(arguments) => run::run(arguments, printer),
        Command::Task(command) => task::run(command, printer),
        Command::Runners(command) => runners::run(command, printer),
        Command::Config(command) => config::run(command, printer),
        Command::Integration(command) => integration::run(command, printer),
        Command::Schedule(command) => schedule::run(command, printer),
        Command::Webhook(command) => webhook::run(command, printer),
        Command::Audit(arguments) => audit::run(arguments, printer),
        Command::Plugin(command) => plugin::run(command, printer),
        Command::Secret(command) => secret::run(command, printer),
        Command::Token(command) => token::run(command, printer),
        Command::Demo(arguments) => demo::run(&arguments, printer),
        Command::Bench(arguments) => bench::run(&arguments, printer),
        Command::Doctor(arguments) => doctor::run(&arguments, printer),
        Command::Backup(arguments) => backup::backup(&arguments, printer),
        Command::Restore(arguments) => backup::restore(&arguments, printer),
        Command::Completions(arguments) => Ok(completions::run(&arguments, printer)),
        Command::Man(arguments) => man::run(&arguments, printer),
        Command::Supervise => Ok(forge_runner::supervise()),
    }
}
