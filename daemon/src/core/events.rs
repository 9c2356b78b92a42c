//! What changes, told to whoever listens: tasks that are made or change state, runners that come, go and drain, and the configuration.
//!
//! Events are numbered within one run of the daemon. The newest stay in a ring, so that a listener that was cut off goes on where it was;
//! one that was away for longer, or over a restart, is told to read everything anew. Who listens slowly is cut off and keeps nobody waiting.
//! While nobody listens nothing is read.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge_api::{ConfigNews, Runner, RunnerRemoved};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{Core, CoreError};

/// The events that are kept for those who were cut off.
const RING_MAX: usize = 1_024;

/// How many events a listener may be behind before it is cut off.
const BEHIND_MAX: usize = 256;

/// How often runners are looked at while somebody listens, in milliseconds: that one goes away tells nobody.
const RUNNERS_LOOK_MS: u64 = 1_000;

/// What comes in a burst is told of together.
const PAUSE: Duration = Duration::from_millis(50);

/// The name of the event that has a listener read everything anew.
pub(crate) const RESET: &str = "reset";

/// Which event, of which run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    epoch: i64,
    sequence: u64,
}

/// The text names no event.
#[derive(Debug)]
pub(crate) struct EventIdError;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let parse = || {
            let (epoch, sequence) = text.split_once('-')?;
            Some(Self { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
        };
        parse().ok_or(EventIdError)
    }
}

/// Something that changed.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: EventId,
    pub(crate) name: &'static str,
    /// Whose it is; everyone's where it is of no project.
    pub(crate) project: Option<String>,
    /// JSON of one line.
    pub(crate) data: String,
}

/// The events of one run of the daemon.
#[derive(Debug)]
pub(crate) struct Feed {
    epoch: i64,
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the newest event.
    newest: u64,
    ring: VecDeque<Arc<Event>>,
}

/// What a listener begins with.
#[derive(Debug)]
pub(crate) struct Listener {
    /// What it missed.
    pub(crate) missed: Vec<Arc<Event>>,
    /// Whether it missed more than is known: then it is to read everything anew.
    pub(crate) reset: bool,
    /// The newest event before what it receives.
    pub(crate) newest: EventId,
    /// What comes.
    pub(crate) receiver: broadcast::Receiver<Arc<Event>>,
}

impl Feed {
    /// A feed whose numbers are of this run and no other.
    pub(super) fn new(epoch: i64) -> Self {
        Self { epoch, kept: Mutex::default(), sender: broadcast::Sender::new(BEHIND_MAX) }
    }

    fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    fn publish(&self, name: &'static str, project: Option<String>, data: String) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.newest += 1;
        let id = EventId { epoch: self.epoch, sequence: kept.newest };
        let event = Arc::new(Event { id, name, project, data });
        if kept.ring.len() >= RING_MAX {
            kept.ring.pop_front();
        }
        kept.ring.push_back(Arc::clone(&event));
        // Under the lock, so that who begins to listen misses none and gets none twice. Nobody may be there: then nothing is lost.
        let _ = self.sender.send(event);
    }

    /// Something happened that no event tells of: who was cut off before cannot go on from where it was.
    fn skip(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.newest += 1;
        kept.ring.clear();
    }

    fn listen(&self, last: Option<EventId>) -> Listener {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.ring.front().map_or(kept.newest + 1, |event| event.id.sequence);
        let is_known =
            |last: EventId| last.epoch == self.epoch && last.sequence <= kept.newest && last.sequence + 1 >= first;
        let reset = last.is_some_and(|last| !is_known(last));
        let missed = match last {
            Some(last) if !reset => {
                kept.ring.iter().filter(|event| event.id.sequence > last.sequence).map(Arc::clone).collect()
            }
            Some(_) | None => Vec::new(),
        };
        let newest = EventId { epoch: self.epoch, sequence: kept.newest };
        Listener { missed, reset, newest, receiver: self.sender.subscribe() }
    }

    fn tell<T: Serialize>(&self, name: &'static str, project: Option<String>, data: &T) {
        match serde_json::to_string(data) {
            Ok(data) => self.publish(name, project, data),
            Err(error) => tracing::error!(name, %error, "an event could not be written down: this is a bug in Forge"),
        }
    }
}

impl Core {
    /// Begins to listen, after the event that was seen last where one is named.
    pub(crate) fn listen(&self, last: Option<EventId>) -> Listener {
        let listener = self.inner.feed.listen(last);
        // Runners are looked at from now on.
        self.inner.scheduler.changed().runners();
        listener
    }

    /// Tells listeners what became of a revision of the configuration.
    pub(super) fn tell_of_config(&self, news: &ConfigNews) {
        if self.inner.feed.is_heard() {
            self.inner.feed.tell("config", None, news);
        } else {
            self.inner.feed.skip();
        }
    }

    /// Tells listeners of tasks and runners until the shutdown.
    pub(super) async fn tell_listeners(self, shutdown: CancellationToken) {
        let (clock, feed) = (&self.inner.clock, &self.inner.feed);
        let mut runners: Option<BTreeMap<String, Runner>> = None;
        let mut looked_ms = clock.elapsed_ms();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.inner.scheduler.changed().rung() => {}
                () = clock.sleep_until_ms(looked_ms.saturating_add(RUNNERS_LOOK_MS)), if feed.is_heard() => {}
            }
            let changed = self.inner.scheduler.changed().take();
            if !feed.is_heard() {
                feed.skip();
                runners = None;
                continue;
            }
            if changed.too_many {
                feed.publish(RESET, None, "{}".to_owned());
            }
            for number in changed.tasks {
                match self.task(number).await {
                    Ok(task) => feed.tell("task", Some(task.project.clone()), &task),
                    // It was forgotten meanwhile.
                    Err(CoreError::NotFound { .. }) => {}
                    Err(error) => tracing::warn!(task = number, %error, "listeners could not be told of a task"),
                }
            }
            let now_ms = clock.elapsed_ms();
            if changed.runners || now_ms.saturating_sub(looked_ms) >= RUNNERS_LOOK_MS {
                looked_ms = now_ms;
                match self.runners(None).await {
                    Ok(found) => runners = Some(self.tell_of_runners_since(runners, found)),
                    Err(error) => tracing::warn!(%error, "listeners could not be told of runners"),
                }
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    /// Tells of those that differ from before; at first nothing is known, and nothing told.
    fn tell_of_runners_since(
        &self,
        before: Option<BTreeMap<String, Runner>>,
        found: Vec<Runner>,
    ) -> BTreeMap<String, Runner> {
        let feed = &self.inner.feed;
        let found: BTreeMap<String, Runner> = found.into_iter().map(|runner| (runner.name.clone(), runner)).collect();
        let Some(before) = before else { return found };
        for (name, runner) in &found {
            if before.get(name).is_none_or(|before| is_news(before, runner)) {
                feed.tell("runner", runner.project.clone(), runner);
            }
        }
        for (name, runner) in before {
            if !found.contains_key(&name) {
                feed.tell("runner_removed", runner.project, &RunnerRemoved { name });
            }
        }
        found
    }
}

/// Whether a runner stands otherwise than before; that it was heard of, and how its machine is, is no news.
fn is_news(before: &Runner, now: &Runner) -> bool {
    let facts = |runner: &Runner| (runner.status, runner.running, runner.max_parallel_tasks);
    facts(before) != facts(now)
        || before.tags != now.tags
        || before.project != now.project
        || before.version != now.version
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listener: &Listener) -> Vec<&str> {
        listener.missed.iter().map(|event| event.data.as_str()).collect()
    }

    #[test]
    fn who_was_cut_off_goes_on_where_it_was_and_who_was_away_too_long_begins_anew() {
        let feed = Feed::new(7);
        let first = feed.listen(None);
        assert!(!first.reset && first.missed.is_empty());
        for number in 0..3 {
            feed.publish("task", None, number.to_string());
        }
        let again = feed.listen(Some(first.newest));
        assert_eq!((names(&again), again.reset), (vec!["0", "1", "2"], false));
        let seen: EventId = again.missed[1].id.to_string().parse().expect("an id");
        assert_eq!(names(&feed.listen(Some(seen))), ["2"]);
        let whole = feed.listen(Some(feed.listen(None).newest));
        assert!(!whole.reset && whole.missed.is_empty());

        for number in 0..RING_MAX {
            feed.publish("task", None, number.to_string());
        }
        assert!(feed.listen(Some(again.missed[1].id)).reset, "its next one is not kept any more");
        assert!(!feed.listen(Some(again.missed[2].id)).reset);
        for foreign in ["8-1", "7-99999999"] {
            assert!(feed.listen(Some(foreign.parse().expect("an id"))).reset, "{foreign}");
        }
        let newest = feed.listen(None).newest;
        feed.skip();
        assert!(feed.listen(Some(newest)).reset, "something happened that nobody was told of");
        for wrong in ["", "7", "x-1", "7-x", "7--1"] {
            assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn who_is_too_slow_is_cut_off_and_keeps_nobody_waiting() {
        let feed = Feed::new(7);
        let mut slow = feed.listen(None).receiver;
        for number in 0..=BEHIND_MAX {
            feed.publish("task", None, number.to_string());
        }
        assert!(matches!(slow.recv().await, Err(broadcast::error::RecvError::Lagged(_))));
    }
}
