//! A task's states and the ways between them. Pure: no clock, no store; one function decides and the store writes it down.
//!
//! States only move forward, but for another attempt, which puts a task back to `queued`. A cancel is an intent that is
//! stored beside the state: whatever an attempt reports after it, the task ends as `canceled`.

use forge_api::{AttemptOutcome, OnRunnerLost, TaskState};

/// The most attempts that lost runners alone may cost a task: beyond it something is wrong that another try does not mend.
pub(crate) const ATTEMPTS_MAX: u32 = 100;

/// How long an approved plan waits that a runner could not begin with, for each attempt of its task: the next runner may fail as fast.
pub(crate) const UNBEGUN_AGAIN_MS: u64 = 5_000;

/// How long a plugin may have its task wait before the next attempt. Beyond it the task is tried again.
pub(crate) const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Where a task stands, as far as the next step depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: TaskState,
    /// Who asked for its end.
    pub(crate) cancel_by: Option<String>,
    /// The number of its newest attempt.
    pub(crate) attempt: u32,
    pub(crate) on_runner_lost: OnRunnerLost,
    /// How many further attempts a failed one still gets.
    pub(crate) retries_left: u32,
    pub(crate) retry_delay_ms: u64,
    /// Whether its newest attempt does what an earlier one has planned and a person approved.
    pub(crate) resumes: bool,
}

/// What happens to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A runner gets it.
    Assign,
    /// Its runner says that the process may run.
    Start,
    /// Its runner says how the attempt ended.
    Report(Report),
    /// Someone asks for its end.
    Cancel { by: String },
    /// It was assigned and never started.
    TakeBack,
    /// Its runner was out of contact for too long, or was removed; what it runs may run on for so long.
    RunnerLost { reason: String, runs_on_ms: u64 },
    /// Its attempt took longer than `timeout`, and its runner did not end it.
    Overdue { timeout_ms: u64 },
    /// It waited longer than `queue_timeout`.
    QueueTimeout { queue_timeout_ms: u64 },
    /// Its end was asked for, and nobody confirmed it in time.
    CancelOverdue,
    /// The daemon itself ends the attempt, as when a secret does not resolve.
    Fail { reason: String },
    /// Someone asks for another attempt; what the last one ran may run on for so long.
    Retry { by: String, runs_on_ms: u64 },
    /// Someone has it run at once that waits for what its last attempt may still run.
    RunNow { by: String },
    /// A person approves what it has planned.
    Approve { by: String },
    /// A person rejects what it has planned.
    Reject { by: String, reason: Option<String> },
    /// Nobody decided within `approval_timeout`.
    Undecided { approval_timeout_ms: u64 },
}

/// How an attempt ended, by its runner's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) reason: Option<String>,
    /// Whether the plugin found that another try ends the same way.
    pub(crate) no_retry: bool,
    /// How long the plugin asked to be left alone.
    pub(crate) retry_after_ms: Option<u64>,
    /// Whether the plugin was never called.
    pub(crate) nothing_ran: bool,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing changes.
    Stay,
    /// The intent to cancel is stored, and its runner is told.
    Intent { by: String },
    /// It moves on to a state that is not final.
    Advance(TaskState),
    /// It ends; the reason is there for every end but `succeeded`.
    End { state: TaskState, reason: Option<String> },
    /// Its attempt is over and it waits for a person's word.
    Ask,
    /// It goes back to the queue, and its next attempt does what was approved.
    Resume { by: String },
    /// It goes back to the queue, not before the delay is over.
    Requeue { delay_ms: u64, queue: QueueClock, retry: Retry },
}

/// Whether waiting counts from anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueClock {
    /// The attempt never ran: the wait goes on.
    GoesOn,
    /// An attempt ran: `queue_timeout` counts from now.
    Restarts,
}

/// What another attempt costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nothing of the template's `retry`.
    Free,
    /// One of the template's `retry.attempts`.
    Spent,
    /// All of the template's `retry.attempts` are there again.
    Renewed,
}

/// The step is not one from that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The task ended.
    Ended,
    /// The task did not end.
    StillOpen,
    /// The task is not in a state to which this can happen.
    NotNow,
}

/// What follows when `happening` meets a task that stands so.
pub(crate) fn step(standing: &Standing, happening: &Happening) -> Result<Next, Refusal> {
    match standing.state {
        TaskState::Queued => queued(happening),
        TaskState::Assigned => assigned(standing, happening),
        TaskState::Running => running(standing, happening),
        TaskState::AwaitingApproval => awaiting_approval(happening),
        TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped => match happening {
            Happening::Retry { by: _, runs_on_ms } => {
                Ok(Next::Requeue { delay_ms: *runs_on_ms, queue: QueueClock::Restarts, retry: Retry::Renewed })
            }
            Happening::Assign
            | Happening::Start
            | Happening::Report(_)
            | Happening::Cancel { .. }
            | Happening::TakeBack
            | Happening::RunnerLost { .. }
            | Happening::Overdue { .. }
            | Happening::QueueTimeout { .. }
            | Happening::CancelOverdue
            | Happening::Fail { .. }
            | Happening::RunNow { .. }
            | Happening::Approve { .. }
            | Happening::Reject { .. }
            | Happening::Undecided { .. } => Err(Refusal::Ended),
        },
    }
}

fn end(state: TaskState, reason: impl Into<String>) -> Next {
    Next::End { state, reason: Some(reason.into()) }
}

fn canceled_by(by: &str) -> Next {
    end(TaskState::Canceled, format!("canceled by {by}"))
}

fn queued(happening: &Happening) -> Result<Next, Refusal> {
    match happening {
        Happening::Assign => Ok(Next::Advance(TaskState::Assigned)),
        Happening::Cancel { by } => Ok(canceled_by(by)),
        Happening::QueueTimeout { queue_timeout_ms } => Ok(end(
            TaskState::Expired,
            format!("no runner took it within queue_timeout ({})", super::words::duration(*queue_timeout_ms)),
        )),
        Happening::Fail { reason } => Ok(end(TaskState::Failed, reason.clone())),
        Happening::RunNow { by: _ } => {
            Ok(Next::Requeue { delay_ms: 0, queue: QueueClock::Restarts, retry: Retry::Free })
        }
        Happening::Retry { .. } => Err(Refusal::StillOpen),
        Happening::Start
        | Happening::Report(_)
        | Happening::TakeBack
        | Happening::RunnerLost { .. }
        | Happening::Overdue { .. }
        | Happening::CancelOverdue
        | Happening::Approve { .. }
        | Happening::Reject { .. }
        | Happening::Undecided { .. } => Err(Refusal::NotNow),
    }
}

fn assigned(standing: &Standing, happening: &Happening) -> Result<Next, Refusal> {
    match happening {
        Happening::Start => Ok(Next::Advance(TaskState::Running)),
        Happening::Report(report) => Ok(reported(standing, report)),
        Happening::Cancel { by } => Ok(intent(standing, by)),
        // The process runs only after the daemon has answered the start, so another attempt cannot run beside it.
        Happening::TakeBack | Happening::RunnerLost { .. } => Ok(match &standing.cancel_by {
            Some(by) => canceled_by(by),
            None => Next::Requeue { delay_ms: 0, queue: QueueClock::GoesOn, retry: Retry::Free },
        }),
        Happening::CancelOverdue => cancel_overdue(standing),
        Happening::Fail { reason } => Ok(failed_by_daemon(standing, reason)),
        Happening::Retry { .. } => Err(Refusal::StillOpen),
        Happening::Assign
        | Happening::RunNow { .. }
        | Happening::Overdue { .. }
        | Happening::QueueTimeout { .. }
        | Happening::Approve { .. }
        | Happening::Reject { .. }
        | Happening::Undecided { .. } => Err(Refusal::NotNow),
    }
}

fn running(standing: &Standing, happening: &Happening) -> Result<Next, Refusal> {
    match happening {
        Happening::Start => Ok(Next::Stay),
        Happening::Report(report) => Ok(reported(standing, report)),
        Happening::Cancel { by } => Ok(intent(standing, by)),
        Happening::RunnerLost { reason, runs_on_ms } => Ok(lost(standing, reason, *runs_on_ms)),
        Happening::Overdue { timeout_ms } => Ok(match &standing.cancel_by {
            Some(by) => canceled_by(by),
            None => {
                end(TaskState::TimedOut, format!("took longer than timeout ({})", super::words::duration(*timeout_ms)))
            }
        }),
        Happening::CancelOverdue => cancel_overdue(standing),
        Happening::Fail { reason } => Ok(failed_by_daemon(standing, reason)),
        Happening::Retry { .. } => Err(Refusal::StillOpen),
        Happening::Assign
        | Happening::RunNow { .. }
        | Happening::TakeBack
        | Happening::QueueTimeout { .. }
        | Happening::Approve { .. }
        | Happening::Reject { .. }
        | Happening::Undecided { .. } => Err(Refusal::NotNow),
    }
}

fn awaiting_approval(happening: &Happening) -> Result<Next, Refusal> {
    match happening {
        Happening::Cancel { by } => Ok(canceled_by(by)),
        Happening::Approve { by } => Ok(Next::Resume { by: by.clone() }),
        Happening::Reject { by, reason } => Ok(end(
            TaskState::Canceled,
            match reason {
                Some(reason) => format!("rejected by {by}: {reason}"),
                None => format!("rejected by {by}"),
            },
        )),
        Happening::Undecided { approval_timeout_ms } => Ok(end(
            TaskState::Expired,
            format!("nobody approved it within approval_timeout ({})", super::words::duration(*approval_timeout_ms)),
        )),
        Happening::Retry { .. } => Err(Refusal::StillOpen),
        Happening::Assign
        | Happening::Start
        | Happening::Report(_)
        | Happening::TakeBack
        | Happening::RunnerLost { .. }
        | Happening::Overdue { .. }
        | Happening::QueueTimeout { .. }
        | Happening::CancelOverdue
        | Happening::RunNow { .. }
        | Happening::Fail { .. } => Err(Refusal::NotNow),
    }
}

fn intent(standing: &Standing, by: &str) -> Next {
    match standing.cancel_by {
        Some(_) => Next::Stay,
        None => Next::Intent { by: by.to_owned() },
    }
}

fn cancel_overdue(standing: &Standing) -> Result<Next, Refusal> {
    let by = standing.cancel_by.as_ref().ok_or(Refusal::NotNow)?;
    Ok(end(TaskState::Canceled, format!("canceled by {by}; its runner did not confirm the end")))
}

fn failed_by_daemon(standing: &Standing, reason: &str) -> Next {
    match &standing.cancel_by {
        Some(by) => canceled_by(by),
        None => end(TaskState::Failed, reason),
    }
}

/// What an attempt's own report makes of its task.
fn reported(standing: &Standing, report: &Report) -> Next {
    if let Some(by) = &standing.cancel_by {
        return canceled_by(by);
    }
    let Report { outcome, reason, no_retry, retry_after_ms, nothing_ran } = report;
    let reason = reason.as_deref();
    match outcome {
        AttemptOutcome::Succeeded => Next::End { state: TaskState::Succeeded, reason: None },
        // The plan was approved and nothing of it was done, so it holds: the next runner does it. It is no try of the template's.
        AttemptOutcome::Failed | AttemptOutcome::Retry | AttemptOutcome::Lost
            if standing.resumes && *nothing_ran && standing.attempt < ATTEMPTS_MAX =>
        {
            let delay_ms = UNBEGUN_AGAIN_MS.saturating_mul(u64::from(standing.attempt));
            Next::Requeue { delay_ms, queue: QueueClock::GoesOn, retry: Retry::Free }
        }
        // Its runner was stopped or started again before the job began: `on_runner_lost` is for jobs that ran.
        AttemptOutcome::Lost if *nothing_ran && standing.attempt < ATTEMPTS_MAX => {
            Next::Requeue { delay_ms: 0, queue: QueueClock::GoesOn, retry: Retry::Free }
        }
        // Nobody knows how much of the plan was done: a person looks at it before anything is planned anew. `Retry` says that nothing was.
        AttemptOutcome::Failed if standing.resumes || *no_retry => {
            end(TaskState::Failed, reason.unwrap_or("the attempt failed and its runner did not say why"))
        }
        AttemptOutcome::Failed | AttemptOutcome::Retry => {
            if standing.retries_left > 0 {
                let asked_ms = retry_after_ms.unwrap_or_default().min(RETRY_AFTER_MS_MAX);
                let delay_ms = standing.retry_delay_ms.max(asked_ms);
                Next::Requeue { delay_ms, queue: QueueClock::Restarts, retry: Retry::Spent }
            } else {
                end(TaskState::Failed, reason.unwrap_or("the attempt failed and its runner did not say why"))
            }
        }
        // Only the daemon's word cancels a task: a runner that ends one of its own accord has failed it.
        AttemptOutcome::Canceled => {
            end(TaskState::Failed, reason.unwrap_or("its runner ended it as canceled, and nobody had asked for that"))
        }
        AttemptOutcome::TimedOut => end(TaskState::TimedOut, reason.unwrap_or("took longer than timeout")),
        AttemptOutcome::AwaitsApproval => Next::Ask,
        AttemptOutcome::Lost => lost(standing, reason.unwrap_or("its runner gave it up"), 0),
    }
}

/// A task is given to another runner only when what the lost one runs has ended.
fn lost(standing: &Standing, reason: &str, runs_on_ms: u64) -> Next {
    match (&standing.cancel_by, standing.on_runner_lost) {
        (Some(by), OnRunnerLost::Fail | OnRunnerLost::Retry) => canceled_by(by),
        (None, OnRunnerLost::Retry) if standing.attempt < ATTEMPTS_MAX => {
            Next::Requeue { delay_ms: runs_on_ms, queue: QueueClock::Restarts, retry: Retry::Free }
        }
        (None, OnRunnerLost::Fail | OnRunnerLost::Retry) => end(TaskState::Lost, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: TaskState) -> Standing {
        Standing {
            state,
            cancel_by: None,
            attempt: 1,
            on_runner_lost: OnRunnerLost::Fail,
            retries_left: 0,
            retry_delay_ms: 30_000,
            resumes: false,
        }
    }

    fn reports(outcome: AttemptOutcome, reason: &str) -> Happening {
        Happening::Report(Report {
            outcome,
            reason: Some(reason.to_owned()),
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        })
    }

    fn happenings() -> Vec<Happening> {
        let report = |outcome| reports(outcome, "why");
        vec![
            Happening::Assign,
            Happening::Start,
            report(AttemptOutcome::Succeeded),
            report(AttemptOutcome::Failed),
            report(AttemptOutcome::Retry),
            report(AttemptOutcome::Canceled),
            report(AttemptOutcome::TimedOut),
            report(AttemptOutcome::Lost),
            report(AttemptOutcome::AwaitsApproval),
            Happening::Cancel { by: "ann".to_owned() },
            Happening::TakeBack,
            Happening::RunnerLost { reason: "gone".to_owned(), runs_on_ms: 0 },
            Happening::Overdue { timeout_ms: 1_000 },
            Happening::QueueTimeout { queue_timeout_ms: 1_000 },
            Happening::CancelOverdue,
            Happening::Fail { reason: "no secret".to_owned() },
            Happening::Retry { by: "ann".to_owned(), runs_on_ms: 0 },
            Happening::RunNow { by: "ann".to_owned() },
            Happening::Approve { by: "ann".to_owned() },
            Happening::Reject { by: "ann".to_owned(), reason: Some("too much".to_owned()) },
            Happening::Undecided { approval_timeout_ms: 1_000 },
        ]
    }

    /// One word a cell: what each of `happenings` makes of a state.
    fn word(result: &Result<Next, Refusal>) -> String {
        match result {
            Ok(Next::Stay) => "stay".to_owned(),
            Ok(Next::Intent { .. }) => "intent".to_owned(),
            Ok(Next::Advance(state) | Next::End { state, .. }) => state.to_string(),
            Ok(Next::Ask) => "asks".to_owned(),
            Ok(Next::Resume { .. }) => "resumes".to_owned(),
            Ok(Next::Requeue { .. }) => "queued".to_owned(),
            Err(Refusal::Ended) => "ended".to_owned(),
            Err(Refusal::StillOpen) => "open".to_owned(),
            Err(Refusal::NotNow) => "-".to_owned(),
        }
    }

    fn row(standing: &Standing) -> Vec<String> {
        happenings().iter().map(|happening| word(&step(standing, happening))).collect()
    }

    #[test]
    fn the_whole_table() {
        let expect = |state, words: &str| {
            assert_eq!(row(&standing(state)), words.split_whitespace().collect::<Vec<_>>(), "{state}");
        };
        expect(TaskState::Queued, "assigned - - - - - - - - canceled - - - expired - failed open queued - - -");
        expect(
            TaskState::Assigned,
            "- running succeeded failed failed failed timed_out lost asks intent queued queued - - - failed open - - - -",
        );
        expect(
            TaskState::Running,
            "- stay succeeded failed failed failed timed_out lost asks intent - lost timed_out - - failed open - - - -",
        );
        expect(TaskState::AwaitingApproval, "- - - - - - - - - canceled - - - - - - open - resumes canceled expired");
        for state in TaskState::ALL.into_iter().filter(|state| state.is_final()) {
            let words = row(&standing(state));
            let retry = 16;
            assert_eq!(words[retry], "queued", "{state}");
            let others = words.iter().enumerate().filter(|(index, _)| *index != retry);
            assert!(others.into_iter().all(|(_, word)| word == "ended"), "{state}: {words:?}");
        }
    }

    #[test]
    fn what_the_reconciler_does_at_a_deadline_is_never_refused() {
        for state in TaskState::ALL.into_iter().filter(|state| !state.is_final()) {
            for cancel_by in [None, Some("ann".to_owned())] {
                let at = forge_api::Timestamp::from_unix_micros;
                let open = super::super::deadline::Open {
                    state,
                    queued_at: at(0),
                    assigned_at: Some(at(0)),
                    started_at: Some(at(0)),
                    cancel_at: cancel_by.as_ref().map(|_| at(0)),
                    timeout_ms: 1_000,
                    queue_timeout_ms: 1_000,
                    approval_timeout_ms: 1_000,
                };
                let happening = super::super::deadline::at_deadline(&open).expect("an act");
                let standing = Standing { cancel_by, ..standing(state) };
                assert!(step(&standing, &happening).is_ok(), "{state} {happening:?}");
            }
        }
    }

    /// Complaint 5 (a stop is ignored, a report overwrites it): a cancel is an intent that no report undoes.
    #[test]
    fn no_report_undoes_a_cancel() {
        for state in [TaskState::Assigned, TaskState::Running] {
            let standing = Standing {
                cancel_by: Some("ann".to_owned()),
                retries_left: 3,
                on_runner_lost: OnRunnerLost::Retry,
                ..standing(state)
            };
            for happening in happenings() {
                match step(&standing, &happening) {
                    Ok(Next::End { state, reason }) => {
                        assert_eq!(state, TaskState::Canceled, "{happening:?}");
                        assert!(reason.is_some_and(|reason| reason.starts_with("canceled by ann")), "{happening:?}");
                    }
                    Ok(Next::Advance(TaskState::Running) | Next::Stay) | Err(_) => {}
                    other => panic!("{state} {happening:?} made {other:?} of a canceled task"),
                }
            }
        }
    }

    #[test]
    fn every_end_but_success_has_a_reason() {
        for state in TaskState::ALL {
            for happening in happenings() {
                if let Ok(Next::End { state, reason }) = step(&standing(state), &happening) {
                    assert_eq!(reason.is_none(), state == TaskState::Succeeded, "{happening:?}");
                }
            }
        }
    }

    #[test]
    fn retries_are_spent_and_end() {
        let mut standing = Standing { retries_left: 1, ..standing(TaskState::Running) };
        let failed = reports(AttemptOutcome::Failed, "exit code 2");
        assert_eq!(
            step(&standing, &failed),
            Ok(Next::Requeue { delay_ms: 30_000, queue: QueueClock::Restarts, retry: Retry::Spent })
        );
        standing.resumes = true;
        assert_eq!(word(&step(&standing, &failed)), "failed", "half of a plan may be done");
        let nothing_done = reports(AttemptOutcome::Retry, "locked");
        assert_eq!(word(&step(&standing, &nothing_done)), "queued");
        standing.resumes = false;
        standing.retries_left = 0;
        assert_eq!(word(&step(&standing, &failed)), "failed");
    }

    #[test]
    fn what_was_approved_and_not_begun_waits_for_the_next_runner_and_costs_no_retry() {
        let reports = |outcome, nothing_ran| {
            let reason = Some("the plugin cannot be had".to_owned());
            Happening::Report(Report { outcome, reason, no_retry: false, retry_after_ms: None, nothing_ran })
        };
        let mut standing = Standing { resumes: true, attempt: 2, ..standing(TaskState::Running) };
        let waits = Next::Requeue { delay_ms: 10_000, queue: QueueClock::GoesOn, retry: Retry::Free };
        for outcome in [AttemptOutcome::Failed, AttemptOutcome::Retry, AttemptOutcome::Lost] {
            assert_eq!(step(&standing, &reports(outcome, true)), Ok(waits.clone()), "{outcome:?}");
            let may_have_run = step(&standing, &reports(outcome, false));
            assert!(matches!(may_have_run, Ok(Next::End { .. })), "{outcome:?}: {may_have_run:?}");
        }
        // Who asked for its end gets it, and a job that has no time left does not get more.
        let canceled = Standing { cancel_by: Some("ann".to_owned()), ..standing.clone() };
        assert_eq!(word(&step(&canceled, &reports(AttemptOutcome::Failed, true))), "canceled");
        assert_eq!(word(&step(&standing, &reports(AttemptOutcome::TimedOut, true))), "timed_out");
        // Without an approval it is a failure like any other, unless its runner went away, and it is never tried for ever.
        let without = Standing { resumes: false, ..standing.clone() };
        assert_eq!(word(&step(&without, &reports(AttemptOutcome::Failed, true))), "failed");
        let at_once = Next::Requeue { delay_ms: 0, queue: QueueClock::GoesOn, retry: Retry::Free };
        assert_eq!(step(&without, &reports(AttemptOutcome::Lost, true)), Ok(at_once));
        assert_eq!(word(&step(&without, &reports(AttemptOutcome::Lost, false))), "lost");
        let often = Standing { attempt: ATTEMPTS_MAX, ..without };
        assert_eq!(word(&step(&often, &reports(AttemptOutcome::Lost, true))), "lost");
        standing.attempt = ATTEMPTS_MAX;
        let last = Ok(end(TaskState::Failed, "the plugin cannot be had"));
        assert_eq!(step(&standing, &reports(AttemptOutcome::Failed, true)), last);
    }

    #[test]
    fn a_persons_retry_waits_for_what_may_still_run_and_a_person_may_have_it_run_at_once() {
        let later = step(&standing(TaskState::Lost), &Happening::Retry { by: "ann".to_owned(), runs_on_ms: 90_000 });
        assert_eq!(later, Ok(Next::Requeue { delay_ms: 90_000, queue: QueueClock::Restarts, retry: Retry::Renewed }));
        let now = step(&standing(TaskState::Queued), &Happening::RunNow { by: "bob".to_owned() });
        assert_eq!(now, Ok(Next::Requeue { delay_ms: 0, queue: QueueClock::Restarts, retry: Retry::Free }));
    }

    #[test]
    fn what_makes_no_sense_is_never_tried_again() {
        let standing = Standing { retries_left: 3, ..standing(TaskState::Running) };
        let invalid = Happening::Report(Report {
            outcome: AttemptOutcome::Failed,
            reason: Some("no such workspace".to_owned()),
            no_retry: true,
            retry_after_ms: None,
            nothing_ran: false,
        });
        assert_eq!(step(&standing, &invalid), Ok(end(TaskState::Failed, "no such workspace")));
    }

    #[test]
    fn a_plugin_has_its_task_wait_longer_than_the_template_and_not_for_ever() {
        let standing = Standing { retries_left: 1, ..standing(TaskState::Running) };
        let waits = |retry_after_ms| {
            let outcome = AttemptOutcome::Retry;
            let report = Happening::Report(Report {
                outcome,
                reason: None,
                no_retry: false,
                retry_after_ms,
                nothing_ran: false,
            });
            match step(&standing, &report) {
                Ok(Next::Requeue { delay_ms, .. }) => delay_ms,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([None, Some(1), Some(60_000)].map(waits), [30_000, 30_000, 60_000]);
        assert_eq!(waits(Some(u64::MAX)), RETRY_AFTER_MS_MAX);
    }

    /// Complaint 4 (a runner dies in the middle of a task): it is tried again where the template says so.
    #[test]
    fn a_lost_runner_is_tried_again_where_the_template_says_so_and_not_forever() {
        let lost = Happening::RunnerLost { reason: "gone".to_owned(), runs_on_ms: 120_000 };
        let mut standing = Standing { on_runner_lost: OnRunnerLost::Retry, ..standing(TaskState::Running) };
        // Its supervisor may live until its lease ends.
        let later = Next::Requeue { delay_ms: 120_000, queue: QueueClock::Restarts, retry: Retry::Free };
        assert_eq!(step(&standing, &lost), Ok(later));
        standing.attempt = ATTEMPTS_MAX;
        assert_eq!(word(&step(&standing, &lost)), "lost");
    }
}
