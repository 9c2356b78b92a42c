//! What monitoring asks: whether the process lives, whether it serves, and how much it has to do.
//!
//! Plain and without a token, on loopback unless the operator says otherwise: it names no project, task or runner.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::problem::Refusal;
use crate::core::{Core, CoreError, Counters};
use crate::gitops::{ConfigCounters, ConfigView};

/// What the listener shows.
#[derive(Clone)]
pub(crate) struct Vitals(Arc<Parts>);

struct Parts {
    core: Core,
    view: ConfigView,
    draining: AtomicBool,
}

impl Vitals {
    /// Shows `core` and `view`.
    pub(crate) fn new(core: Core, view: ConfigView) -> Self {
        Self(Arc::new(Parts { core, view, draining: AtomicBool::new(false) }))
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
        Ok(prometheus(&self.0.core.counters().await?, &self.0.view.counters()))
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

/// Prometheus' text format. No value of it can hold a character that would have to be escaped.
fn prometheus(core: &Counters, config: &ConfigCounters) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: u64| [(String::new(), value)];
    let tasks: Vec<_> = core.tasks.iter().map(|(state, count)| (format!("{{state=\"{state}\"}}"), *count)).collect();
    family("forge_tasks", "gauge", "Tasks in the store by state.", &tasks);
    let runners: Vec<_> =
        core.runners.iter().map(|(status, count)| (format!("{{status=\"{}\"}}", status.as_str()), *count)).collect();
    family("forge_runners", "gauge", "Runners by status.", &runners);
    family("forge_parked_claims", "gauge", "Runners that wait for work right now.", &one(core.parked_claims));
    family(
        "forge_fenced_writes_total",
        "counter",
        "Writes of closed attempts that did not count.",
        &one(core.fenced_writes),
    );
    family("forge_log_bytes_total", "counter", "Bytes of logs taken.", &one(core.log_bytes));
    family("forge_config_applied_total", "counter", "Revisions of the configuration applied.", &one(config.applied));
    family("forge_config_failed_total", "counter", "Revisions of the configuration refused.", &one(config.failed));
    family("forge_config_broken", "gauge", "1 while the newest revision is refused.", &one(u64::from(config.broken)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_api::{RunnerStatus, TaskState};

    #[test]
    fn metrics_are_prometheus_text() {
        let core = Counters {
            tasks: [(TaskState::Queued, 2)].into(),
            runners: vec![(RunnerStatus::NeverConnected, 1)],
            ..Counters::default()
        };
        let text = prometheus(&core, &ConfigCounters { applied: 3, failed: 1, broken: true });
        for line in [
            "# TYPE forge_tasks gauge",
            "forge_tasks{state=\"queued\"} 2",
            "forge_runners{status=\"never_connected\"} 1",
            "forge_parked_claims 0",
            "forge_config_applied_total 3",
            "forge_config_broken 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
