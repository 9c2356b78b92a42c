//! Everything that is measured, as Prometheus' text. `docs/guides/monitoring.md` says what each metric is for, and a test holds the two together.
//!
//! A counter begins at 0 with the process. No value can hold a character that would have to be escaped.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use forge_api::ConfigStatus;

use super::requests::Requests;
use crate::core::{Counters, DAEMON_VERSION, TryOutcome};
use crate::gitops::ConfigCounters;
use crate::histogram::Counted;
use crate::store::WriterStats;

/// What is shown.
pub(super) struct Shown<'a> {
    pub(super) core: &'a Counters,
    pub(super) writer: &'a WriterStats,
    pub(super) config: ConfigCounters,
    pub(super) status: &'a ConfigStatus,
    pub(super) requests: &'a Requests,
    pub(super) is_ready: bool,
}

/// A text that grows by families of samples.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `labels` are as they stand between the braces, without them.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    /// The samples of one histogram; `unit` is how much of the metric's unit one of the counted is.
    fn histogram(&mut self, name: &str, labels: &str, counted: &Counted, unit: f64) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in &counted.buckets {
            let bound = *bound as f64 * unit;
            self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), count);
        }
        self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), counted.count);
        self.sample(&format!("{name}_sum"), labels, counted.sum as f64 * unit);
        self.sample(&format!("{name}_count"), labels, counted.count);
    }
}

/// What one microsecond is of a second.
const MICROSECOND: f64 = 1e-6;

/// All of it.
pub(super) fn text(shown: &Shown<'_>) -> String {
    let mut text = Text::default();
    text.family("forge_build_info", "gauge", "1; the label is the daemon's version.");
    text.sample("forge_build_info", &format!("version=\"{DAEMON_VERSION}\""), 1);
    text.one(
        "forge_ready",
        "gauge",
        "1 while new requests are welcome, 0 while the daemon drains.",
        u64::from(shown.is_ready),
    );
    tasks(&mut text, shown.core);
    runners(&mut text, shown.core);
    config(&mut text, shown);
    webhooks(&mut text, shown.core);
    store(&mut text, shown);
    requests(&mut text, shown.requests);
    text.0
}

fn tasks(text: &mut Text, core: &Counters) {
    text.family("forge_tasks", "gauge", "Tasks in the store by state; the queue is `queued`.");
    for (state, count) in &core.tasks {
        text.sample("forge_tasks", &format!("state=\"{state}\""), count);
    }
    let oldest = core.oldest_ready_ms as f64 / 1e3;
    text.one(
        "forge_queue_oldest_seconds",
        "gauge",
        "How long the oldest waiting task could have run already that only lacks a runner; 0 when there is none.",
        oldest,
    );
    text.one("forge_assignments_total", "counter", "Attempts given to runners.", core.assignments);
    let help = "Attempts lost since their runner stayed away for longer than runner_grace.";
    text.one("forge_lease_expiries_total", "counter", help, core.lease_expiries);
    let help = "Jobs that runners did not begin, such as ones that the key they pinned did not sign.";
    text.one("forge_jobs_refused_total", "counter", help, core.jobs_refused);
    text.one(
        "forge_fenced_writes_total",
        "counter",
        "Writes of closed attempts that did not count.",
        core.fenced_writes,
    );
    text.one("forge_log_bytes_total", "counter", "Bytes of logs taken.", core.log_bytes);
}

fn runners(text: &mut Text, core: &Counters) {
    text.family("forge_runners", "gauge", "Runners by status.");
    for status in forge_api::RunnerStatus::ALL {
        let count = core.runners.iter().find(|(found, _)| *found == status).map_or(0, |(_, count)| *count);
        text.sample("forge_runners", &format!("status=\"{}\"", status.as_str()), count);
    }
    text.one("forge_parked_claims", "gauge", "Runners that wait for work right now.", core.parked_claims);
    let skew = core.clock_skew_ms_max as f64 / 1e3;
    let help = "How far the clock of the online runner that is farthest off is from the daemon's, either way.";
    text.one("forge_runner_clock_skew_seconds_max", "gauge", help, skew);
    if let Some(free) = core.runner_disk_free_bytes_min {
        let help = "Space that is left for tmp_path of the online runner that has the least.";
        text.one("forge_runner_disk_free_bytes_min", "gauge", help, free);
    }
}

fn config(text: &mut Text, shown: &Shown<'_>) {
    let ConfigCounters { applied, failed, broken } = shown.config;
    text.family("forge_config_info", "gauge", "1; the label is the revision that serves, empty before the first.");
    // A commit or a digest, in hex; what a folder's name or a branch could hold never gets here.
    let revision: String = shown.status.revision.chars().filter(char::is_ascii_alphanumeric).collect();
    text.sample("forge_config_info", &format!("revision=\"{revision}\""), 1);
    let applied_at = shown.status.applied_at.map_or(0, |at| at.unix_micros() / 1_000_000);
    let help = "When the revision that serves was applied, in seconds since 1970; 0 before the first.";
    text.one("forge_config_applied_timestamp_seconds", "gauge", help, applied_at);
    text.one("forge_config_applied_total", "counter", "Revisions of the configuration applied.", applied);
    text.one("forge_config_failed_total", "counter", "Revisions of the configuration refused.", failed);
    text.one(
        "forge_config_broken",
        "gauge",
        "1 while the newest revision is refused or the source gives none.",
        u64::from(broken),
    );
}

fn webhooks(text: &mut Text, core: &Counters) {
    text.family("forge_webhook_deliveries", "gauge", "Deliveries in the store by webhook target and state.");
    for (target, states) in &core.deliveries {
        for (state, count) in states {
            let labels = format!("target=\"{target}\",state=\"{}\"", state.as_str());
            text.sample("forge_webhook_deliveries", &labels, count);
        }
    }
    let oldest = core.oldest_delivery_ms as f64 / 1e3;
    let help = "How long the oldest delivery waits that has not arrived; 0 when none waits.";
    text.one("forge_webhook_oldest_seconds", "gauge", help, oldest);
    text.family("forge_webhook_tries_total", "counter", "Tries of deliveries by what they came to.");
    for outcome in TryOutcome::ALL {
        let count = core.tries.get(&outcome).copied().unwrap_or_default();
        text.sample("forge_webhook_tries_total", &format!("outcome=\"{}\"", outcome.as_str()), count);
    }
}

fn store(text: &mut Text, shown: &Shown<'_>) {
    let core = shown.core;
    if let Some(free) = core.disk_free_bytes {
        text.one("forge_disk_free_bytes", "gauge", "Space that is left where data_dir lies.", free);
    }
    let help = "[logs] disk_reserve: with less space than this no new work is accepted.";
    text.one("forge_disk_reserve_bytes", "gauge", help, core.disk_reserve_bytes);
    text.family("forge_store_batch_operations", "histogram", "Operations that shared one transaction of the store.");
    text.histogram("forge_store_batch_operations", "", &shown.writer.batches.counted(), 1.0);
    text.family(
        "forge_store_transaction_seconds",
        "histogram",
        "Time that transactions of the store took, to the disk and back.",
    );
    text.histogram("forge_store_transaction_seconds", "", &shown.writer.times.counted(), MICROSECOND);
    let failures = shown.writer.failures.load(Ordering::Relaxed);
    text.one("forge_store_failures_total", "counter", "Transactions that the store could not commit.", failures);
}

fn requests(text: &mut Text, requests: &Requests) {
    let help = "Time to the head of an answer of the API, by route. A claim waits up to 30 s by design.";
    text.family("forge_request_seconds", "histogram", help);
    for (method, route, counted) in requests.times() {
        // Braces inside a label's quotes are text to Prometheus.
        text.histogram(
            "forge_request_seconds",
            &format!("method=\"{method}\",route=\"{route}\""),
            &counted,
            MICROSECOND,
        );
    }
    text.family("forge_responses_total", "counter", "Answers of the API by the class of their status.");
    for (class, count) in requests.answers() {
        text.sample("forge_responses_total", &format!("class=\"{class}\""), count);
    }
}

#[cfg(test)]
mod tests {
    use forge_api::{DeliveryState, RunnerStatus, TaskState};

    use super::*;
    use crate::histogram::{self, Histogram};

    #[test]
    fn metrics_are_prometheus_text() {
        let core = Counters {
            tasks: [(TaskState::Queued, 2)].into(),
            runners: vec![(RunnerStatus::NeverConnected, 1)],
            oldest_ready_ms: 1_500,
            disk_free_bytes: Some(7),
            runner_disk_free_bytes_min: Some(9),
            deliveries: [("ops".to_owned(), [(DeliveryState::Dead, 4)].into())].into(),
            oldest_delivery_ms: 2_500,
            tries: [(TryOutcome::Again, 5)].into(),
            ..Counters::default()
        };
        let writer = WriterStats {
            batches: Histogram::new(histogram::BATCH),
            times: Histogram::new(histogram::MICROS),
            failures: std::sync::atomic::AtomicU64::new(0),
        };
        writer.batches.count(3);
        writer.times.count(600);
        let status = ConfigStatus {
            revision: "ab12".to_owned(),
            applied_at: Some(forge_api::Timestamp::from_unix_micros(5_000_000)),
            source: String::new(),
            commit: None,
            fetched_at: None,
            last_error: None,
        };
        let text = text(&Shown {
            core: &core,
            writer: &writer,
            config: ConfigCounters { applied: 3, failed: 1, broken: true },
            status: &status,
            requests: &Requests::default(),
            is_ready: true,
        });
        for line in [
            "# TYPE forge_tasks gauge",
            "forge_tasks{state=\"queued\"} 2",
            "forge_queue_oldest_seconds 1.5",
            "forge_runners{status=\"never_connected\"} 1",
            "forge_runners{status=\"online\"} 0",
            "forge_parked_claims 0",
            "forge_webhook_deliveries{target=\"ops\",state=\"dead\"} 4",
            "forge_webhook_oldest_seconds 2.5",
            "forge_webhook_tries_total{outcome=\"again\"} 5",
            "forge_webhook_tries_total{outcome=\"delivered\"} 0",
            "forge_config_applied_total 3",
            "forge_config_broken 1",
            "forge_config_info{revision=\"ab12\"} 1",
            "forge_config_applied_timestamp_seconds 5",
            "forge_disk_free_bytes 7",
            "forge_runner_disk_free_bytes_min 9",
            "forge_store_batch_operations_bucket{le=\"2\"} 0",
            "forge_store_batch_operations_bucket{le=\"4\"} 1",
            "forge_store_transaction_seconds_bucket{le=\"0.0005\"} 0",
            "forge_store_transaction_seconds_bucket{le=\"0.001\"} 1",
            "forge_store_transaction_seconds_bucket{le=\"+Inf\"} 1",
            "forge_store_transaction_seconds_sum 0.0006",
            "forge_store_transaction_seconds_count 1",
            "forge_responses_total{class=\"5xx\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
