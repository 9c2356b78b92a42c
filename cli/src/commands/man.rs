//! `forge man DIR`: one man page a command, made from the arguments themselves.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::args::{Arguments, ManArguments};
use crate::error::{CliError, file_error};
use crate::printer::Printer;

pub(crate) fn run(arguments: &ManArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let folder = &arguments.directory;
    std::fs::create_dir_all(folder).map_err(|error| file_error("make the folder", folder, &error))?;
    clap_mangen::generate_to(Arguments::command(), folder)
        .map_err(|error| file_error("write man pages to", folder, &error))?;
    printer.done(&format!("wrote the man pages to {}", folder.display()));
    printer.hint(&format!("read one with `man -l {}`", folder.join("forge.1").display()));
    Ok(ExitCode::SUCCESS)
}
