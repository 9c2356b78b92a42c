//! What stands before every route that asks for an access token: who asks, whether the token reaches what the path names, and
//! whether its role is enough, in this order. What it does not reach is answered 404, as if it were not there.
//!
//! A session of the dashboard stands for its token; what it changes has to prove that a page of ours asks.
//!
//! A handler takes [`Access`] and [`SeenTask`] from here, so that one whose route declares no need of a token cannot have either.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use forge_api::{AuditAction, AuditActor, Problem, Runner, Task};
use forge_config::meant::{Project, Role};
use http::Method;
use http::request::Parts;

use super::auth::{self, Access};
use super::problem::{Refusal, Shown, Told};
use super::rate;
use super::routes::Api;
use super::session::{self, CSRF_HEADER};
use super::surface::Surface;
use super::table::{Needs, Scope};
use crate::core::{Actor, CoreError};
use crate::store::{About, Ended, Note};
use crate::web::login;

/// The most characters of a name in a path that are written down.
const NAME_CHARS_MAX: usize = 128;

/// What the gate of one route knows.
#[derive(Clone)]
pub(super) struct Gate {
    /// What every route may use.
    pub(super) api: Api,
    /// What this one needs.
    pub(super) needs: Needs,
    /// Who reads its answers.
    pub(super) surface: Surface,
    /// What is written down when it is refused.
    pub(super) action: Option<AuditAction>,
}

/// The task that the path names: the token reaches it.
#[derive(Clone, Debug)]
pub(crate) struct SeenTask(pub(crate) Arc<Task>);

/// Lets a request through to its handler, or says why not, in the form that the route's reader takes.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Gate { surface, action, .. } = gate;
    let api = gate.api.clone();
    let mut known = None;
    let (request, tried) = match action {
        Some(action) => tried(request, action).await,
        None => (request, None),
    };
    let way_back = (surface == Surface::Page).then(|| login::path_for(request.uri()));
    let mut response = match guard(gate, &mut known, request, next).await {
        Ok(response) => response,
        Err(refusal) if refusal.status() == 401 && matches!(surface, Surface::Page | Surface::Form) => {
            Redirect::to(way_back.as_deref().unwrap_or(login::PATH)).into_response()
        }
        Err(refusal) => refusal.into_response(),
    };
    let told = response.extensions().get::<Told>().map(|Told(problem)| problem);
    let problem = told.or_else(|| response.extensions().get::<Shown>().map(|Shown(problem)| problem)).cloned();
    if let (Some(note), Some(access), Some(problem)) = (tried, &known, problem) {
        note_refusal(&api, note, access, &problem).await;
    }
    response.extensions_mut().insert(surface);
    response
}

/// What is written down about a request, should it be refused: what the path names.
async fn tried(request: Request, action: AuditAction) -> (Request, Option<Note>) {
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    let mut names: Vec<(String, String)> = Vec::new();
    if let Ok(params) = params {
        names.extend(params.iter().map(|(key, value)| (key.to_owned(), value.chars().take(NAME_CHARS_MAX).collect())));
    }
    let named = |key: &str| names.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let project = named("project").map_or(About::Nothing, |project| About::Project(project.to_owned()));
    let (about, object) = match (named("number"), named("template"), named("name"), named("id")) {
        (Some(number), ..) => (number.parse().map_or(About::Nothing, About::Task), format!("task {number}")),
        (_, Some(template), ..) => (project, format!("template {template}")),
        (_, _, Some(name), _) if action.as_str().starts_with("runner.") => (project, format!("runner {name}")),
        (_, _, Some(name), _) => (project, format!("webhook target {name}")),
        (_, _, _, Some(id)) => (project, format!("delivery {id}")),
        (None, None, None, None) => (project, String::new()),
    };
    let note = Note { actor: Actor::new(AuditActor::Access, ""), action, about, object, detail: None };
    (Request::from_parts(parts, body), Some(note))
}

/// Writes down that somebody who is known was refused; that a request makes no sense, or comes too often, is no matter of who may what.
async fn note_refusal(api: &Api, note: Note, access: &Access, problem: &Problem) {
    let slug = problem.slug().to_owned();
    let ended = match problem.status {
        403 | 404 | 409 | 410 | 422 => Ended::Refused(slug),
        500.. => Ended::Failed(slug),
        _ => return,
    };
    let actor = access.actor();
    let note = match (&note.about, note.action) {
        // Which project a runner is of is known where it is looked up.
        (About::Nothing, AuditAction::RunnerRemove | AuditAction::RunnerDrain | AuditAction::RunnerResume) => {
            let name = note.object.strip_prefix("runner ").unwrap_or_default();
            api.core.runner_note(note.action, name, actor).await
        }
        _ => Note { actor, ..note },
    };
    api.core.note_refusal(note, ended).await;
}

async fn guard(gate: Gate, known: &mut Option<Access>, request: Request, next: Next) -> Result<Response, Refusal> {
    let Gate { api, needs, surface, action: _ } = gate;
    let (scope, role) = match needs {
        Needs::Access(scope, role) => (scope, role),
        // Their handlers take the bearer, whose extractor proves it, or the proof itself.
        Needs::Nothing | Needs::Registration | Needs::Runner | Needs::Attempt | Needs::Proof => {
            return Ok(next.run(request).await);
        }
    };
    let (mut parts, body) = request.into_parts();
    let access = auth::access(&parts, &api, surface).await?;
    *known = Some(access.clone());
    api.rates.take(access.token(), api.clock.elapsed_ms()).map_err(rate::too_many)?;
    prove_write(&mut parts, &api, &access, surface)?;
    match scope {
        Scope::Visible => access.require(role)?,
        Scope::Everywhere => access.require_everywhere(role)?,
        Scope::Project => {
            project(&api, &access, &named(&mut parts, "project").await?)?;
            access.require(role)?;
        }
        Scope::Task => {
            let number = named(&mut parts, "number").await?;
            let task = visible_task(&api, &access, &number).await?;
            access.require(role)?;
            parts.extensions.insert(SeenTask(Arc::new(task)));
        }
        Scope::Runner => {
            let runner = visible_runner(&api, &access, &named(&mut parts, "name").await?).await?;
            require_for_runner(&access, &runner, role)?;
        }
    }
    // A refusal that is shown as a page says who is signed in.
    let shown = (surface != Surface::Api).then(|| access.clone());
    parts.extensions.insert(access);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(access) = shown {
        response.extensions_mut().insert(access);
    }
    Ok(response)
}

/// A script of ours proved the request by its header: a form needs no field.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProvedByHeader;

/// Refuses a write that a browser may have been made to send with its cookie: without the header it goes on only to a handler that takes a
/// [`Form`](super::body::Form), which looks at the field.
fn prove_write(parts: &mut Parts, api: &Api, access: &Access, surface: Surface) -> Result<(), Refusal> {
    let Some(session) = access.session() else { return Ok(()) };
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    session::check_origin(parts, api)?;
    let said = parts.headers.get(CSRF_HEADER).map(|value| value.to_str().unwrap_or_default());
    match (said, surface) {
        (Some(said), _) if session.is_proved_by(said) => {
            parts.extensions.insert(ProvedByHeader);
            Ok(())
        }
        (None, Surface::Form) => Ok(()),
        (Some(_), _) | (None, Surface::Api | Surface::Page | Surface::Asset) => Err(session::unproved()),
    }
}

/// The part of the path that the table writes as `{name}`.
async fn named(parts: &mut Parts, name: &'static str) -> Result<String, Refusal> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let found = params.ok().and_then(|params| {
        let mut values = params.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
        values.next()
    });
    // A path that is no text names nothing that exists.
    found.ok_or_else(|| Refusal::not_found("object", parts.uri.path()))
}

/// The project, when it exists and the token reaches it.
pub(crate) fn project(api: &Api, access: &Access, name: &str) -> Result<Arc<Project>, Refusal> {
    let applied = api.config.borrow().clone();
    let visible: Vec<_> = applied.tree.projects.values().filter(|project| access.sees(project.name.as_str())).collect();
    if let Some(project) = visible.iter().find(|project| project.name.as_str() == name) {
        return Ok(Arc::clone(project));
    }
    let refusal = Refusal::not_found("project", name);
    Err(match visible.as_slice() {
        [] => refusal.hint("no project is applied that this token reaches: see `forge config status`"),
        visible => {
            let names: Vec<_> = visible.iter().take(20).map(|project| project.name.as_str()).collect();
            refusal.hint(format!("the projects are: {}", names.join(", ")))
        }
    })
}

/// The task, when it exists and the token reaches its project.
async fn visible_task(api: &Api, access: &Access, number: &str) -> Result<Task, Refusal> {
    let not_found = || Refusal::not_found("task", number);
    // A number that is none names nothing that exists.
    let task = api.core.task(number.parse().map_err(|_| not_found())?).await?;
    if access.sees(&task.project) { Ok(task) } else { Err(not_found()) }
}

/// The runner, when it exists and is global or of a project that the token reaches.
async fn visible_runner(api: &Api, access: &Access, name: &str) -> Result<Runner, Refusal> {
    match api.core.runner(name).await {
        Ok(runner) if runner.project.as_ref().is_none_or(|project| access.sees(project)) => Ok(runner),
        // The nearest name could be another project's.
        Ok(_) => Err(Refusal::not_found("runner", name)),
        Err(CoreError::NotFound { .. }) if access.visible().is_some() => Err(Refusal::not_found("runner", name)),
        Err(error) => Err(error.into()),
    }
}

/// A runner of a project is its owner's to change; one that serves every project takes an admin whose token reaches them all.
fn require_for_runner(access: &Access, runner: &Runner, role: Role) -> Result<(), Refusal> {
    if runner.project.is_some() || role == Role::Viewer {
        return access.require(role);
    }
    access.require(role.max(Role::Admin))?;
    if access.visible().is_none() {
        return Ok(());
    }
    let detail = format!("the runner {:?} serves every project and the token reaches only some", runner.name);
    Err(Refusal::new(403, "forbidden", "Forbidden", detail)
        .hint("use an admin token without `projects` in its file under access/ of the tree"))
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        passed(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SeenTask {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        passed(parts)
    }
}

/// What the gate left for the handler. Without it the table does not say what the handler needs: that is our own mistake.
pub(super) fn passed<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Refusal> {
    parts.extensions.get::<T>().cloned().ok_or_else(|| {
        tracing::error!(
            path = parts.uri.path(),
            "a route's handler needs what its row in the table does not: this is a bug in Forge"
        );
        Refusal::new(500, "internal", "Internal error", "the daemon failed to do this")
    })
}
