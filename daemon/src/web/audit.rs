//! Who did what, when, from where, and how it ended; the filters live in the URL.

use axum::extract::State;
use forge_api::{AuditAction, AuditEntry, AuditResult};
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::{parts, summary};
use crate::http::audit::{self, AuditQuery};
use crate::http::path::QueryOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// `GET /audit`
pub(crate) async fn list(
    State(api): State<Api>,
    visitor: Visitor,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Markup, Refusal> {
    // A filter that is empty, as a form sends it, is none.
    let query = query.without_empty();
    let AuditQuery { project, actor, action, since, until, cursor, limit: _ } = query.clone();
    let applied = api.config.borrow().clone();
    let names = applied.tree.projects.keys().map(forge_config::Name::as_str);
    let projects: Vec<&str> = names.filter(|name| visitor.access.sees(name)).collect();
    let page = audit::page(&api, &visitor.access, query).await?;
    let filters = [
        ("project", project.as_deref()),
        ("actor", actor.as_deref()),
        ("action", action.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
    ];
    let content = html! {
        div.head { div { h1 { "Audit" } p { "Who did what, from where, and how it ended. Nothing here is ever changed." } } }
        form.filters method="get" action="/audit" role="search" aria-label="Filter the audit log" {
            (parts::choice("project", "Project", "every project", project.as_deref(), projects))
            (parts::choice("action", "Action", "every action", action.as_deref(), AuditAction::ALL.iter().map(|action| action.as_str())))
            div.field {
                label for="filter-actor" { "Actor" }
                input id="filter-actor" name="actor" value=[actor.as_deref()] autocomplete="off" data-find;
            }
            button type="submit" { "Filter" }
            @if filters.iter().any(|(_, value)| value.is_some()) { a.button href="/audit" { "Clear" } }
        }
        section.panel aria-label="Audit log" {
            @if page.items.is_empty() { (parts::empty("No entry is like this.")) } @else { (table(&visitor, &page.items)) }
            (parts::pager("/audit", &filters, cursor.as_deref(), page.next_cursor.as_deref()))
        }
    };
    Ok(Page::new("Audit", Place::Audit, content).draw(&visitor))
}

fn table(visitor: &Visitor, entries: &[AuditEntry]) -> Markup {
    parts::table(
        "Entries, newest first",
        html! {
            thead { tr {
                th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "From" } th scope="col" { "Action" }
                th scope="col" { "What" } th scope="col" { "Result" } th scope="col" { "More" }
            } }
            tbody { @for entry in entries {
                tr {
                    td.nowrap { (parts::ago(visitor.now, entry.at)) }
                    td { @if entry.actor.is_empty() { span.soft { "unknown" } } @else { bdi { (entry.actor) } } div.soft.small { (entry.actor_kind.as_str()) } }
                    td { @if let Some(remote) = &entry.remote { code { (remote) } } }
                    td { code { (entry.action.as_str()) } }
                    td.breaks { (object(&entry.object)) @if let Some(project) = &entry.project { div.soft.small { (project) } } }
                    td {
                        @match entry.result {
                            AuditResult::Ok => (parts::badge("is-good", "ok")),
                            AuditResult::Refused => (parts::badge("is-warn", "refused")),
                            AuditResult::Failed => (parts::badge("is-bad", "failed")),
                        }
                        @if let Some(problem) = &entry.problem { div.soft.small { (problem) } }
                    }
                    td { @if let Some(detail) = &entry.detail { details { summary.small { "Detail" } pre.code.wraps { (summary::pretty(detail)) } } } }
                }
            } }
        },
    )
}

/// What an entry is about; a task as a link to it.
fn object(object: &str) -> Markup {
    let task = object.strip_prefix("task ").and_then(|number| number.parse::<u64>().ok());
    html! { @if let Some(number) = task { a href={ "/tasks/" (number) } { (object) } } @else { bdi { (object) } } }
}
