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

use super::limits::{THEN_ROUNDS_MAX, TRY_REQUESTS_MAX, TRY_TIME_MAX};
use super::prepare::Context;
use super::send::{SendError, Sender};

/// What plans and judges: a plugin, or a table in tests. Its calls compute, and so run on a thread of their own.
pub trait Guest: Send + Sync + 'static {
    /// The requests that tell of the event.
    ///
    /// # Errors
    /// As [`Plugin::plan`].
    fn plan(&self, event: &WebhookEvent) -> Result<Vec<HttpRequest>, TargetError>;
    /// What an answer means.
    ///
    /// # Errors
    /// As [`Plugin::judge`].
    fn judge(&self, event: &WebhookEvent, sent: &Sent, response: &HttpResponse) -> Result<Disposition, TargetError>;
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
    fn plan(&self, event: &WebhookEvent) -> Result<Vec<HttpRequest>, TargetError> {
        self.plugin.plan(&self.call, event, self.services())
    }

    fn judge(&self, event: &WebhookEvent, sent: &Sent, response: &HttpResponse) -> Result<Disposition, TargetError> {
        self.plugin.judge(&self.call, event, sent, response, self.services())
    }
}

impl PluginGuest {
    fn services(&self) -> DaemonLog {
        DaemonLog { plugin: self.call.plugin_name.clone() }
    }
}

/// A target's lines stand in the daemon's log, where its author's words are details.
struct DaemonLog {
    plugin: String,
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
        false
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

/// Makes one try. `calls` bounds how many guests compute at a time; `now` is asked for each request that is signed.
pub async fn deliver(
    guest: Arc<dyn Guest>,
    event: WebhookEvent,
    context: &Context,
    sender: &Sender,
    calls: &Semaphore,
    now: impl Fn() -> Timestamp,
) -> Report {
    let mut exchanges = Vec::new();
    let tried = rounds(&guest, event, context, Ways { sender, calls }, &now, &mut exchanges);
    let verdict = match tokio::time::timeout(TRY_TIME_MAX, tried).await {
        Ok(verdict) => verdict.unwrap_or_else(|ended| ended),
        Err(_elapsed) => retry(format!("the requests took more than {} s together", TRY_TIME_MAX.as_secs())),
    };
    Report { verdict, exchanges }
}

fn retry(message: String) -> Verdict {
    Verdict::Retry { message, after_ms: None }
}

/// How a try gets at the world and at its plugin.
#[derive(Clone, Copy)]
struct Ways<'a> {
    sender: &'a Sender,
    calls: &'a Semaphore,
}

/// The verdict, early as an error.
async fn rounds(
    guest: &Arc<dyn Guest>,
    event: WebhookEvent,
    context: &Context,
    Ways { sender, calls }: Ways<'_>,
    now: &impl Fn() -> Timestamp,
    exchanges: &mut Vec<Exchange>,
) -> Result<Verdict, Verdict> {
    let event = Arc::new(event);
    let (planner, planned_for) = (Arc::clone(guest), Arc::clone(&event));
    let planned = computed(calls, move || planner.plan(&planned_for)).await?;
    if planned.is_empty() {
        return Ok(Verdict::Skipped("the plugin plans no request for this event".to_owned()));
    }
    let mut waiting: VecDeque<Sent> = round(0, planned).collect();
    let mut skipped = None;
    let mut arrived = false;
    while let Some(sent) = waiting.pop_front() {
        if exchanges.len() >= TRY_REQUESTS_MAX {
            return Err(Verdict::GaveUp(format!(
                "the plugin sends more than {TRY_REQUESTS_MAX} requests for one event"
            )));
        }
        let started = Instant::now();
        let answer = sender.send(&sent.request, context, now()).await;
        let outcome = answer.as_ref().map(|answer| answer.status).map_err(ToString::to_string);
        let (method, url) = (sent.request.method.as_str(), context.secrets.shown(&sent.request.url));
        let Sent { round: of, index, .. } = sent;
        exchanges.push(Exchange { round: of, index, method, url, outcome, took: started.elapsed() });
        let answer = answer.map_err(|error| match error {
            SendError::Refused(refusal) => Verdict::GaveUp(refusal.to_string()),
            SendError::Unresolved { .. } | SendError::Broken { .. } | SendError::TimedOut { .. } => {
                retry(error.to_string())
            }
        })?;
        let (judge, judged_for) = (Arc::clone(guest), Arc::clone(&event));
        match computed(calls, move || judge.judge(&judged_for, &sent, &answer)).await? {
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

fn round(round: u32, requests: Vec<HttpRequest>) -> impl Iterator<Item = Sent> {
    (0..).zip(requests).map(move |(index, request)| Sent { round, index, request })
}

/// A guest computes on a thread that may block. What it answers badly it would answer again: that ends the delivery.
async fn computed<R: Send + 'static>(
    calls: &Semaphore,
    work: impl FnOnce() -> Result<R, TargetError> + Send + 'static,
) -> Result<R, Verdict> {
    // Nobody closes it.
    let _call = calls.acquire().await.ok();
    match tokio::task::spawn_blocking(work).await {
        Ok(Err(TargetError::Trapped(trap))) if trap.cause == TrapCause::Busy => Err(retry(trap.to_string())),
        Ok(answer) => answer.map_err(|error| Verdict::GaveUp(error.to_string())),
        Err(ended) => Err(retry(format!("the plugin's thread ended: {ended}"))),
    }
}
