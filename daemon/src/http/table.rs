//! Every route in one table: its method, its path, what it needs of whoever asks, and what answers.
//!
//! The router is made from it, the [gate](super::gate) reads what a route needs from it, and a test walks it with every role:
//! a route that stands nowhere else cannot forget to ask.

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use forge_api::AuditAction as Act;
use forge_config::meant::Role;
use http::Method;

use super::body::TakesForm;
use super::routes::Api;
use super::surface::Surface;
use super::{
    audit, carry, config, events, hooks, insight, integrations, log_lines, openapi, runner_side, served, task_log,
    tokens, user_side, webhooks,
};
use crate::web::{
    assets, integrations as integration_pages, login, overview, run, runners, schedules, task, tasks, templates,
};
use crate::web::{audit as audit_pages, config as config_pages, plugins as plugin_pages, webhooks as webhook_pages};

/// What a route needs of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: anybody is answered.
    Nothing,
    /// A registration token.
    Registration,
    /// A runner's own token.
    Runner,
    /// The token of the attempt that the path names.
    Attempt,
    /// What its own handler proves from the request: a push webhook's or an integration's secret, or the token that somebody signs in with.
    Proof,
    /// A holder of an access token.
    Access(Scope, Role),
}

/// What an access token has to reach, beside its role. What it does not reach is told of as if it were not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nothing by itself: the answer holds what the token reaches.
    Visible,
    /// Every project: what belongs to none.
    Everywhere,
    /// The project that the path names as `{project}`.
    Project,
    /// The project of the task that the path names as `{number}`.
    Task,
    /// The project of the runner that the path names as `{name}`; to change one that serves every project takes an admin of all.
    Runner,
}

/// One route.
pub(crate) struct Route {
    /// Its method.
    pub(crate) method: Method,
    /// Its path, with `{NAME}` where a part varies.
    pub(crate) path: String,
    /// What it needs.
    pub(crate) needs: Needs,
    /// Who reads its answers.
    pub(crate) surface: Surface,
    /// What is written into the audit log when it is refused; what is done the store writes down itself.
    pub(crate) action: Option<Act>,
    /// What answers.
    pub(crate) handler: MethodRouter<Api>,
}

impl Route {
    /// The same route, whose refusals are written into the audit log.
    fn audited(self, action: Act) -> Self {
        Self { action: Some(action), ..self }
    }
}

/// What is known of a route without asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFacts {
    /// Its method.
    pub method: Method,
    /// Its path, with `{NAME}` where a part varies.
    pub path: String,
    /// What it needs of whoever asks.
    pub needs: Needs,
}

/// Every route that the daemon answers: for what describes them, and for the test that walks them.
pub fn routes() -> Vec<RouteFacts> {
    let facts = |Route { method, path, needs, surface: _, action: _, handler: _ }| RouteFacts { method, path, needs };
    table().into_iter().map(facts).collect()
}

/// A route of the API; `path` stands under its prefix.
fn api<H, T>(method: Method, path: &str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, Api>,
    T: 'static,
{
    route(method, &format!("{}{path}", forge_api::API_PREFIX), needs, Surface::Api, handler)
}

/// A page of the dashboard.
fn page<H, T>(path: &str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, Api>,
    T: 'static,
{
    route(Method::GET, path, needs, Surface::Page, handler)
}

/// What a form of the dashboard is sent to. Its handler takes the checked form, or this does not compile.
fn form<H, T>(path: &str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, Api>,
    T: TakesForm + 'static,
{
    route(Method::POST, path, needs, Surface::Form, handler)
}

fn route<H, T>(method: Method, path: &str, needs: Needs, surface: Surface, handler: H) -> Route
where
    H: Handler<T, Api>,
    T: 'static,
{
    let filter = match method {
        Method::GET => MethodFilter::GET,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        // The table below has no other.
        _ => MethodFilter::POST,
    };
    Route { method, path: path.to_owned(), needs, surface, action: None, handler: on(filter, handler) }
}

/// Every route that the API's listener answers.
pub(crate) fn table() -> Vec<Route> {
    let mut table = runner_routes();
    table.extend(user_routes());
    table.extend(operator_routes());
    table.extend(dashboard_pages());
    table.extend(dashboard_forms());
    table
}

/// What runners and their attempts ask.
fn runner_routes() -> Vec<Route> {
    use Needs::{Attempt, Registration, Runner};
    vec![
        api(Method::POST, "/runners", Registration, runner_side::register),
        api(Method::DELETE, "/runner", Runner, runner_side::unregister),
        api(Method::POST, "/runner/claim", Runner, runner_side::claim),
        api(Method::POST, "/runner/heartbeat", Runner, runner_side::heartbeat),
        api(Method::GET, "/plugins/{sha256}", Runner, runner_side::plugin),
        api(Method::POST, "/attempts/{id}/start", Attempt, runner_side::start),
        api(Method::PATCH, "/attempts/{id}/log", Attempt, runner_side::append_log),
        api(Method::PUT, "/attempts/{id}/result", Attempt, runner_side::finish),
        api(Method::PUT, "/attempts/{id}/carry", Attempt, carry::put),
        api(Method::GET, "/attempts/{id}/carry", Attempt, carry::get),
    ]
}

/// What people and their programs ask about projects and tasks.
fn user_routes() -> Vec<Route> {
    const SEE: Needs = Needs::Access(Scope::Visible, Role::Viewer);
    const SEE_PROJECT: Needs = Needs::Access(Scope::Project, Role::Viewer);
    const RUN: Needs = Needs::Access(Scope::Project, Role::Operator);
    const SEE_TASK: Needs = Needs::Access(Scope::Task, Role::Viewer);
    const STEER_TASK: Needs = Needs::Access(Scope::Task, Role::Operator);
    vec![
        api(Method::GET, "/openapi.json", Needs::Nothing, openapi::document),
        api(Method::GET, "/projects", SEE, user_side::projects),
        api(Method::GET, "/projects/{project}/templates", SEE_PROJECT, user_side::templates),
        api(Method::POST, "/projects/{project}/templates/{template}/tasks", RUN, user_side::create_task)
            .audited(Act::TaskCreate),
        api(Method::GET, "/projects/{project}/templates/{template}/stats", SEE_PROJECT, user_side::template_stats),
        api(Method::GET, "/projects/{project}/integrations/{integration}/log", SEE_PROJECT, integrations::log),
        api(Method::GET, "/schedules", SEE, user_side::schedules),
        api(Method::GET, "/tasks", SEE, user_side::tasks),
        api(Method::GET, "/tasks/{number}", SEE_TASK, user_side::task),
        api(Method::GET, "/tasks/{number}/attempts", SEE_TASK, user_side::attempts),
        api(Method::GET, "/tasks/{number}/log", SEE_TASK, task_log::log),
        api(Method::GET, "/tasks/{number}/log/lines", SEE_TASK, log_lines::lines),
        api(Method::GET, "/tasks/{number}/log/search", SEE_TASK, log_lines::search),
        api(Method::GET, "/tasks/{number}/why", SEE_TASK, user_side::why),
        api(Method::POST, "/tasks/{number}/cancel", STEER_TASK, user_side::cancel).audited(Act::TaskCancel),
        api(Method::POST, "/tasks/{number}/retry", STEER_TASK, user_side::retry).audited(Act::TaskRetry),
        api(Method::POST, "/tasks/{number}/approve", STEER_TASK, user_side::approve).audited(Act::TaskApprove),
        api(Method::POST, "/tasks/{number}/reject", STEER_TASK, user_side::reject).audited(Act::TaskReject),
    ]
}

/// What they ask about runners, the configuration and who is told.
fn operator_routes() -> Vec<Route> {
    const SEE: Needs = Needs::Access(Scope::Visible, Role::Viewer);
    const SEE_RUNNER: Needs = Needs::Access(Scope::Runner, Role::Viewer);
    const CHANGE_RUNNER: Needs = Needs::Access(Scope::Runner, Role::Owner);
    const SEE_ALL: Needs = Needs::Access(Scope::Everywhere, Role::Viewer);
    const ADMIN: Needs = Needs::Access(Scope::Everywhere, Role::Admin);
    const SEE_AUDIT: Needs = Needs::Access(Scope::Visible, Role::Owner);
    vec![
        api(Method::GET, "/runners", SEE, user_side::runners),
        api(Method::GET, "/runners/{name}", SEE_RUNNER, user_side::runner),
        api(Method::DELETE, "/runners/{name}", CHANGE_RUNNER, user_side::remove_runner).audited(Act::RunnerRemove),
        api(Method::POST, "/runners/{name}/drain", CHANGE_RUNNER, user_side::drain_runner).audited(Act::RunnerDrain),
        api(Method::POST, "/runners/{name}/resume", CHANGE_RUNNER, user_side::resume_runner).audited(Act::RunnerResume),
        api(Method::GET, "/events", SEE, events::events),
        api(Method::GET, "/config", SEE, config::status),
        api(Method::GET, "/config/revisions", SEE, config::revisions),
        api(Method::POST, "/config/apply", ADMIN, config::apply).audited(Act::ConfigApply),
        api(Method::GET, "/config/objects", SEE_ALL, served::objects),
        api(Method::GET, "/plugins", SEE_ALL, insight::plugins),
        api(Method::GET, "/stats/load", SEE_ALL, insight::load),
        api(Method::POST, "/tokens/revoke", ADMIN, tokens::revoke).audited(Act::TokenRevoke),
        api(Method::GET, "/webhooks", ADMIN, webhooks::targets),
        api(Method::GET, "/webhooks/deliveries", ADMIN, webhooks::deliveries),
        api(Method::GET, "/webhooks/deliveries/{id}", ADMIN, webhooks::delivery),
        api(Method::POST, "/webhooks/deliveries/{id}/redeliver", ADMIN, webhooks::redeliver)
            .audited(Act::WebhookRedeliver),
        api(Method::POST, "/webhooks/{name}/test", ADMIN, webhooks::test).audited(Act::WebhookTest),
        api(Method::GET, "/audit", SEE_AUDIT, audit::list),
        // Git servers and other programs call these, which know nothing of the API.
        route(Method::POST, "/hooks/config", Needs::Proof, Surface::Api, hooks::config),
        route(Method::POST, "/hooks/{project}/{integration}", Needs::Proof, Surface::Api, integrations::receive),
    ]
}

/// The pages of the dashboard.
fn dashboard_pages() -> Vec<Route> {
    const SEE: Needs = Needs::Access(Scope::Visible, Role::Viewer);
    const SEE_PROJECT: Needs = Needs::Access(Scope::Project, Role::Viewer);
    const RUN: Needs = Needs::Access(Scope::Project, Role::Operator);
    const SEE_TASK: Needs = Needs::Access(Scope::Task, Role::Viewer);
    const SEE_ALL: Needs = Needs::Access(Scope::Everywhere, Role::Viewer);
    const SEE_AUDIT: Needs = Needs::Access(Scope::Visible, Role::Owner);
    const ADMIN: Needs = Needs::Access(Scope::Everywhere, Role::Admin);
    vec![
        page("/", SEE, overview::overview),
        page("/login", Needs::Nothing, login::show),
        page("/tasks", SEE, tasks::list),
        page("/tasks/{number}", SEE_TASK, task::show),
        page("/templates", SEE, templates::list),
        page("/projects/{project}/templates/{template}", SEE_PROJECT, templates::show),
        // A form that was refused stands at this address: who asks for it anew is shown an empty one.
        page("/projects/{project}/templates/{template}/run", RUN, templates::show),
        page("/runners", SEE, runners::list),
        page("/schedules", SEE, schedules::list),
        page("/integrations", SEE, integration_pages::list),
        page("/projects/{project}/integrations/{integration}", SEE_PROJECT, integration_pages::show),
        page("/config", SEE, config_pages::show),
        page("/config/codes", SEE, config_pages::codes),
        page("/plugins", SEE_ALL, plugin_pages::list),
        page("/audit", SEE_AUDIT, audit_pages::list),
        page("/webhooks", ADMIN, webhook_pages::list),
        page("/webhooks/deliveries/{id}", ADMIN, webhook_pages::delivery),
        route(Method::GET, "/assets/{hash}/{name}", Needs::Nothing, Surface::Asset, assets::asset),
    ]
}

/// What their forms are sent to: each needs what the API asks of the same.
fn dashboard_forms() -> Vec<Route> {
    const SEE: Needs = Needs::Access(Scope::Visible, Role::Viewer);
    const RUN: Needs = Needs::Access(Scope::Project, Role::Operator);
    const STEER_TASK: Needs = Needs::Access(Scope::Task, Role::Operator);
    const CHANGE_RUNNER: Needs = Needs::Access(Scope::Runner, Role::Owner);
    const ADMIN: Needs = Needs::Access(Scope::Everywhere, Role::Admin);
    vec![
        // Nobody is signed in yet, so that no session's field can prove the form: the handler asks the browser where it comes from.
        route(Method::POST, "/login", Needs::Proof, Surface::Page, login::sign_in),
        form("/logout", SEE, login::sign_out).audited(Act::SessionEnd),
        form("/projects/{project}/templates/{template}/run", RUN, run::run).audited(Act::TaskCreate),
        form("/tasks/{number}/cancel", STEER_TASK, task::cancel).audited(Act::TaskCancel),
        form("/tasks/{number}/retry", STEER_TASK, task::retry).audited(Act::TaskRetry),
        form("/tasks/{number}/approve", STEER_TASK, task::approve).audited(Act::TaskApprove),
        form("/tasks/{number}/reject", STEER_TASK, task::reject).audited(Act::TaskReject),
        form("/runners/{name}/drain", CHANGE_RUNNER, runners::drain).audited(Act::RunnerDrain),
        form("/runners/{name}/resume", CHANGE_RUNNER, runners::resume).audited(Act::RunnerResume),
        form("/runners/{name}/remove", CHANGE_RUNNER, runners::remove).audited(Act::RunnerRemove),
        form("/webhooks/deliveries/{id}/redeliver", ADMIN, webhook_pages::redeliver).audited(Act::WebhookRedeliver),
        form("/webhooks/{name}/test", ADMIN, webhook_pages::test).audited(Act::WebhookTest),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_stands_twice() {
        let mut rows: Vec<(String, String)> =
            table().into_iter().map(|route| (route.method.to_string(), route.path)).collect();
        let count = rows.len();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), count);
    }
}
