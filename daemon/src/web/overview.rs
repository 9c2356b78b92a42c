//! The first page: what runs, what waits and why, what failed lately, how the runners are, and how busy they were.

use axum::extract::State;
use forge_api::{Page as Items, Runner, RunnerStatus, Task, TaskState, Why};
use forge_config::meant::Role;
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::{chart, parts};
use crate::core::TaskFilter;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// How many tasks a list of this page shows.
const LISTED: u32 = 20;

/// How many tasks that ended badly it shows.
const FAILED_LISTED: u32 = 8;

/// How far back its chart looks, in hours.
const CHART_HOURS: u32 = 24;

/// What the page shows of tasks.
struct Lists {
    running: Items<Task>,
    waiting: Items<Task>,
    awaiting: Items<Task>,
    failed: Vec<Task>,
    reasons: Vec<Why>,
}

/// `GET /`
pub(crate) async fn overview(State(api): State<Api>, visitor: Visitor) -> Result<Markup, Refusal> {
    let lists = lists(&api, &visitor).await?;
    let runners = api.core.runners(visitor.access.visible()).await?;
    let load = if visitor.access.visible().is_none() { Some(api.core.load(CHART_HOURS).await?) } else { None };
    let now = visitor.now;
    let content = html! {
        div.head { div { h1 { "Overview" } } (run_link(&visitor)) }
        div id="now" data-live data-on="task runner config" {
            (tiles(&lists, &runners))
            (approvals(&lists.awaiting.items))
            div.grid {
                div { (running(&visitor, &lists.running.items)) (waiting(&visitor, &lists)) }
                div { (failed(&visitor, &lists.failed)) (health(&visitor, &runners)) }
            }
            @if let Some(load) = load {
                (parts::panel("Queue and slots, last 24 hours", html! {}, html! {
                    div.body {
                        @if load.items.is_empty() { p.soft { "The first sample comes within a minute of the daemon's start." } }
                        @else { (chart::load("load", &load.items, now, i64::from(CHART_HOURS))) (load_table(&load.items)) }
                    }
                }))
            }
        }
    };
    Ok(Page::new("Overview", Place::Overview, content).draw(&visitor))
}

fn run_link(visitor: &Visitor) -> Markup {
    html! { @if visitor.may(Role::Operator) { a.button.main href="/templates" { "Run a template" } } }
}

async fn lists(api: &Api, visitor: &Visitor) -> Result<Lists, Refusal> {
    let list = async |state: TaskState, limit: u32| {
        let filter =
            TaskFilter { project: None, state: Some(state), template: None, visible: visitor.access.visible() };
        api.core.tasks(filter, None, limit).await
    };
    let mut running = list(TaskState::Running, LISTED).await?;
    let assigned = list(TaskState::Assigned, LISTED).await?;
    running.items.extend(assigned.items);
    running.items.sort_by_key(|task| std::cmp::Reverse(task.number));
    let waiting = list(TaskState::Queued, LISTED).await?;
    let failed = api.core.bad_ends(visitor.access.visible(), FAILED_LISTED).await?;
    // One that was assigned meanwhile says so itself; one that is gone has no reason.
    let numbers = waiting.items.iter().map(|task| task.number).collect();
    let reasons = api.core.whys_for(visitor.access.visible().as_deref(), numbers).await?;
    Ok(Lists { running, waiting, awaiting: list(TaskState::AwaitingApproval, LISTED).await?, failed, reasons })
}

fn tiles(lists: &Lists, runners: &[Runner]) -> Markup {
    let online = runners.iter().filter(|runner| runner.status == RunnerStatus::Online).count();
    let offline = runners.iter().filter(|runner| runner.status == RunnerStatus::Offline).count();
    let used: u32 = runners.iter().map(|runner| runner.running).sum();
    html! {
        ul.tiles {
            li { (tile("/tasks?state=running", &listed(&lists.running), "running")) }
            li { (tile("/tasks?state=queued", &listed(&lists.waiting), "waiting")) }
            li { (tile("/tasks?state=awaiting_approval", &listed(&lists.awaiting), "awaiting approval")) }
            li { (tile("/runners", &format!("{online} / {}", runners.len()), "runners online")) }
            li { (tile("/runners", &used.to_string(), "slots in use")) }
        }
        @if offline > 0 {
            p.note.warn { strong { (parts::counted(offline as u64, "runner is", "runners are")) " offline." } " "
                a href="/runners" { "See which" } }
        }
    }
}

fn listed(page: &Items<Task>) -> String {
    let more = if page.next_cursor.is_some() { "+" } else { "" };
    format!("{}{more}", page.items.len())
}

fn tile(path: &str, number: &str, words: &str) -> Markup {
    html! { a.tile href=(path) { b { (number) } span { (words) } } }
}

fn approvals(tasks: &[Task]) -> Markup {
    html! {
        @for task in tasks.iter().take(3) {
            div.note.person {
                p {
                    strong { "Task " a href={ "/tasks/" (task.number) } { "#" (task.number) } " awaits approval. " }
                    (task.project) "/" (task.template)
                    @if let Some(planned) = super::summary::text(task) { ": " bdi { (planned) } }
                }
            }
        }
    }
}

fn running(visitor: &Visitor, tasks: &[Task]) -> Markup {
    parts::panel(
        "Running",
        more("/tasks?state=running"),
        html! {
            @if tasks.is_empty() { (parts::empty("Nothing runs right now.")) } @else {
                (parts::table("Running tasks", html! {
                    thead { tr {
                        th scope="col" { "Task" } th scope="col" { "Template" } th scope="col" { "State" }
                        th scope="col" { "Runner" } th.num scope="col" { "For" }
                    } }
                    tbody { @for task in tasks {
                        tr {
                            th scope="row" { a href={ "/tasks/" (task.number) } { "#" (task.number) } }
                            td { (parts::template_link(&task.project, &task.template)) }
                            td { (parts::state(task.state)) }
                            td { @if let Some(runner) = &task.runner { (runner) } }
                            td.num.nowrap { (parts::lasted(visitor.now, task.started_at.or(task.assigned_at), None)) }
                        }
                    } }
                }))
            }
        },
    )
}

fn waiting(visitor: &Visitor, lists: &Lists) -> Markup {
    let tasks = &lists.waiting.items;
    parts::panel(
        "Waiting, and why",
        more("/tasks?state=queued"),
        html! {
            @if tasks.is_empty() { (parts::empty("Nothing waits.")) } @else {
                (parts::table("Waiting tasks", html! {
                    thead { tr {
                        th scope="col" { "Task" } th scope="col" { "Template" } th scope="col" { "Why" } th.num scope="col" { "Since" }
                    } }
                    tbody { @for task in tasks {
                        tr {
                            th scope="row" { a href={ "/tasks/" (task.number) } { "#" (task.number) } }
                            td { (parts::template_link(&task.project, &task.template)) }
                            td.why { @if let Some(why) = lists.reasons.iter().find(|why| why.number == task.number) { (parts::prose(&why.message)) } }
                            td.num.nowrap { (parts::ago(visitor.now, task.created_at)) }
                        }
                    } }
                }))
            }
        },
    )
}

fn failed(visitor: &Visitor, tasks: &[Task]) -> Markup {
    parts::panel(
        "Failed lately",
        html! { span.more {
            "All: "
            @for (index, state) in [TaskState::Failed, TaskState::TimedOut, TaskState::Lost, TaskState::Expired].into_iter().enumerate() {
                @if index > 0 { ", " }
                a href={ "/tasks?state=" (state.as_str()) } { (state.as_str().replace('_', " ")) }
            }
        } },
        html! {
            @if tasks.is_empty() { (parts::empty("Nothing failed within a week.")) } @else {
                (parts::table("Tasks that failed lately", html! {
                    thead { tr {
                        th scope="col" { "Task" } th scope="col" { "Template" } th scope="col" { "State" } th.num scope="col" { "Ended" }
                    } }
                    tbody { @for task in tasks {
                        tr {
                            th scope="row" { a href={ "/tasks/" (task.number) } { "#" (task.number) } }
                            td {
                                (parts::template_link(&task.project, &task.template))
                                @if let Some(reason) = &task.reason { div.soft.small { bdi { (reason) } } }
                            }
                            td { (parts::state(task.state)) }
                            td.num.nowrap { (parts::ago_or(visitor.now, task.finished_at, "")) }
                        }
                    } }
                }))
            }
        },
    )
}

fn health(visitor: &Visitor, runners: &[Runner]) -> Markup {
    parts::panel(
        "Runners",
        more("/runners"),
        html! {
            @if runners.is_empty() {
                p.empty { "No runner is here yet. " a href="/runners#add" { "Add one" } "." }
            } @else {
                (parts::table("Runners", html! {
                    thead { tr {
                        th scope="col" { "Runner" } th scope="col" { "Status" } th.num scope="col" { "Slots" } th.num scope="col" { "Load" } th.num scope="col" { "Heard of" }
                    } }
                    tbody { @for runner in runners.iter().take(12) {
                        tr {
                            th scope="row" { (runner.name) }
                            td { (parts::runner_status(runner.status)) }
                            td.num { (super::runners::slots(runner)) }
                            td.num { @if let Some(health) = &runner.health { (format!("{:.2}", health.load1)) } }
                            td.num.nowrap { (parts::ago_or(visitor.now, runner.last_contact_at, "never")) }
                        }
                    } }
                }))
            }
        },
    )
}

fn more(path: &str) -> Markup {
    html! { a.more href=(path) { "All" span.hidden-text { " of these" } } }
}

/// The chart's numbers by the hour.
fn load_table(samples: &[forge_api::LoadSample]) -> Markup {
    html! {
        details id="load-numbers" {
            summary { "The numbers" }
            (parts::table("Queue and slots, each hour's newest sample", html! {
                thead { tr {
                    th scope="col" { "At" } th.num scope="col" { "Waiting" } th.num scope="col" { "Running" }
                    th.num scope="col" { "Slots" } th.num scope="col" { "Runners online" }
                } }
                tbody { @for sample in samples.iter().rev().step_by(60) {
                    tr {
                        th scope="row" { (parts::moment(sample.at)) }
                        td.num { (sample.queued) } td.num { (sample.running) }
                        td.num { @if let Some(slots) = sample.slots { (slots) } @else { "unlimited" } }
                        td.num { (sample.runners_online) }
                    }
                } }
            }))
        }
    }
}
