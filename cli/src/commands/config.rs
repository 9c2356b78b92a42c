//! `forge config`: check a tree before it is pushed, and ask what a daemon serves.

mod serving;

use std::path::Path;
use std::process::ExitCode;

use crate::args::{ConfigCommand, OutputFormat};
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::settings;

pub(crate) fn run(command: ConfigCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    match command {
        ConfigCommand::Check { directory, config, output } => check(&directory, config.as_deref(), output, printer),
        ConfigCommand::Apply { prune, accept_rewrite, at } => serving::apply(prune, accept_rewrite, &at, printer),
        ConfigCommand::Status { config, at } => serving::status(config.as_deref(), &at, printer),
    }
}

fn check(
    directory: &Path,
    config: Option<&Path>,
    output: OutputFormat,
    printer: &Printer,
) -> Result<ExitCode, CliError> {
    let settings = config.map(|path| settings::daemon(path, &settings::environment(), printer)).transpose()?;
    std::fs::read_dir(directory).map_err(|error| {
        file_error("read the folder", directory, &error)
            .hint("name the root of a tree: the folder that holds projects/")
    })?;
    let report = forge_daemon::check_folder(directory, settings.as_ref()).map_err(CliError::failed)?;
    let failed = report.has_errors();
    match output {
        OutputFormat::Json => printer.json(&report.api_diagnostics()),
        OutputFormat::Text => {
            if !report.diagnostics.is_empty() {
                printer.talk(settings::draw(&report.diagnostics, printer).trim_end());
                printer.talk("");
            }
            if report.files == 0 {
                printer.warning(&format!(
                    "no file of a tree lies in {}: a tree's root holds projects/, plugins/, runners/ and access/",
                    directory.display()
                ));
            } else if !failed {
                printer.done(&report.summary());
            }
        }
    }
    if !failed {
        return Ok(ExitCode::SUCCESS);
    }
    if output == OutputFormat::Text {
        printer.error(&report.summary());
    }
    Ok(ExitCode::from(1))
}
