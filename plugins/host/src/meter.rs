//! What a call has computed, and whether it may go on: pure but for [`thread_time`].
//!
//! Time is the processor time of the calling thread. A machine that is busy with other things never uses up a guest's
//! limit, waiting costs nothing, and what the host does for a guest (copies, files) counts, so that a loop of host calls
//! ends like any other. What the embedder does meanwhile (processes, their output) is taken out.
//!
//! It begins with a call's first tick: most calls are over before that, and asking for this time is a system call.

use std::time::Duration;

use crate::limits::CANCELED_COMPUTING_MS;

/// Processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What one call has used.
#[derive(Debug)]
pub(crate) struct Meter {
    /// When the first tick came.
    started: Option<Duration>,
    excluded: Duration,
    limit: Duration,
    /// What had been used when the cancel was first seen.
    canceled_at: Option<Duration>,
}

/// Whether a call may go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Continue,
    OutOfTime,
    Canceled,
}

impl Meter {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { started: None, excluded: Duration::ZERO, limit, canceled_at: None }
    }

    /// Whether it counts already.
    pub(crate) fn has_begun(&self) -> bool {
        self.started.is_some()
    }

    /// What the embedder computed is not the guest's.
    pub(crate) fn exclude(&mut self, time: Duration) {
        self.excluded += time;
    }

    pub(crate) fn verdict(&mut self, now: Duration, canceled: bool) -> Verdict {
        let started = *self.started.get_or_insert(now);
        let used = now.saturating_sub(started).saturating_sub(self.excluded);
        if canceled {
            let since = *self.canceled_at.get_or_insert(used);
            if used >= since + Duration::from_millis(CANCELED_COMPUTING_MS) {
                return Verdict::Canceled;
            }
        }
        if used > self.limit { Verdict::OutOfTime } else { Verdict::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn ends_at_the_limit_without_what_is_excluded() {
        let mut meter = Meter::new(ms(50));
        assert!(!meter.has_begun());
        assert_eq!(meter.verdict(ms(1_000), false), Verdict::Continue);
        assert!(meter.has_begun());
        assert_eq!(meter.verdict(ms(1_050), false), Verdict::Continue);
        meter.exclude(ms(100));
        assert_eq!(meter.verdict(ms(1_150), false), Verdict::Continue);
        assert_eq!(meter.verdict(ms(1_151), false), Verdict::OutOfTime);
    }

    #[test]
    fn leaves_a_canceled_guest_the_time_to_say_so() {
        let mut meter = Meter::new(ms(1_000));
        assert_eq!(meter.verdict(ms(0), false), Verdict::Continue);
        assert_eq!(meter.verdict(ms(10), true), Verdict::Continue);
        assert_eq!(meter.verdict(ms(10 + CANCELED_COMPUTING_MS - 1), true), Verdict::Continue);
        assert_eq!(meter.verdict(ms(10 + CANCELED_COMPUTING_MS), true), Verdict::Canceled);
    }
}
