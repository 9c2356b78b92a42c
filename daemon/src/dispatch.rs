//! Sends what is to be delivered: looks what is due, tries it, and writes down what came of it, until the daemon stops.
//!
//! | module | what it does |
//! |---|---|
//! | `backoff` | when a delivery is tried again: pure |
//! | `queues` | whose turn it is: pure |
//! | `target` | a target of the tree with its plugin and its secrets |
//! | `tries` | one try, from the store and back to it |
//!
//! Nothing lives here that a restart would lose: a try that was under way is made again. Numbers are held and nothing else; what a
//! delivery says is read right before it is sent.

mod backoff;
mod queues;
mod target;
mod tries;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_api::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::queues::{Begun, HELD_OF_TARGET_MAX, Queues};
use self::target::Targets;
use self::tries::{Ended, Tries};
use crate::clock::Clock;
use crate::core::Core;
use crate::store::DueOfTarget;
use crate::webhooks::SenderOptions;

pub(crate) use self::target::TargetOptions;

/// While tries are under way what is due is looked for at most this often: what comes in a burst is looked for once.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What is due is looked for at least this often: a wall clock that was set tells nobody. Everything else does, so a daemon that has nothing
/// to tell is left in peace.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// While connections rest, those that have done so for long are closed this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// When what is due is looked for again after that failed, or while no tree serves, in milliseconds.
const LOOK_AGAIN_MS: i64 = 1_000;

/// How long tries under way may take at the daemon's end; what is cut off is sent again after the start.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// Sends what is to be delivered.
pub(crate) struct Dispatcher {
    core: Core,
    clock: Clock,
    tries: Arc<Tries>,
}

/// What the loop knows from one turn to the next.
#[derive(Default)]
struct State {
    queues: Queues,
    under_way: JoinSet<Ended>,
    places: HashMap<Id, (String, i64)>,
    /// Whether something may be due that is not held.
    is_due: bool,
    /// When the next delivery is due that was not at the last look.
    next: Option<Timestamp>,
    looked: Option<Instant>,
}

impl State {
    /// How long the loop may rest, if nothing happens.
    fn wait(&self, now: Timestamp) -> Duration {
        if self.is_due {
            return self.until_look();
        }
        let next = self.next.map_or(LOOK_INTERVAL, |next| Duration::from_millis(next.millis_since(now) + 1));
        next.min(LOOK_INTERVAL)
    }

    /// How long what is due is not looked for.
    fn until_look(&self) -> Duration {
        match self.looked {
            Some(looked) if !self.under_way.is_empty() => LOOK_PAUSE.saturating_sub(looked.elapsed()),
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Gives the place of a try back.
    fn release(&mut self, ended: Result<(Id, Ended), JoinError>) {
        // What a try does not catch itself is looked at again.
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Ended::default()),
        };
        let Some((target, number)) = self.places.remove(&id) else { return };
        self.is_due |= self.queues.end(&target, number, ended.follower);
        self.next = self.next.into_iter().chain(ended.again_at).min();
    }
}

impl Dispatcher {
    /// Sends for `core`.
    pub(crate) fn new(core: Core, clock: Clock, sender_options: SenderOptions, options: TargetOptions) -> Self {
        let targets = Targets::new(core.clone(), clock.clone(), options);
        let tries = Arc::new(Tries::new(core.clone(), clock.clone(), targets, sender_options));
        Self { core, clock, tries }
    }

    /// Sends until `stopping`, and then ends what is under way.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let mut state = State { is_due: true, ..State::default() };
        let mut connections_rest = false;
        loop {
            if state.is_due && state.until_look().is_zero() {
                state.is_due = false;
                state.next = self.look(&mut state.queues).await;
                state.looked = Some(Instant::now());
                connections_rest = self.tries.sweep();
            }
            self.begin(&mut state);
            let mut wait = state.wait(self.clock.now());
            if connections_rest || !state.under_way.is_empty() {
                wait = wait.min(SWEEP_INTERVAL);
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.core.told() => state.is_due = true,
                () = tokio::time::sleep(wait) => state.is_due = true,
                Some(ended) = state.under_way.join_next_with_id() => {
                    state.release(ended);
                    while let Some(ended) = state.under_way.try_join_next_with_id() {
                        state.release(ended);
                    }
                }
            }
        }
        let all_ended = async { while state.under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME_MAX, all_ended).await.is_err() {
            tracing::info!("webhook deliveries were cut off by the daemon's end: they are sent again after its start");
        }
    }

    /// Takes what is due into the queues; answers when there is more.
    async fn look(&self, queues: &mut Queues) -> Option<Timestamp> {
        let again = || Some(self.clock.now().plus_millis(LOOK_AGAIN_MS));
        if self.core.applied().applied_at.is_none() {
            // No tree serves, which says nothing of the targets.
            return again();
        }
        // One more than is held says whether there are more.
        let limit = u32::try_from(HELD_OF_TARGET_MAX).unwrap_or(u32::MAX).saturating_add(1);
        match self.core.due(queues.supplied(), limit).await {
            Ok((found, next)) => {
                for DueOfTarget { target, numbers } in found {
                    let has_more = numbers.len() > HELD_OF_TARGET_MAX;
                    queues.take(target, numbers, has_more);
                }
                next
            }
            Err(error) => {
                tracing::error!(%error, "what is to be delivered could not be looked for; it is again in a moment");
                again()
            }
        }
    }

    fn begin(&self, state: &mut State) {
        while let Some(Begun { target, number, calls }) = state.queues.begin() {
            let (tries, of) = (Arc::clone(&self.tries), target.clone());
            let begun = state.under_way.spawn(async move { tries.make(number, &of, calls).await });
            state.places.insert(begun.id(), (target, number));
        }
    }
}
