//! The only reader of wall time and of the monotonic clock: whoever decides gets the time as an argument.
//!
//! Two faces of one clock: [`Clock::now`] is the calendar's moment, stored and shown; [`Clock::elapsed_ms`] only ever grows
//! and is what leases and sessions are measured with, since the calendar may be set back. A test clock stands still until
//! it is advanced, so that a deadline of a day is tested in a millisecond.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forge_api::Timestamp;
use tokio::sync::watch;

/// A clock: the machine's, or one that a test moves.
#[derive(Clone, Debug)]
pub struct Clock {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    System,
    Test(watch::Receiver<u64>, Timestamp, Arc<AtomicU64>),
}

/// What moves a test clock.
#[derive(Debug)]
pub struct TestClock {
    elapsed_ms: watch::Sender<u64>,
    /// How far the calendar was set forward.
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { kind: Kind::System }
    }

    /// A clock that stands at `start` until the second value moves it.
    pub fn test(start: Timestamp) -> (Self, Arc<TestClock>) {
        let (elapsed_ms, receiver) = watch::channel(0);
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let test = Arc::new(TestClock { elapsed_ms, ahead_ms: Arc::clone(&ahead_ms) });
        (Self { kind: Kind::Test(receiver, start, ahead_ms) }, test)
    }

    /// This moment by the calendar.
    pub fn now(&self) -> Timestamp {
        match &self.kind {
            Kind::System => {
                // A clock before 1970 reads as 1970: nothing sensible can be scheduled on it, and nothing should panic.
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Kind::Test(elapsed_ms, start, ahead_ms) => {
                let since_ms = elapsed_ms.borrow().saturating_add(ahead_ms.load(Ordering::SeqCst));
                start.plus_millis(i64::try_from(since_ms).unwrap_or(i64::MAX))
            }
        }
    }

    /// Milliseconds since some moment of this process; it never goes back.
    pub fn elapsed_ms(&self) -> u64 {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        match &self.kind {
            Kind::System => u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX),
            Kind::Test(elapsed_ms, ..) => *elapsed_ms.borrow(),
        }
    }

    /// Waits until `duration_ms` have passed on this clock.
    pub async fn sleep_ms(&self, duration_ms: u64) {
        self.sleep_until_ms(self.elapsed_ms().saturating_add(duration_ms)).await;
    }

    /// Waits until [`Clock::elapsed_ms`] is `due_ms`: what passes between the reckoning of a moment and the wait for it counts.
    pub async fn sleep_until_ms(&self, due_ms: u64) {
        match &self.kind {
            Kind::System => {
                tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(self.elapsed_ms()))).await;
            }
            Kind::Test(elapsed_ms, ..) => {
                let mut elapsed_ms = elapsed_ms.clone();
                // A dropped sender means that nobody moves this clock any more: then no wait ends.
                if elapsed_ms.wait_for(|now_ms| *now_ms >= due_ms).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// How far the calendar went ahead of the time that passed, between two looks at both; nothing where it did not.
pub(crate) fn jump_ms((then, then_ms): (Timestamp, u64), (now, now_ms): (Timestamp, u64)) -> u64 {
    now.millis_since(then).saturating_sub(now_ms.saturating_sub(then_ms))
}

impl TestClock {
    /// Moves the clock on.
    pub fn advance_ms(&self, duration_ms: u64) {
        self.elapsed_ms.send_modify(|elapsed_ms| *elapsed_ms = elapsed_ms.saturating_add(duration_ms));
    }

    /// Sets the calendar forward: no time passes.
    pub fn set_forward_ms(&self, jump_ms: u64) {
        self.ahead_ms.fetch_add(jump_ms, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calendar_that_goes_with_the_time_has_not_jumped() {
        let at =
            |calendar_s: i64, elapsed_s: u64| (Timestamp::from_unix_micros(calendar_s * 1_000_000), elapsed_s * 1_000);
        assert_eq!(jump_ms(at(100, 5), at(110, 15)), 0);
        assert_eq!(jump_ms(at(100, 5), at(3_710, 15)), 3_600_000);
        assert_eq!(jump_ms(at(100, 5), at(50, 15)), 0, "set back");
    }

    #[tokio::test]
    async fn a_test_clock_wakes_whom_it_passes() {
        let (clock, test) = Clock::test(Timestamp::from_unix_micros(1_000_000));
        let sleeper = clock.sleep_ms(86_400_000);
        tokio::pin!(sleeper);
        assert!(futures_util::FutureExt::now_or_never(sleeper.as_mut()).is_none());
        test.advance_ms(86_400_000);
        sleeper.await;
        assert_eq!(clock.now(), Timestamp::from_unix_micros(86_401_000_000));
    }
}
