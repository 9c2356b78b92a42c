//! `forge config diff A B`: what a change would do, object by object. A side is a folder, a revision of the git repository around the
//! current folder, or `live` for what a daemon serves. Exits 0 without and 3 with changes.

use std::path::Path;
use std::process::ExitCode;

use forge_config::{ChangeKind, DaemonSettings, ObjectChange, Objects, PluginChange, TreeDiff, objects};
use serde_json::Value;

use super::check::report_of;
use super::git_tree;
use crate::args::{Connection, OutputFormat};
use crate::client::Client;
use crate::commands::CLIENT_THREADS;
use crate::error::CliError;
use crate::printer::Printer;
use crate::{runtime, settings};

/// How `forge config diff` ends when it found changes.
const EXIT_CHANGES: u8 = 3;

/// The name of what a daemon serves.
const LIVE: &str = "live";

/// How many characters of one value are shown.
const VALUE_CHARS_MAX: usize = 160;

/// What is compared.
pub(crate) struct Diff<'a> {
    pub(crate) before: &'a str,
    pub(crate) after: &'a str,
    pub(crate) config: Option<&'a Path>,
    pub(crate) output: OutputFormat,
    pub(crate) connection: &'a Connection,
}

/// One side.
struct Side {
    /// The revision, as far as there is one: a commit, the served revision, or the hash of a folder's files.
    revision: String,
    objects: Objects,
}

pub(crate) fn run(diff: &Diff<'_>, printer: &Printer) -> Result<ExitCode, CliError> {
    let settings = diff.config.map(|path| settings::daemon(path, &settings::environment(), printer)).transpose()?;
    let before = side(diff.before, diff, settings.as_ref(), printer)?;
    let after = side(diff.after, diff, settings.as_ref(), printer)?;
    let changes = TreeDiff::between(&before.objects, &after.objects);
    match diff.output {
        OutputFormat::Json => printer.json(&serde_json::json!({
            "before": before.revision,
            "after": after.revision,
            "objects": changes.objects,
            "plugins": changes.plugins,
        })),
        OutputFormat::Text => show(&changes, printer),
    }
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHANGES) })
}

fn side(name: &str, diff: &Diff<'_>, settings: Option<&DaemonSettings>, printer: &Printer) -> Result<Side, CliError> {
    if name == LIVE {
        let served = runtime::run(CLIENT_THREADS, async { Client::connect(diff.connection)?.served_config().await })?;
        return Ok(Side { revision: served.revision, objects: served.objects });
    }
    if Path::new(name).is_dir() {
        return checked(Path::new(name), None, name, settings, printer);
    }
    let tree = git_tree::unpack(name)?;
    checked(tree.folder(), Some(tree.commit().to_owned()), name, settings, printer)
}

/// The objects of a folder that passes the check.
fn checked(
    folder: &Path,
    commit: Option<String>,
    name: &str,
    settings: Option<&DaemonSettings>,
    printer: &Printer,
) -> Result<Side, CliError> {
    let report = report_of(folder, settings)?;
    match &report.tree {
        Some(tree) => Ok(Side { revision: commit.unwrap_or(report.revision), objects: objects(tree) }),
        None => {
            let errors: Vec<_> = report.diagnostics.into_iter().filter(forge_config::Diagnostic::is_error).collect();
            let message = format!("{name} is no tree that a daemon would serve, so nothing can be compared");
            Err(CliError::drawn(settings::draw(&errors, printer), message))
        }
    }
}

fn show(changes: &TreeDiff, printer: &Printer) {
    if changes.is_empty() {
        printer.data("no changes");
        return;
    }
    for PluginChange { plugin, what, added, removed } in &changes.plugins {
        let names = |sign: &str, names: &[String]| {
            names.iter().map(|name| format!(" {sign}{}", one_line(name))).collect::<String>()
        };
        let what = if what == "sha256" { "another component" } else { &format!("grants {what}") };
        printer.data(&format!("! plugins/{plugin}: {what}:{}{}", names("-", removed), names("+", added)));
    }
    if !changes.plugins.is_empty() {
        printer.data("");
    }
    for ObjectChange { object, change, fields } in &changes.objects {
        let sign = match change {
            ChangeKind::Added => "+",
            ChangeKind::Removed => "-",
            ChangeKind::Changed => "~",
        };
        printer.data(&format!("{sign} {object}"));
        for field in fields.iter().filter(|_| *change != ChangeKind::Removed) {
            let name = one_line(&field.field);
            match (&field.before, &field.after) {
                (Value::Null, after) => printer.data(&format!("    + {name}: {}", shown(after))),
                (before, Value::Null) => printer.data(&format!("    - {name}: {}", shown(before))),
                (Value::String(before), Value::String(after)) if before.contains('\n') || after.contains('\n') => {
                    printer.data(&format!("    ~ {name}:"));
                    lines_that_differ(before, after).iter().for_each(|line| printer.data(&format!("        {line}")));
                }
                (before, after) => {
                    printer.data(&format!("    ~ {name}: {} -> {}", shown(before), shown(after)));
                }
            }
        }
    }
    let (added, changed, removed) = changes.counts();
    printer.data(&format!("\n{added} added, {changed} changed, {removed} removed"));
}

/// A value as JSON, on one line and not endless.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", one_line(&text[..end])),
        None => one_line(&text),
    }
}

/// The lines between what both texts begin and end with: those that go, then those that come.
fn lines_that_differ(before: &str, after: &str) -> Vec<String> {
    let (mut old, mut new): (Vec<_>, Vec<_>) = (before.split('\n').collect(), after.split('\n').collect());
    while old.last().is_some() && old.last() == new.last() {
        old.pop();
        new.pop();
    }
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let side = |sign: &'static str, lines: &[&str]| -> Vec<String> {
        lines.iter().skip(same).map(|line| format!("{sign} {}", one_line(line))).collect()
    };
    [side("-", &old), side("+", &new)].concat()
}

/// The text without what moves a terminal's cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_only_the_lines_that_differ_are_shown() {
        assert_eq!(lines_that_differ("a\nb\nc\n", "a\nx\ny\nc\n"), ["- b", "+ x", "+ y"]);
        assert_eq!(lines_that_differ("a\nb", "a\nb\nc"), ["+ c"]);
        assert_eq!(lines_that_differ("a\na", "a"), ["- a"]);
        assert_eq!(lines_that_differ("\u{1b}[2J\n", "b\n"), ["-  [2J", "+ b"]);
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = shown(&Value::String("é".repeat(500)));
        assert_eq!(long.chars().count(), VALUE_CHARS_MAX + 3);
    }
}
