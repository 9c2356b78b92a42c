//! The only reader of wall time and of the steady clock: whoever decides gets the time as an argument.
//!
//! Two faces of one clock: [`Clock::now`] is the calendar's moment, stored and shown; [`Clock::elapsed_ms`] only ever grows
//! and is what leases and sessions are measured with, since the calendar may be set. It is `CLOCK_BOOTTIME`, which goes on while
//! the machine sleeps: so a sleep is time that passed, and only a calendar that was set is a jump (`docs/decisions/0016-clock.md`). A process
//! that stands still while its machine does not is found by a wait that ends too late, and counts as a sleep.
//! A test clock stands still until it is advanced, so that a deadline of a day is tested in a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forge_api::Timestamp;
use rustix::time::ClockId;
use tokio::sync::watch;

/// A calendar that goes further away from the time that passes than this between two looks was set, in milliseconds, and a machine that was
/// away for longer slept. What a time service does little by little is far below it.
pub(crate) const NOTICED_MS_MIN: u64 = 1_000;

/// A process whose wait ends so much too late stood still (it was stopped, or its machine was paused by another), in milliseconds: a busy
/// machine makes it late by far less.
const STOOD_STILL_MS_MIN: u64 = 3_000;

/// A clock: the machine's, or one that a test moves.
#[derive(Clone, Debug)]
pub struct Clock {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The machine's, and for how long this process stood still, in milliseconds.
    System(Arc<AtomicU64>),
    Test(watch::Receiver<Moved>, Timestamp),
}

/// How far a test has moved its clock.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    elapsed_ms: u64,
    /// How much of that the machine slept.
    slept_ms: u64,
    /// How far the calendar was set forward, or back below 0.
    set_by_ms: i64,
}

impl Moved {
    fn calendar(self, start: Timestamp) -> Timestamp {
        start.plus_millis(i64::try_from(self.elapsed_ms).unwrap_or(i64::MAX).saturating_add(self.set_by_ms))
    }
}

/// What moves a test clock.
#[derive(Debug)]
pub struct TestClock {
    moved: watch::Sender<Moved>,
}

/// Milliseconds of a clock of the machine.
fn read_ms(id: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(id);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { kind: Kind::System(Arc::default()) }
    }

    /// A clock that stands at `start` until the second value moves it.
    pub fn test(start: Timestamp) -> (Self, Arc<TestClock>) {
        let (moved, receiver) = watch::channel(Moved::default());
        (Self { kind: Kind::Test(receiver, start) }, Arc::new(TestClock { moved }))
    }

    /// This moment by the calendar.
    pub fn now(&self) -> Timestamp {
        match &self.kind {
            Kind::System(_) => {
                // A clock before 1970 reads as 1970: nothing sensible can be scheduled on it, and nothing should panic.
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Kind::Test(moved, start) => moved.borrow().calendar(*start),
        }
    }

    /// Milliseconds since some moment before this process; it never goes back, and goes on while the machine sleeps.
    pub fn elapsed_ms(&self) -> u64 {
        match &self.kind {
            Kind::System(_) => read_ms(ClockId::Boottime),
            Kind::Test(moved, _) => moved.borrow().elapsed_ms,
        }
    }

    /// Every face of it at this moment.
    pub(crate) fn look(&self) -> Look {
        match &self.kind {
            Kind::System(stood_ms) => {
                let elapsed_ms = self.elapsed_ms();
                // The one stands still while the machine sleeps, and the other does not.
                let slept_ms = elapsed_ms.saturating_sub(read_ms(ClockId::Monotonic));
                let slept_ms = slept_ms.saturating_add(stood_ms.load(Ordering::Relaxed));
                Look { calendar: self.now(), elapsed_ms, slept_ms }
            }
            Kind::Test(moved, start) => {
                let moved = *moved.borrow();
                let Moved { elapsed_ms, slept_ms, set_by_ms: _ } = moved;
                Look { calendar: moved.calendar(*start), elapsed_ms, slept_ms }
            }
        }
    }

    /// Says that a wait is over which began at `began` and was to end at `due_ms` at the latest: one that ends far too late tells that this process
    /// stood still. For the one loop that looks at the clock; a test says itself what its clock slept.
    pub(crate) fn has_waited(&self, began: Look, due_ms: u64) {
        if let Kind::System(stood_ms) = &self.kind {
            let late_ms = self.look().late_ms(began, due_ms);
            if late_ms >= STOOD_STILL_MS_MIN {
                stood_ms.fetch_add(late_ms, Ordering::Relaxed);
            }
        }
    }

    /// Waits until `duration_ms` have passed on this clock.
    pub async fn sleep_ms(&self, duration_ms: u64) {
        self.sleep_until_ms(self.elapsed_ms().saturating_add(duration_ms)).await;
    }

    /// Waits until [`Clock::elapsed_ms`] is `due_ms`: what passes between the reckoning of a moment and the wait for it counts. A machine that
    /// sleeps meanwhile makes it later by as much at most.
    pub async fn sleep_until_ms(&self, due_ms: u64) {
        match &self.kind {
            Kind::System(_) => {
                tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(self.elapsed_ms()))).await;
            }
            Kind::Test(moved, _) => {
                let mut moved = moved.clone();
                // A dropped sender means that nobody moves this clock any more: then no wait ends.
                if moved.wait_for(|moved| moved.elapsed_ms >= due_ms).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Every face of a clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) calendar: Timestamp,
    pub(crate) elapsed_ms: u64,
    /// How much of that the machine slept, or this process stood still.
    pub(crate) slept_ms: u64,
}

/// What happened between two looks beside the time that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    /// How far the calendar was set: forward, or back below 0.
    pub(crate) jump_ms: i64,
    /// For how long the machine slept, or this process stood still.
    pub(crate) slept_ms: u64,
}

impl Look {
    /// How much too late it is for a wait that began at `began` and was to end at `due_ms`, beside what the machine slept.
    fn late_ms(self, began: Self, due_ms: u64) -> u64 {
        let slept_ms = self.slept_ms.saturating_sub(began.slept_ms);
        self.elapsed_ms.saturating_sub(due_ms.max(began.elapsed_ms)).saturating_sub(slept_ms)
    }

    /// What happened since an earlier one.
    pub(crate) fn since(self, earlier: Self) -> Since {
        let passed_ms = self.elapsed_ms.saturating_sub(earlier.elapsed_ms);
        let calendar_ms = self.calendar.millis_after(earlier.calendar);
        let jump_ms = calendar_ms.saturating_sub(i64::try_from(passed_ms).unwrap_or(i64::MAX));
        let slept_ms = self.slept_ms.saturating_sub(earlier.slept_ms);
        Since {
            jump_ms: if jump_ms.unsigned_abs() > NOTICED_MS_MIN { jump_ms } else { 0 },
            slept_ms: if slept_ms > NOTICED_MS_MIN { slept_ms } else { 0 },
        }
    }
}

impl TestClock {
    /// Moves the clock on.
    pub fn advance_ms(&self, duration_ms: u64) {
        self.moved.send_modify(|moved| moved.elapsed_ms = moved.elapsed_ms.saturating_add(duration_ms));
    }

    /// Moves the clock on by a time that the machine slept.
    pub fn sleep_machine_ms(&self, duration_ms: u64) {
        self.moved.send_modify(|moved| {
            moved.elapsed_ms = moved.elapsed_ms.saturating_add(duration_ms);
            moved.slept_ms = moved.slept_ms.saturating_add(duration_ms);
        });
    }

    /// Sets the calendar, forward or back below 0: no time passes.
    pub fn set_calendar_by_ms(&self, jump_ms: i64) {
        self.moved.send_modify(|moved| moved.set_by_ms = moved.set_by_ms.saturating_add(jump_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_calendar_and_a_sleep_are_told_from_the_time_that_passes() {
        let at = |calendar_s: i64, elapsed_s: u64, slept_s: u64| Look {
            calendar: Timestamp::from_unix_micros(calendar_s * 1_000_000),
            elapsed_ms: elapsed_s * 1_000,
            slept_ms: slept_s * 1_000,
        };
        let first = at(100, 5, 0);
        for (then, jump_ms, slept_ms) in [
            (at(110, 15, 0), 0, 0),
            (at(111, 15, 1), 0, 0),
            (at(3_710, 15, 0), 3_600_000, 0),
            (at(50, 15, 0), -60_000, 0),
            (at(700, 605, 590), 0, 590_000),
            (at(4_300, 605, 590), 3_600_000, 590_000),
        ] {
            assert_eq!(then.since(first), Since { jump_ms, slept_ms }, "{then:?}");
        }
    }

    #[test]
    fn a_wait_that_ends_too_late_is_told_from_a_sleep() {
        let at = |elapsed_ms, slept_ms| Look { calendar: Timestamp::from_unix_micros(0), elapsed_ms, slept_ms };
        let began = at(10_000, 500);
        for (now, due_ms, late_ms) in [
            (at(11_000, 500), 11_000, 0),
            (at(10_200, 500), 11_000, 0),
            (at(20_000, 500), 11_000, 9_000),
            (at(20_000, 9_500), 11_000, 0),
            (at(20_000, 4_500), 11_000, 5_000),
            // What was due before the wait began was late for another reason.
            (at(10_100, 500), 2_000, 100),
        ] {
            assert_eq!(now.late_ms(began, due_ms), late_ms, "{now:?}");
        }
    }

    #[test]
    fn a_process_that_stood_still_has_slept_for_as_long() {
        let clock = Clock::system();
        let began = clock.look();
        clock.has_waited(began, began.elapsed_ms);
        assert_eq!(clock.look().since(began).slept_ms, 0, "it was in time");
        let long_ago = Look { elapsed_ms: began.elapsed_ms.saturating_sub(60_000), ..began };
        clock.has_waited(long_ago, long_ago.elapsed_ms + 1_000);
        let slept_ms = clock.look().since(began).slept_ms;
        // A machine that has just been started has no minute behind it.
        assert!(slept_ms >= 59_000 || began.elapsed_ms < 60_000, "{slept_ms}");
    }

    #[test]
    fn the_machines_own_clock_counts_what_it_slept() {
        let clock = Clock::system();
        let (since_boot, awake) = (read_ms(ClockId::Boottime), read_ms(ClockId::Monotonic));
        let Look { elapsed_ms, slept_ms, calendar: _ } = clock.look();
        assert!((since_boot..=read_ms(ClockId::Boottime)).contains(&elapsed_ms));
        assert!((awake..=read_ms(ClockId::Monotonic)).contains(&(elapsed_ms - slept_ms)));
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
