//! Why a task is where it is and what would change it: the same rules as the assignment's, asked about one task. Pure.

use forge_api::{DeliveryState, RUNNER_OFFLINE_AFTER_MS, RunnerStatus, Task, TaskState, Timestamp, UnmetReason, Why};

use super::assign::{
    Concurrency, Need, ProjectFacts, RunnerFacts, Unmet, project_has_room, suits, template_has_room, verdict,
};
use super::task::{self, Happening, Next};
use super::{deadline, words};
use crate::store::{AHEAD_COUNTED_MAX, Ahead, Circumstances, StillRuns, WaitingTold};

/// How many runners the words of an answer name; its data names all.
const RUNNERS_NAMED_MAX: usize = 5;

/// A runner as `why` tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) facts: RunnerFacts,
    pub(crate) last_contact_at: Option<Timestamp>,
    /// Whether it was heard of a moment ago, whatever else its status says.
    pub(crate) in_contact: bool,
    /// Whether `runners/NAME.toml` exists.
    pub(crate) declared: bool,
    /// Whether a person drains it, or it is a one-off runner that had its task.
    pub(crate) draining: bool,
    pub(crate) one_off: bool,
    /// Whether a claim of it waits, for tasks or for cancels alone.
    pub(crate) waits: bool,
    /// Of its registration.
    pub(crate) key: Option<i64>,
}

/// How a live attempt's lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseFacts {
    /// Whether its runner has not spoken since without naming it.
    pub(crate) is_held: bool,
    /// How long nothing was heard of the attempt.
    pub(crate) quiet_ms: u64,
    /// How long until its runner is lost if nothing more is.
    pub(crate) left_ms: u64,
}

/// Everything beside the task itself that an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) candidates: &'a [Candidate],
    pub(crate) project: ProjectFacts,
    /// Of the task's live attempt.
    pub(crate) lease: Option<LeaseFacts>,
    pub(crate) storage_full: bool,
    /// Whether a revision serves.
    pub(crate) has_rules: bool,
    pub(crate) now: Timestamp,
}

/// An answer before it has a task's number and state.
struct Answer {
    message: String,
    unmet: Vec<UnmetReason>,
    remedy: Option<String>,
    /// When the reconciler acts, and what it does then.
    deadline: Option<(Timestamp, String)>,
}

/// The whole answer.
pub(crate) fn why(circumstances: &Circumstances, situation: &Situation<'_>) -> Why {
    let (number, state) = (circumstances.task.number, circumstances.task.state);
    let Answer { message, unmet, remedy, deadline } = match state {
        TaskState::Queued => queued(circumstances, situation),
        TaskState::Assigned => with_runner(circumstances, situation, Doing::Begins),
        TaskState::Running => with_runner(circumstances, situation, Doing::Runs),
        TaskState::AwaitingApproval => Answer {
            message: match planned(&circumstances.task) {
                Some(planned) => format!("waiting: a person must approve what it has planned: {planned}"),
                None => "waiting: a person must approve what it has planned".to_owned(),
            },
            unmet: Vec::new(),
            remedy: Some(format!(
                "`forge task approve {number} --attempt {attempt}` has exactly this done, `forge task reject {number}` ends the task",
                attempt = circumstances.task.attempt
            )),
            deadline: stored_deadline(circumstances),
        },
        TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped => {
            let mut message = match &circumstances.task.reason {
                Some(reason) => format!("{state}: {reason}"),
                None => format!("{state}"),
            };
            if let Some(StillRuns { attempt, runner, until }) = &circumstances.still_runs {
                let still = format!(
                    "; attempt {attempt} may still run on {runner}, which has not said how it ended, until {until}"
                );
                message.push_str(&still);
            }
            Answer { message, unmet: Vec::new(), remedy: None, deadline: None }
        }
    };
    let (deadline, at_deadline) = deadline.unzip();
    Why { number, state, message, deadline, at_deadline, remedy, unmet }
}

/// The plan in a line.
fn planned(task: &Task) -> Option<&str> {
    task.summary.as_ref()?.get("text")?.as_str()
}

fn stored_deadline(circumstances: &Circumstances) -> Option<(Timestamp, String)> {
    let words = deadline::at_deadline_words(&circumstances.open)?;
    Some((circumstances.deadline_at?, words.to_owned()))
}

fn reason(code: &str, runner: Option<&str>, message: impl Into<String>, remedy: impl Into<String>) -> UnmetReason {
    UnmetReason {
        code: code.to_owned(),
        runner: runner.map(str::to_owned),
        message: message.into(),
        remedy: remedy.into(),
    }
}

fn queued(circumstances: &Circumstances, situation: &Situation<'_>) -> Answer {
    let Situation { candidates, project, lease: _, storage_full, has_rules, now } = *situation;
    let mut unmet = own_rules(circumstances, project, now);
    if !has_rules {
        let message = "no revision of the configuration is applied yet, so nothing is known of what runners may do";
        let remedy = "the first revision that is applied: `forge config status` says what it waits for";
        unmet.push(reason("no_configuration", None, message, remedy));
    }
    if storage_full {
        let remedy = "free space on the daemon's host, or lower `disk_reserve` under [logs] of forge.toml: waiting tasks \
                      then go on by themselves";
        unmet.push(reason("storage_full", None, "the daemon's disk is full but for disk_reserve", remedy));
    }
    let task = &circumstances.task;
    let need = Need {
        project: task.project.clone(),
        required_tag: task.required_tag.clone(),
        resume: circumstances.standing.resumes,
    };
    let wanted = match &need.required_tag {
        Some(tag) => format!("needs tag {tag}"),
        None => "needs a runner that takes tasks without a tag".to_owned(),
    };
    let fitting: Vec<&Candidate> =
        candidates.iter().filter(|candidate| suits(&candidate.facts, &need, project).is_ok()).collect();
    let ready = fitting.iter().any(|candidate| verdict(&candidate.facts, &need, project).is_ok());
    // What keeps the others from it is no matter where one takes it.
    for candidate in fitting.iter().filter(|_| !ready) {
        if let Err(obstacle) = verdict(&candidate.facts, &need, project) {
            unmet.extend(obstacle_reasons(candidate, obstacle, &need, now));
        }
    }
    let ahead = ahead(circumstances, &need, situation, ready);
    if fitting.is_empty() {
        unmet.push(no_runner_fits(&wanted, &need));
        unmet.extend(candidates.iter().flat_map(|candidate| match suits(&candidate.facts, &need, project) {
            Ok(()) => Vec::new(),
            Err(obstacle) => obstacle_reasons(candidate, obstacle, &need, now),
        }));
    } else if ahead > 0 && (ready || unmet.is_empty()) {
        let or_more = if ahead >= AHEAD_COUNTED_MAX { " or more" } else { "" };
        let message = format!("{ahead}{or_more} tasks of its template are served first");
        unmet.push(reason("turn", None, message, "their start, or the end of those that are canceled"));
    }
    unmet.extend(circumstances.told.iter().map(|told| told_reason(told, now)));
    let words = in_words(&unmet);
    let waited = words::about(now.millis_since(circumstances.open.queued_at));
    let (message, remedy) = if words.is_empty() {
        (
            format!("waiting for {waited}: {wanted}; a runner will ask for it in a moment"),
            "the next claim of a runner, which is due in a moment".to_owned(),
        )
    } else {
        (
            format!("waiting for {waited}: {wanted}; {words}"),
            format!("whatever lets one runner take it; `forge task cancel {}` ends it", task.number),
        )
    };
    Answer { message, unmet, remedy: Some(remedy), deadline: stored_deadline(circumstances) }
}

/// How many tasks of its template go before a task. Those that take turns with it are in its way where a runner takes them now; those that run
/// beside it are not, as long as one takes it too.
fn ahead(circumstances: &Circumstances, need: &Need, situation: &Situation<'_>, ready: bool) -> u64 {
    let is_parallel = circumstances.concurrency == Concurrency::Parallel;
    let goes = |ahead: &&Ahead| {
        let need = Need { required_tag: ahead.required_tag.clone(), ..need.clone() };
        let takes = |candidate: &Candidate| verdict(&candidate.facts, &need, situation.project).is_ok();
        if ready { !is_parallel && situation.candidates.iter().any(takes) } else { true }
    };
    circumstances.ahead.iter().filter(goes).map(|ahead| ahead.tasks).sum()
}

/// What is unmet in a line, however many runners there are.
fn in_words(unmet: &[UnmetReason]) -> String {
    let mut runners: Vec<&str> = unmet.iter().filter_map(|unmet| unmet.runner.as_deref()).collect();
    runners.dedup();
    let named = runners.get(..RUNNERS_NAMED_MAX).unwrap_or(&runners);
    let is_said = |unmet: &&UnmetReason| unmet.runner.as_deref().is_none_or(|runner| named.contains(&runner));
    let words: Vec<&str> = unmet.iter().filter(is_said).map(|unmet| unmet.message.as_str()).collect();
    let more = match runners.len() - named.len() {
        0 => String::new(),
        1 => ", and the like of one more runner".to_owned(),
        more => format!(", and the like of {more} more runners"),
    };
    format!("{}{more}", words.join(", "))
}

/// A webhook target that was told, since what it starts is what the task waits for.
fn told_reason(told: &WaitingTold, now: Timestamp) -> UnmetReason {
    let WaitingTold { target, state, tries, told_at } = told;
    let ago = words::about(now.millis_since(*told_at));
    // What a target answered is for who may see targets.
    let (outcome, remedy) = match state {
        DeliveryState::Delivered => ("it was delivered".to_owned(), "the runner that it starts".to_owned()),
        DeliveryState::Skipped => {
            ("its plugin had nothing to say".to_owned(), format!("`[config]` of webhooks/{target}.toml"))
        }
        DeliveryState::Waiting => (
            format!("it was tried {tries} times and not yet delivered"),
            format!("its next try; an admin sees more with `forge webhook list --target {target}`"),
        ),
        DeliveryState::Dead => (
            format!("it was tried {tries} times and is dead"),
            format!("an admin sees why with `forge webhook list --target {target}`"),
        ),
    };
    reason("webhook_told", None, format!("webhook target {target} was told {ago} ago: {outcome}"), remedy)
}

fn no_runner_fits(wanted: &str, need: &Need) -> UnmetReason {
    let remedy = match &need.required_tag {
        Some(tag) => format!("a runner with the tag: `tags = [\"{tag}\"]` in runners/NAME.toml"),
        None => "a runner that takes tasks without a tag: `run_untagged = true` in runners/NAME.toml".to_owned(),
    };
    let message = format!("{wanted}, and no runner of project {} fits", need.project);
    reason("no_runner_with_tag", None, message, remedy)
}

/// What the task's own template and project hold against it.
fn own_rules(circumstances: &Circumstances, project: ProjectFacts, now: Timestamp) -> Vec<UnmetReason> {
    let task = &circumstances.task;
    let mut unmet = Vec::new();
    if circumstances.ready_at > now {
        let left = words::about(circumstances.ready_at.millis_since(now));
        unmet.push(match &circumstances.still_runs {
            Some(StillRuns { attempt, runner, until: _ }) => {
                let message = format!(
                    "attempt {attempt} may still run on {runner}, which has not said how it ended: the next one waits until {} (in {left})",
                    circumstances.ready_at
                );
                let remedy = format!(
                    "the word of {runner}, or its last moment; where you know that nothing of it runs, or may run beside it, \
                     `forge task retry {} --now` has the task run at once",
                    task.number
                );
                reason("may_still_run", Some(runner), message, remedy)
            }
            None => {
                let remedy = "the end of the delay, at which it goes on by itself";
                reason("retry_delay", None, format!("its next attempt is due in {left}"), remedy)
            }
        });
    }
    let live_of_project: u32 =
        circumstances.live.iter().filter(|live| live.project == task.project).map(|live| live.attempts).sum();
    if !project_has_room(project, live_of_project) {
        let limit = project.max_parallel_tasks;
        let message = format!("project {} runs {live_of_project} of {limit} tasks (max_parallel_tasks)", task.project);
        let remedy = format!(
            "the end of one of its tasks, or a higher `max_parallel_tasks` in projects/{}/project.toml",
            task.project
        );
        unmet.push(reason("project_limit", None, message, remedy));
    }
    let siblings: u32 = circumstances
        .live
        .iter()
        .filter(|live| live.project == task.project && live.template == task.template)
        .map(|live| live.attempts)
        .sum();
    if !template_has_room(circumstances.concurrency, siblings) {
        let other = circumstances.running_sibling.map_or_else(String::new, |other| format!(" {other}"));
        let message = format!("task{other} of the same template is not finished, and the template runs one at a time");
        let cancel = circumstances
            .running_sibling
            .map_or_else(String::new, |other| format!(" (`forge task cancel {other}` asks for it)"));
        let remedy = format!(
            "the end of that task{cancel}; tasks made after `concurrency = \"parallel\"` in \
             projects/{}/templates/{}.toml do not wait for each other",
            task.project, task.template
        );
        unmet.push(reason("template_concurrency", None, message, remedy));
    }
    if let Some(other) = circumstances.asking_sibling {
        let message = format!(
            "task {other} of the same template has planned and is not done, and the template runs one at a time"
        );
        let remedy = format!(
            "`forge task why {other}` says what it waits for: most likely `forge task approve {other}` or `forge task reject {other}`"
        );
        unmet.push(reason("template_awaits_approval", None, message, remedy));
    }
    unmet
}

/// What keeps a runner from a task. Of what keeps it from all tasks everything is told: each has to be mended.
fn obstacle_reasons(candidate: &Candidate, obstacle: Unmet, need: &Need, now: Timestamp) -> Vec<UnmetReason> {
    let facts = &candidate.facts;
    let name = &*facts.name;
    let (code, message, remedy) = match obstacle {
        Unmet::WrongProject => {
            let own = facts.project.as_deref().unwrap_or_default();
            let remedy = format!("a runner of project {} or a global one", need.project);
            ("wrong_project", format!("{name} belongs to project {own}"), remedy)
        }
        Unmet::GlobalRefused => (
            "wrong_project",
            format!("{name} is a global runner, and the project takes none (global_runners = false)"),
            format!("`global_runners = true` in projects/{}/project.toml, or a runner of the project", need.project),
        ),
        Unmet::NoTag => {
            let tag = need.required_tag.as_deref().unwrap_or_default();
            let message = format!("{name} has tags [{}]", facts.tags.join(", "));
            ("no_runner_with_tag", message, format!("\"{tag}\" in `tags` of runners/{name}.toml"))
        }
        Unmet::UntaggedRefused => (
            "untagged_refused",
            format!("{name} takes no task without a tag (run_untagged)"),
            format!("`run_untagged = true` in runners/{name}.toml"),
        ),
        Unmet::Disabled | Unmet::Draining | Unmet::NeverConnected | Unmet::Offline => {
            return standing_reasons(candidate, now);
        }
        Unmet::CannotResume => (
            "runner_too_old",
            format!("{name} runs an older Forge, which would plan anew instead of doing what was approved"),
            format!("upgrade {name}, or start another runner of this version"),
        ),
        Unmet::Full => (
            "runner_full",
            format!("{name} is full ({} of {})", facts.running, facts.max_parallel_tasks),
            format!(
                "the end of one of its tasks, or a higher `max_parallel_tasks` in runners/{name}.toml and in its own runner.toml"
            ),
        ),
        Unmet::NotAsking if !candidate.waits => {
            // Between two questions of a runner that is online: no reason to tell of.
            return Vec::new();
        }
        Unmet::NotAsking if candidate.one_off => (
            "runner_not_asking",
            format!("{name} is a one-off runner that has its task"),
            "another one-off runner".to_owned(),
        ),
        Unmet::NotAsking => (
            "runner_not_asking",
            format!("{name} is there and asks for nothing new: it stops once what it runs has ended, or has no room"),
            format!("start {name} again once it has stopped, or start another runner"),
        ),
    };
    vec![reason(code, Some(name), message, remedy)]
}

/// Everything about a runner's standing that keeps it from all tasks.
fn standing_reasons(candidate: &Candidate, now: Timestamp) -> Vec<UnmetReason> {
    let name = &*candidate.facts.name;
    let mut reasons = Vec::new();
    if candidate.facts.status == RunnerStatus::Disabled {
        let message = format!("{name} disabled in runners/{name}.toml");
        reasons.push(reason(
            "runner_disabled",
            Some(name),
            message,
            format!("`enabled = true` in runners/{name}.toml"),
        ));
    }
    if candidate.draining {
        let (message, remedy) = if candidate.one_off {
            (format!("{name} is a one-off runner that had its task"), "another one-off runner".to_owned())
        } else {
            (format!("{name} is draining"), format!("`forge runners resume {name}`"))
        };
        reasons.push(reason("runner_draining", Some(name), message, remedy));
    }
    match (candidate.in_contact, candidate.last_contact_at) {
        (true, _) => {}
        (false, Some(at)) => {
            let message = format!("{name} offline for {}", words::about(now.millis_since(at)));
            let remedy = format!("start {name}; `forge doctor --config runner.toml` on its host says what is wrong");
            reasons.push(reason("runner_offline", Some(name), message, remedy));
        }
        (false, None) => {
            let missing = if candidate.declared { "declared and never connected" } else { "never connected" };
            let remedy = format!("register and start {name}: `forge runner register`, then `forge runner start`");
            reasons.push(reason("runner_offline", Some(name), format!("{name} {missing}"), remedy));
        }
    }
    reasons
}

/// What a task's runner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Begins,
    Runs,
}

fn with_runner(circumstances: &Circumstances, situation: &Situation<'_>, doing: Doing) -> Answer {
    let task = &circumstances.task;
    let name = task.runner.as_deref().unwrap_or("its runner");
    let mut unmet = Vec::new();
    if let Some(by) = &circumstances.standing.cancel_by {
        let remedy = "its runner's word that everything has ended; at the deadline it ends without";
        unmet.push(reason("cancel_pending", Some(name), format!("cancel asked for by {by}"), remedy));
    }
    let mut deadline = stored_deadline(circumstances);
    if let Some(unreachable) = unreachable(circumstances, situation, name) {
        unmet.push(unreachable);
        let lost = situation.lease.map(|lease| at_lease_end(circumstances, lease, situation.now));
        deadline = deadline.into_iter().chain(lost).min_by_key(|(at, _)| *at);
    }
    let number = task.number;
    let (what, remedy) = match (doing, &circumstances.standing.cancel_by) {
        (Doing::Begins, None) => (
            format!("given to {name}, which has not said yet that it starts"),
            format!("its runner's start; `forge task cancel {number}` ends it"),
        ),
        (Doing::Begins, Some(_)) => (
            format!("given to {name}, which has not said yet that it starts"),
            "its runner's word that nothing runs; at the deadline it ends without".to_owned(),
        ),
        (Doing::Runs, None) => (
            format!("running on {name}, attempt {}", task.attempt),
            format!(
                "its own end, or its timeout ({}); `forge task cancel {number}` ends it",
                words::duration(circumstances.open.timeout_ms)
            ),
        ),
        (Doing::Runs, Some(_)) => (
            format!("running on {name}, attempt {}", task.attempt),
            "its runner's word that everything has ended; at the deadline it ends without".to_owned(),
        ),
    };
    let mut parts = vec![what];
    parts.extend(unmet.iter().map(|unmet| unmet.message.clone()));
    Answer { message: parts.join("; "), unmet, remedy: Some(remedy), deadline }
}

/// Said when nothing is heard of the attempt, be its runner away or there without it.
fn unreachable(circumstances: &Circumstances, situation: &Situation<'_>, name: &str) -> Option<UnmetReason> {
    let now = situation.now;
    let known = situation.candidates.iter().find(|candidate| *candidate.facts.name == *name);
    let in_contact = known.is_some_and(|known| known.in_contact);
    // A short grace is half over before that.
    let quiet_ms_min = RUNNER_OFFLINE_AFTER_MS.min(circumstances.grace_ms / 2);
    let quiet = situation.lease.filter(|lease| lease.quiet_ms >= quiet_ms_min);
    let grace = words::duration(circumstances.grace_ms);
    let what = match (in_contact, quiet) {
        (true, None) => return None,
        (true, Some(LeaseFacts { is_held: false, quiet_ms, left_ms: _ })) => {
            let quiet = words::about(quiet_ms);
            let message = format!(
                "runner {name} is there and does not hold this attempt: it said nothing of it for {quiet}; after runner_grace \
                 ({grace}) the attempt is lost"
            );
            let remedy = "the deadline, at which it is lost, unless the runner finds it again before".to_owned();
            return Some(reason("attempt_not_held", Some(name), message, remedy));
        }
        (true, Some(LeaseFacts { is_held: true, quiet_ms, left_ms: _ })) => {
            format!("runner is there and has said nothing of this attempt for {}", words::about(quiet_ms))
        }
        (false, _) => {
            let since = known.and_then(|known| known.last_contact_at);
            let since =
                since.map_or_else(String::new, |at| format!(" since {at} ({})", words::about(now.millis_since(at))));
            format!("runner unreachable{since}")
        }
    };
    let message = format!("{what}; after runner_grace ({grace}) the attempt is lost");
    let remedy = format!("start {name} or mend its network before the deadline: it goes on with what it runs");
    Some(reason("runner_unreachable", Some(name), message, remedy))
}

/// When the attempt is lost if nothing more is heard of it, and what that makes of the task.
fn at_lease_end(circumstances: &Circumstances, lease: LeaseFacts, now: Timestamp) -> (Timestamp, String) {
    let at = now.plus_millis(i64::try_from(lease.left_ms).unwrap_or(i64::MAX));
    let lost = Happening::RunnerLost { reason: String::new(), runs_on_ms: 0 };
    let words = match task::step(&circumstances.standing, &lost) {
        Ok(Next::End { state, reason: _ }) => format!("the attempt is lost and the task ends as {state}"),
        Ok(Next::Requeue { .. }) => "the attempt is lost and the task is queued again".to_owned(),
        Ok(Next::Stay | Next::Intent { .. } | Next::Advance(_) | Next::Ask | Next::Resume { .. }) | Err(_) => {
            "the attempt is lost".to_owned()
        }
    };
    (at, words)
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
