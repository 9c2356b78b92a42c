//! When a repository is fetched: at every interval, shifted a little so that many daemons do not ask one server at the same moment,
//! and at once when somebody rings, but not more often than once a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// By how many thousandths an interval is shifted, up or down.
const JITTER_THOUSANDTHS: u64 = 100;

/// The least time between two fetches, however often somebody rings.
const FETCH_PAUSE_MIN: Duration = Duration::from_secs(1);

/// The clock of a git source.
pub(crate) struct Poll {
    interval: Duration,
    bell: Arc<Notify>,
    next: Instant,
    last: Option<Instant>,
}

impl Poll {
    /// Rings first at once.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, bell: Arc::new(Notify::new()), next: Instant::now(), last: None }
    }

    /// What another part of the daemon calls to have the repository fetched now.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Waits until it is time to fetch.
    pub(crate) async fn due(&mut self) {
        tokio::select! {
            () = self.bell.notified() => {
                tokio::time::sleep_until(answered_at(self.last, Instant::now())).await;
            }
            () = tokio::time::sleep_until(self.next) => {}
        }
        self.fetched();
    }

    /// It was fetched just now: the next time is an interval away.
    pub(crate) fn fetched(&mut self) {
        let now = Instant::now();
        self.last = Some(now);
        self.next = now + jittered(self.interval, random());
    }
}

/// The interval, shifted by what `random` says.
fn jittered(interval: Duration, random: u64) -> Duration {
    let thousandths = 1_000 - JITTER_THOUSANDTHS + random % (2 * JITTER_THOUSANDTHS + 1);
    interval.mul_f64(thousandths as f64 / 1_000.0)
}

/// When a ring at `now` is answered.
fn answered_at(last: Option<Instant>, now: Instant) -> Instant {
    last.map_or(now, |last| now.max(last + FETCH_PAUSE_MIN))
}

/// Without randomness every interval is the same, which harms nobody.
fn random() -> u64 {
    crate::secrets::random_bytes().map(u64::from_le_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_shifted_by_a_tenth_at_most() {
        let interval = Duration::from_secs(30);
        for random in 0..1_000 {
            let shifted = jittered(interval, random);
            assert!(shifted >= Duration::from_secs(27) && shifted <= Duration::from_secs(33), "{shifted:?}");
        }
        assert_ne!(jittered(interval, 0), jittered(interval, 200));
    }

    #[test]
    fn whoever_rings_waits_a_second_at_most() {
        let now = Instant::now();
        assert_eq!(answered_at(None, now), now);
        assert_eq!(answered_at(Some(now), now), now + FETCH_PAUSE_MIN);
        assert_eq!(answered_at(Some(now), now + Duration::from_secs(5)), now + Duration::from_secs(5));
    }

    #[tokio::test]
    async fn many_rings_are_one() {
        let mut poll = Poll::new(Duration::from_secs(3600));
        let bell = poll.bell();
        poll.due().await;
        for _ in 0..100 {
            bell.notify_one();
        }
        poll.due().await;
        let again = futures_util::FutureExt::now_or_never(Box::pin(poll.due()));
        assert!(again.is_none(), "a ring was answered twice");
    }
}
