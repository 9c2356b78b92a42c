//! Every route in one table: its method, its path, what it needs of whoever asks, and what answers.
//!
//! The router is made from it, the [gate](super::gate) reads what a route needs from it, and a test walks it with every role:
//! a route that stands nowhere else cannot forget to ask.

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use forge_config::meant::Role;
use http::Method;

use super::body::TakesForm;
use super::routes::Api;
use super::surface::Surface;
use super::{
    carry, config, hooks, insight, integrations, log_lines, runner_side, served, task_log, tokens, user_side, webhooks,
};
use crate::web::{self, login};

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
    /// What answers.
    pub(crate) handler: MethodRouter<Api>,
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
    let facts = |Route { method, path, needs, surface: _, handler: _ }| RouteFacts { method, path, needs };
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
    Route { method, path: path.to_owned(), needs, surface, handler: on(filter, handler) }
}

/// Every route that the API's listener answers.
pub(crate) fn table() -> Vec<Route> {
    let mut table = runner_routes();
    table.extend(user_routes());
    table.extend(operator_routes());
    table.extend(dashboard_routes());
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
        api(Method::GET, "/projects", SEE, user_side::projects),
        api(Method::GET, "/projects/{project}/templates", SEE_PROJECT, user_side::templates),
        api(Method::POST, "/projects/{project}/templates/{template}/tasks", RUN, user_side::create_task),
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
        api(Method::POST, "/tasks/{number}/cancel", STEER_TASK, user_side::cancel),
        api(Method::POST, "/tasks/{number}/retry", STEER_TASK, user_side::retry),
        api(Method::POST, "/tasks/{number}/approve", STEER_TASK, user_side::approve),
        api(Method::POST, "/tasks/{number}/reject", STEER_TASK, user_side::reject),
    ]
}

/// What they ask about runners, the configuration and who is told.
fn operator_routes() -> Vec<Route> {
    const SEE: Needs = Needs::Access(Scope::Visible, Role::Viewer);
    const SEE_RUNNER: Needs = Needs::Access(Scope::Runner, Role::Viewer);
    const CHANGE_RUNNER: Needs = Needs::Access(Scope::Runner, Role::Owner);
    const SEE_ALL: Needs = Needs::Access(Scope::Everywhere, Role::Viewer);
    const ADMIN: Needs = Needs::Access(Scope::Everywhere, Role::Admin);
    vec![
        api(Method::GET, "/runners", SEE, user_side::runners),
        api(Method::GET, "/runners/{name}", SEE_RUNNER, user_side::runner),
        api(Method::DELETE, "/runners/{name}", CHANGE_RUNNER, user_side::remove_runner),
        api(Method::POST, "/runners/{name}/drain", CHANGE_RUNNER, user_side::drain_runner),
        api(Method::POST, "/runners/{name}/resume", CHANGE_RUNNER, user_side::resume_runner),
        api(Method::GET, "/config", SEE, config::status),
        api(Method::GET, "/config/revisions", SEE, config::revisions),
        api(Method::POST, "/config/apply", ADMIN, config::apply),
        api(Method::GET, "/config/objects", SEE_ALL, served::objects),
        api(Method::GET, "/plugins", SEE_ALL, insight::plugins),
        api(Method::GET, "/stats/load", SEE_ALL, insight::load),
        api(Method::POST, "/tokens/revoke", ADMIN, tokens::revoke),
        api(Method::GET, "/webhooks", ADMIN, webhooks::targets),
        api(Method::GET, "/webhooks/deliveries", ADMIN, webhooks::deliveries),
        api(Method::GET, "/webhooks/deliveries/{id}", ADMIN, webhooks::delivery),
        api(Method::POST, "/webhooks/deliveries/{id}/redeliver", ADMIN, webhooks::redeliver),
        api(Method::POST, "/webhooks/{name}/test", ADMIN, webhooks::test),
        // Git servers and other programs call these, which know nothing of the API.
        route(Method::POST, "/hooks/config", Needs::Proof, Surface::Api, hooks::config),
        route(Method::POST, "/hooks/{project}/{integration}", Needs::Proof, Surface::Api, integrations::receive),
    ]
}

/// What browsers ask.
fn dashboard_routes() -> Vec<Route> {
    const SEE: Needs = Needs::Access(Scope::Visible, Role::Viewer);
    vec![
        page("/", SEE, web::overview),
        page("/login", Needs::Nothing, login::show),
        // Nobody is signed in yet, so that no session's field can prove the form: the handler asks the browser where it comes from.
        route(Method::POST, "/login", Needs::Proof, Surface::Page, login::sign_in),
        form("/logout", SEE, login::sign_out),
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
