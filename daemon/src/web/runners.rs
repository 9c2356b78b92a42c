//! The runners: how each is, what it may take, what it runs, and how to add one.

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use forge_api::{Page as Items, Runner, RunnerStatus, Task, TaskState};
use forge_config::meant::Role;
use http::header::{HOST, HeaderMap};
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::parts;
use crate::core::TaskFilter;
use crate::http::body::Form;
use crate::http::path::PathOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// How many tasks are looked at to say what each runner runs.
const TASKS_LOOKED_AT: u32 = 500;

/// How far a clock may be off before it is told, in milliseconds.
const SKEW_MS_TOLD: i64 = 2_000;

/// `GET /runners`
pub(crate) async fn list(State(api): State<Api>, visitor: Visitor, headers: HeaderMap) -> Result<Markup, Refusal> {
    let runners = api.core.runners(visitor.access.visible()).await?;
    let mut tasks = Vec::new();
    for state in [TaskState::Running, TaskState::Assigned] {
        let filter =
            TaskFilter { project: None, state: Some(state), template: None, visible: visitor.access.visible() };
        let Items { items, next_cursor: _ } = api.core.tasks(filter, None, TASKS_LOOKED_AT).await?;
        tasks.extend(items);
    }
    let asked = headers.get(HOST).and_then(|host| host.to_str().ok());
    let content = html! {
        div.head {
            div { h1 { "Runners" } p { "They dial in and pull their work; the daemon never calls them." } }
            a.button href="#add" { "Add a runner" }
        }
        section.panel id="runners" data-live data-on="task runner config" aria-label="Runners" {
            @if runners.is_empty() { (parts::empty("No runner is here yet.")) } @else { (table(&visitor, &runners, &tasks)) }
        }
        (how_to_add(&api, asked))
    };
    Ok(Page::new("Runners", Place::Runners, content).draw(&visitor))
}

/// Used and possible slots.
pub(super) fn slots(runner: &Runner) -> Markup {
    html! {
        @if runner.max_parallel_tasks == 0 { (runner.running) " of ∞" }
        @else { (runner.running) " of " (runner.max_parallel_tasks) }
    }
}

fn table(visitor: &Visitor, runners: &[Runner], tasks: &[Task]) -> Markup {
    let may = |runner: &Runner| match runner.project {
        Some(_) => visitor.may(Role::Owner),
        None => visitor.may_everywhere(Role::Admin),
    };
    let any = runners.iter().any(may);
    parts::table(
        "Runners",
        html! {
            thead { tr {
                th scope="col" { "Runner" } th scope="col" { "Status" } th scope="col" { "Tags" } th scope="col" { "Runs" }
                th.num scope="col" { "Slots" } th.num scope="col" { "Load" } th.num scope="col" { "Memory free" } th.num scope="col" { "Disk free" }
                th scope="col" { "Version" } th.num scope="col" { "Heard of" }
                @if any { th scope="col" { span.hidden-text { "What may be done" } } }
            } }
            tbody { @for runner in runners {
                tr {
                    th scope="row" { span.nowrap { (runner.name) }
                        div.soft.small.nowrap { @if let Some(project) = &runner.project { "of " (project) } @else { "every project" } } }
                    td { span data-announce[runners.len() == 1] { (parts::runner_status(runner.status)) } (skew(runner)) }
                    td { (parts::tags(&runner.tags)) }
                    td { @for task in tasks.iter().filter(|task| task.runner.as_ref() == Some(&runner.name)).take(5) {
                        div.nowrap { a href={ "/tasks/" (task.number) } { "#" (task.number) } } div.soft.small { (task.template) }
                    } }
                    td.num.nowrap {
                        div { (slots(runner)) }
                        @if runner.max_parallel_tasks > 0 {
                            meter.meter min="0" max=(runner.max_parallel_tasks) value=(runner.running) aria-label="Slots in use" { (slots(runner)) }
                        }
                    }
                    @if let Some(health) = &runner.health {
                        td.num { (format!("{:.2}", health.load1)) }
                        td.num.nowrap { (parts::bytes(health.memory_bytes_free)) }
                        td.num.nowrap { (parts::bytes(health.disk_bytes_free)) }
                    } @else { td {} td {} td {} }
                    td { (runner.version) }
                    td.num.nowrap { (parts::ago_or(visitor.now, runner.last_contact_at, "never")) }
                    @if any { td.actions { @if may(runner) { (actions(visitor, runner)) } } }
                }
            } }
        },
    )
}

fn skew(runner: &Runner) -> Markup {
    let skew = runner.health.and_then(|health| health.clock_skew_ms).filter(|skew| skew.abs() >= SKEW_MS_TOLD);
    html! { @if let Some(skew) = skew {
        div.small { "its clock is " (parts::span(skew.unsigned_abs())) @if skew > 0 { " ahead" } @else { " behind" } }
    } }
}

fn actions(visitor: &Visitor, runner: &Runner) -> Markup {
    let path = |word: &str| format!("/runners/{}/{word}", parts::segment(&runner.name));
    let named = |word: &str| html! { (word) span.hidden-text { " " (runner.name) } };
    let button = |path: String, class: &str, words: Markup| {
        html! { form method="post" action=(path) { (parts::csrf(visitor)) button.slim class=(class) type="submit" { (words) } } }
    };
    html! {
        div.buttons {
            @if runner.status == RunnerStatus::Draining { (button(path("resume"), "", named("Resume"))) }
            @else if runner.public_key.is_some() { (button(path("drain"), "", named("Drain"))) }
            @if runner.public_key.is_some() {
                details id={ "remove-" (runner.name) } {
                    summary { (named("Remove…")) }
                    (button(path("remove"), "risky", named("Remove for good")))
                }
            }
        }
    }
}

/// The exact commands.
fn how_to_add(api: &Api, asked: Option<&str>) -> Markup {
    let scheme = if api.speaks_tls { "https" } else { "http" };
    let web_host = api.web_host.clone().or_else(|| asked.map(|host| format!("{scheme}://{host}")));
    let web_host = web_host.unwrap_or_else(|| "https://forge.example.com:8443".to_owned());
    let ca = api.ca_fingerprint.as_ref().map(|fingerprint| format!(" \\\n  --ca-fingerprint {}", quoted(fingerprint)));
    let setup = format!(
        "forge runner setup --yes --stdin-registration-token \\\n  --web-host {}{} \\\n  --name NAME --tmp-path /var/lib/forge-runner \\\n  < registration-token",
        quoted(&web_host),
        ca.unwrap_or_default()
    );
    html! {
        section.panel id="add" {
            header { h2 { "Add a runner" } }
            div.body {
                p { "On a machine that reaches " code { (web_host) } " and has the " code { "forge" } " program. " code { "registration-token" }
                    " is a file with a token whose hash stands under " code { "registration-tokens/" } " of the tree; the runner's tags and project come from there." }
                ol.stack {
                    li { p { "Make a token, and commit the hash that it prints as " code { "registration-tokens/east.toml" } ", with the tags that its runners get:" }
                        (parts::command("add-token", "forge token new --kind registration")) }
                    li { p { "Write the runner's settings and register it, under a name of its own" @if api.ca_fingerprint.is_none() { "; no fingerprint is needed, since the daemon's certificate is one that machines trust already" } ":" }
                        (parts::command("add-setup", &setup)) }
                    li { p { "Start it, here or as the service " code { "forge-runner" } " of the package:" }
                        (parts::command("add-start", "forge runner --config runner.toml")) }
                }
            }
        }
    }
}

/// A word as a shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = text.chars().all(|character| character.is_ascii_alphanumeric() || "-_.:/[]@".contains(character));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn back() -> Response {
    Redirect::to("/runners").into_response()
}

/// `POST /runners/{name}/drain`
pub(crate) async fn drain(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf(name): PathOf<String>,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    tracing::info!(runner = name, by = visitor.access.name(), "a runner is drained");
    api.core.set_draining(&name, true, visitor.access.actor()).await?;
    Ok(back())
}

/// `POST /runners/{name}/resume`
pub(crate) async fn resume(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf(name): PathOf<String>,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    tracing::info!(runner = name, by = visitor.access.name(), "a runner is resumed");
    api.core.set_draining(&name, false, visitor.access.actor()).await?;
    Ok(back())
}

/// `POST /runners/{name}/remove`
pub(crate) async fn remove(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf(name): PathOf<String>,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    tracing::info!(runner = name, by = visitor.access.name(), "a runner is removed");
    api.core.remove_runner(&name, visitor.access.actor()).await?;
    Ok(back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_holds_hostile_words_as_words() {
        assert_eq!(quoted("https://forge.example.com:8443"), "https://forge.example.com:8443");
        assert_eq!(quoted("https://a$(id)'b"), r"'https://a$(id)'\''b'");
    }
}
