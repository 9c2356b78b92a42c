//! `forge config check`: every mistake of a tree at once, for people, for programs, and as annotations of a pull request.

use std::path::Path;
use std::process::ExitCode;

use forge_config::{Diagnostic, Severity};
use forge_daemon::CheckReport;

use crate::args::CheckOutput;
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::settings;

/// What a check was asked for.
pub(crate) struct Check<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) config: Option<&'a Path>,
    pub(crate) output: CheckOutput,
    pub(crate) timings: Timings,
}

/// Whether to say how long each part took.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timings {
    Shown,
    Hidden,
}

pub(crate) fn run(check: &Check<'_>, printer: &Printer) -> Result<ExitCode, CliError> {
    let Check { directory, config, output, timings } = *check;
    let settings = config.map(|path| settings::daemon(path, &settings::environment(), printer)).transpose()?;
    let report = report_of(directory, settings.as_ref())?;
    match output {
        CheckOutput::Json => printer.json(&report.api_diagnostics()),
        CheckOutput::Github => {
            for found in &report.diagnostics {
                printer.data(&annotation(directory, found));
            }
        }
        CheckOutput::Text => {
            if !report.diagnostics.is_empty() {
                printer.talk(settings::draw(&report.diagnostics, printer).trim_end());
                printer.talk("");
            }
            if report.files == 0 {
                printer.warning(&format!(
                    "no file of a tree lies in {}: a tree's root holds projects/, plugins/, runners/ and access/",
                    directory.display()
                ));
            } else if !report.has_errors() {
                printer.done(&report.summary());
            }
        }
    }
    if timings == Timings::Shown {
        printer.talk(&format!("read {:?}, checked {:?}, {} files", report.reading, report.checking, report.files));
    }
    if !report.has_errors() {
        return Ok(ExitCode::SUCCESS);
    }
    if output != CheckOutput::Json {
        printer.error(&report.summary());
    }
    Ok(ExitCode::from(1))
}

/// Checks a folder, which must be there.
pub(crate) fn report_of(
    directory: &Path,
    settings: Option<&forge_config::DaemonSettings>,
) -> Result<CheckReport, CliError> {
    std::fs::read_dir(directory).map_err(|error| {
        file_error("read the folder", directory, &error)
            .hint("name the root of a tree: the folder that holds projects/")
    })?;
    forge_daemon::check_folder(directory, settings).map_err(CliError::failed)
}

/// A workflow command of GitHub Actions, which shows the mistake on its line of the pull request.
fn annotation(directory: &Path, found: &Diagnostic) -> String {
    let Diagnostic { file, line, column, code, severity, message, hint, .. } = found;
    let command = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    // GitHub knows files by their path from the repository's root, which is where a workflow runs.
    let path = if directory == Path::new(".") { Path::new(file).to_owned() } else { directory.join(file) };
    let path = path.strip_prefix(".").unwrap_or(&path).display().to_string();
    let text = match hint {
        Some(hint) => format!("{message}\nhint: {hint}"),
        None => message.clone(),
    };
    let (path, title) = (property(&path), property(code.as_str()));
    format!("::{command} file={path},line={line},col={column},title={title}::{}", escaped(&text))
}

/// What a message may not hold as it is.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What a property may not hold as it is.
fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_cannot_be_ended_by_what_it_shows() {
        assert_eq!(escaped("100%\n::error::x"), "100%25%0A::error::x");
        assert_eq!(property("a:b,c\r"), "a%3Ab%2Cc%0D");
    }
}
