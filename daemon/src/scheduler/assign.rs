//! Which task goes to which runner. Pure: facts in, a choice and its reasons out; `why` asks the same functions.
//!
//! A runner is eligible when it is enabled, belongs to the project or is global where the project takes global runners, holds
//! the needed tag, and has a free slot. Only one that is asking right now gets work. The least loaded wins; a full one is
//! passed over. Projects are served in turn, higher priority first within a project, then the older task. 0 is unlimited.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use forge_api::RunnerStatus;
use serde::{Deserialize, Serialize};

/// What a runner may do and how it stands. A copy is cheap: thousands of them may be looked at for one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunnerFacts {
    pub(crate) name: Arc<str>,
    /// `None` is a global runner.
    pub(crate) project: Option<Arc<str>>,
    pub(crate) tags: Arc<[String]>,
    pub(crate) run_untagged: bool,
    pub(crate) status: RunnerStatus,
    /// 0 is unlimited.
    pub(crate) max_parallel_tasks: u32,
    /// How many live attempts it holds.
    pub(crate) running: u32,
    /// How many tasks it asks for right now.
    pub(crate) asking: u32,
    /// Whether it does a plan that was approved. An older one would plan anew; one that is not asking counts as able.
    pub(crate) resumes: bool,
}

/// What a project allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProjectFacts {
    pub(crate) global_runners: bool,
    /// 0 is unlimited.
    pub(crate) max_parallel_tasks: u32,
}

/// Tasks that need the same: one project, template and tag, and whether a plan of theirs was approved.
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
    /// Whether what it is to do was planned and approved.
    pub(crate) resume: bool,
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
    /// It knows nothing of plans that were approved.
    CannotResume,
    Full,
    /// Eligible, and between two questions: it will ask in a moment.
    NotAsking,
}

/// A project that is not in the tree any more: its open tasks keep what they were created with.
pub(crate) const fn removed_project(global_runners: bool) -> ProjectFacts {
    ProjectFacts { global_runners, max_parallel_tasks: 0 }
}

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
    if need.resume && !runner.resumes {
        return Err(Unmet::CannotResume);
    }
    if runner.max_parallel_tasks != 0 && runner.running >= runner.max_parallel_tasks {
        return Err(Unmet::Full);
    }
    if runner.asking == 0 { Err(Unmet::NotAsking) } else { Ok(()) }
}

/// Whether a runner is of the kind that a task needs, however it stands right now.
pub(crate) fn suits(runner: &RunnerFacts, need: &Need, project: ProjectFacts) -> Result<(), Unmet> {
    match &runner.project {
        Some(own) if **own != *need.project => return Err(Unmet::WrongProject),
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

/// Whether a plan of the template that waits for a person's word, or for the runner that is to do it, keeps a task waiting. It holds its template's
/// one place, so that nothing changes what it has planned for: only a template that runs in parallel has no such place, and what was approved
/// itself waits for nobody's plan.
pub(crate) fn plan_holds(concurrency: Concurrency, resumes: bool) -> bool {
    match concurrency {
        Concurrency::Parallel => false,
        Concurrency::Queue | Concurrency::Skip | Concurrency::Replace => !resumes,
    }
}

/// Whether a project's own limit lets one more of its tasks run.
pub(crate) fn project_has_room(project: ProjectFacts, live_of_project: u32) -> bool {
    project.max_parallel_tasks == 0 || live_of_project < project.max_parallel_tasks
}

/// Whether its project's and its template's limits let one more task run beside those that are live: otherwise it is not a runner that is missing.
pub(crate) fn has_room(
    concurrency: Concurrency,
    (project, template): (&str, &str),
    projects: &BTreeMap<String, ProjectFacts>,
    live: &[Live],
) -> bool {
    let of_project = || live.iter().filter(|live| live.project == project);
    let of_template = of_project().filter(|live| live.template == template).map(|live| live.attempts).sum();
    project_has_room(project_facts(projects, project), of_project().map(|live| live.attempts).sum())
        && template_has_room(concurrency, of_template)
}

/// What is served first: the project whose turn is longest ago, then its name, the higher priority, the older task.
type Rank = (u64, usize, i64, u64);

/// Every assignment that can be made now; the turns are those that follow from them.
///
/// Names become numbers first, and runners wait in a heap for each need, so that one choice costs a look at the groups and
/// not at every runner.
pub(crate) fn assign(situation: Situation) -> (Vec<Assignment>, BTreeMap<String, u64>) {
    let Situation { mut runners, projects, mut groups, live, mut turns } = situation;
    runners.sort_by(|one, other| one.name.cmp(&other.name));
    groups = groups.into_iter().flat_map(by_concurrency).collect();
    for group in &mut groups {
        group.waiting.reverse();
    }
    let mut tallies = Tallies::of(&groups, &live, &projects, &turns);
    let (mut queues, queue_of_group) = queues(&groups, &runners, &tallies);
    let mut turn = turns.values().copied().max().unwrap_or_default();
    let mut made = Vec::new();
    loop {
        let mut best: Option<(Rank, usize, usize)> = None;
        for (index, group) in groups.iter().enumerate() {
            let (Some(next), Some(place)) = (group.waiting.last(), tallies.places.get(index)) else { continue };
            let Some(project) = tallies.has_room(*place, next.concurrency) else { continue };
            let key = (project.served, place.project, -i64::from(next.priority), next.task);
            if best.as_ref().is_some_and(|(known, _, _)| *known <= key) {
                continue;
            }
            let queue = queue_of_group.get(index).and_then(|queue| queues.get_mut(*queue));
            if let Some(runner) = queue.and_then(|queue| least_loaded(queue, &runners)) {
                best = Some((key, index, runner));
            }
        }
        let Some((_, index, runner)) = best else { break };
        let (Some(group), Some(runner)) = (groups.get_mut(index), runners.get_mut(runner)) else { break };
        let Some(next) = group.waiting.pop() else { break };
        runner.running += 1;
        runner.asking -= 1;
        turn += 1;
        tallies.count(index, turn);
        made.push(Assignment {
            task: next.task,
            project: group.need.project.clone(),
            template: group.template.clone(),
            runner: runner.name.to_string(),
        });
    }
    for made in &made {
        if let Some(project) = tallies.projects.iter().find(|project| project.name == made.project) {
            turns.insert(made.project.clone(), project.served);
        }
    }
    (made, turns)
}

/// A group's tasks that run in parallel, and those that take turns: made from different revisions of one template, they do not wait for
/// each other.
fn by_concurrency(group: Group) -> Vec<Group> {
    let Group { need, template, waiting } = group;
    let is_parallel = |waiting: &Waiting| waiting.concurrency == Concurrency::Parallel;
    let (parallel, in_turn): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_parallel);
    let kinds = [parallel, in_turn].into_iter().filter(|waiting| !waiting.is_empty());
    kinds.map(|waiting| Group { need: need.clone(), template: template.clone(), waiting }).collect()
}

/// What counts against limits, by number.
struct Tallies {
    /// In the order of their names.
    projects: Vec<ProjectTally>,
    /// Live attempts by template.
    templates: Vec<u32>,
    /// Where each group counts.
    places: Vec<Place>,
}

struct ProjectTally {
    name: String,
    facts: ProjectFacts,
    live: u32,
    /// When it was last served.
    served: u64,
}

/// Where a group counts: indices into [`Tallies`].
#[derive(Clone, Copy)]
struct Place {
    project: usize,
    template: usize,
}

impl Tallies {
    fn of(
        groups: &[Group],
        live: &[Live],
        projects: &BTreeMap<String, ProjectFacts>,
        turns: &BTreeMap<String, u64>,
    ) -> Self {
        let mut project_of: BTreeMap<&str, usize> =
            groups.iter().map(|group| (group.need.project.as_str(), 0)).collect();
        for (number, index) in project_of.values_mut().enumerate() {
            *index = number;
        }
        let mut template_of: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut places = Vec::with_capacity(groups.len());
        for group in groups {
            let (project, template) = (group.need.project.as_str(), group.template.as_str());
            let next = template_of.len();
            places.push(Place {
                project: project_of.get(project).copied().unwrap_or_default(),
                template: *template_of.entry((project, template)).or_insert(next),
            });
        }
        let tally = |name: &&str| ProjectTally {
            name: (*name).to_owned(),
            facts: project_facts(projects, name),
            live: 0,
            served: turns.get(*name).copied().unwrap_or_default(),
        };
        let mut tallies =
            Self { projects: project_of.keys().map(tally).collect(), templates: vec![0; template_of.len()], places };
        for live in live {
            let project = project_of.get(live.project.as_str()).and_then(|index| tallies.projects.get_mut(*index));
            if let Some(project) = project {
                project.live += live.attempts;
            }
            let key = (live.project.as_str(), live.template.as_str());
            if let Some(template) = template_of.get(&key).and_then(|index| tallies.templates.get_mut(*index)) {
                *template += live.attempts;
            }
        }
        tallies
    }

    /// The group's project, when it and the template let one more task run.
    fn has_room(&self, place: Place, concurrency: Concurrency) -> Option<&ProjectTally> {
        let project = self.projects.get(place.project)?;
        let live_of_template = self.templates.get(place.template).copied().unwrap_or_default();
        let room = project_has_room(project.facts, project.live) && template_has_room(concurrency, live_of_template);
        room.then_some(project)
    }

    /// One more task of a group runs.
    fn count(&mut self, group: usize, turn: u64) {
        let Some(place) = self.places.get(group).copied() else { return };
        if let Some(project) = self.projects.get_mut(place.project) {
            project.live += 1;
            project.served = turn;
        }
        if let Some(template) = self.templates.get_mut(place.template) {
            *template += 1;
        }
    }
}

/// Runners that take tasks of one need, by how many they run and then by name; an entry may be older than its runner.
type Queue = BinaryHeap<Reverse<(u32, usize)>>;

/// A queue for each need, and which one is each group's.
fn queues(groups: &[Group], runners: &[RunnerFacts], tallies: &Tallies) -> (Vec<Queue>, Vec<usize>) {
    let mut queue_of: BTreeMap<(&str, Option<&str>, bool), usize> = BTreeMap::new();
    let mut queues = Vec::new();
    let mut queue_of_group = Vec::with_capacity(groups.len());
    for (group, place) in groups.iter().zip(&tallies.places) {
        let need = &group.need;
        let key = (need.project.as_str(), need.required_tag.as_deref(), need.resume);
        let queue = *queue_of.entry(key).or_insert_with(|| {
            let facts = tallies.projects.get(place.project).map_or(removed_project(true), |project| project.facts);
            let fitting = runners.iter().enumerate().filter(|(_, runner)| verdict(runner, need, facts).is_ok());
            queues.push(fitting.map(|(index, runner)| Reverse((runner.running, index))).collect::<Queue>());
            queues.len() - 1
        });
        queue_of_group.push(queue);
    }
    (queues, queue_of_group)
}

/// What a project allows, also one that the tree has no more.
pub(crate) fn project_facts(projects: &BTreeMap<String, ProjectFacts>, name: &str) -> ProjectFacts {
    projects.get(name).copied().unwrap_or(removed_project(true))
}

/// The runner of a queue with the fewest live attempts; the first by name among equals. What it has no more is left out for good.
fn least_loaded(queue: &mut Queue, runners: &[RunnerFacts]) -> Option<usize> {
    loop {
        let Reverse((running, index)) = *queue.peek()?;
        let runner = runners.get(index)?;
        if runner.asking == 0 || (runner.max_parallel_tasks != 0 && runner.running >= runner.max_parallel_tasks) {
            queue.pop();
        } else if runner.running != running {
            queue.pop();
            queue.push(Reverse((runner.running, index)));
        } else {
            return Some(index);
        }
    }
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
