//! The routes that people and their programs use. What a token does not reach is told of as if it were not there.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use forge_api::{
    Attempt, CreateTask, Decision, IDEMPOTENCY_KEY_HEADER, Page, ProjectSummary, RetryTask, Runner, Schedule,
    SurveyQuestion, Task, TaskState, TemplateStats, TemplateSummary, Why,
};
use forge_config::meant::{Project, Question, QuestionKind, Template};
use http::header::{HeaderMap, LOCATION};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

use super::auth::Access;
use super::body::{JsonBody, MaybeJson};
use super::gate::{self, SeenTask};
use super::limits;
use super::listing::{self, ListingQuery};
use super::path::{PathOf, QueryOf};
use super::problem::Refusal;
use super::routes::Api;
use crate::core::{STATS_TASKS_MAX, TaskFilter};

fn whole<T>(items: Vec<T>) -> Json<Page<T>> {
    Json(Page { items, next_cursor: None })
}

/// `GET /projects`
pub(super) async fn projects(State(api): State<Api>, access: Access) -> Json<Page<ProjectSummary>> {
    let applied = api.config.borrow().clone();
    let visible = applied.tree.projects.values().filter(|project| access.sees(project.name.as_str()));
    whole(
        visible
            .map(|project| ProjectSummary {
                name: project.name.as_str().to_owned(),
                description: project.description.clone(),
            })
            .collect(),
    )
}

/// `GET /projects/{p}/templates`
pub(super) async fn templates(
    State(api): State<Api>,
    access: Access,
    PathOf(name): PathOf<String>,
) -> Result<Json<Page<TemplateSummary>>, Refusal> {
    let project = gate::project(&api, &access, &name)?;
    Ok(whole(project.templates.values().map(|template| template_summary(&project, template)).collect()))
}

fn template_summary(project: &Project, template: &Template) -> TemplateSummary {
    let schedules = project.schedules.iter().filter(|(_, schedule)| schedule.template == template.name);
    TemplateSummary {
        name: template.name.as_str().to_owned(),
        project: project.name.as_str().to_owned(),
        description: template.description.clone(),
        executor: template.executor.as_str().to_owned(),
        required_tag: template.required_tag.clone(),
        survey: template.survey.iter().map(|(name, question)| survey_question(name, question)).collect(),
        allow_arguments: template.allow_arguments,
        schedules: schedules.map(|(name, _)| name.as_str().to_owned()).collect(),
    }
}

fn survey_question(name: &str, question: &Question) -> SurveyQuestion {
    let mut shown = SurveyQuestion {
        name: name.to_owned(),
        kind: String::new(),
        description: question.description.clone(),
        required: question.required,
        default: question.default.clone(),
        choices: Vec::new(),
        pattern: None,
        min: None,
        max: None,
    };
    let kind = match &question.kind {
        QuestionKind::String { pattern } => {
            shown.pattern = pattern.as_ref().map(|pattern| pattern.as_str().to_owned());
            "string"
        }
        QuestionKind::Integer { min, max } => {
            // A bound beyond 2^53 is shown as the nearest number that a page can show; the check keeps it as it is written.
            (shown.min, shown.max) = (min.map(|min| min as f64), max.map(|max| max as f64));
            "integer"
        }
        QuestionKind::Number { min, max } => {
            (shown.min, shown.max) = (*min, *max);
            "number"
        }
        QuestionKind::Boolean => "boolean",
        QuestionKind::Choice(choices) => {
            shown.choices.clone_from(choices);
            "choice"
        }
        QuestionKind::Secret => "secret",
    };
    shown.kind = kind.to_owned();
    shown
}

/// What `GET /projects/{p}/templates/{t}/stats` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsQuery {
    /// How many tasks are looked at, 100 at most.
    #[schemars(range(min = 1, max = STATS_TASKS_MAX))]
    limit: Option<u32>,
}

/// `GET /projects/{p}/templates/{t}/stats`
pub(super) async fn template_stats(
    State(api): State<Api>,
    access: Access,
    PathOf((name, template)): PathOf<(String, String)>,
    QueryOf(query): QueryOf<StatsQuery>,
) -> Result<Json<TemplateStats>, Refusal> {
    let project = gate::project(&api, &access, &name)?;
    if !project.templates.contains_key(template.as_str()) {
        return Err(Refusal::not_found("template", &format!("{name}/{template}"))
            .hint("`GET /projects/{project}/templates` lists those that there are"));
    }
    let limit = limits::bounded("limit", query.limit, STATS_TASKS_MAX, STATS_TASKS_MAX)?;
    Ok(Json(api.core.template_stats(&name, &template, limit).await?))
}

/// `GET /schedules`
pub(super) async fn schedules(
    State(api): State<Api>,
    access: Access,
    QueryOf(query): QueryOf<ListingQuery>,
) -> Result<Json<Page<Schedule>>, Refusal> {
    let schedules = api.core.schedules(access.visible()).await?;
    listing::page(schedules, query, |schedule| [&schedule.project, &schedule.name]).map(Json)
}

/// `POST /projects/{p}/templates/{t}/tasks`
pub(super) async fn create_task(
    State(api): State<Api>,
    access: Access,
    PathOf((name, template)): PathOf<(String, String)>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateTask>,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let created = api.core.create_task(&name, &template, request, access.origin(), key).await?;
    let status = if created.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let location = format!("{}/tasks/{}", forge_api::API_PREFIX, created.task.number);
    tracing::info!(task = created.task.number, project = name, template, by = access.name(), "a task was asked for");
    let location = HeaderValue::from_str(&location).map_err(|_| Refusal::invalid("the task has no location"))?;
    Ok((status, [(LOCATION, location)], Json(created.task)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY_HEADER) else { return Ok(None) };
    let key = key.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        let detail = format!("Idempotency-Key is not 1 to {} printable characters", limits::IDEMPOTENCY_KEY_BYTES_MAX);
        return Err(Refusal::invalid(detail).hint("send a random one, such as a UUID, for each task that you want"));
    }
    Ok(Some(key.to_owned()))
}

/// What `GET /tasks` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskQuery {
    /// Only this project's.
    project: Option<String>,
    /// Only this template's.
    template: Option<String>,
    /// Only those in this state.
    #[schemars(with = "Option<TaskState>")]
    state: Option<String>,
    /// `next_cursor` of the page before, unchanged.
    cursor: Option<String>,
    /// How many a page has, 500 at most.
    #[schemars(range(min = 1, max = limits::PAGE_ITEMS_MAX))]
    limit: Option<u32>,
}

/// `GET /tasks`
pub(super) async fn tasks(
    State(api): State<Api>,
    access: Access,
    QueryOf(query): QueryOf<TaskQuery>,
) -> Result<Json<Page<Task>>, Refusal> {
    let state = query.state.map(|state| state.parse::<TaskState>()).transpose();
    let state = state.map_err(|error| Refusal::invalid(error.to_string()))?;
    let filter = TaskFilter { project: query.project, state, template: query.template, visible: access.visible() };
    let limit = limits::page_items(query.limit)?;
    Ok(Json(api.core.tasks(filter, query.cursor, limit).await?))
}

/// `GET /tasks/{n}`
pub(super) async fn task(SeenTask(task): SeenTask) -> Json<Arc<Task>> {
    Json(task)
}

/// `GET /tasks/{n}/attempts`
pub(super) async fn attempts(State(api): State<Api>, SeenTask(task): SeenTask) -> Result<Json<Page<Attempt>>, Refusal> {
    Ok(whole(api.core.attempts(task.number).await?))
}

/// `GET /tasks/{n}/why`
pub(super) async fn why(
    State(api): State<Api>,
    access: Access,
    SeenTask(task): SeenTask,
) -> Result<Json<Why>, Refusal> {
    Ok(Json(api.core.why_for(access.visible().as_deref(), task.number).await?))
}

/// `POST /tasks/{n}/cancel`
pub(super) async fn cancel(
    State(api): State<Api>,
    access: Access,
    SeenTask(task): SeenTask,
) -> Result<Json<Task>, Refusal> {
    let number = task.number;
    tracing::info!(task = number, by = access.name(), "a cancel was asked for");
    Ok(Json(api.core.cancel(number, access.actor()).await?))
}

/// `POST /tasks/{n}/retry`
pub(super) async fn retry(
    State(api): State<Api>,
    access: Access,
    SeenTask(task): SeenTask,
    MaybeJson(request): MaybeJson<RetryTask>,
) -> Result<Json<Task>, Refusal> {
    let number = task.number;
    tracing::info!(task = number, by = access.name(), now = request.now, "a retry was asked for");
    Ok(Json(api.core.retry(number, access.actor(), &request).await?))
}

/// `POST /tasks/{n}/approve`
pub(super) async fn approve(
    State(api): State<Api>,
    access: Access,
    SeenTask(task): SeenTask,
    JsonBody(decision): JsonBody<Decision>,
) -> Result<Json<Task>, Refusal> {
    let number = task.number;
    let task = api.core.approve(number, access.actor(), &decision).await?;
    tracing::info!(task = number, by = access.name(), reason = decision.reason, "a plan was approved");
    Ok(Json(task))
}

/// `POST /tasks/{n}/reject`
pub(super) async fn reject(
    State(api): State<Api>,
    access: Access,
    SeenTask(task): SeenTask,
    JsonBody(decision): JsonBody<Decision>,
) -> Result<Json<Task>, Refusal> {
    let number = task.number;
    let task = api.core.reject(number, access.actor(), &decision).await?;
    tracing::info!(task = number, by = access.name(), reason = decision.reason, "a plan was rejected");
    Ok(Json(task))
}

/// `GET /runners`
pub(super) async fn runners(
    State(api): State<Api>,
    access: Access,
    QueryOf(query): QueryOf<ListingQuery>,
) -> Result<Json<Page<Runner>>, Refusal> {
    listing::page(api.core.runners(access.visible()).await?, query, |runner| [&runner.name]).map(Json)
}

/// `GET /runners/{name}`
pub(super) async fn runner(State(api): State<Api>, PathOf(name): PathOf<String>) -> Result<Json<Runner>, Refusal> {
    Ok(Json(api.core.runner(&name).await?))
}

/// `POST /runners/{name}/drain`
pub(super) async fn drain_runner(
    State(api): State<Api>,
    access: Access,
    PathOf(name): PathOf<String>,
) -> Result<Json<Runner>, Refusal> {
    tracing::info!(runner = name, by = access.name(), "a runner is drained");
    Ok(Json(api.core.set_draining(&name, true, access.actor()).await?))
}

/// `POST /runners/{name}/resume`
pub(super) async fn resume_runner(
    State(api): State<Api>,
    access: Access,
    PathOf(name): PathOf<String>,
) -> Result<Json<Runner>, Refusal> {
    tracing::info!(runner = name, by = access.name(), "a runner is resumed");
    Ok(Json(api.core.set_draining(&name, false, access.actor()).await?))
}

/// `DELETE /runners/{name}`
pub(super) async fn remove_runner(
    State(api): State<Api>,
    access: Access,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Refusal> {
    tracing::info!(runner = name, by = access.name(), "a runner is removed");
    api.core.remove_runner(&name, access.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
