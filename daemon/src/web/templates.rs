//! The templates of every project, and one of them: what it is, how its tasks went, and the form that runs it.

use axum::extract::State;
use forge_api::{Page as Items, Schedule, Task, TaskState, TemplateStats};
use forge_config::meant::{Project, Role, Template};
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::run::{self, Filled};
use super::{chart, parts};
use crate::core::TaskFilter;
use crate::http::gate;
use crate::http::path::PathOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// How many tasks the chart looks at.
const CHART_TASKS: u32 = 60;

/// How many tasks the page lists.
const TASKS_LISTED: u32 = 10;

/// `GET /templates`
pub(crate) async fn list(State(api): State<Api>, visitor: Visitor) -> Markup {
    let applied = api.config.borrow().clone();
    let projects: Vec<_> =
        applied.tree.projects.values().filter(|project| visitor.access.sees(project.name.as_str())).collect();
    let content = html! {
        div.head { div { h1 { "Templates" } p { "What a task is made from, as the configuration says." } } }
        div id="templates" data-live data-on="config" {
            @if projects.is_empty() {
                section.panel { p.empty { "No project is applied that you may see. " a href="/config" { "The configuration" } " says what serves." } }
            }
            @for project in projects { (project_panel(&visitor, project)) }
        }
    };
    Page::new("Templates", Place::Templates, content).draw(&visitor)
}

fn project_panel(visitor: &Visitor, project: &Project) -> Markup {
    let name = project.name.as_str();
    html! {
        section.panel {
            header {
                div { h2 { (name) } @if !project.description.is_empty() { p.soft.small { bdi { (project.description) } } } }
                a.more href={ "/tasks" (parts::query(&[("project", Some(name))])) } { "Its tasks" span.hidden-text { " of " (name) } }
            }
            @if project.templates.is_empty() { (parts::empty("It has no template.")) } @else {
                (parts::table(&format!("Templates of {name}"), html! {
                    thead { tr {
                        th scope="col" { "Template" } th scope="col" { "Description" } th scope="col" { "Executor" } th scope="col" { "Needs tag" }
                        @if visitor.may(Role::Operator) { th scope="col" { span.hidden-text { "Run" } } }
                    } }
                    tbody { @for template in project.templates.values() {
                        @let path = parts::template_path(name, template.name.as_str());
                        tr {
                            th scope="row" { a href=(path) { (template.name.as_str()) } }
                            td { bdi { (template.description) } }
                            td { (template.executor.as_str()) }
                            td { @if let Some(tag) = &template.required_tag { span.tag { (tag) } } @else { span.soft { "none" } } }
                            @if visitor.may(Role::Operator) {
                                td.actions { a.button.slim href={ (path) "#run" } { "Run" span.hidden-text { " " (template.name.as_str()) } } }
                            }
                        }
                    } }
                }))
            }
        }
    }
}

/// `GET /projects/{p}/templates/{t}`
pub(crate) async fn show(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf((project, name)): PathOf<(String, String)>,
) -> Result<Markup, Refusal> {
    let project = gate::project(&api, &visitor.access, &project)?;
    page(&api, &visitor, &project, &name, &run::fresh()?).await
}

/// The page of a template; `filled` is what its form holds.
pub(super) async fn page(
    api: &Api,
    visitor: &Visitor,
    project: &Project,
    name: &str,
    filled: &Filled,
) -> Result<Markup, Refusal> {
    let project_name = project.name.as_str();
    let filter = TaskFilter {
        project: Some(project_name.to_owned()),
        state: None,
        template: Some(name.to_owned()),
        visible: visitor.access.visible(),
    };
    let tasks = api.core.tasks(filter, None, TASKS_LISTED).await?;
    let template = project.templates.get(name);
    if template.is_none() && tasks.items.is_empty() {
        return Err(Refusal::not_found("template", &format!("{project_name}/{name}")));
    }
    let stats = api.core.template_stats(project_name, name, CHART_TASKS).await?;
    let schedules = api.core.schedules(Some(vec![project_name.to_owned()])).await?;
    let schedules: Vec<Schedule> = schedules.into_iter().filter(|schedule| schedule.template == name).collect();
    let title = format!("{project_name}/{name}");
    let content = html! {
        p.crumbs { a href="/templates" { "Templates" } span aria-hidden="true" { "/" } (project_name) }
        div.head { div {
            div.titled { h1 { (name) } @if template.is_none() { (parts::badge("is-warn", "left the tree")) } }
            @if let Some(template) = template { @if !template.description.is_empty() { p { bdi { (template.description) } } } }
        } }
        div.split {
            div {
                @if let Some(template) = template { @if visitor.may(Role::Operator) { (run::panel(visitor, project, template, filled)) } }
                div id="history" data-live data-on="task" { (history(visitor, project_name, name, &tasks, &stats)) }
            }
            div {
                @if let Some(template) = template { (about(template)) }
                (schedule_panel(visitor, &schedules))
            }
        }
    };
    Ok(Page::new(&title, Place::Templates, content).draw(visitor))
}

fn about(template: &Template) -> Markup {
    let millis = |count: u64| parts::text(parts::span(count));
    let name = |name: &Option<forge_config::Name>| name.as_ref().map(|name| html! { code { (name.as_str()) } });
    let facts = [
        ("Executor", Some(html! { code { (template.executor.as_str()) } })),
        ("Needs tag", template.required_tag.as_ref().map(|tag| html! { span.tag { (tag) } })),
        ("Repository", name(&template.repository)),
        ("Branch", template.branch.as_ref().map(|branch| html! { code { (branch) } })),
        ("Inventory", name(&template.inventory)),
        ("Environment", name(&template.environment)),
        ("Concurrency", Some(parts::text(template.concurrency.as_str()))),
        ("Time limit", Some(millis(template.timeout_ms))),
        ("Waits at most", Some(millis(template.queue_timeout_ms))),
        (
            "Retries",
            (template.retry_attempts > 0)
                .then(|| html! { (template.retry_attempts) ", after " (parts::span(template.retry_delay_ms)) }),
        ),
        ("Priority", (template.priority != 0).then(|| html! { (template.priority) })),
    ];
    parts::panel("About", html! {}, html! { div.body { (parts::facts(&facts)) } })
}

fn schedule_panel(visitor: &Visitor, schedules: &[Schedule]) -> Markup {
    html! {
        @if !schedules.is_empty() {
            (parts::panel("Schedules", html! {}, html! { div.body { @for schedule in schedules {
                div {
                    p { strong { (schedule.name) } " " code { (schedule.cron) } " " span.soft { (schedule.timezone) } }
                    @if let Some(next) = schedule.next.first() { p.soft { "next " (parts::ago(visitor.now, *next)) } }
                    @else { p.soft { "does not fire" } }
                }
            } } }))
        }
    }
}

fn history(visitor: &Visitor, project: &str, template: &str, tasks: &Items<Task>, stats: &TemplateStats) -> Markup {
    let all = format!("/tasks{}", parts::query(&[("project", Some(project)), ("template", Some(template))]));
    html! {
        @if !stats.items.is_empty() {
            (parts::panel("Durations and outcomes", html! { span.soft.small { (outcomes(stats)) } }, html! {
                div.body {
                    (chart::durations("durations", &stats.items))
                    details id="durations-numbers" {
                        summary { "The numbers" }
                        (parts::table("Durations and outcomes", html! {
                            thead { tr { th scope="col" { "Task" } th scope="col" { "State" } th.num scope="col" { "Took" } th.num scope="col" { "Ended" } } }
                            tbody { @for item in &stats.items {
                                tr {
                                    th scope="row" { a href={ "/tasks/" (item.number) } { "#" (item.number) } }
                                    td { (parts::state(item.state)) }
                                    td.num.nowrap { @if let Some(took) = item.duration_ms { (parts::span(took)) } @else { "–" } }
                                    td.num.nowrap { (parts::ago(visitor.now, item.finished_at)) }
                                }
                            } }
                        }))
                    }
                }
            }))
        }
        (parts::panel("Last tasks", html! { a.more href=(all) { "All tasks" } }, html! {
            @if tasks.items.is_empty() { (parts::empty("It never ran.")) }
            @else { (parts::task_table(visitor.now, "Last tasks", &tasks.items)) }
        }))
    }
}

/// How many of the newest tasks ended how, in words.
fn outcomes(stats: &TemplateStats) -> String {
    let counted = TaskState::ALL.iter().filter_map(|state| {
        let count = stats.outcomes.get(state)?;
        Some(format!("{count} {}", state.as_str().replace('_', " ")))
    });
    counted.collect::<Vec<_>>().join(", ")
}
