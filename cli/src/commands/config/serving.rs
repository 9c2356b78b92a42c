//! `forge config status` and `forge config apply`: what a daemon serves, what keeps a newer revision away, and an admin's word that lets it pass.

use std::path::Path;
use std::process::ExitCode;

use forge_api::{ApplyConfig, ConfigFailure, ConfigStatus, Diagnostic, Severity, Timestamp};

use super::super::CLIENT_THREADS;
use crate::args::{Ask, OutputFormat};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::{Printer, Table};
use crate::{runtime, settings};

/// Where failures of the source are, which are in no file.
const SOURCE: &str = "source";

/// What waits for an admin's word and is no mistake: a revision that removes much.
const PRUNES: &str = "FORGE-S007";

/// Shows what serves.
pub(super) fn status(config: Option<&Path>, at: &Ask, printer: &Printer) -> Result<ExitCode, CliError> {
    let status = runtime::run(CLIENT_THREADS, async {
        match config {
            Some(path) => {
                let data_dir = settings::daemon(path, &settings::environment(), printer)?.data_dir;
                crate::local::config_status(&data_dir).await
            }
            None => Client::connect(&at.connection)?.config().await,
        }
    })?;
    show(&status, at.output, printer);
    Ok(ExitCode::SUCCESS)
}

/// Has the newest revision applied; exits 1 when it does not serve in the end.
pub(super) fn apply(
    prune: Option<String>,
    accept_rewrite: Option<String>,
    at: &Ask,
    printer: &Printer,
) -> Result<ExitCode, CliError> {
    let request = ApplyConfig { prune, accept_rewrite };
    let status = runtime::run(CLIENT_THREADS, async { Client::connect(&at.connection)?.apply_config(&request).await })?;
    show(&status, at.output, printer);
    match &status.last_error {
        None => {
            if at.output == OutputFormat::Text {
                printer.done(&format!("revision {} serves", status.revision));
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(_) => Ok(ExitCode::from(1)),
    }
}

fn show(status: &ConfigStatus, output: OutputFormat, printer: &Printer) {
    if output == OutputFormat::Json {
        return printer.json(status);
    }
    let mut table = Table::new(&["source", &status.source]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let serving = if status.revision.is_empty() { "none: an empty tree serves" } else { &status.revision };
    row("revision", serving.to_owned());
    if let Some(commit) = &status.commit {
        row("author", commit.author.clone());
        row("subject", commit.subject.clone());
        row("committed", commit.committed_at.to_string());
        row("signed by", commit.signed_by.clone().unwrap_or_else(|| "-".to_owned()));
    }
    row("applied", status.applied_at.map_or_else(|| "-".to_owned(), moment));
    if let Some(fetched) = status.fetched_at {
        row("fetched", moment(fetched));
    }
    let Some(failure) = &status.last_error else {
        row("newest", "applied".to_owned());
        return printer.data(&table.draw());
    };
    row("newest", newest(failure));
    printer.data(&table.draw());
    printer.talk("");
    printer.talk(&failure.diagnostics.iter().map(drawn).collect::<Vec<_>>().join("\n\n"));
    if failure.diagnostics.iter().any(|found| found.file != SOURCE) {
        printer.hint("the last good revision keeps serving; mend the tree, and it is applied by itself");
    } else {
        printer.hint("the last good revision keeps serving meanwhile");
    }
}

fn newest(failure: &ConfigFailure) -> String {
    if failure.revision.is_empty() {
        format!("unknown since {}: the source gives none", failure.at)
    } else {
        let by = failure.commit.as_ref().map(|commit| format!(" ({:?} by {})", commit.subject, commit.author));
        let waits = failure.diagnostics.iter().all(|found| found.code == PRUNES);
        let what = if waits { "waits for an admin since" } else { "was refused at" };
        format!("{}{} {what} {}", failure.revision, by.unwrap_or_default(), failure.at)
    }
}

/// A moment, and how long ago it is by this machine's clock.
fn moment(at: Timestamp) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    format!("{at} ({} ago)", age(now_s.saturating_sub(at.unix_micros() / 1_000_000)))
}

/// A length of time in its two largest units. A clock that is behind the daemon's says 0 s.
fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// A mistake that came over the wire, on the user's own line.
fn drawn(diagnostic: &Diagnostic) -> String {
    let Diagnostic { file, line, column, code, message, hint, severity, source_line } = diagnostic;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let place = if file == SOURCE { format!("{file}: ") } else { format!("{file}:{line}:{column}: ") };
    let mut text = format!("{place}{severity}[{code}]: {message}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_shows_its_two_largest_units() {
        for (seconds, shown) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (3_660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(age(seconds), shown);
        }
    }
}
