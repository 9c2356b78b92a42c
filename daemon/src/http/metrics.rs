//! What monitoring asks: whether the process lives, whether it serves, and how much it has to do.
//!
//! Plain and without a token, on loopback unless the operator says otherwise: it names no project, task or runner, and of
//! webhooks the targets alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::exposition::{self, Shown};
use super::problem::Refusal;
use super::requests::Requests;
use crate::core::{Core, CoreError, Counters};
use crate::gitops::ConfigView;

/// What the listener shows.
#[derive(Clone)]
pub(crate) struct Vitals(Arc<Parts>);

struct Parts {
    core: Core,
    view: ConfigView,
    requests: Requests,
    draining: AtomicBool,
}

impl Vitals {
    /// Shows these.
    pub(crate) fn new(core: Core, view: ConfigView, requests: Requests) -> Self {
        Self(Arc::new(Parts { core, view, requests, draining: AtomicBool::new(false) }))
    }

    /// From now on the daemon is not ready.
    pub(crate) fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are welcome.
    pub(crate) fn is_ready(&self) -> bool {
        !self.0.draining.load(Ordering::Relaxed)
    }

    /// The configuration that is shown.
    pub(crate) fn view(&self) -> &ConfigView {
        &self.0.view
    }

    /// Everything as Prometheus' text.
    pub(crate) async fn metrics(&self) -> Result<String, CoreError> {
        let core = self.0.core.counters().await?;
        Ok(exposition::text(&Shown {
            core: &core,
            writer: self.0.core.writer_stats(),
            config: self.0.view.counters(),
            status: &self.0.view.status(),
            requests: &self.0.requests,
            is_ready: self.is_ready(),
        }))
    }

    /// The counters of the core.
    pub(crate) async fn counters(&self) -> Result<Counters, CoreError> {
        self.0.core.counters().await
    }
}

/// The routes of the metrics listener.
pub(crate) fn router(vitals: Vitals) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async |uri: http::Uri| {
            Refusal::not_found("route", uri.path()).hint("this listener has /healthz, /readyz and /metrics")
        })
        .with_state(vitals)
}

async fn ready(State(vitals): State<Vitals>) -> Response {
    if vitals.is_ready() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    }
}

async fn metrics(State(vitals): State<Vitals>) -> Result<Response, Refusal> {
    let text = vitals.metrics().await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
