//! Sends what is to be delivered: looks what is due, tries it, and writes down what came of it, until the daemon stops.
//!
//! | module | what it does |
//! |---|---|
//! | `backoff` | when a delivery is tried again: pure |
//! | `target` | a target of the tree with its plugin and its secrets |
//!
//! Nothing lives here that a restart would lose: a try that was under way is made again. Each target has so many places of its own, so
//! that one that hangs keeps no other waiting.

mod backoff;
mod target;

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use forge_api::{DeliveryState, Timestamp, WebhookExchange};
use forge_plugin_host::WebhookEvent;
use futures_util::FutureExt as _;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use self::target::{Ready, Targets, Unready};
use crate::clock::Clock;
use crate::core::Core;
use crate::store::{Came, Due, StoreError, payload};
use crate::webhooks::{
    Context, Exchange, PLUGIN_CALLS_MAX, Report, Sender, SenderOptions, TargetSecrets, Verdict, deliver,
};

pub(crate) use self::target::TargetOptions;

/// Tries of one target at a time.
const TRIES_OF_TARGET_MAX: usize = 16;

/// Tries of all targets at a time, but for the first of each.
const TRIES_MAX: usize = 256;

/// Deliveries of one target that are held ready at a time.
const HELD_OF_TARGET_MAX: usize = 256;

/// While tries are under way what is due is looked for at most this often.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What is due is looked for at least this often: a wall clock that was set tells nobody. Everything else does, so a daemon that has nothing
/// to tell is left in peace.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// When what is due is looked for again after that failed, in milliseconds.
const LOOK_AGAIN_MS: i64 = 1_000;

/// How long is waited before the store is asked again that refused, at first and at most.
const STORE_PAUSE_MIN: Duration = Duration::from_secs(1);
const STORE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a delivery rests whose try panicked.
const PANICKED_PAUSE: Duration = Duration::from_secs(60);

/// How long tries under way may take at the daemon's end; what is cut off is sent again after the start.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// Sends what is to be delivered.
pub(crate) struct Dispatcher {
    core: Core,
    clock: Clock,
    tries: Arc<Tries>,
}

/// What every try needs.
struct Tries {
    core: Core,
    clock: Clock,
    targets: Targets,
    /// Made with the first try: who tells nobody need not know the world's authorities.
    sender: OnceCell<Sender>,
    sender_options: SenderOptions,
    calls: Semaphore,
}

/// What is held ready and under way of one target.
#[derive(Default)]
struct Queue {
    ready: VecDeque<Due>,
    /// Those of `ready` and those under way.
    taken: HashSet<i64>,
    under_way: usize,
}

impl Dispatcher {
    /// Sends for `core`.
    pub(crate) fn new(core: Core, clock: Clock, sender_options: SenderOptions, options: TargetOptions) -> Self {
        let targets = Targets::new(core.clone(), clock.clone(), options);
        let tries = Tries {
            core: core.clone(),
            clock: clock.clone(),
            targets,
            sender: OnceCell::new(),
            sender_options,
            calls: Semaphore::new(PLUGIN_CALLS_MAX as usize),
        };
        let tries = Arc::new(tries);
        Self { core, clock, tries }
    }

    /// Sends until `stopping`, and then ends what is under way.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let mut queues: HashMap<String, Queue> = HashMap::new();
        let mut under_way: JoinSet<()> = JoinSet::new();
        let mut places: HashMap<Id, (String, i64)> = HashMap::new();
        let (mut is_due, mut next): (bool, Option<Timestamp>) = (true, None);
        loop {
            if is_due {
                is_due = false;
                next = self.look(&mut queues).await;
            }
            self.begin(&mut queues, &mut under_way, &mut places);
            let wait =
                next.map_or(LOOK_INTERVAL, |next| Duration::from_millis(next.millis_since(self.clock.now()) + 1));
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.core.told() => {
                    is_due = true;
                    if !under_way.is_empty() {
                        // What comes in a burst is looked for once.
                        tokio::time::sleep(LOOK_PAUSE).await;
                    }
                }
                () = tokio::time::sleep(wait.min(LOOK_INTERVAL)) => is_due = true,
                Some(ended) = under_way.join_next_with_id() => {
                    is_due |= release(&mut queues, &mut places, ended);
                    while let Some(ended) = under_way.try_join_next_with_id() {
                        is_due |= release(&mut queues, &mut places, ended);
                    }
                }
            }
        }
        let all_ended = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME_MAX, all_ended).await.is_err() {
            tracing::info!("webhook deliveries were cut off by the daemon's end: they are sent again after its start");
        }
    }

    /// Takes what is due into the queues; answers when there is more.
    async fn look(&self, queues: &mut HashMap<String, Queue>) -> Option<Timestamp> {
        queues.retain(|_, queue| !queue.taken.is_empty());
        let taken: HashMap<String, usize> =
            queues.iter().map(|(target, queue)| (target.clone(), queue.taken.len())).collect();
        let limit = move |target: &str| {
            let taken = taken.get(target).copied().unwrap_or_default();
            // Those that are taken are found again, in front of the others; a queue that is full takes nothing.
            let limit = if taken >= HELD_OF_TARGET_MAX { 0 } else { taken.saturating_add(HELD_OF_TARGET_MAX) };
            u32::try_from(limit).unwrap_or(u32::MAX)
        };
        match self.core.due(limit).await {
            Ok((found, next)) => {
                for due in found {
                    let queue = queues.entry(due.target.clone()).or_default();
                    if queue.taken.len() < HELD_OF_TARGET_MAX && queue.taken.insert(due.number) {
                        queue.ready.push_back(due);
                    }
                }
                next
            }
            Err(error) => {
                tracing::error!(%error, "what is to be delivered could not be looked for; it is again in a moment");
                Some(self.clock.now().plus_millis(LOOK_AGAIN_MS))
            }
        }
    }

    fn begin(
        &self,
        queues: &mut HashMap<String, Queue>,
        under_way: &mut JoinSet<()>,
        places: &mut HashMap<Id, (String, i64)>,
    ) {
        for (target, queue) in queues {
            // Each has a first place whatever the others take: those that hang must not have all of them.
            while queue.under_way < TRIES_OF_TARGET_MAX && (under_way.len() < TRIES_MAX || queue.under_way == 0) {
                let Some(due) = queue.ready.pop_front() else { break };
                queue.under_way += 1;
                let (number, tries) = (due.number, Arc::clone(&self.tries));
                let begun = under_way.spawn(async move {
                    // The hook reports it. What it is about keeps its place for a while: it would be the same at once.
                    if AssertUnwindSafe(tries.make(due)).catch_unwind().await.is_err() {
                        tokio::time::sleep(PANICKED_PAUSE).await;
                    }
                });
                places.insert(begun.id(), (target.clone(), number));
            }
        }
    }
}

/// Gives a place back; answers whether its target has nothing ready any more.
fn release(
    queues: &mut HashMap<String, Queue>,
    places: &mut HashMap<Id, (String, i64)>,
    ended: Result<(Id, ()), tokio::task::JoinError>,
) -> bool {
    let id = match ended {
        Ok((id, ())) => id,
        Err(error) => error.id(),
    };
    let Some((target, number)) = places.remove(&id) else { return true };
    let Some(queue) = queues.get_mut(&target) else { return true };
    queue.taken.remove(&number);
    queue.under_way = queue.under_way.saturating_sub(1);
    queue.ready.is_empty()
}

impl Tries {
    /// Makes one try and writes down what came of it.
    async fn make(&self, due: Due) {
        let (number, id, target, tried_before) = (due.number, due.id.clone(), due.target.clone(), due.tries);
        let tries = tried_before.saturating_add(1);
        match self.core.still_due(number).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(delivery = id, target, %error, "a webhook delivery could not be looked at; it is again in a moment");
                return tokio::time::sleep(STORE_PAUSE_MIN).await;
            }
        }
        let (came, exchanges) = match self.targets.ready(&target).await {
            Ok(ready) => {
                let Report { verdict, exchanges } = self.send(&ready, due).await;
                (came_of(verdict, &ready, &id, tries, self.clock.now()), exchanges)
            }
            Err(Unready::Gone) => {
                let message = format!("webhooks/{target}.toml is not in the tree any more");
                (Came::Ended { state: DeliveryState::Dead, message: Some(message) }, Vec::new())
            }
            Err(Unready::Later { message, retry }) => {
                (again(message, None, retry, &id, tries, self.clock.now()), Vec::new())
            }
        };
        match &came {
            Came::Ended { state: DeliveryState::Dead, message } => {
                tracing::warn!(delivery = id, target, tries, message, "a webhook delivery is dead");
            }
            Came::Again { message, at } => {
                tracing::info!(delivery = id, target, tries, message, again_at = %at, "a webhook delivery is tried again");
            }
            Came::Ended { .. } => tracing::debug!(delivery = id, target, tries, "a webhook delivery ended"),
        }
        let exchanges: Vec<WebhookExchange> = exchanges.into_iter().map(shown).collect();
        // Every part of it is text and numbers.
        let exchanges = serde_json::to_string(&exchanges).unwrap_or_else(|_| "[]".to_owned());
        // Kept until it is: whoever forgot it would send it again, and again, for as long as the disk is full.
        let mut pause = STORE_PAUSE_MIN;
        while let Err(error) = self.core.tried(number, tried_before, came.clone(), exchanges.clone()).await {
            if matches!(error, StoreError::Closed) {
                return;
            }
            tracing::error!(delivery = id, target, %error, "what became of a webhook delivery cannot be kept; it is tried again");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(STORE_PAUSE_MAX);
        }
    }

    async fn send(&self, ready: &Ready, due: Due) -> Report {
        let secrets = match TargetSecrets::new(ready.fields.clone(), ready.own.clone()) {
            Ok(secrets) => secrets,
            Err(error) => {
                let verdict = Verdict::Retry { message: error.to_string(), after_ms: None };
                return Report { verdict, exchanges: Vec::new() };
            }
        };
        let event = WebhookEvent {
            id: due.id.clone(),
            kind: due.event.clone(),
            at_ms: u64::try_from(due.at.unix_micros() / 1_000).unwrap_or_default(),
            payload_json: payload(&due.uid, &due.event, due.at, &due.body).to_string(),
            config_json: secrets.config_json(&ready.config),
            plugin_config_json: ready.plugin_config_json.clone(),
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
        match self.sender.get_or_try_init(async || Sender::new(self.sender_options.clone())).await {
            Ok(sender) => deliver(ready.guest.clone(), event, &context, sender, &self.calls, now).await,
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

fn shown(exchange: Exchange) -> WebhookExchange {
    let Exchange { round: _, index: _, method, url, outcome, took } = exchange;
    let (status, error) = match outcome {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    WebhookExchange { method: method.to_owned(), url, status, error, took_ms }
}
