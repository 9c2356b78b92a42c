//! One try of a delivery: read, sent by its target's plugin, and what came of it written down.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use forge_api::{DeliveryState, Timestamp, WebhookExchange};
use forge_plugin_host::WebhookEvent;
use futures_util::FutureExt as _;
use tokio::sync::{OnceCell, Semaphore};

use super::backoff;
use super::target::{Ready, Targets, Unready};
use crate::clock::Clock;
use crate::core::{Core, TryOutcome};
use crate::store::{Came, Due, Kept, StoreError, payload};
use crate::webhooks::{
    Calls, Context, Exchange, PLUGIN_CALLS_MAX, Report, Sender, SenderOptions, TargetSecrets, Verdict, deliver,
};

/// How long is waited before the store is asked again that refused, at first and at most.
const STORE_PAUSE_MIN: Duration = Duration::from_secs(1);
const STORE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// When a delivery is tried again that was not sent for want of room, in milliseconds.
const POSTPONED_MS: i64 = 1_000;

/// How a delivery whose try panicked is tried again, where its target says nothing.
const RETRY: backoff::Retry = backoff::Retry { attempts: 8, delay_ms: 10_000 };

/// What every try needs.
pub(super) struct Tries {
    core: Core,
    clock: Clock,
    targets: Targets,
    /// Made with the first try: who tells nobody need not know the world's authorities.
    sender: OnceCell<Sender>,
    sender_options: SenderOptions,
    calls: Arc<Semaphore>,
}

/// What the end of a try brings about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// The delivery that had to wait for this one.
    pub(super) follower: Option<i64>,
    /// When this one is looked at again.
    pub(super) again_at: Option<Timestamp>,
}

impl Tries {
    pub(super) fn new(core: Core, clock: Clock, targets: Targets, sender_options: SenderOptions) -> Self {
        let calls = Arc::new(Semaphore::new(PLUGIN_CALLS_MAX as usize));
        Self { core, clock, targets, sender: OnceCell::new(), sender_options, calls }
    }

    /// Closes connections that have rested for long; answers whether any is left.
    pub(super) fn sweep(&self) -> bool {
        self.sender.get().is_some_and(Sender::sweep)
    }

    /// Makes one try and writes down what came of it. `calls` are the target's own places for its plugin's calls.
    pub(super) async fn make(&self, number: i64, target: &str, calls: Arc<Semaphore>) -> Ended {
        let due = match self.core.still_due(number).await {
            Ok(Some(due)) => due,
            // What waited for it may be due.
            Ok(None) => return Ended { follower: None, again_at: Some(self.clock.now()) },
            Err(error) => {
                tracing::error!(target, %error, "a webhook delivery could not be looked at; it is again in a moment");
                tokio::time::sleep(STORE_PAUSE_MIN).await;
                return Ended { follower: None, again_at: Some(self.clock.now()) };
            }
        };
        let (id, tried_before) = (due.id.clone(), due.tries);
        let tries = tried_before.saturating_add(1);
        let sent = AssertUnwindSafe(self.send_to(due, calls)).catch_unwind().await;
        let (came, exchanges) = sent.unwrap_or_else(|_panic| {
            // The hook reports it. It counts as a try, or it would be the same again for ever.
            let message = "the daemon failed over this delivery (its log says how)".to_owned();
            (
                again(message, None, self.targets.retry(target).unwrap_or(RETRY), &id, tries, self.clock.now()),
                Vec::new(),
            )
        });
        match &came {
            Came::Ended { state: DeliveryState::Dead, message } => {
                tracing::warn!(delivery = id, target, tries, message, "a webhook delivery is dead");
            }
            Came::Again { message, at } | Came::Postponed { message, at } => {
                tracing::info!(delivery = id, target, tries, message, again_at = %at, "a webhook delivery is tried again");
            }
            Came::Ended { .. } => tracing::debug!(delivery = id, target, tries, "a webhook delivery ended"),
        }
        if let Some(outcome) = outcome(&came) {
            self.core.count_try(outcome);
        }
        let exchanges: Vec<WebhookExchange> = exchanges.into_iter().map(shown).collect();
        // Every part of it is text and numbers.
        let exchanges = serde_json::to_string(&exchanges).unwrap_or_else(|_| "[]".to_owned());
        let again_at = match &came {
            Came::Again { at, .. } | Came::Postponed { at, .. } => Some(*at),
            Came::Ended { .. } => None,
        };
        // Kept until it is: whoever forgot it would send it again, and again, for as long as the disk is full.
        let mut pause = STORE_PAUSE_MIN;
        loop {
            match self.core.tried(number, tried_before, came.clone(), exchanges.clone()).await {
                Ok(Kept::Written { follower }) => return Ended { follower, again_at },
                // It may have to be sent once more at once.
                Ok(Kept::Overtaken) => return Ended { follower: None, again_at: Some(self.clock.now()) },
                Err(StoreError::Closed) => return Ended::default(),
                Err(error) => {
                    tracing::error!(delivery = id, target, %error, "what became of a webhook delivery cannot be kept; it is tried again");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(STORE_PAUSE_MAX);
                }
            }
        }
    }

    async fn send_to(&self, due: Due, calls: Arc<Semaphore>) -> (Came, Vec<Exchange>) {
        let (id, target, tries) = (due.id.clone(), due.target.clone(), due.tries.saturating_add(1));
        match self.targets.ready(&target).await {
            Ok(ready) => {
                let Report { verdict, exchanges } = self.send(&ready, due, calls).await;
                (came_of(verdict, &ready, &id, tries, self.clock.now()), exchanges)
            }
            Err(Unready::Gone) => {
                let message = format!("webhooks/{target}.toml is not in the tree any more");
                (Came::Ended { state: DeliveryState::Dead, message: Some(message) }, Vec::new())
            }
            Err(Unready::Later { message, retry }) => {
                (again(message, None, retry, &id, tries, self.clock.now()), Vec::new())
            }
        }
    }

    async fn send(&self, ready: &Ready, due: Due, of_target: Arc<Semaphore>) -> Report {
        let secrets = match TargetSecrets::new(ready.fields.clone(), ready.own.clone()) {
            Ok(secrets) => secrets.with_plugin(ready.plugin_fields.clone()),
            Err(error) => {
                let verdict = Verdict::Retry { message: error.to_string(), after_ms: None };
                return Report { verdict, exchanges: Vec::new() };
            }
        };
        let event = WebhookEvent {
            id: due.id.clone(),
            kind: due.event.clone(),
            at_ms: u64::try_from(due.at.unix_micros() / 1_000).unwrap_or_default(),
            payload_json: payload(&due.uid, &due.event, due.at, &due.body),
            config_json: secrets.config_json(&ready.config),
            plugin_config_json: secrets.plugin_config_json(&ready.plugin_config),
            attempt: due.tries.saturating_add(1),
        };
        let context = Context {
            target: due.target,
            plugin: ready.plugin_name.clone(),
            grants: ready.grants.clone(),
            secrets,
            event: due.event,
            delivery: due.id,
        };
        let now = || jiff::Timestamp::from_microsecond(self.clock.now().unix_micros()).unwrap_or_default();
        let calls = Calls { of_target, of_all: Arc::clone(&self.calls) };
        match self.sender.get_or_try_init(async || Sender::new(self.sender_options.clone())).await {
            Ok(sender) => deliver(ready.guest.clone(), event, &context, sender, &calls, now).await,
            Err(error) => {
                let verdict = Verdict::Retry { message: error.to_string(), after_ms: None };
                Report { verdict, exchanges: Vec::new() }
            }
        }
    }
}

fn came_of(verdict: Verdict, ready: &Ready, id: &str, tries: u32, now: Timestamp) -> Came {
    match verdict {
        Verdict::Delivered => Came::Ended { state: DeliveryState::Delivered, message: None },
        Verdict::Skipped(why) => Came::Ended { state: DeliveryState::Skipped, message: Some(why) },
        Verdict::GaveUp(why) => Came::Ended { state: DeliveryState::Dead, message: Some(why) },
        Verdict::Retry { message, after_ms } => again(message, after_ms, ready.retry, id, tries, now),
        Verdict::Postponed(message) => Came::Postponed { message, at: now.plus_millis(POSTPONED_MS) },
    }
}

fn again(message: String, after_ms: Option<u64>, retry: backoff::Retry, id: &str, tries: u32, now: Timestamp) -> Came {
    match backoff::next_try_ms(retry, id, tries, after_ms) {
        Some(wait_ms) => Came::Again { message, at: now.plus_millis(i64::try_from(wait_ms).unwrap_or(i64::MAX)) },
        None => Came::Ended {
            state: DeliveryState::Dead,
            message: Some(format!("{message}; that was the last of {tries} tries")),
        },
    }
}

/// What a try counts as; one that was postponed was none.
fn outcome(came: &Came) -> Option<TryOutcome> {
    match came {
        Came::Ended { state: DeliveryState::Delivered, .. } => Some(TryOutcome::Delivered),
        Came::Ended { state: DeliveryState::Skipped, .. } => Some(TryOutcome::Skipped),
        Came::Ended { state: DeliveryState::Dead, .. } => Some(TryOutcome::Dead),
        Came::Again { .. } => Some(TryOutcome::Again),
        Came::Ended { state: DeliveryState::Waiting, .. } | Came::Postponed { .. } => None,
    }
}

fn shown(exchange: Exchange) -> WebhookExchange {
    let Exchange { round: _, index: _, method, url, outcome, took } = exchange;
    let (status, error) = match outcome {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    WebhookExchange { method: method.to_owned(), url, status, error, took_ms }
}
