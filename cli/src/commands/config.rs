//! `forge config`: check a tree before it is pushed, and ask what a daemon serves.

use std::path::Path;
use std::process::ExitCode;

use forge_api::{ConfigStatus, Diagnostic, Severity};

use super::CLIENT_THREADS;
use crate::args::{ConfigCommand, OutputFormat};
use crate::client::Client;
use crate::error::{CliError, file_error};
use crate::printer::{Printer, Table};
use crate::{runtime, settings};

pub(crate) fn run(command: ConfigCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    match command {
        ConfigCommand::Check { directory, config, output } => check(&directory, config.as_deref(), output, printer),
        ConfigCommand::Status { config, at } => runtime::run(CLIENT_THREADS, async {
            let status = match config {
                Some(path) => {
                    let data_dir = settings::daemon(&path, &settings::environment(), printer)?.data_dir;
                    crate::local::config_status(&data_dir).await?
                }
                None => Client::connect(&at.connection)?.config().await?,
            };
            show(&status, at.output, printer);
            Ok(ExitCode::SUCCESS)
        }),
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

fn show(status: &ConfigStatus, output: OutputFormat, printer: &Printer) {
    if output == OutputFormat::Json {
        return printer.json(status);
    }
    let mut table = Table::new(&["source", &status.source]);
    let serving = if status.revision.is_empty() { "none: an empty tree serves" } else { &status.revision };
    table.row(["revision".to_owned(), serving.to_owned()]);
    table.row(["applied".to_owned(), status.applied_at.map_or_else(|| "-".to_owned(), |moment| moment.to_string())]);
    let Some(failure) = &status.last_error else {
        table.row(["newest".to_owned(), "applied".to_owned()]);
        return printer.data(&table.draw());
    };
    table.row(["newest".to_owned(), format!("{} was refused at {}", failure.revision, failure.at)]);
    printer.data(&table.draw());
    printer.talk("");
    printer.talk(&failure.diagnostics.iter().map(drawn).collect::<Vec<_>>().join("\n\n"));
    printer.hint("the last good revision keeps serving; mend the tree, and it is applied by itself");
}

/// A mistake that came over the wire, on the user's own line.
fn drawn(diagnostic: &Diagnostic) -> String {
    let Diagnostic { file, line, column, code, message, hint, severity, source_line } = diagnostic;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut text = format!("{file}:{line}:{column}: {severity}[{code}]: {message}");
    if !source_line.is_empty() {
        let indent = source_line
            .chars()
            .take((*column as usize).saturating_sub(1))
            .map(|character| if character == '\t' { '\t' } else { ' ' });
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        text.push_str(&format!("\n{number} | {source_line}\n{gutter} | {}^", indent.collect::<String>()));
    }
    if let Some(hint) = hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text.chars()
        .map(
            |character| {
                if character.is_control() && !matches!(character, '\n' | '\t') { '\u{fffd}' } else { character }
            },
        )
        .collect()
}
