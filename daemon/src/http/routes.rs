//! The router, and what the routes share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::auth::FailedAuthentications;
use super::gate::{self, Gate};
use super::places::Places;
use super::problem::Refusal;
use super::rate::Rates;
use super::requests::{self, Requests};
use super::streams::Streams;
use super::table::{self, Route};
use crate::clock::Clock;
use crate::core::{Applied, Core};
use crate::gitops::{ConfigView, GitOpsHandle};
use crate::plugins::Catalog;

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
    /// What plugins say of themselves.
    pub(crate) catalog: Arc<Catalog>,
    /// What looks at the source when it is asked to.
    pub(crate) gitops: GitOpsHandle,
    /// The URL that people use, where forge.toml names one.
    pub(crate) web_host: Option<String>,
    /// Whether the listener itself speaks TLS.
    pub(crate) speaks_tls: bool,
    /// What a runner pins where the certificate is from the daemon's own CA.
    pub(crate) ca_fingerprint: Option<String>,
    /// The secret of webhooks.
    pub(crate) hook_secret_file: Option<PathBuf>,
    /// The clock.
    pub(crate) clock: Clock,
    /// Places for bodies of requests to integrations, which are held in memory.
    pub(crate) integration_bodies: Places,
    /// Wrong tokens by address.
    pub(crate) failures: FailedAuthentications,
    /// How much each access token has asked.
    pub(crate) rates: Rates,
    /// Of registrations alone.
    pub(crate) failed_registrations: FailedAuthentications,
    /// Streams of events by token.
    pub(crate) event_streams: Streams,
    /// Logs that are followed, by token.
    pub(crate) log_streams: Streams,
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

/// Every route of the [`table`], each behind its [`gate`]; `requests` counts them.
pub(crate) fn router(api: Api, requests: Requests) -> Router {
    let mut routes = Router::new();
    for Route { method: _, path, needs, surface, action, handler } in table::table() {
        let gate = Gate { api: api.clone(), needs, surface, action };
        routes = routes.route(&path, handler.route_layer(from_fn_with_state(gate, gate::pass)));
    }
    routes
        .fallback(async |uri: http::Uri| {
            Refusal::not_found("route", uri.path()).hint("the API's routes stand under /api/v1")
        })
        .method_not_allowed_fallback(async |method: http::Method, uri: http::Uri| {
            let detail = format!("{} does not take {method}", uri.path());
            Refusal::new(405, "method-not-allowed", "Method not allowed", detail).hint("see the header Allow")
        })
        .layer(from_fn_with_state(requests, requests::measure))
        .with_state(api)
}
