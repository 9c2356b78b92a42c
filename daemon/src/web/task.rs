//! One task: where it stands and why, what may be done with it, what it reported, its attempts, its log.

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use forge_api::{Attempt, AttemptOutcome, Decision, RetryTask, Task, TaskState, Why};
use forge_config::meant::Role;
use http::header::HeaderMap;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Page, Place, Scripts, Visitor};
use super::{chart, log_view, parts, summary};
use crate::http::body::Form;
use crate::http::gate::SeenTask;
use crate::http::path::QueryOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// What the script sends when it asks a page for its fresh parts.
const PARTS_HEADER: &str = "forge-parts";

/// What `GET /tasks/{n}` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskQuery {
    /// Whose log is shown; the newest without it.
    attempt: Option<u32>,
    /// The first line that is shown, for readers without a script; the last ones without it.
    from: Option<u64>,
}

/// `GET /tasks/{n}`
pub(crate) async fn show(
    State(api): State<Api>,
    visitor: Visitor,
    SeenTask(task): SeenTask,
    QueryOf(query): QueryOf<TaskQuery>,
    headers: HeaderMap,
) -> Result<Markup, Refusal> {
    let why = if task.state.is_final() {
        None
    } else {
        Some(api.core.why_for(visitor.access.visible().as_deref(), task.number).await?)
    };
    let attempts = api.core.attempts(task.number).await?;
    let shown = query.attempt.unwrap_or(task.attempt);
    let log = if headers.contains_key(PARTS_HEADER) {
        html! {}
    } else {
        log_view::panel(&api, &task, shown, attempts.len(), query.from).await?
    };
    let on = news(&task);
    let title = format!("Task {} · {}/{}", task.number, task.project, task.template);
    let content = html! {
        p.crumbs { a href="/tasks" { "Tasks" } span aria-hidden="true" { "/" } (parts::template_link(&task.project, &task.template)) }
        // What the log's script turns to.
        p id="newest-attempt" data-live data-on=(on) hidden { (task.attempt) }
        div id="task" data-live data-on=(on) {
            div.head {
                div {
                    div.titled {
                        h1 { "Task " (task.number) }
                        span data-announce { (parts::state(task.state)) }
                    }
                    (byline(&visitor, &task))
                }
                (actions(&visitor, &task))
            }
            (standing(&visitor, &task, why.as_ref()))
            (summary::panel(&task))
        }
        (log)
        div.split id="details" data-live data-on=(on) {
            div { (timeline(&visitor, &task, &attempts)) }
            (about(&visitor, &task))
        }
    };
    let page = Page { title: &title, place: Place::Tasks, scripts: Scripts::Log, content };
    Ok(page.draw(&visitor))
}

/// What changes the page: the task itself, and what it waits for.
fn news(task: &Task) -> String {
    let own = format!("task:{}", task.number);
    match (task.state, &task.runner) {
        (TaskState::Queued, _) => "task runner config".to_owned(),
        (TaskState::Assigned | TaskState::Running, Some(runner)) => format!("{own} runner:{runner}"),
        _ => own,
    }
}

/// What most look for first, in a line.
fn byline(visitor: &Visitor, task: &Task) -> Markup {
    html! {
        div.by {
            span { (parts::trigger(&task.trigger)) }
            @if let Some(runner) = &task.runner { span { "on " (runner) } }
            @if task.started_at.is_some() && task.state != TaskState::AwaitingApproval { span { "ran for " (parts::lasted(visitor.now, task.started_at, task.finished_at)) } }
            span { "created " (parts::ago(visitor.now, task.created_at)) }
        }
    }
}

/// What may be done with it.
fn actions(visitor: &Visitor, task: &Task) -> Markup {
    let path = |word: &str| format!("/tasks/{}/{word}", task.number);
    html! {
        @if visitor.may(Role::Operator) {
            div.buttons {
                @if task.state.is_final() {
                    (parts::action(visitor, &path("retry"), "", "Retry"))
                    @if !task.template_removed {
                        a.button href={ (parts::template_path(&task.project, &task.template)) "#run" } { "Run anew" }
                    }
                } @else {
                    (parts::action(visitor, &path("cancel"), "risky", "Cancel"))
                }
            }
        }
    }
}

/// Why it is where it is, and a person's word where it waits for one.
fn standing(visitor: &Visitor, task: &Task, why: Option<&Why>) -> Markup {
    let now = visitor.now;
    if task.state == TaskState::AwaitingApproval {
        return approval(visitor, task, why);
    }
    let Some(why) = why else {
        let class = match task.state {
            TaskState::Canceled | TaskState::Expired | TaskState::Skipped => "note warn",
            _ => "note bad",
        };
        return html! { @if let Some(reason) = &task.reason { p class=(class) { bdi { (reason) } } } };
    };
    if task.state == TaskState::Running && why.unmet.is_empty() {
        return html! {};
    }
    html! {
        div.note.busy {
            p { strong { (parts::prose(&why.message)) } }
            @if why.unmet.len() > 1 {
                ul.stack { @for unmet in &why.unmet {
                    li { (parts::prose(&unmet.message)) @if !unmet.remedy.is_empty() { div.small { (parts::prose(&unmet.remedy)) } } }
                } }
            } @else if let Some(remedy) = &why.remedy { p { (parts::prose(remedy)) } }
            (deadline(now, why))
        }
    }
}

fn deadline(now: forge_api::Timestamp, why: &Why) -> Markup {
    html! {
        @if let (Some(deadline), Some(then)) = (why.deadline, &why.at_deadline) {
            p.small { "Otherwise, " (parts::ago(now, deadline)) ", " (then) "." }
        }
    }
}

fn approval(visitor: &Visitor, task: &Task, why: Option<&Why>) -> Markup {
    let path = |word: &str| format!("/tasks/{}/{word}", task.number);
    html! {
        div.note.person {
            p { strong { "A person must approve what it has planned" }
                @if let Some(planned) = summary::text(task) { ": " bdi { (planned) } } "." }
            @if visitor.may(Role::Operator) {
                form.form method="post" action=(path("approve")) {
                    (parts::csrf(visitor))
                    input type="hidden" name="attempt" value=(task.attempt);
                    div.field {
                        label for="reason" { "Reason " span.soft { "(optional)" } }
                        input id="reason" name="reason" maxlength="1024" autocomplete="off";
                    }
                    div.buttons {
                        button.main type="submit" { "Approve" }
                        button.risky type="submit" formaction=(path("reject")) { "Reject" }
                    }
                }
            }
            @if let Some(why) = why { (deadline(visitor.now, why)) }
        }
    }
}

/// What it is.
fn about(visitor: &Visitor, task: &Task) -> Markup {
    let now = visitor.now;
    let facts = [
        (
            "Template",
            Some(html! {
                (parts::template_link(&task.project, &task.template))
                @if task.template_removed { " " (parts::badge("is-warn", "left the tree")) }
            }),
        ),
        ("Started by", Some(parts::trigger(&task.trigger))),
        (
            "Approved by",
            task.approved.as_ref().map(|approved| html! { bdi { (approved.by) } ", " (parts::ago(now, approved.at)) }),
        ),
        ("Runner", task.runner.as_ref().map(parts::text)),
        ("Needs tag", task.required_tag.as_ref().map(|tag| html! { span.tag { (tag) } })),
        ("Exit code", task.exit_code.map(|code| html! { (code) })),
        ("Created", Some(parts::ago(now, task.created_at))),
        ("Waited", task.started_at.map(|started| html! { (parts::span(started.millis_since(task.created_at))) })),
        (
            "Ran for",
            task.started_at
                .filter(|_| task.state != TaskState::AwaitingApproval)
                .map(|started| parts::lasted(now, Some(started), task.finished_at)),
        ),
        ("Ended", task.finished_at.map(|ended| parts::ago(now, ended))),
        (
            "Configuration",
            Some(html! {
                (parts::short(&task.revision))
                @if let Some(subject) = &task.revision_subject { div { bdi { (subject) } } }
                @if let Some(author) = &task.revision_author { div.soft { bdi { (author) } } }
            }),
        ),
        ("Commit", task.commit.as_ref().map(|commit| parts::short(commit))),
    ];
    html! {
        div {
            (parts::panel("About", html! {}, html! { div.body { (parts::facts(&facts)) } }))
            @if !task.variables.is_empty() {
                (parts::panel("Answers", html! {}, html! { div.body { dl.facts {
                    @for (name, value) in &task.variables {
                        dt { code { (name) } } dd { bdi { (summary::value_text(value)) } }
                    }
                } } }))
            }
        }
    }
}

/// Its attempts, as a picture and as a table.
fn timeline(visitor: &Visitor, task: &Task, attempts: &[Attempt]) -> Markup {
    let now = visitor.now;
    if attempts.is_empty() {
        return html! {};
    }
    parts::panel(
        "Attempts",
        html! {},
        html! {
            div.body { (chart::timeline("attempts", attempts, task.created_at, now)) }
            (parts::table("Attempts", html! {
                thead { tr {
                    th scope="col" { "Attempt" } th scope="col" { "Runner" } th scope="col" { "Result" }
                    th.num scope="col" { "Took" } th.num scope="col" { "Log" } th.num scope="col" { "Assigned" }
                } }
                tbody { @for attempt in attempts.iter().rev() {
                    tr {
                        th scope="row" { a href={ "/tasks/" (task.number) "?attempt=" (attempt.number) "#log" } { "#" (attempt.number) } }
                        td { (attempt.runner) }
                        td {
                            (outcome(attempt))
                            @if let Some(reason) = attempt.reason.as_ref().or(attempt.closed_why.as_ref()).filter(|_| attempt.outcome != Some(AttemptOutcome::Succeeded)) { div.soft.small { bdi { (reason) } } }
                        }
                        td.num.nowrap { (parts::lasted(now, attempt.started_at, attempt.closed_at)) }
                        td.num.nowrap { (parts::bytes(attempt.log_bytes)) }
                        td.num.nowrap { (parts::ago(now, attempt.assigned_at)) }
                    }
                } }
            }))
        },
    )
}

fn outcome(attempt: &Attempt) -> Markup {
    let late = attempt.counted == Some(false);
    html! {
        @match attempt.outcome {
            Some(AttemptOutcome::Succeeded) => (parts::badge("is-good", "succeeded")),
            Some(AttemptOutcome::AwaitsApproval) => (parts::badge("is-person", "planned")),
            Some(AttemptOutcome::Failed) => (parts::badge("is-bad", "failed")),
            Some(AttemptOutcome::Retry) => (parts::badge("is-warn", "to be tried again")),
            Some(AttemptOutcome::Canceled) => (parts::badge("is-warn", "canceled")),
            Some(AttemptOutcome::TimedOut) => (parts::badge("is-bad", "timed out")),
            Some(AttemptOutcome::Lost) => (parts::badge("is-bad", "lost")),
            None if attempt.closed_at.is_some() => (parts::badge("is-bad", "closed")),
            None if attempt.started_at.is_some() => (parts::badge("is-busy", "running")),
            None => (parts::badge("is-busy", "assigned")),
        }
        @if late { " " (parts::badge("is-warn", "reported too late to count")) }
    }
}

fn back(number: u64) -> Response {
    Redirect::to(&format!("/tasks/{number}")).into_response()
}

/// `POST /tasks/{n}/cancel`
pub(crate) async fn cancel(
    State(api): State<Api>,
    visitor: Visitor,
    SeenTask(task): SeenTask,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    api.core.cancel(task.number, visitor.access.actor()).await?;
    Ok(back(task.number))
}

/// `POST /tasks/{n}/retry`
pub(crate) async fn retry(
    State(api): State<Api>,
    visitor: Visitor,
    SeenTask(task): SeenTask,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    api.core.retry(task.number, visitor.access.actor(), &RetryTask::default()).await?;
    Ok(back(task.number))
}

/// A person's word: which attempt's plan was looked at, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Word {
    attempt: u32,
    #[serde(default)]
    reason: String,
}

impl From<Word> for Decision {
    fn from(word: Word) -> Self {
        let reason = Some(word.reason).filter(|reason| !reason.trim().is_empty());
        Self { attempt: Some(word.attempt), reason }
    }
}

/// `POST /tasks/{n}/approve`
pub(crate) async fn approve(
    State(api): State<Api>,
    visitor: Visitor,
    SeenTask(task): SeenTask,
    Form(word): Form<Word>,
) -> Result<Response, Refusal> {
    api.core.approve(task.number, visitor.access.actor(), &word.into()).await?;
    Ok(back(task.number))
}

/// `POST /tasks/{n}/reject`
pub(crate) async fn reject(
    State(api): State<Api>,
    visitor: Visitor,
    SeenTask(task): SeenTask,
    Form(word): Form<Word>,
) -> Result<Response, Refusal> {
    api.core.reject(task.number, visitor.access.actor(), &word.into()).await?;
    Ok(back(task.number))
}
