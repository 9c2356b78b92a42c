//! `why` says that nothing is unmet exactly where `assign` gives: for queues and fleets that chance makes, through the store's own questions.

use forge_api::RunnerStatus;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::scheduler::assign::{Concurrency, ProjectFacts, RunnerFacts, Situation};
use crate::scheduler::why::{self, Candidate};
use crate::store::{open, queries};

const NOW: Timestamp = Timestamp::from_unix_micros(1_000_000_000);

const PROJECTS: [&str; 2] = ["bakery", "shop"];
const TEMPLATES: [&str; 2] = ["deploy", "test"];
const TAGS: [&str; 3] = ["", "east", "west"];

/// Where a task of a random queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Queued,
    /// The delay of its retry is not over.
    Delayed,
    /// What it has planned was approved.
    Approved,
    AwaitsApproval,
    /// On the runner of this number.
    Runs(usize),
}

#[derive(Clone, Debug)]
struct RandomTask {
    project: &'static str,
    template: &'static str,
    tag: &'static str,
    concurrency: &'static str,
    priority: i32,
    stands: Stands,
}

fn task() -> impl Strategy<Value = RandomTask> {
    let concurrency = select(vec!["queue", "queue", "parallel", "skip", "replace"]);
    let stands = prop_oneof![
        8 => Just(Stands::Queued),
        1 => Just(Stands::Delayed),
        1 => Just(Stands::Approved),
        1 => Just(Stands::AwaitsApproval),
        2 => (0_usize..3).prop_map(Stands::Runs),
    ];
    let of = (select(&PROJECTS), select(&TEMPLATES), select(&TAGS));
    (of, concurrency, 0..2, stands).prop_map(|((project, template, tag), concurrency, priority, stands)| RandomTask {
        project,
        template,
        tag,
        concurrency,
        priority,
        stands,
    })
}

fn runner() -> impl Strategy<Value = RunnerFacts> {
    let status = prop_oneof![
        8 => Just(RunnerStatus::Online),
        1 => Just(RunnerStatus::Offline),
        1 => Just(RunnerStatus::Disabled),
        1 => Just(RunnerStatus::Draining),
        1 => Just(RunnerStatus::NeverConnected),
    ];
    let of = (select(vec![None, None, Some("bakery"), Some("shop")]), select(&TAGS), any::<bool>(), status);
    let holds = (0_u32..3, 0_u32..3, prop_oneof![4 => Just(true), 1 => Just(false)]);
    (of, holds).prop_map(|((project, tag, run_untagged, status), (max_parallel_tasks, asking, resumes))| RunnerFacts {
        name: "".into(),
        project: project.map(Into::into),
        tags: vec![tag.to_owned()].into(),
        run_untagged,
        status,
        max_parallel_tasks,
        running: 0,
        asking,
        resumes,
    })
}

fn project() -> impl Strategy<Value = ProjectFacts> {
    (prop_oneof![3 => Just(true), 1 => Just(false)], select(vec![0_u32, 0, 1, 2]))
        .prop_map(|(global_runners, max_parallel_tasks)| ProjectFacts { global_runners, max_parallel_tasks })
}

/// Stores a queue; the tasks' numbers are their places in it, from 1 on.
fn store(connection: &Connection, tasks: &[RandomTask]) -> Result<(), rusqlite::Error> {
    connection.execute_batch(
        "DELETE FROM attempts; DELETE FROM tasks; DELETE FROM specs;
         INSERT INTO specs VALUES (1, x'00', '{}', 1000, 1000, 1000, 'fail', 0, 0, 1000, '[]');",
    )?;
    let mut add_task = connection.prepare_cached(
        "INSERT INTO tasks (number, project, template, state, attempt, required_tag, priority, concurrency, revision, trigger_kind,
             trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at, queued_at, ready_at, deadline_at,
             resume_attempt)
         VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, 'r', 'user', 'ann', '{}', '[]', 0, 1, 0, 0, ?8, ?8, 9, ?9)",
    )?;
    let mut add_attempt = connection.prepare_cached(
        "INSERT INTO attempts (task, attempt, runner, project, template, nonce, token_sha256, grace_ms, assigned_at)
         VALUES (?1, 1, ?2, ?3, ?4, x'00', x'00', 1000, 0)",
    )?;
    for (number, task) in (1_u64..).zip(tasks) {
        let RandomTask { project, template, tag, concurrency, priority, stands } = task;
        let state = match stands {
            Stands::Queued | Stands::Delayed | Stands::Approved => "queued",
            Stands::AwaitsApproval => "awaiting_approval",
            Stands::Runs(_) => "running",
        };
        let ready_at = if *stands == Stands::Delayed { NOW.plus_millis(1) } else { Timestamp::from_unix_micros(0) };
        let resume = (*stands == Stands::Approved).then_some(1);
        add_task.execute(params![
            number,
            project,
            template,
            state,
            tag,
            priority,
            concurrency,
            ready_at.unix_micros(),
            resume
        ])?;
        if let Stands::Runs(runner) = stands {
            add_attempt.execute(params![number, format!("r-{runner}"), project, template])?;
        }
    }
    Ok(())
}

/// The task that is given first of those which a task could stand back for: all that take turns with it, or itself alone.
fn given(task: u64, connection: &Connection, situation: &Situation) -> Option<u64> {
    let groups = groups(connection, FREE_SLOTS_COUNTED_MAX, NOW).expect("groups");
    let own = groups.iter().find(|group| group.waiting.iter().any(|waiting| waiting.task == task))?;
    let of_template = |group: &&Group| group.need.project == own.need.project && group.template == own.template;
    let is_parallel =
        own.waiting.iter().any(|waiting| waiting.task == task && waiting.concurrency == Concurrency::Parallel);
    let rivals = groups.iter().filter(of_template).map(|group| {
        let mut group = group.clone();
        group.waiting.retain(|waiting| match is_parallel {
            true => waiting.task == task,
            false => waiting.concurrency != Concurrency::Parallel,
        });
        group
    });
    let groups = rivals.collect();
    let (assignments, _turns) = assign::assign(Situation { groups, ..situation.clone() });
    assignments.first().map(|first| first.task)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn why_says_that_nothing_is_unmet_exactly_where_assign_gives(
        tasks in proptest::collection::vec(task(), 1..12),
        fleet in proptest::collection::vec(runner(), 0..4),
        rules in (project(), project()),
    ) {
        let connection = open::in_memory();
        store(&connection, &tasks).expect("stored");
        let live = live(&connection).expect("what runs");
        let running = |name: &str| live.iter().filter(|live| live.runner == name).map(|live| live.attempts).sum();
        let runners: Vec<RunnerFacts> = (0..).zip(fleet).map(|(number, facts)| {
            let name = format!("r-{number}");
            RunnerFacts { running: running(&name), name: name.into(), ..facts }
        }).collect();
        let projects = [(PROJECTS[0].to_owned(), rules.0), (PROJECTS[1].to_owned(), rules.1)].into();
        let situation = Situation { runners, projects, live, ..Situation::default() };
        let candidates: Vec<Candidate> = situation.runners.iter().map(|facts| Candidate {
            facts: facts.clone(),
            last_contact_at: Some(NOW),
            in_contact: !matches!(facts.status, RunnerStatus::Offline | RunnerStatus::NeverConnected),
            declared: true,
            draining: facts.status == RunnerStatus::Draining,
            one_off: false,
            waits: true,
            key: Some(1),
        }).collect();
        for (number, task) in (1_u64..).zip(&tasks) {
            if !matches!(task.stands, Stands::Queued | Stands::Delayed | Stands::Approved) {
                continue;
            }
            let circumstances = queries::circumstances(&connection, &[number], NOW).expect("read").pop().expect("there");
            let project = assign::project_facts(&situation.projects, task.project);
            let asked = why::Situation {
                candidates: &candidates, project, lease: None, storage_full: false, has_rules: true, now: NOW,
            };
            let why = why::why(&circumstances, &asked);
            let given = given(number, &connection, &situation);
            prop_assert_eq!(why.unmet.is_empty(), given == Some(number), "task {}: {:?}, and {:?} is given", number, why, given);
        }
    }
}
