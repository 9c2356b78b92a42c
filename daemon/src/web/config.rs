//! The configuration: what serves, what is wrong with a newer revision as the compiler shows it, and what happened before.

use axum::extract::State;
use forge_api::{
    ConfigChange, ConfigChangeKind, ConfigFailure, ConfigRevision, ConfigStatus, Diagnostic, RevisionState, Severity,
    Timestamp,
};
use forge_config::Code;
use maud::{Markup, html};
use serde_json::Value;

use super::layout::{Page, Place, Visitor};
use super::{parts, summary};
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// Where failures of the source are, which are in no file.
const SOURCE: &str = "source";

/// What waits for an admin's word and is no mistake: a revision that removes much.
const PRUNES: &str = "FORGE-S007";

/// A history that was rewritten.
const REWRITTEN: &str = "FORGE-S006";

/// How many revisions the page shows.
const REVISIONS_SHOWN: u32 = 30;

/// How many changes of a revision it shows.
const CHANGES_SHOWN: usize = 200;

/// `GET /config`
pub(crate) async fn show(State(api): State<Api>, visitor: Visitor) -> Result<Markup, Refusal> {
    let status = crate::http::config::seen_status(&api, &visitor.access);
    let revisions = api.core.config_revisions(visitor.access.visible(), None, REVISIONS_SHOWN).await?.items;
    let content = html! {
        div.head { div { h1 { "Configuration" } p { "A folder of files that is read whole and applied whole, or not at all." } } }
        div id="config" data-live data-on="config" {
            @match &status.last_error {
                Some(failure) => (refused(&visitor, failure)),
                None => p.note.good data-announce { strong { "The newest revision serves." } },
            }
            (serving(visitor.now, &status))
            (history(visitor.now, &revisions))
        }
    };
    Ok(Page::new("Configuration", Place::Config, content).draw(&visitor))
}

fn serving(now: Timestamp, status: &ConfigStatus) -> Markup {
    let commit = status.commit.as_ref();
    let facts = [
        (
            "Revision",
            Some(if status.revision.is_empty() {
                parts::text("none: an empty tree serves")
            } else {
                html! { code { (status.revision) } }
            }),
        ),
        ("Author", commit.map(|commit| html! { bdi { (commit.author) } })),
        ("Subject", commit.map(|commit| html! { bdi { (commit.subject) } })),
        ("Committed", commit.map(|commit| parts::ago(now, commit.committed_at))),
        ("Signed by", commit.and_then(|commit| commit.signed_by.as_ref()).map(parts::text)),
        ("Applied", status.applied_at.map(|at| parts::ago(now, at))),
        ("Fetched", status.fetched_at.map(|at| parts::ago(now, at))),
        ("Source", Some(html! { code { (status.source) } })),
    ];
    parts::panel("What serves", html! {}, html! { div.body { (parts::facts(&facts)) } })
}

/// A revision that does not serve.
fn refused(visitor: &Visitor, failure: &ConfigFailure) -> Markup {
    let waits = !failure.diagnostics.is_empty() && failure.diagnostics.iter().all(|found| found.code == PRUNES);
    let rewritten = failure.diagnostics.iter().any(|found| found.code == REWRITTEN);
    let class = if waits { "note warn" } else { "note bad" };
    html! {
        div class=(class) {
            p data-announce {
                strong {
                    @if failure.revision.is_empty() { "The source gives no revision." }
                    @else if waits { "A revision waits for an admin." }
                    @else { "The newest revision was refused." }
                }
                " The last good one serves."
            }
            p.small {
                @if !failure.revision.is_empty() { "Revision " (parts::short(&failure.revision)) ", " }
                @if let Some(commit) = &failure.commit { bdi { (commit.subject) } " by " bdi { (commit.author) } ", " }
                (parts::ago(visitor.now, failure.at))
            }
            @if failure.diagnostics.is_empty() { p { "What is wrong is in files that you may not see." } }
            @else { (mistakes(&failure.diagnostics)) }
            @if waits && !failure.revision.is_empty() {
                p { "It removes much. After a look at the difference, an admin lets it pass with:" }
                (parts::command("apply-prune", &format!("forge config apply --prune {}", failure.revision)))
            } @else if rewritten && !failure.revision.is_empty() {
                p { "If the history was rewritten on purpose, an admin lets it pass with:" }
                (parts::command("apply-rewrite", &format!("forge config apply --accept-rewrite {}", failure.revision)))
            }
        }
    }
}

/// Mistakes on the user's own lines, as `forge config check` draws them.
fn mistakes(diagnostics: &[Diagnostic]) -> Markup {
    let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
    // What keeps the revision away comes before what is only worth knowing.
    let errors = diagnostics.iter().filter(is_error);
    let others = diagnostics.iter().filter(|found| !is_error(found));
    html! {
        pre.code tabindex="0" role="group" aria-label="What is wrong" {
            @for (index, found) in errors.chain(others).enumerate() { @if index > 0 { "\n\n" } (mistake(found)) }
        }
    }
}

fn mistake(found: &Diagnostic) -> Markup {
    let Diagnostic { file, line, column, code, message, hint, severity, source_line } = found;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let before = source_line.chars().take((*column as usize).saturating_sub(1));
    let indent: String = before.map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    html! {
        span.head-line {
            @if file == SOURCE { (file) ": " } @else { (visible(file)) ":" (line) ":" (column) ": " }
            (severity) "["
            @if Code::ALL.iter().any(|known| known.as_str() == code) { a href={ "/config/codes#" (code) } { (code) } } @else { (code) }
            "]: " (visible(message))
        }
        @if !source_line.is_empty() {
            "\n" span.kept { (number) " | " } (visible(source_line)) "\n" span.kept { (gutter) " | " } (indent) span.at { "^" }
        }
        @if let Some(hint) = hint { "\n  hint: " (visible(hint)) }
    }
}

/// A text without what would move a terminal's cursor, as the command line shows it.
fn visible(text: &str) -> String {
    let shown = |character: char| {
        if character.is_control() && !matches!(character, '\n' | '\t') { '\u{fffd}' } else { character }
    };
    text.chars().map(shown).collect()
}

fn history(now: Timestamp, revisions: &[ConfigRevision]) -> Markup {
    parts::panel(
        "History",
        html! {},
        html! {
            @if revisions.is_empty() { (parts::empty("Nothing was applied yet.")) } @else {
                div.body { @for (index, revision) in revisions.iter().enumerate() {
                    details id={ "revision-" (revision.at.unix_micros()) } open[index == 0 && !revision.changes.is_empty()] {
                        summary {
                            @match revision.state {
                                RevisionState::Applied => (parts::badge("is-good", "applied")),
                                RevisionState::Refused => (parts::badge("is-bad", "refused")),
                            }
                            " " (parts::short(&revision.revision)) " "
                            @if let Some(commit) = &revision.commit { bdi { (commit.subject) } " " span.soft { bdi { (commit.author) } } " " }
                            span.soft { (parts::ago(now, revision.at)) }
                            @if !revision.changes.is_empty() { span.soft { ", " (parts::counted(revision.changes.len() as u64, "object", "objects")) } }
                        }
                        @match revision.state {
                            RevisionState::Refused => (mistakes(&revision.diagnostics)),
                            RevisionState::Applied => (changes(revision)),
                        }
                    }
                } }
            }
        },
    )
}

/// What differs from the revision before.
fn changes(revision: &ConfigRevision) -> Markup {
    if revision.changes.is_empty() {
        return html! { p.soft { "No object differs from the one before." } };
    }
    html! {
        pre.code tabindex="0" role="group" aria-label="Differences to the revision before" {
            @for (index, change) in revision.changes.iter().take(CHANGES_SHOWN).enumerate() { @if index > 0 { "\n" } (difference(change)) }
        }
        @if revision.changes_cut || revision.changes.len() > CHANGES_SHOWN { p.soft { "There are more; `forge config diff` shows all of them." } }
    }
}

fn difference(change: &ConfigChange) -> Markup {
    let (sign, class) = match change.change {
        ConfigChangeKind::Added => ("+", "added"),
        ConfigChangeKind::Removed => ("-", "gone"),
        ConfigChangeKind::Changed => ("~", "kept"),
    };
    html! {
        span.head-line { span class=(class) { (sign) " " (visible(&change.object)) } }
        @for field in &change.fields {
            @if field.before != Value::Null { "\n  " span.gone { "- " (field.field) " = " (shown(&field.before)) } }
            @if field.after != Value::Null { "\n  " span.added { "+ " (field.field) " = " (shown(&field.after)) } }
        }
    }
}

/// A value as it may have been written, on one line.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => summary::value_text(other),
    }
}

/// `GET /config/codes`
pub(crate) async fn codes(visitor: Visitor) -> Markup {
    let content = html! {
        p.crumbs { a href="/config" { "Configuration" } }
        div.head { div { h1 { "Diagnostics" } p { "What each code of a refused revision means, and what to do." } } }
        @for code in Code::ALL {
            section.panel id=(code.as_str()) {
                header { h2 { (code.as_str()) } }
                div.body { p { (parts::prose(code.meaning())) } p.soft { (parts::prose(code.remedy())) } }
            }
        }
    };
    Page::new("Diagnostics", Place::Config, content).draw(&visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_stands_on_the_users_own_line() {
        let found = Diagnostic {
            file: "projects/shop/templates/a.toml".to_owned(),
            line: 12,
            column: 3,
            code: "FORGE-C001".to_owned(),
            message: "no <such> key".to_owned(),
            hint: Some("write \u{1b}[31mthis".to_owned()),
            severity: Severity::Error,
            source_line: "\tx<y>".to_owned(),
        };
        let drawn = mistake(&found).into_string();
        assert!(drawn.contains("projects/shop/templates/a.toml:12:3: error["), "{drawn}");
        assert!(drawn.contains("12 | </span>\tx&lt;y&gt;\n"), "{drawn}");
        assert!(drawn.contains("   | </span>\t <span class=\"at\">^</span>"), "{drawn}");
        assert!(!drawn.contains("<such>") && !drawn.contains('\u{1b}'), "{drawn}");
    }
}
