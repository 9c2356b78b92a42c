//! One try of a delivery: the guest plans, the sender sends, the guest judges, until it is done, worth another try, or never will be.
//!
//! Requests go out one after the other, in the order of the plan. A try that ends in the middle is repeated whole: whoever receives
//! knows a repetition by `Forge-Delivery`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_plugin_host::{
    Disposition, HttpRequest, HttpResponse, Level, Plugin, Sent, TargetCall, TargetError, TargetServices, TrapCause,
    WebhookEvent,
};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::limits::{THEN_ROUNDS_MAX, TRY_REQUESTS_MAX, TRY_TIME_MAX};
use super::prepare::Context;
use super::send::{SendError, Sender};

/// What plans and judges: a plugin, or a table in tests. Its calls compute, and so run on a thread of their own.
pub trait Guest: Send + Sync + 'static {
    /// The requests that tell of the event; `over` says when nobody waits for them any more.
    ///
    /// # Errors
    /// As [`Plugin::plan`].
    fn plan(&self, event: &WebhookEvent, over: &CancellationToken) -> Result<Vec<HttpRequest>, TargetError>;
    /// What an answer means; `over` as for `plan`.
    ///
    /// # Errors
    /// As [`Plugin::judge`].
    fn judge(
        &self,
        event: &WebhookEvent,
        sent: &Sent,
        response: &HttpResponse,
        over: &CancellationToken,
    ) -> Result<Disposition, TargetError>;
}

/// A plugin as a guest.
#[derive(Debug)]
pub struct PluginGuest {
    /// The plugin.
    pub plugin: Plugin,
    /// Its name and limits.
    pub call: TargetCall,
}

impl Guest for PluginGuest {
    fn plan(&self, event: &WebhookEvent, over: &CancellationToken) -> Result<Vec<HttpRequest>, TargetError> {
        self.plugin.plan(&self.call, event, self.services(over))
    }

    fn judge(
        &self,
        event: &WebhookEvent,
        sent: &Sent,
        response: &HttpResponse,
        over: &CancellationToken,
    ) -> Result<Disposition, TargetError> {
        self.plugin.judge(&self.call, event, sent, response, self.services(over))
    }
}

impl PluginGuest {
    fn services(&self, over: &CancellationToken) -> DaemonLog {
        DaemonLog { plugin: self.call.plugin_name.clone(), over: over.clone() }
    }
}

/// A target's lines stand in the daemon's log, where its author's words are details.
struct DaemonLog {
    plugin: String,
    over: CancellationToken,
}

impl TargetServices for DaemonLog {
    fn log(&mut self, level: Level, message: &str, _fields: &[(String, String)]) {
        let plugin = &self.plugin;
        match level {
            Level::Trace | Level::Debug => tracing::trace!(plugin, message, "a webhook target logs"),
            Level::Info => tracing::debug!(plugin, message, "a webhook target logs"),
            Level::Warn | Level::Error => tracing::warn!(plugin, message, "a webhook target logs"),
        }
    }

    fn canceled(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// There was nothing to do, and why.
    Skipped(String),
    /// Worth another try.
    Retry {
        /// Why.
        message: String,
        /// Not before this long, in milliseconds.
        after_ms: Option<u64>,
    },
    /// It never will arrive, and why.
    GaveUp(String),
    /// There was no room for its plugin, and why: nobody was told anything, and it counts as no try.
    Postponed(String),
}

/// One request of a try, as it is remembered: without secrets, and without the answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// 0 for the plan, 1 for the first `then`.
    pub round: u32,
    /// Its place there.
    pub index: u32,
    /// Such as `POST`.
    pub method: &'static str,
    /// As it was planned: `{{secret:FIELD}}` stands in it.
    pub url: String,
    /// The answer's status, or why there is none.
    pub outcome: Result<u16, String>,
    /// How long it took.
    pub took: Duration,
}

/// How a try went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Its requests, in order.
    pub exchanges: Vec<Exchange>,
}

/// How many guests compute at a time. Who waits for a place loses none of its time.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Of this target.
    pub of_target: Arc<Semaphore>,
    /// Of all.
    pub of_all: Arc<Semaphore>,
}

/// Makes one try; `now` is asked for each request that is signed.
pub async fn deliver(
    guest: Arc<dyn Guest>,
    event: WebhookEvent,
    context: &Context,
    sender: &Sender,
    calls: &Calls,
    now: impl Fn() -> Timestamp,
) -> Report {
    let over = CancellationToken::new();
    // Whatever ends the try, a guest that computes for it has no more to do.
    let _over = over.clone().drop_guard();
    let event = Arc::new(event);
    let mut one = Try { guest, event, context, sender, calls, over, left: TRY_TIME_MAX, exchanges: Vec::new() };
    let verdict = one.rounds(&now).await.unwrap_or_else(|ended| ended);
    Report { verdict, exchanges: one.exchanges }
}

fn retry(message: String) -> Verdict {
    Verdict::Retry { message, after_ms: None }
}

/// A try under way.
struct Try<'a> {
    guest: Arc<dyn Guest>,
    event: Arc<WebhookEvent>,
    context: &'a Context,
    sender: &'a Sender,
    calls: &'a Calls,
    over: CancellationToken,
    /// Of its time.
    left: Duration,
    exchanges: Vec<Exchange>,
}

impl Try<'_> {
    /// The verdict, early as an error.
    async fn rounds(&mut self, now: &impl Fn() -> Timestamp) -> Result<Verdict, Verdict> {
        let (planner, event, over) = (Arc::clone(&self.guest), Arc::clone(&self.event), self.over.clone());
        let planned = self.computed(move || planner.plan(&event, &over)).await?;
        if planned.is_empty() {
            return Ok(Verdict::Skipped("the plugin plans no request for this event".to_owned()));
        }
        let mut waiting: VecDeque<Sent> = round(0, planned).collect();
        let mut skipped = None;
        let mut arrived = false;
        while let Some(sent) = waiting.pop_front() {
            if self.exchanges.len() >= TRY_REQUESTS_MAX {
                return Err(Verdict::GaveUp(format!(
                    "the plugin sends more than {TRY_REQUESTS_MAX} requests for one event"
                )));
            }
            let of = sent.round;
            match self.exchange(sent, now()).await? {
                Disposition::Done => arrived = true,
                Disposition::Skip(why) => skipped = Some(why),
                Disposition::Retry { message, after_ms } => return Err(Verdict::Retry { message, after_ms }),
                Disposition::GiveUp(why) => return Err(Verdict::GaveUp(why)),
                Disposition::Then(_) if of >= THEN_ROUNDS_MAX => {
                    let message =
                        format!("the plugin says `then` more than {THEN_ROUNDS_MAX} times in a row for one event");
                    return Err(Verdict::GaveUp(message));
                }
                Disposition::Then(more) => {
                    arrived = true;
                    waiting.extend(round(of + 1, more));
                }
            }
        }
        Ok(match skipped {
            Some(why) if !arrived => Verdict::Skipped(why),
            Some(_) | None => Verdict::Delivered,
        })
    }

    /// Sends one request and has its answer judged.
    async fn exchange(&mut self, sent: Sent, now: Timestamp) -> Result<Disposition, Verdict> {
        let started = Instant::now();
        let answer = within(&mut self.left, self.sender.send(&sent.request, self.context, now)).await?;
        let outcome = answer.as_ref().map(|answer| answer.status).map_err(ToString::to_string);
        let (method, url) = (sent.request.method.as_str(), self.context.secrets.shown(&sent.request.url));
        let (round, index) = (sent.round, sent.index);
        self.exchanges.push(Exchange { round, index, method, url, outcome, took: started.elapsed() });
        let answer = answer.map_err(|error| match error {
            SendError::Refused(refusal) => Verdict::GaveUp(refusal.to_string()),
            SendError::Unresolved { .. } | SendError::Broken { .. } | SendError::TimedOut { .. } => {
                retry(error.to_string())
            }
        })?;
        let (judge, event, over) = (Arc::clone(&self.guest), Arc::clone(&self.event), self.over.clone());
        self.computed(move || judge.judge(&event, &sent, &answer, &over)).await
    }

    /// A guest computes on a thread that may block. What it answers badly it would answer again: that ends the delivery.
    async fn computed<R: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<R, TargetError> + Send + 'static,
    ) -> Result<R, Verdict> {
        // The target's own first: who waits for it holds nothing of the others. Nobody closes them.
        let of_target = Arc::clone(&self.calls.of_target).acquire_owned().await.ok();
        let of_all = Arc::clone(&self.calls.of_all).acquire_owned().await.ok();
        let computing = tokio::task::spawn_blocking(move || {
            // Given back when it has ended, and not when nobody waits for it any more.
            let _places = (of_target, of_all);
            work()
        });
        match within(&mut self.left, computing).await? {
            Ok(Err(TargetError::Trapped(trap))) if trap.cause == TrapCause::Busy => Err(if self.exchanges.is_empty() {
                Verdict::Postponed(trap.to_string())
            } else {
                retry(trap.to_string())
            }),
            Ok(answer) => answer.map_err(|error| Verdict::GaveUp(error.to_string())),
            Err(ended) => Err(retry(format!("the plugin's thread ended: {ended}"))),
        }
    }
}

/// Does something within what is left of a try's time.
async fn within<T>(left: &mut Duration, work: impl Future<Output = T>) -> Result<T, Verdict> {
    let began = tokio::time::Instant::now();
    let done = tokio::time::timeout(*left, work).await;
    *left = left.saturating_sub(began.elapsed());
    done.map_err(|_elapsed| retry(format!("the requests took more than {} s together", TRY_TIME_MAX.as_secs())))
}

fn round(round: u32, requests: Vec<HttpRequest>) -> impl Iterator<Item = Sent> {
    (0..).zip(requests).map(move |(index, request)| Sent { round, index, request })
}
