//! The table of routes under `/api/v1`, and what they share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, patch, post, put};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::auth::FailedAuthentications;
use super::problem::Refusal;
use super::requests::{self, Requests};
use super::{carry, config, hooks, integrations, runner_side, served, task_log, tokens, user_side, webhooks};
use crate::clock::Clock;
use crate::core::{Applied, Core};
use crate::gitops::{ConfigView, GitOpsHandle};

/// What every route may use.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// The parts of [`Api`].
pub(crate) struct Shared {
    /// Scheduler, store and logs.
    pub(crate) core: Core,
    /// The revision that serves.
    pub(crate) config: watch::Receiver<Arc<Applied>>,
    /// The revision and its mistakes.
    pub(crate) view: ConfigView,
    /// What looks at the source when it is asked to.
    pub(crate) gitops: GitOpsHandle,
    /// The secret of webhooks.
    pub(crate) hook_secret_file: Option<PathBuf>,
    /// The clock.
    pub(crate) clock: Clock,
    /// Places for bodies of requests to integrations, which are held in memory.
    pub(crate) integration_bodies: Semaphore,
    /// Wrong tokens by address.
    pub(crate) failures: FailedAuthentications,
    /// Ends answers that would otherwise follow a log for as long as it grows.
    pub(crate) shutdown: CancellationToken,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// What the routes share.
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

/// Every route of the API; `requests` counts them.
pub(crate) fn router(api: Api, requests: Requests) -> Router {
    let routes = Router::new()
        // The runner's side.
        .route("/runner", delete(runner_side::unregister))
        .route("/runner/claim", post(runner_side::claim))
        .route("/runner/heartbeat", post(runner_side::heartbeat))
        .route("/plugins/{sha256}", get(runner_side::plugin))
        .route("/attempts/{id}/start", post(runner_side::start))
        .route("/attempts/{id}/log", patch(runner_side::append_log))
        .route("/attempts/{id}/result", put(runner_side::finish))
        .route("/attempts/{id}/carry", put(carry::put).get(carry::get))
        // Both sides: registering is a runner's, listing a person's.
        .route("/runners", post(runner_side::register).get(user_side::runners))
        // The user's side.
        .route("/projects", get(user_side::projects))
        .route("/projects/{project}/templates", get(user_side::templates))
        .route("/projects/{project}/templates/{template}/tasks", post(user_side::create_task))
        .route("/tasks", get(user_side::tasks))
        .route("/tasks/{number}", get(user_side::task))
        .route("/tasks/{number}/log", get(task_log::log))
        .route("/tasks/{number}/cancel", post(user_side::cancel))
        .route("/tasks/{number}/retry", post(user_side::retry))
        .route("/tasks/{number}/why", get(user_side::why))
        .route("/tasks/{number}/approve", post(user_side::approve))
        .route("/tasks/{number}/reject", post(user_side::reject))
        .route("/runners/{name}", get(user_side::runner).delete(user_side::remove_runner))
        .route("/runners/{name}/drain", post(user_side::drain_runner))
        .route("/runners/{name}/resume", post(user_side::resume_runner))
        .route("/config", get(config::status))
        .route("/config/apply", post(config::apply))
        .route("/config/objects", get(served::objects))
        .route("/tokens/revoke", post(tokens::revoke))
        .route("/projects/{project}/integrations/{integration}/log", get(integrations::log))
        .route("/schedules", get(user_side::schedules))
        .route("/webhooks", get(webhooks::targets))
        .route("/webhooks/deliveries", get(webhooks::deliveries))
        .route("/webhooks/deliveries/{id}", get(webhooks::delivery))
        .route("/webhooks/deliveries/{id}/redeliver", post(webhooks::redeliver))
        .route("/webhooks/{name}/test", post(webhooks::test));
    Router::new()
        .nest(forge_api::API_PREFIX, routes)
        // Git servers call it, which know nothing of the API.
        .route("/hooks/config", post(hooks::config))
        .route("/hooks/{project}/{integration}", post(integrations::receive))
        .fallback(async |uri: http::Uri| {
            Refusal::not_found("route", uri.path()).hint("the API's routes stand under /api/v1")
        })
        .method_not_allowed_fallback(async |method: http::Method, uri: http::Uri| {
            let detail = format!("{} does not take {method}", uri.path());
            Refusal::new(405, "method-not-allowed", "Method not allowed", detail).hint("see the header Allow")
        })
        .layer(axum::middleware::from_fn_with_state(requests, requests::measure))
        .with_state(api)
}
