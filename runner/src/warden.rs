//! When an attempt must end that does not end by itself. Pure: the clock (`CLOCK_BOOTTIME`, in milliseconds) is an argument.
//!
//! Three things end an attempt from outside its job: its `timeout`, a runner that is gone for longer than `runner_grace`,
//! and, where a lost task is queued again (`on_runner_lost = "retry"`), a lease that nobody renewed: there the job ends
//! before the daemon gives the task away, so that it never runs twice at a time.

use forge_api::{AttemptOutcome, OnRunnerLost};

use crate::wire::Order;

/// How long before the daemon gives a task away its job is ended, in milliseconds.
const LEASE_MARGIN_MS: u64 = 15_000;

/// What the job allows.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long the attempt may take.
    pub timeout_ms: u64,
    /// How long its runner may be gone.
    pub runner_grace_ms: u64,
    /// What the daemon does then.
    pub on_runner_lost: OnRunnerLost,
}

/// What is known of the world outside.
#[derive(Clone, Copy, Debug)]
pub struct Contact {
    /// When the attempt began.
    pub started_ms: u64,
    /// When the runner was last heard of.
    pub heard_ms: u64,
    /// When the heartbeat was sent that the daemon last acknowledged.
    pub leased_ms: u64,
}

impl Contact {
    /// An attempt that begins at this moment, of a runner and a daemon that were heard of just now.
    pub fn at(now_ms: u64) -> Self {
        Self { started_ms: now_ms, heard_ms: now_ms, leased_ms: now_ms }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before this moment, unless something is heard.
    WaitUntil(u64),
    /// End the job.
    End(Order),
}

/// Decides at `now_ms`.
pub fn verdict(terms: Terms, contact: Contact, now_ms: u64) -> Verdict {
    let timeout_at = contact.started_ms.saturating_add(terms.timeout_ms);
    let gone_at = contact.heard_ms.saturating_add(terms.runner_grace_ms);
    let lease_ms = lease_ms(terms.runner_grace_ms);
    let lease_over_at = match terms.on_runner_lost {
        OnRunnerLost::Retry => contact.leased_ms.saturating_add(lease_ms),
        OnRunnerLost::Fail => u64::MAX,
    };
    if now_ms >= timeout_at {
        let reason = format!("it took longer than its timeout of {}", seconds(terms.timeout_ms));
        return Verdict::End(Order { outcome: AttemptOutcome::TimedOut, reason });
    }
    if now_ms >= lease_over_at {
        let reason = format!(
            "the daemon was out of reach for {}: the job was ended before the task is given to another runner",
            seconds(lease_ms)
        );
        return Verdict::End(Order { outcome: AttemptOutcome::Lost, reason });
    }
    if now_ms >= gone_at {
        let reason = format!("its runner was gone for longer than runner_grace ({})", seconds(terms.runner_grace_ms));
        return Verdict::End(Order { outcome: AttemptOutcome::Lost, reason });
    }
    Verdict::WaitUntil(timeout_at.min(gone_at).min(lease_over_at))
}

/// How long a job runs on after the last acknowledged heartbeat where its task is queued again.
fn lease_ms(runner_grace_ms: u64) -> u64 {
    // A grace so short that the margin would eat it up is halved instead.
    runner_grace_ms.saturating_sub(LEASE_MARGIN_MS).max(runner_grace_ms / 2)
}

/// Whether the daemon's word that an attempt may begin still holds, given when it was asked for: where nothing was heard for as
/// long as a lease lasts, the task may be another runner's by now.
pub fn is_fresh(asked_ms: u64, runner_grace_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(asked_ms) < lease_ms(runner_grace_ms)
}

/// How often a runner says that it lives, so that even a short grace hears several of them, in milliseconds.
pub fn alive_interval_ms(runner_grace_ms: u64) -> u64 {
    (runner_grace_ms / 4).clamp(50, forge_api::HEARTBEAT_INTERVAL_MS)
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{} s", ms / 1_000) } else { format!("{ms} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { timeout_ms: 600_000, runner_grace_ms: 120_000, on_runner_lost: OnRunnerLost::Fail };

    fn outcome(verdict: &Verdict) -> Option<AttemptOutcome> {
        match verdict {
            Verdict::WaitUntil(_) => None,
            Verdict::End(order) => Some(order.outcome),
        }
    }

    #[test]
    fn a_word_holds_for_as_long_as_a_lease() {
        for (grace_ms, now_ms, expected) in
            [(120_000, 105_999, true), (120_000, 106_000, false), (10_000, 5_999, true), (10_000, 6_000, false)]
        {
            assert_eq!(is_fresh(1_000, grace_ms, now_ms), expected, "{grace_ms} {now_ms}");
        }
    }

    #[test]
    fn each_limit_ends_the_job_when_it_is_due_and_not_before() {
        let retry = Terms { on_runner_lost: OnRunnerLost::Retry, ..TERMS };
        let short = Terms { runner_grace_ms: 10_000, ..retry };
        for (terms, heard_ms, leased_ms, now_ms, expected) in [
            (TERMS, 1_000, 1_000, 1_000, None),
            (TERMS, 599_000, 1_000, 600_999, None),
            (TERMS, 600_000, 1_000, 601_000, Some(AttemptOutcome::TimedOut)),
            (TERMS, 50_000, 1_000, 169_999, None),
            (TERMS, 50_000, 1_000, 170_000, Some(AttemptOutcome::Lost)),
            // The daemon is away and the runner is not: with `fail` the job runs on.
            (TERMS, 500_000, 1_000, 500_000, None),
            (retry, 105_000, 1_000, 105_999, None),
            (retry, 105_000, 1_000, 106_000, Some(AttemptOutcome::Lost)),
            (short, 5_000, 1_000, 5_999, None),
            (short, 5_000, 1_000, 6_000, Some(AttemptOutcome::Lost)),
        ] {
            let contact = Contact { started_ms: 1_000, heard_ms, leased_ms };
            let found = verdict(terms, contact, now_ms);
            assert_eq!(outcome(&found), expected, "{terms:?} {contact:?} {now_ms}");
            if let Verdict::WaitUntil(until_ms) = found {
                assert!(until_ms > now_ms, "never waits for what is past");
            }
        }
    }
}
