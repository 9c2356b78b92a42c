//! Which task goes to which runner. Pure: facts in, a choice and its reasons out; `why` asks the same functions.
//!
//! A runner is eligible when it is enabled, belongs to the project or is global where the project takes global runners, holds
//! the needed tag, and has a free slot. Only one that is asking right now gets work. The least loaded wins; a full one is
//! passed over. Projects are served in turn, higher priority first within a project, then the older task. 0 is unlimited.

use std::collections::BTreeMap;

use forge_api::RunnerStatus;
use serde::{Deserialize, Serialize};

/// What a runner may do and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunnerFacts {
    pub(crate) name: String,
    /// `None` is a global runner.
    pub(crate) project: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) run_untagged: bool,
    pub(crate) status: RunnerStatus,
    /// 0 is unlimited.
    pub(crate) max_parallel_tasks: u32,
    /// How many live attempts it holds.
    pub(crate) running: u32,
    /// How many tasks it asks for right now.
    pub(crate) asking: u32,
}

/// What a project allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProjectFacts {
    pub(crate) global_runners: bool,
    /// 0 is unlimited.
    pub(crate) max_parallel_tasks: u32,
}

/// Tasks that need the same: one project, template and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) need: Need,
    pub(crate) template: String,
    /// In the order in which they are to be served; perhaps only the first of them.
    pub(crate) waiting: Vec<Waiting>,
}

/// What a task needs of a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) project: String,
    pub(crate) required_tag: Option<String>,
}

/// A task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) task: u64,
    pub(crate) priority: i32,
    pub(crate) concurrency: Concurrency,
}

/// What a template's `concurrency` is called in a task's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Concurrency {
    Queue,
    Parallel,
    Skip,
    Replace,
}

/// Live attempts by what they count against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) runner: String,
    pub(crate) project: String,
    pub(crate) template: String,
    pub(crate) attempts: u32,
}

/// Everything that a choice depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Situation {
    pub(crate) runners: Vec<RunnerFacts>,
    pub(crate) projects: BTreeMap<String, ProjectFacts>,
    pub(crate) groups: Vec<Group>,
    pub(crate) live: Vec<Live>,
    /// When each project was last served, as a number that grows; absent: never.
    pub(crate) turns: BTreeMap<String, u64>,
}

/// One task for one runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) task: u64,
    pub(crate) project: String,
    pub(crate) template: String,
    pub(crate) runner: String,
}

/// Why a runner does not take a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    WrongProject,
    GlobalRefused,
    NoTag,
    UntaggedRefused,
    Disabled,
    Draining,
    NeverConnected,
    Offline,
    Full,
    /// Eligible, and between two questions: it will ask in a moment.
    NotAsking,
}

/// A project that is not in the tree any more: its open tasks keep what they were created with.
pub(crate) const REMOVED_PROJECT: ProjectFacts = ProjectFacts { global_runners: true, max_parallel_tasks: 0 };

/// Whether a runner takes a task now, or the first thing that keeps it from that.
pub(crate) fn verdict(runner: &RunnerFacts, need: &Need, project: ProjectFacts) -> Result<(), Unmet> {
    suits(runner, need, project)?;
    match runner.status {
        RunnerStatus::Disabled => return Err(Unmet::Disabled),
        RunnerStatus::NeverConnected => return Err(Unmet::NeverConnected),
        RunnerStatus::Offline => return Err(Unmet::Offline),
        RunnerStatus::Draining => return Err(Unmet::Draining),
        RunnerStatus::Online => {}
    }
    if runner.max_parallel_tasks != 0 && runner.running >= runner.max_parallel_tasks {
        return Err(Unmet::Full);
    }
    if runner.asking == 0 { Err(Unmet::NotAsking) } else { Ok(()) }
}

/// Whether a runner is of the kind that a task needs, however it stands right now.
pub(crate) fn suits(runner: &RunnerFacts, need: &Need, project: ProjectFacts) -> Result<(), Unmet> {
    match &runner.project {
        Some(own) if *own != need.project => return Err(Unmet::WrongProject),
        None if !project.global_runners => return Err(Unmet::GlobalRefused),
        Some(_) | None => {}
    }
    match &need.required_tag {
        Some(tag) if !runner.tags.contains(tag) => Err(Unmet::NoTag),
        None if !runner.run_untagged => Err(Unmet::UntaggedRefused),
        Some(_) | None => Ok(()),
    }
}

/// Whether a template's own rule lets one more of its tasks run.
pub(crate) fn template_has_room(concurrency: Concurrency, live_of_template: u32) -> bool {
    match concurrency {
        Concurrency::Parallel => true,
        Concurrency::Queue | Concurrency::Skip | Concurrency::Replace => live_of_template == 0,
    }
}

/// Whether a project's own limit lets one more of its tasks run.
pub(crate) fn project_has_room(project: ProjectFacts, live_of_project: u32) -> bool {
    project.max_parallel_tasks == 0 || live_of_project < project.max_parallel_tasks
}

/// Every assignment that can be made now; the turns are those that follow from them.
pub(crate) fn assign(mut situation: Situation) -> (Vec<Assignment>, BTreeMap<String, u64>) {
    let mut of_project: BTreeMap<String, u32> = BTreeMap::new();
    let mut of_template: BTreeMap<(String, String), u32> = BTreeMap::new();
    for live in &situation.live {
        *of_project.entry(live.project.clone()).or_default() += live.attempts;
        *of_template.entry((live.project.clone(), live.template.clone())).or_default() += live.attempts;
    }
    for group in &mut situation.groups {
        group.waiting.reverse();
    }
    let mut turn = situation.turns.values().copied().max().unwrap_or_default();
    let mut made = Vec::new();
    loop {
        let choice = situation
            .groups
            .iter()
            .enumerate()
            .filter_map(|(index, group)| {
                let next = group.waiting.last()?;
                let project = project_facts(&situation.projects, &group.need.project);
                let live = of_project.get(&group.need.project).copied().unwrap_or_default();
                let key = (group.need.project.clone(), group.template.clone());
                let live_of_template = of_template.get(&key).copied().unwrap_or_default();
                if !project_has_room(project, live) || !template_has_room(next.concurrency, live_of_template) {
                    return None;
                }
                let runner = least_loaded(&situation.runners, &group.need, project)?;
                let served = situation.turns.get(&group.need.project).copied().unwrap_or_default();
                Some(((served, &group.need.project, -i64::from(next.priority), next.task), index, runner))
            })
            .min_by(|one, other| one.0.cmp(&other.0))
            .map(|(_, index, runner)| (index, runner));
        let Some((index, runner)) = choice else {
            return (made, situation.turns);
        };
        let (Some(group), Some(runner)) = (situation.groups.get_mut(index), situation.runners.get_mut(runner)) else {
            return (made, situation.turns);
        };
        let Some(next) = group.waiting.pop() else {
            return (made, situation.turns);
        };
        let (project, template) = (group.need.project.clone(), group.template.clone());
        runner.running += 1;
        runner.asking -= 1;
        turn += 1;
        *of_project.entry(project.clone()).or_default() += 1;
        *of_template.entry((project.clone(), template.clone())).or_default() += 1;
        situation.turns.insert(project.clone(), turn);
        made.push(Assignment { task: next.task, project, template, runner: runner.name.clone() });
    }
}

/// What a project allows, also one that the tree has no more.
pub(crate) fn project_facts(projects: &BTreeMap<String, ProjectFacts>, name: &str) -> ProjectFacts {
    projects.get(name).copied().unwrap_or(REMOVED_PROJECT)
}

/// The eligible runner with the fewest live attempts; the first by name among equals.
fn least_loaded(runners: &[RunnerFacts], need: &Need, project: ProjectFacts) -> Option<usize> {
    runners
        .iter()
        .enumerate()
        .filter(|(_, runner)| verdict(runner, need, project).is_ok())
        .min_by_key(|(_, runner)| (runner.running, &runner.name))
        .map(|(index, _)| index)
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
