//! `forge completions SHELL`: a script that completes `forge`, made from the arguments themselves.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::args::{Arguments, CompletionsArguments};
use crate::printer::Printer;

pub(crate) fn run(arguments: &CompletionsArguments, printer: &Printer) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "forge", &mut script);
    printer.data_bytes(&script);
    ExitCode::SUCCESS
}
