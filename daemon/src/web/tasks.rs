//! The list of tasks, whose filters live in the URL.

use axum::extract::State;
use forge_api::TaskState;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Page, Place, Visitor};
use super::parts;
use crate::core::TaskFilter;
use crate::http::limits;
use crate::http::path::QueryOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// What `GET /tasks` takes. A filter that is empty, as a form sends it, is none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    project: Option<String>,
    template: Option<String>,
    state: Option<String>,
    cursor: Option<String>,
}

/// `GET /tasks`
pub(crate) async fn list(
    State(api): State<Api>,
    visitor: Visitor,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Markup, Refusal> {
    let set = |value: Option<String>| value.filter(|text| !text.is_empty());
    let (project, template) = (set(query.project), set(query.template));
    let (state, cursor) = (set(query.state), set(query.cursor));
    let parsed = state.as_deref().map(str::parse::<TaskState>).transpose();
    let parsed = parsed.map_err(|error| Refusal::invalid(error.to_string()))?;
    let filter = TaskFilter {
        project: project.clone(),
        state: parsed,
        template: template.clone(),
        visible: visitor.access.visible(),
    };
    let page = api.core.tasks(filter, cursor.clone(), limits::PAGE_ITEMS_DEFAULT).await?;
    let applied = api.config.borrow().clone();
    let projects: Vec<_> =
        applied.tree.projects.values().filter(|project| visitor.access.sees(project.name.as_str())).collect();
    let of_project = |name: &str| project.as_deref().is_none_or(|chosen| chosen == name);
    let mut templates: Vec<&str> = projects
        .iter()
        .filter(|project| of_project(project.name.as_str()))
        .flat_map(|project| project.templates.keys().map(forge_config::Name::as_str))
        .collect();
    templates.sort_unstable();
    templates.dedup();
    let filters = [("project", project.as_deref()), ("template", template.as_deref()), ("state", state.as_deref())];
    let content = html! {
        div.head { div { h1 { "Tasks" } } }
        form.filters method="get" action="/tasks" role="search" aria-label="Filter tasks" {
            (parts::choice("project", "Project", "every project", project.as_deref(), projects.iter().map(|project| project.name.as_str())))
            (parts::choice("template", "Template", "every template", template.as_deref(), templates))
            (parts::choice("state", "State", "every state", state.as_deref(), TaskState::ALL.map(TaskState::as_str)))
            button type="submit" { "Filter" }
            @if filters.iter().any(|(_, value)| value.is_some()) { a.button href="/tasks" { "Clear" } }
        }
        section.panel id="tasks" data-live data-on="task" aria-label="Tasks" {
            @if page.items.is_empty() {
                (parts::empty("No task is like this."))
            } @else {
                (parts::task_table(visitor.now, "Tasks, newest first", &page.items))
            }
            (parts::pager("/tasks", &filters, cursor.as_deref(), page.next_cursor.as_deref()))
        }
    };
    Ok(Page::new("Tasks", Place::Tasks, content).draw(&visitor))
}
