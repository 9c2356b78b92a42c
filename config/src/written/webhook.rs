//! `webhooks/<target>.toml` as it is written.

use toml::Spanned;
use toml::de::DeValue;

use crate::written::declare::{choice, written};
use crate::written::raw::{RawTable, raw_value};
use crate::written::reader::{Duration, Place, Shape, Whole, Written};
use crate::written::secret::{Secret, looks_like_a_secret};
use crate::written::sheet::At;

/// How often a delivery is tried again at most.
pub(crate) const WEBHOOK_ATTEMPTS_MAX: i64 = 100;

written! {
    /// A webhook target: who is told of events, through a plugin.
    hidden Webhook {
        /// The name of the plugin that tells it: `plugins/<plugin>.toml`, a webhook target.
        required plugin: String,
        /// The events that it is told of. Default: all of them.
        optional events: Vec<At<Event>>,
        /// Which ends of tasks it is told of. Default: `"always"`.
        optional on: On,
        /// How long a task that it was told of goes on waiting, with no runner there, until it is told again. Default: `"10m"`.
        optional waiting_again: Duration,
        /// What the plugin is told, by its own schema. A secret (`{ file = "..." }`, and so on) reaches it as `{{secret:field}}` only.
        optional config: SecretConfig,
        /// What deliveries are signed with, where the plugin signs them.
        optional secret: Secret,
        /// Further attempts after one that failed. Default: `{ attempts = 8, delay = "10s" }`.
        optional retry: WebhookRetry,
    }
}

choice! {
    /// What a target may be told of.
    Event {
        "task.queued" => TaskQueued,
        "task.waiting" => TaskWaiting,
        "task.started" => TaskStarted,
        "task.awaiting_approval" => TaskAwaitingApproval,
        "task.finished" => TaskFinished,
        "runner.online" => RunnerOnline,
        "runner.offline" => RunnerOffline,
        "runner.idle" => RunnerIdle,
        "config.applied" => ConfigApplied,
        "config.failed" => ConfigFailed,
    }
}

choice! {
    /// Which ends of tasks a target is told of: every one, or those that failed, timed out, were lost or expired.
    On { "always" => Always, "failure" => Failure, }
}

written! {
    /// Further attempts of a delivery.
    shown WebhookRetry {
        /// How many; 0 is none. Default: 8.
        optional attempts: Whole<0, WEBHOOK_ATTEMPTS_MAX>,
        /// How long to wait before the first; each further one waits twice as long. Default: `"10s"`.
        optional delay: Duration,
    }
}

/// A table for a plugin in which top-level values may be secrets.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecretConfig {
    /// The table as the plugin sees it: `{{secret:field}}` stands in the place of each secret.
    pub(crate) table: RawTable,
    /// The secrets by field.
    pub(crate) secrets: Vec<(String, At<Secret>)>,
}

impl Written for SecretConfig {
    fn shape() -> Shape {
        Shape::AnyTable
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            place.wrong_type(value, "a table");
            return None;
        };
        let mut config = Self::default();
        let mut whole = true;
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = format!("{}.{name}", place.key);
            let inner = Place { key: &path, ..place };
            let span = place.span(value);
            if looks_like_a_secret(value.get_ref()) {
                match Secret::read(value, inner) {
                    Some(secret) => config.secrets.push((name.to_owned(), At { value: secret, span })),
                    None => whole = false,
                }
                config.table.insert(name, place.span(key), span, format!("{{{{secret:{name}}}}}").into());
            } else {
                whole &= raw_value(name, place.span(key), value, inner, &mut config.table);
            }
        }
        whole.then_some(config)
    }
}
