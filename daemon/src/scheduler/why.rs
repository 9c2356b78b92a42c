//! Why a task is where it is, in words: the same rules as the assignment's, asked about one task. Pure.

use forge_api::{TaskState, Timestamp, UnmetReason, Why};

use super::assign::{Need, ProjectFacts, RunnerFacts, Unmet, project_has_room, suits, template_has_room, verdict};
use super::{deadline, words};
use crate::store::Circumstances;

/// A runner as `why` tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) facts: RunnerFacts,
    pub(crate) last_contact_at: Option<Timestamp>,
    /// Whether `runners/NAME.toml` exists.
    pub(crate) declared: bool,
}

/// The whole answer.
pub(crate) fn why(
    circumstances: &Circumstances,
    candidates: &[Candidate],
    project: ProjectFacts,
    storage_full: bool,
    now: Timestamp,
) -> Why {
    let (message, unmet) = match circumstances.task.state {
        TaskState::Queued => queued(circumstances, candidates, project, storage_full, now),
        TaskState::Assigned | TaskState::Running => with_runner(circumstances, candidates, now),
        TaskState::AwaitingApproval => ("waiting: a person must approve it".to_owned(), Vec::new()),
        state @ (TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped) => {
            let message = match &circumstances.task.reason {
                Some(reason) => format!("{state}: {reason}"),
                None => format!("{state}"),
            };
            (message, Vec::new())
        }
    };
    Why {
        number: circumstances.task.number,
        state: circumstances.task.state,
        message,
        deadline: circumstances.deadline_at,
        at_deadline: deadline::at_deadline_words(&circumstances.open).map(str::to_owned),
        unmet,
    }
}

fn reason(code: &str, runner: Option<&str>, message: impl Into<String>) -> UnmetReason {
    UnmetReason { code: code.to_owned(), runner: runner.map(str::to_owned), message: message.into() }
}

fn queued(
    circumstances: &Circumstances,
    candidates: &[Candidate],
    project: ProjectFacts,
    storage_full: bool,
    now: Timestamp,
) -> (String, Vec<UnmetReason>) {
    let mut unmet = own_rules(circumstances, project, now);
    if storage_full {
        let message = "the daemon's disk is full but for disk_reserve: free space on its host, or lower `disk_reserve` \
                       under [logs] of forge.toml";
        unmet.push(reason("storage_full", None, message));
    }
    let task = &circumstances.task;
    let need = Need { project: task.project.clone(), required_tag: task.required_tag.clone() };
    let wanted = match &need.required_tag {
        Some(tag) => format!("needs tag {tag}"),
        None => "needs a runner that takes tasks without a tag".to_owned(),
    };
    let fitting: Vec<&Candidate> =
        candidates.iter().filter(|candidate| suits(&candidate.facts, &need, project).is_ok()).collect();
    let mut ready = false;
    for candidate in &fitting {
        match verdict(&candidate.facts, &need, project) {
            Ok(()) => ready = true,
            Err(obstacle) => unmet.extend(obstacle_reason(candidate, obstacle, now)),
        }
    }
    if fitting.is_empty() {
        let others = candidates.iter().filter_map(|candidate| {
            let obstacle = suits(&candidate.facts, &need, project).err()?;
            obstacle_reason(candidate, obstacle, now)
        });
        unmet.push(reason(
            "no_runner_with_tag",
            None,
            format!("{wanted}, and no runner of project {} fits", need.project),
        ));
        unmet.extend(others);
    } else if circumstances.ahead > 0 && (ready || unmet.is_empty()) {
        let ahead = circumstances.ahead;
        unmet.push(reason("turn", None, format!("{ahead} tasks of its template are served first")));
    }
    let words: Vec<&str> = unmet.iter().map(|unmet| unmet.message.as_str()).collect();
    let message = match (words.is_empty(), ready) {
        (true, _) => format!("waiting: {wanted}; a runner will ask for it in a moment"),
        (false, _) => format!("waiting: {wanted}; {}", words.join(", ")),
    };
    (message, unmet)
}

/// What the task's own template and project hold against it.
fn own_rules(circumstances: &Circumstances, project: ProjectFacts, now: Timestamp) -> Vec<UnmetReason> {
    let task = &circumstances.task;
    let mut unmet = Vec::new();
    if circumstances.ready_at > now {
        let left = words::about(circumstances.ready_at.millis_since(now));
        unmet.push(reason("retry_delay", None, format!("its next attempt is due in {left}")));
    }
    let live_of_project: u32 =
        circumstances.live.iter().filter(|live| live.project == task.project).map(|live| live.attempts).sum();
    if !project_has_room(project, live_of_project) {
        let limit = project.max_parallel_tasks;
        let message = format!("project {} runs {live_of_project} of {limit} tasks (max_parallel_tasks)", task.project);
        unmet.push(reason("project_limit", None, message));
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
        unmet.push(reason("template_concurrency", None, message));
    }
    unmet
}

fn obstacle_reason(candidate: &Candidate, obstacle: Unmet, now: Timestamp) -> Option<UnmetReason> {
    let facts = &candidate.facts;
    let name = &*facts.name;
    let (code, message) = match obstacle {
        Unmet::WrongProject => {
            let own = facts.project.as_deref().unwrap_or_default();
            ("wrong_project", format!("{name} belongs to project {own}"))
        }
        Unmet::GlobalRefused => {
            ("wrong_project", format!("{name} is a global runner, and the project takes none (global_runners = false)"))
        }
        Unmet::NoTag => ("no_runner_with_tag", format!("{name} has tags [{}]", facts.tags.join(", "))),
        Unmet::UntaggedRefused => ("untagged_refused", format!("{name} takes no task without a tag (run_untagged)")),
        Unmet::Disabled => ("runner_disabled", format!("{name} disabled in runners/{name}.toml")),
        Unmet::Draining => ("runner_draining", format!("{name} is draining")),
        Unmet::NeverConnected => {
            let missing = if candidate.declared { "declared and never connected" } else { "never connected" };
            ("runner_offline", format!("{name} {missing}"))
        }
        Unmet::Offline => {
            let since = candidate.last_contact_at.map(|at| format!(" for {}", words::about(now.millis_since(at))));
            ("runner_offline", format!("{name} offline{}", since.unwrap_or_default()))
        }
        Unmet::Full => ("runner_full", format!("{name} is full ({} of {})", facts.running, facts.max_parallel_tasks)),
        // Between two questions of a runner that is online: no reason to tell of.
        Unmet::NotAsking => return None,
    };
    Some(reason(code, Some(name), message))
}

fn with_runner(circumstances: &Circumstances, candidates: &[Candidate], now: Timestamp) -> (String, Vec<UnmetReason>) {
    let task = &circumstances.task;
    let name = task.runner.as_deref().unwrap_or("its runner");
    let mut unmet = Vec::new();
    if let Some(by) = &circumstances.standing.cancel_by {
        unmet.push(reason("cancel_pending", Some(name), format!("cancel asked for by {by}")));
    }
    let known = candidates.iter().find(|candidate| *candidate.facts.name == *name);
    if known.is_none_or(|known| known.facts.status == forge_api::RunnerStatus::Offline) {
        let since = known.and_then(|known| known.last_contact_at);
        let since =
            since.map_or_else(String::new, |at| format!(" since {at} ({})", words::about(now.millis_since(at))));
        let grace = words::duration(circumstances.grace_ms);
        let message = format!("runner unreachable{since}; after runner_grace ({grace}) the attempt is lost");
        unmet.push(reason("runner_unreachable", Some(name), message));
    }
    let doing = match task.state {
        TaskState::Assigned => format!("given to {name}, which has not said yet that it starts"),
        TaskState::Running
        | TaskState::Queued
        | TaskState::AwaitingApproval
        | TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Canceled
        | TaskState::TimedOut
        | TaskState::Lost
        | TaskState::Expired
        | TaskState::Skipped => format!("running on {name}, attempt {}", task.attempt),
    };
    let mut parts = vec![doing];
    parts.extend(unmet.iter().map(|unmet| unmet.message.clone()));
    (parts.join("; "), unmet)
}
