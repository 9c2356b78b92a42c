//! When the reconciler acts on an open task by itself, and what it does then. Pure.
//!
//! Every open state has a moment that is stored with it: nothing waits forever. A boot gives what runs time to report,
//! since the daemon may have been away for longer than a timeout.

use forge_api::{OnRunnerLost, TaskState, Timestamp};

use super::task::Happening;

/// An assigned attempt that has not started for this long is taken back, in milliseconds.
pub(crate) const START_WITHIN_MS: u64 = 60_000;

/// How much longer than its `timeout` an attempt may stay open: its runner ends it first and reports, in milliseconds.
pub(crate) const TIMEOUT_MARGIN_MS: u64 = 120_000;

/// How long a runner may take to confirm a cancel, in milliseconds.
pub(crate) const CANCEL_WITHIN_MS: u64 = 60_000;

/// What an open task's deadline depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) state: TaskState,
    /// Since when it counts as waiting.
    pub(crate) queued_at: Timestamp,
    pub(crate) assigned_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) cancel_at: Option<Timestamp>,
    pub(crate) timeout_ms: u64,
    pub(crate) queue_timeout_ms: u64,
    pub(crate) approval_timeout_ms: u64,
}

fn after(moment: Timestamp, duration_ms: u64) -> Timestamp {
    moment.plus_millis(i64::try_from(duration_ms).unwrap_or(i64::MAX))
}

/// The moment at which the reconciler acts; `None` for a task that ended.
pub(crate) fn deadline(open: &Open) -> Option<Timestamp> {
    let by_state = match open.state {
        TaskState::Queued => after(open.queued_at, open.queue_timeout_ms),
        TaskState::AwaitingApproval => after(open.queued_at, open.approval_timeout_ms),
        TaskState::Assigned => after(open.assigned_at.unwrap_or(open.queued_at), START_WITHIN_MS),
        TaskState::Running => after(
            open.started_at.or(open.assigned_at).unwrap_or(open.queued_at),
            open.timeout_ms.saturating_add(TIMEOUT_MARGIN_MS),
        ),
        TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped => return None,
    };
    Some(match open.cancel_at {
        Some(cancel_at) => by_state.min(after(cancel_at, CANCEL_WITHIN_MS)),
        None => by_state,
    })
}

/// The earliest moment at which a task that was with a runner may be acted on after a boot at `now`.
pub(crate) fn after_boot(open: &Open, runner_grace_ms: u64, now: Timestamp) -> Option<Timestamp> {
    let stored = deadline(open)?;
    Some(match open.state {
        TaskState::Assigned => stored.max(after(now, START_WITHIN_MS)),
        TaskState::Running => stored.max(after(now, runner_grace_ms.max(CANCEL_WITHIN_MS))),
        TaskState::Queued
        | TaskState::AwaitingApproval
        | TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped => stored,
    })
}

/// An attempt that began and was closed without its runner's word on how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreported {
    pub(crate) started_at: Timestamp,
    pub(crate) closed_at: Timestamp,
    pub(crate) on_runner_lost: OnRunnerLost,
    pub(crate) timeout_ms: u64,
    pub(crate) grace_ms: u64,
}

/// Until when it may run on: its supervisor outlives its runner and a network that is cut. Where another attempt follows by itself it ends the
/// job when its lease does, and otherwise at its timeout.
pub(crate) fn runs_until(attempt: Unreported) -> Timestamp {
    let Unreported { started_at, closed_at, on_runner_lost, timeout_ms, grace_ms } = attempt;
    match on_runner_lost {
        OnRunnerLost::Retry => after(closed_at, grace_ms),
        OnRunnerLost::Fail => after(started_at, timeout_ms.saturating_add(TIMEOUT_MARGIN_MS)),
    }
}

/// What happens to a task whose deadline has passed.
pub(crate) fn at_deadline(open: &Open) -> Option<Happening> {
    match open.state {
        TaskState::Queued => Some(Happening::QueueTimeout { queue_timeout_ms: open.queue_timeout_ms }),
        TaskState::AwaitingApproval => Some(Happening::Undecided { approval_timeout_ms: open.approval_timeout_ms }),
        TaskState::Assigned | TaskState::Running if open.cancel_at.is_some() => Some(Happening::CancelOverdue),
        TaskState::Assigned => Some(Happening::TakeBack),
        TaskState::Running => Some(Happening::Overdue { timeout_ms: open.timeout_ms }),
        TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped => None,
    }
}

/// The same in words, for `why`.
pub(crate) fn at_deadline_words(open: &Open) -> Option<&'static str> {
    at_deadline(open).map(|happening| match happening {
        Happening::QueueTimeout { .. } | Happening::Undecided { .. } => "the task expires",
        Happening::TakeBack => "the attempt is taken back and the task is queued again",
        Happening::CancelOverdue => "the task ends as canceled, confirmed or not",
        _overdue => "the task ends as timed out",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(state: TaskState) -> Open {
        let at = Timestamp::from_unix_micros;
        Open {
            state,
            queued_at: at(0),
            assigned_at: Some(at(1_000_000)),
            started_at: Some(at(2_000_000)),
            cancel_at: None,
            timeout_ms: 1_000,
            queue_timeout_ms: 5_000,
            approval_timeout_ms: 7_000,
        }
    }

    #[test]
    fn every_open_state_has_a_deadline_and_an_act_and_no_end_has() {
        for state in TaskState::ALL {
            assert_eq!(deadline(&open(state)).is_none(), state.is_final(), "{state}");
            assert_eq!(at_deadline(&open(state)).is_none(), state.is_final(), "{state}");
            assert_eq!(at_deadline_words(&open(state)).is_none(), state.is_final(), "{state}");
        }
    }

    #[test]
    fn a_cancel_brings_the_deadline_forward() {
        let canceled = Open {
            cancel_at: Some(Timestamp::from_unix_micros(3_000_000)),
            timeout_ms: 86_400_000,
            ..open(TaskState::Running)
        };
        assert_eq!(deadline(&canceled), Some(Timestamp::from_unix_micros(63_000_000)));
        assert_eq!(at_deadline(&canceled), Some(Happening::CancelOverdue));
    }

    #[test]
    fn what_nobody_reported_runs_until_its_timeout_or_its_lease_ends() {
        let at = Timestamp::from_unix_micros;
        let attempt = |on_runner_lost| Unreported {
            started_at: at(0),
            closed_at: at(200_000_000),
            on_runner_lost,
            timeout_ms: 86_400_000,
            grace_ms: 40_000,
        };
        assert_eq!(runs_until(attempt(OnRunnerLost::Fail)), at(86_520_000_000));
        assert_eq!(runs_until(attempt(OnRunnerLost::Retry)), at(240_000_000));
    }

    #[test]
    fn a_boot_lets_what_runs_report_first() {
        let now = Timestamp::from_unix_micros(100_000_000_000);
        assert_eq!(after_boot(&open(TaskState::Running), 120_000, now), Some(now.plus_millis(120_000)));
        assert_eq!(after_boot(&open(TaskState::Queued), 120_000, now), deadline(&open(TaskState::Queued)));
    }
}
