//! The link with the daemon as a state machine. Pure: what happened comes in, what to do goes out, the clock is an argument.
//!
//! It knows which attempts this runner holds, how many more it takes and whether it is leaving. It never takes more than
//! it can run, believes no answer that is too old, and says a change of the link once and not once a try.
//!
//! What it asks for does not count what it holds: the daemon, which knows that better, gives it no more than its limit leaves
//! room for. So a claim stays right while attempts end, and the next job comes over the one that is parked, at once.

use std::collections::{BTreeMap, BTreeSet};

use forge_api::{
    AttemptId, CLAIM_ANSWER_AGE_MS_MAX, ClaimResponse, HeartbeatResponse, REFUSED_JOBS_MAX, REFUSED_REASON_BYTES_MAX,
    RefusedJob, SealedJob, Version,
};

use crate::client::CLAIM_JOBS_MAX;
use crate::{Ended, Event};

/// The oldest daemon that this runner works with. It is raised when a runner needs of its daemon what older ones do not do.
pub(crate) const DAEMON_VERSION_MIN: Version = Version::new(0, 1, 0);

/// How a call to the daemon failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may work later.
    Passing(String),
    /// The token is not valid any more.
    Unauthorized(String),
    /// The daemon refuses this runner for good.
    Refused {
        /// The daemon's words.
        detail: String,
        /// What it says to do.
        hint: Option<String>,
    },
    /// Runner and daemon are too far apart: one of them has to be upgraded.
    Outdated {
        /// Which one, in words.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A claim was answered.
    Claimed {
        /// When it was sent, by this machine's clock since boot.
        sent_ms: u64,
        /// When its answer came.
        now_ms: u64,
        /// The answer.
        response: ClaimResponse,
    },
    /// A heartbeat was answered.
    Beaten(HeartbeatResponse),
    /// A claim or a heartbeat failed.
    Failed(Failure),
    /// A predecessor's attempt is in the spool.
    Found(AttemptId),
    /// A job could not be believed.
    JobRefused {
        /// Which one.
        attempt: AttemptId,
        /// Why.
        reason: String,
    },
    /// An attempt's end is acknowledged. Its log may still be on its way.
    Acknowledged(AttemptId),
    /// Everything of an attempt is handed in: nothing of it is left here.
    Delivered(AttemptId),
    /// An attempt is not this runner's any more, and nothing of it is left to hand in.
    Gone(AttemptId),
    /// Whether there is too little room on the disk for new work.
    DiskFull(bool),
    /// Take nothing new.
    Drain,
    /// End everything.
    Abort,
}

/// Why an attempt is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndWhy {
    /// Someone canceled its task.
    Canceled,
    /// The daemon gave it up.
    Lost,
    /// The runner stops.
    Stopped,
    /// The daemon does not know this runner any more.
    Removed,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open and run this job.
    Start(SealedJob),
    /// End an attempt.
    End(AttemptId, EndWhy),
    /// Tell whoever watches.
    Announce(Event),
    /// Leave.
    Return(Ended),
    /// Leave, with the daemon's refusal.
    GiveUp(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    Drain,
    Abort,
}

/// Whether the daemon answers, as far as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Link {
    Unknown,
    Up,
    Down(String),
}

/// What the next claim asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How many tasks it takes at a time, as far as its limit leaves room.
    pub slots: u32,
    /// The attempts that it holds.
    pub held: Vec<AttemptId>,
    /// Jobs that it does not run, as long as the daemon may not have heard of it.
    pub refused: Vec<RefusedJob>,
}

/// The link's state.
#[derive(Debug)]
pub struct Session {
    web_host: String,
    max_parallel_tasks: u32,
    one_off: bool,
    taken: bool,
    held: BTreeSet<AttemptId>,
    refused: BTreeSet<AttemptId>,
    /// What the daemon is to be told of them, and when the refused job came.
    to_tell: BTreeMap<AttemptId, (String, u64)>,
    refused_again: bool,
    /// When the last answer came.
    now_ms: u64,
    draining: bool,
    disk_full: bool,
    stopping: Stopping,
    link: Link,
    version: String,
    /// Set when daemon and runner are too far apart: what is held is finished, nothing else is done.
    outdated: Option<Failure>,
}

impl Session {
    /// A runner that holds nothing yet.
    pub fn new(web_host: &str, max_parallel_tasks: u32, one_off: bool) -> Self {
        Self {
            web_host: web_host.to_owned(),
            max_parallel_tasks,
            one_off,
            taken: false,
            held: BTreeSet::new(),
            refused: BTreeSet::new(),
            to_tell: BTreeMap::new(),
            refused_again: false,
            now_ms: 0,
            draining: false,
            disk_full: false,
            stopping: Stopping::No,
            link: Link::Unknown,
            version: String::new(),
            outdated: None,
        }
    }

    /// The same, of a program that says its version.
    pub(crate) fn with_version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    /// What to ask for now.
    pub fn ask(&self) -> Ask {
        let most = match self.max_parallel_tasks {
            0 => CLAIM_JOBS_MAX,
            most => most.min(CLAIM_JOBS_MAX),
        };
        let slots = match self.stopping {
            _ if self.outdated.is_some() || self.disk_full => 0,
            Stopping::Drain | Stopping::Abort => 0,
            Stopping::No if self.one_off => u32::from(!self.taken),
            Stopping::No => most,
        };
        let refused = self
            .to_tell
            .iter()
            .take(REFUSED_JOBS_MAX)
            .map(|(attempt, (reason, _))| RefusedJob { attempt: *attempt, reason: reason.clone() })
            .collect();
        Ask { slots, held: self.held.iter().copied().collect(), refused }
    }

    /// How many more it can run.
    fn free(&self) -> u32 {
        let running = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let room =
            if self.max_parallel_tasks == 0 { u32::MAX } else { self.max_parallel_tasks.saturating_sub(running) };
        room.min(self.ask().slots)
    }

    /// Whether this is a one-off runner whose task's end is acknowledged.
    fn has_had_its_task(&self) -> bool {
        self.one_off && self.taken && self.held.is_empty()
    }

    /// Whether the last try to reach the daemon failed, or is worth no other one soon.
    pub fn is_down(&self) -> bool {
        matches!(self.link, Link::Down(_)) || self.outdated.is_some()
    }

    /// Whether a job that was refused came again since this was last asked: a daemon that is older hears nothing of refusals.
    pub fn take_refused_again(&mut self) -> bool {
        std::mem::take(&mut self.refused_again)
    }

    /// Takes what happened and answers what to do.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Claimed { sent_ms, now_ms, response } => self.claimed(sent_ms, now_ms, response, &mut actions),
            Input::Beaten(HeartbeatResponse { cancels, lost }) => {
                self.up(&mut actions);
                self.end_named(&cancels, &lost, &mut actions);
            }
            Input::Failed(Failure::Passing(reason)) => {
                if self.link != Link::Down(reason.clone()) {
                    self.link = Link::Down(reason.clone());
                    actions.push(Action::Announce(Event::WaitingForDaemon { reason }));
                }
            }
            // A one-off runner's registration ends with its task; the rest of its log is still on its way.
            Input::Failed(Failure::Unauthorized(reason)) if self.has_had_its_task() => self.link = Link::Down(reason),
            Input::Failed(failure @ Failure::Unauthorized(_)) => {
                // It was removed: what it holds is lost to the daemon, and may be given to another runner soon.
                actions.extend(self.held.iter().map(|attempt| Action::End(*attempt, EndWhy::Removed)));
                actions.push(Action::GiveUp(failure));
            }
            Input::Failed(failure @ Failure::Refused { .. }) => actions.push(Action::GiveUp(failure)),
            Input::Failed(Failure::Outdated { detail, hint }) => self.too_far_apart(detail, hint, &mut actions),
            Input::Found(attempt) => {
                self.held.insert(attempt);
                self.taken = true;
            }
            Input::JobRefused { attempt, reason } => {
                self.held.remove(&attempt);
                if self.refused.insert(attempt) {
                    let mut told = reason.clone();
                    told.truncate(told.floor_char_boundary(REFUSED_REASON_BYTES_MAX));
                    self.to_tell.insert(attempt, (told, self.now_ms));
                    actions.push(Action::Announce(Event::JobRefused { attempt, reason }));
                }
                self.taken = false;
            }
            Input::Acknowledged(attempt) => {
                self.held.remove(&attempt);
            }
            // Its machine may be gone a moment later, and with it what was not handed in.
            Input::Delivered(attempt) => {
                if self.has_had_its_task() {
                    actions.push(Action::Return(Ended::OneOff { attempt }));
                }
            }
            Input::Gone(attempt) => {
                self.held.remove(&attempt);
                self.taken = false;
            }
            Input::DiskFull(is_full) => {
                if std::mem::replace(&mut self.disk_full, is_full) != is_full {
                    actions.push(Action::Announce(Event::DiskFull(is_full)));
                }
            }
            Input::Drain => {
                if self.stopping == Stopping::No {
                    self.stopping = Stopping::Drain;
                }
            }
            Input::Abort => {
                if self.stopping != Stopping::Abort {
                    self.stopping = Stopping::Abort;
                    actions.extend(self.held.iter().map(|attempt| Action::End(*attempt, EndWhy::Stopped)));
                }
            }
        }
        if self.held.is_empty() && !actions.iter().any(|action| matches!(action, Action::Return(_))) {
            match self.stopping {
                Stopping::No => actions.extend(self.outdated.clone().map(Action::GiveUp)),
                Stopping::Drain => actions.push(Action::Return(Ended::Drained)),
                Stopping::Abort => actions.push(Action::Return(Ended::Aborted)),
            }
        }
        actions
    }

    fn claimed(&mut self, sent_ms: u64, now_ms: u64, response: ClaimResponse, actions: &mut Vec<Action>) {
        self.up(actions);
        self.now_ms = now_ms;
        // What was known before the claim was sent, it told.
        self.to_tell.retain(|_, (_, refused_ms)| *refused_ms > sent_ms);
        // Changes of the daemon's key were followed before anything else was believed.
        let ClaimResponse { jobs, cancels, lost, draining, over, daemon_version, key_changes: _ } = response;
        if Version::is_older(&daemon_version, DAEMON_VERSION_MIN) {
            let detail = format!(
                "the daemon at {} is forge {daemon_version}, and this runner (forge {}) works with {DAEMON_VERSION_MIN} or newer",
                self.web_host, self.version
            );
            let hint = format!(
                "install forge {DAEMON_VERSION_MIN} or newer on the daemon's host, or forge {daemon_version} here"
            );
            self.too_far_apart(detail, Some(hint), actions);
        }
        if draining != self.draining {
            self.draining = draining;
            actions.push(Action::Announce(Event::Draining(draining)));
        }
        self.end_named(&cancels, &lost, actions);
        if now_ms.saturating_sub(sent_ms) > CLAIM_ANSWER_AGE_MS_MAX {
            // The machine slept: the daemon has given these away since. Those that it has not, it delivers again.
            return;
        }
        if over && self.one_off && self.held.is_empty() {
            actions.push(Action::Return(Ended::Drained));
            return;
        }
        // An answer that crossed a drain is not run: the daemon takes back what is never started.
        // One that comes before the end that made room for it is heard of is delivered again, since it is not held.
        let mut free = self.free();
        // What the daemon was told of and does not send any more needs no remembering.
        self.refused.retain(|id| self.to_tell.contains_key(id) || jobs.iter().any(|job| job.attempt == *id));
        for job in jobs {
            let is_new = !self.held.contains(&job.attempt) && !self.refused.contains(&job.attempt);
            self.refused_again |= self.refused.contains(&job.attempt);
            if is_new && free > 0 {
                free -= 1;
                self.taken = true;
                self.held.insert(job.attempt);
                actions.push(Action::Start(job));
            }
        }
    }

    /// Takes nothing more. What runs is finished first: its leases, logs and results are no matter of versions.
    fn too_far_apart(&mut self, detail: String, hint: Option<String>, actions: &mut Vec<Action>) {
        if self.outdated.is_none() && !self.held.is_empty() {
            let hint = hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let text = format!("{detail}{hint}; what runs here is finished, and then this runner stops");
            actions.push(Action::Announce(Event::Warning(text)));
        }
        self.outdated = Some(Failure::Outdated { detail, hint });
    }

    fn up(&mut self, actions: &mut Vec<Action>) {
        if self.link != Link::Up {
            self.link = Link::Up;
            actions.push(Action::Announce(Event::Connected { web_host: self.web_host.clone() }));
        }
    }

    fn end_named(&self, cancels: &[AttemptId], lost: &[AttemptId], actions: &mut Vec<Action>) {
        let held = |attempt: &&AttemptId| self.held.contains(*attempt);
        actions.extend(cancels.iter().filter(held).map(|attempt| Action::End(*attempt, EndWhy::Canceled)));
        actions.extend(lost.iter().filter(held).map(|attempt| Action::End(*attempt, EndWhy::Lost)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(task: u64) -> AttemptId {
        AttemptId { task, attempt: 1 }
    }

    fn job(task: u64) -> SealedJob {
        SealedJob { attempt: attempt(task), sealed: String::new(), signature: String::new() }
    }

    fn claimed(jobs: Vec<SealedJob>) -> Input {
        Input::Claimed { sent_ms: 0, now_ms: 10, response: ClaimResponse { jobs, ..ClaimResponse::default() } }
    }

    fn connected(limit: u32, one_off: bool) -> Session {
        let mut session = Session::new("https://forge", limit, one_off);
        assert_eq!(
            session.step(claimed(vec![])),
            [Action::Announce(Event::Connected { web_host: "https://forge".to_owned() })]
        );
        session
    }

    #[test]
    fn slots_follow_what_is_held() {
        let mut session = connected(2, false);
        assert_eq!(session.ask(), Ask { slots: 2, held: vec![], refused: vec![] });
        assert_eq!(session.step(claimed(vec![job(1), job(2)])), [Action::Start(job(1)), Action::Start(job(2))]);
        assert_eq!(session.ask(), Ask { slots: 2, held: vec![attempt(1), attempt(2)], refused: vec![] });
        assert_eq!(session.step(claimed(vec![job(3)])), [], "never more than it can run");
        assert_eq!(session.step(Input::Acknowledged(attempt(1))), []);
        assert_eq!(session.step(claimed(vec![job(3), job(4)])), [Action::Start(job(3))]);
        assert_eq!(connected(0, false).ask().slots, CLAIM_JOBS_MAX, "0 is unlimited");
    }

    #[test]
    fn an_attempt_is_started_once_and_an_old_answer_not_at_all() {
        let mut session = connected(0, false);
        assert_eq!(session.step(claimed(vec![job(1)])).len(), 1);
        assert_eq!(session.step(claimed(vec![job(1)])), [], "delivered twice");
        let response = ClaimResponse { jobs: vec![job(2)], ..ClaimResponse::default() };
        let late = Input::Claimed { sent_ms: 0, now_ms: CLAIM_ANSWER_AGE_MS_MAX + 1, response };
        assert_eq!(session.step(late), []);
        assert_eq!(session.ask().held, [attempt(1)]);
    }

    #[test]
    fn a_change_of_the_link_is_said_once() {
        let mut session = connected(0, false);
        let failed = |text: &str| Input::Failed(Failure::Passing(text.to_owned()));
        assert_eq!(session.step(failed("gone")).len(), 1);
        assert_eq!(session.step(failed("gone")), []);
        assert_eq!(session.step(failed("refused")).len(), 1);
        assert_eq!(session.step(Input::Beaten(HeartbeatResponse::default())).len(), 1);
        assert_eq!(session.step(claimed(vec![])), []);
    }

    #[test]
    fn cancels_reach_what_is_held_only() {
        let mut session = connected(0, false);
        session.step(claimed(vec![job(1), job(2)]));
        let response = HeartbeatResponse { cancels: vec![attempt(1), attempt(9)], lost: vec![attempt(2)] };
        assert_eq!(
            session.step(Input::Beaten(response)),
            [Action::End(attempt(1), EndWhy::Canceled), Action::End(attempt(2), EndWhy::Lost)]
        );
    }

    #[test]
    fn a_drain_waits_for_what_runs_and_an_abort_ends_it() {
        let mut session = connected(0, false);
        session.step(claimed(vec![job(1)]));
        assert_eq!(session.step(Input::Drain), []);
        assert_eq!(session.ask().slots, 0);
        assert_eq!(session.step(Input::Abort), [Action::End(attempt(1), EndWhy::Stopped)]);
        assert_eq!(session.step(Input::Acknowledged(attempt(1))), [Action::Return(Ended::Aborted)]);
        assert_eq!(connected(0, false).step(Input::Drain), [Action::Return(Ended::Drained)]);
    }

    #[test]
    fn a_full_disk_takes_no_new_work_and_ends_nothing() {
        let mut session = connected(2, false);
        session.step(claimed(vec![job(1)]));
        assert_eq!(session.step(Input::DiskFull(true)), [Action::Announce(Event::DiskFull(true))]);
        assert_eq!(session.step(Input::DiskFull(true)), [], "said once");
        assert_eq!(session.ask(), Ask { slots: 0, held: vec![attempt(1)], refused: vec![] });
        assert_eq!(session.step(claimed(vec![job(2)])), [], "the daemon takes back what is never started");
        assert_eq!(session.step(Input::DiskFull(false)), [Action::Announce(Event::DiskFull(false))]);
        assert_eq!(session.ask().slots, 2);
    }

    #[test]
    fn a_runner_or_a_daemon_that_is_too_old_is_told_after_what_runs_has_ended() {
        let refusal = || Failure::Outdated { detail: "too old".to_owned(), hint: Some("install 2.0.0".to_owned()) };
        let idle = connected(1, false).step(Input::Failed(refusal()));
        assert_eq!(idle, [Action::GiveUp(refusal())], "nothing runs: it stops at once");

        let mut session = connected(2, false);
        session.step(claimed(vec![job(1)]));
        let [Action::Announce(Event::Warning(text))] = &session.step(Input::Failed(refusal()))[..] else {
            panic!("a warning and no end");
        };
        assert!(text.starts_with("too old (install 2.0.0); what runs"), "{text}");
        assert_eq!(session.ask(), Ask { slots: 0, held: vec![attempt(1)], refused: vec![] });
        assert!(session.is_down(), "the next claim waits");
        assert_eq!(session.step(Input::Failed(refusal())), [], "said once");
        assert_eq!(session.step(Input::Beaten(HeartbeatResponse::default())), [], "leases are renewed");
        assert_eq!(session.step(Input::Acknowledged(attempt(1))), [Action::GiveUp(refusal())]);

        let response =
            ClaimResponse { jobs: vec![job(1)], daemon_version: "0.0.9".to_owned(), ..ClaimResponse::default() };
        let actions =
            connected(1, false).with_version("0.1.0").step(Input::Claimed { sent_ms: 0, now_ms: 10, response });
        let [Action::GiveUp(Failure::Outdated { detail, hint })] = &actions[..] else {
            panic!("its job is not started: {actions:?}");
        };
        assert!(
            detail.contains("https://forge is forge 0.0.9") && detail.contains("(forge 0.1.0) works with 0.1.0"),
            "{detail}"
        );
        assert!(hint.as_deref().is_some_and(|hint| hint.contains("install forge 0.1.0 or newer on the daemon's host")));
    }

    #[test]
    fn a_one_off_runner_takes_one_and_leaves_when_all_of_it_is_handed_in() {
        let mut session = connected(5, true);
        assert_eq!(session.ask().slots, 1);
        assert_eq!(session.step(claimed(vec![job(1), job(2)])), [Action::Start(job(1))]);
        assert_eq!(session.ask().slots, 0);
        assert_eq!(session.step(Input::Acknowledged(attempt(1))), [], "its log may be on its way");
        let unknown = Input::Failed(Failure::Unauthorized("its name is another machine's by now".to_owned()));
        assert_eq!(session.step(unknown), []);
        assert!(session.is_down(), "the next claim waits");
        let left = [Action::Return(Ended::OneOff { attempt: attempt(1) })];
        assert_eq!(session.step(Input::Delivered(attempt(1))), left);

        let mut restarted = connected(5, true);
        assert_eq!(restarted.step(Input::Found(attempt(1))), []);
        assert_eq!(restarted.ask().slots, 0, "it has its task");
        assert_eq!(restarted.step(Input::Acknowledged(attempt(1))), []);
        assert_eq!(restarted.step(Input::Delivered(attempt(1))), left);
    }

    #[test]
    fn a_one_off_runner_whose_task_is_over_leaves() {
        let over = || {
            let response = ClaimResponse { draining: true, over: true, ..ClaimResponse::default() };
            Input::Claimed { sent_ms: 0, now_ms: 10, response }
        };
        let drained = Action::Announce(Event::Draining(true));
        assert_eq!(connected(1, true).step(over()), [drained.clone(), Action::Return(Ended::Drained)]);
        assert_eq!(connected(1, false).step(over()), std::slice::from_ref(&drained), "another one waits to be resumed");
        let mut holding = connected(1, true);
        holding.step(Input::Found(attempt(1)));
        assert_eq!(holding.step(over()), [drained], "it hands its task in first");
    }

    #[test]
    fn a_refused_job_is_told_once_and_not_held() {
        let at = |sent_ms, now_ms, jobs| Input::Claimed {
            sent_ms,
            now_ms,
            response: ClaimResponse { jobs, ..ClaimResponse::default() },
        };
        let mut session = connected(1, false);
        session.step(at(20, 30, vec![job(1)]));
        let refused = Input::JobRefused { attempt: attempt(1), reason: "signature".to_owned() };
        assert_eq!(session.step(refused).len(), 1);
        let told = vec![RefusedJob { attempt: attempt(1), reason: "signature".to_owned() }];
        assert_eq!(session.ask(), Ask { slots: 1, held: vec![], refused: told.clone() });
        assert_eq!(session.step(at(25, 35, vec![job(1)])), []);
        assert_eq!(session.ask().refused, told, "that claim was sent before");
        assert!(session.take_refused_again(), "a pause keeps this from going in circles");
        assert_eq!(session.step(at(40, 50, vec![])), []);
        assert_eq!(session.ask(), Ask { slots: 1, held: vec![], refused: vec![] });
    }

    #[test]
    fn who_is_not_the_daemons_runner_any_more_ends_what_it_holds() {
        let mut session = connected(2, false);
        session.step(claimed(vec![job(1)]));
        let failure = || Failure::Unauthorized("the token is not known".to_owned());
        let ended = [Action::End(attempt(1), EndWhy::Removed), Action::GiveUp(failure())];
        assert_eq!(session.step(Input::Failed(failure())), ended);
    }
}
