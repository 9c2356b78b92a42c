//! `forge plugin`: from nothing to a component that a tree can hold, and a look at components of others.

mod anatomy;
mod build;
mod check;
mod inspect;
mod list;
mod new;
mod sdk;

use std::path::Path;
use std::process::ExitCode;

use forge_config::meant::PluginKind;
use forge_daemon::PluginExaminer;

use crate::args::PluginCommand;
use crate::error::{CliError, file_error};
use crate::printer::Printer;

/// The most bytes of a file that is read: far above what a component may have, which the host says itself.
const FILE_BYTES_MAX: u64 = 1 << 30;

pub(crate) fn run(command: PluginCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    match command {
        PluginCommand::New { name, kind } => new::run(&name, kind, printer),
        PluginCommand::Build { directory, output } => build::run(&directory, output.as_deref(), printer),
        PluginCommand::Check { file, output } => check::run(&file, output, printer),
        PluginCommand::Inspect { file, output } => inspect::run(&file, output, printer),
        PluginCommand::List { directory, output } => list::run(directory.as_deref(), output, printer),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error: std::io::Error| file_error("read", file, &error);
    let metadata = std::fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(CliError::failed(format_args!("{} is not a file", file.display()))
            .hint("name the component, such as plugins/NAME.wasm; `forge plugin build` makes one of a crate"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(CliError::failed(format_args!("{} is too large for a component", file.display())));
    }
    std::fs::read(file).map_err(failed)
}

fn examiner() -> Result<PluginExaminer, CliError> {
    PluginExaminer::new().map_err(CliError::failed)
}

/// As people call it.
fn kind_word(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Executor => "executor",
        PluginKind::WebhookTarget => "webhook target",
    }
}

/// A size as people read it.
fn size_text(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        _ => format!("{} KiB", bytes.div_ceil(KIB)),
    }
}
