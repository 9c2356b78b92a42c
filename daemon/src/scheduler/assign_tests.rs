//! The rules of assigning, by example and by property.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn runner(name: &str, tags: &[&str]) -> RunnerFacts {
    RunnerFacts {
        name: name.into(),
        project: None,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        run_untagged: tags.is_empty(),
        status: RunnerStatus::Online,
        max_parallel_tasks: 0,
        running: 0,
        asking: 10,
        resumes: true,
    }
}

fn group(project: &str, template: &str, tag: Option<&str>, tasks: &[u64]) -> Group {
    Group {
        need: Need { project: project.to_owned(), required_tag: tag.map(str::to_owned), resume: false },
        template: template.to_owned(),
        waiting: tasks
            .iter()
            .map(|task| Waiting { task: *task, priority: 0, concurrency: Concurrency::Parallel })
            .collect(),
    }
}

fn made(situation: Situation) -> Vec<(u64, String)> {
    assign(situation).0.into_iter().map(|made| (made.task, made.runner)).collect()
}

#[test]
fn the_first_reason_that_counts_is_given() {
    let need = Need { project: "shop".to_owned(), required_tag: Some("ny".to_owned()), resume: false };
    let open = ProjectFacts { global_runners: true, max_parallel_tasks: 0 };
    let closed = ProjectFacts { global_runners: false, max_parallel_tasks: 0 };
    let fits = runner("ny-1", &["ny"]);
    assert_eq!(verdict(&fits, &need, open), Ok(()));
    assert_eq!(verdict(&fits, &need, closed), Err(Unmet::GlobalRefused));
    let other = RunnerFacts { project: Some("bank".into()), ..fits.clone() };
    assert_eq!(verdict(&other, &need, open), Err(Unmet::WrongProject));
    assert_eq!(verdict(&RunnerFacts { project: Some("shop".into()), ..fits.clone() }, &need, closed), Ok(()));
    assert_eq!(verdict(&runner("la-1", &["la"]), &need, open), Err(Unmet::NoTag));
    let untagged = Need { required_tag: None, ..need.clone() };
    assert_eq!(verdict(&fits, &untagged, open), Err(Unmet::UntaggedRefused));
    assert_eq!(verdict(&RunnerFacts { run_untagged: true, ..fits.clone() }, &untagged, open), Ok(()));
    for (status, unmet) in [
        (RunnerStatus::Disabled, Unmet::Disabled),
        (RunnerStatus::Draining, Unmet::Draining),
        (RunnerStatus::Offline, Unmet::Offline),
        (RunnerStatus::NeverConnected, Unmet::NeverConnected),
    ] {
        assert_eq!(verdict(&RunnerFacts { status, ..fits.clone() }, &need, open), Err(unmet));
    }
    let older = RunnerFacts { resumes: false, ..fits.clone() };
    assert_eq!(verdict(&older, &need, open), Ok(()));
    assert_eq!(verdict(&older, &Need { resume: true, ..need.clone() }, open), Err(Unmet::CannotResume));
    let full = RunnerFacts { max_parallel_tasks: 2, running: 2, ..fits.clone() };
    assert_eq!(verdict(&full, &need, open), Err(Unmet::Full));
    assert_eq!(verdict(&RunnerFacts { asking: 0, ..fits }, &need, open), Err(Unmet::NotAsking));
}

#[test]
fn what_was_approved_goes_past_a_runner_that_would_plan_anew() {
    let older = RunnerFacts { resumes: false, ..runner("a", &[]) };
    let newer = RunnerFacts { running: 5, ..runner("b", &[]) };
    let mut approved = group("p", "t", None, &[1]);
    approved.need.resume = true;
    let groups = vec![approved, group("p", "t", None, &[2])];
    let situation = Situation { runners: vec![older.clone(), newer], groups: groups.clone(), ..Situation::default() };
    assert_eq!(made(situation), [(1, "b".to_owned()), (2, "a".to_owned())]);
    let situation = Situation { runners: vec![older], groups, ..Situation::default() };
    assert_eq!(made(situation), [(2, "a".to_owned())]);
}

#[test]
fn a_limit_of_zero_is_no_limit() {
    let many = RunnerFacts { running: 5_000, asking: 1, ..runner("r", &[]) };
    let situation =
        Situation { runners: vec![many], groups: vec![group("p", "t", None, &[1])], ..Situation::default() };
    assert_eq!(made(situation), [(1, "r".to_owned())]);
}

#[test]
fn the_least_loaded_wins_and_a_full_one_is_passed_over() {
    let full = RunnerFacts { max_parallel_tasks: 1, running: 1, ..runner("a", &[]) };
    let busy = RunnerFacts { running: 2, ..runner("b", &[]) };
    let idle = RunnerFacts { max_parallel_tasks: 1, ..runner("c", &[]) };
    let groups = vec![group("p", "t", None, &[1, 2])];
    let situation = Situation { runners: vec![full, busy, idle], groups, ..Situation::default() };
    assert_eq!(made(situation), [(1, "c".to_owned()), (2, "b".to_owned())]);
}

#[test]
fn projects_are_served_in_turn() {
    let thousand: Vec<u64> = (1..=1_000).collect();
    let groups = vec![group("big", "t", None, &thousand), group("small", "t", None, &[1_001])];
    let one = RunnerFacts { asking: 2, ..runner("r", &[]) };
    let situation = Situation { runners: vec![one], groups, ..Situation::default() };
    assert_eq!(made(situation), [(1, "r".to_owned()), (1_001, "r".to_owned())]);
}

#[test]
fn priority_comes_before_age_within_a_project() {
    let mut urgent = group("p", "urgent", None, &[2]);
    urgent.waiting[0].priority = 10;
    let one = RunnerFacts { asking: 1, ..runner("r", &[]) };
    let groups = vec![group("p", "t", None, &[1]), urgent];
    assert_eq!(made(Situation { runners: vec![one], groups, ..Situation::default() }), [(2, "r".to_owned())]);
}

#[test]
fn a_template_that_queues_runs_one_at_a_time() {
    let mut queue = group("p", "t", None, &[1, 2]);
    for waiting in &mut queue.waiting {
        waiting.concurrency = Concurrency::Queue;
    }
    let situation = Situation { runners: vec![runner("r", &[])], groups: vec![queue], ..Situation::default() };
    assert_eq!(made(situation.clone()), [(1, "r".to_owned())]);
    let live = Live { runner: "r".to_owned(), project: "p".to_owned(), template: "t".to_owned(), attempts: 1 };
    assert_eq!(made(Situation { live: vec![live], ..situation }), []);
}

prop_compose! {
    fn any_runner(index: usize)(
        project in proptest::option::of(0..3_u8), tags in proptest::collection::btree_set(0..3_u8, 0..3),
        run_untagged in any::<bool>(), online in 0..4_u8, max in 0..4_u32, asking in 0..4_u32,
    ) -> RunnerFacts {
        RunnerFacts {
            name: format!("r{index}").into(),
            project: project.map(|project| format!("p{project}").into()),
            tags: tags.into_iter().map(|tag| format!("t{tag}")).collect(),
            run_untagged,
            status: if online == 0 { RunnerStatus::Offline } else { RunnerStatus::Online },
            max_parallel_tasks: max,
            running: 0,
            asking,
            resumes: true,
        }
    }
}

fn any_situation() -> impl Strategy<Value = Situation> {
    let runners =
        (any_runner(0), any_runner(1), any_runner(2), any_runner(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d]);
    let projects = proptest::collection::vec((any::<bool>(), 0..4_u32), 3);
    let tasks = proptest::collection::vec((0..3_u8, 0..3_u8, proptest::option::of(0..3_u8), -2..3_i32, 0..4_u8), 0..30);
    let live = proptest::collection::vec((0..4_u8, 0..3_u8, 0..3_u8), 0..6);
    (runners, projects, tasks, live).prop_map(|(mut runners, projects, tasks, live)| {
        let mut groups: Vec<Group> = Vec::new();
        for (number, (project, template, tag, priority, concurrency)) in (1..).zip(tasks) {
            let tag = tag.map(|tag| format!("t{tag}"));
            let found = group(&format!("p{project}"), &format!("x{template}"), tag.as_deref(), &[]);
            let concurrency = match concurrency {
                0 => Concurrency::Queue,
                1 => Concurrency::Skip,
                2 => Concurrency::Replace,
                _ => Concurrency::Parallel,
            };
            let waiting = Waiting { task: number, priority, concurrency };
            match groups.iter_mut().find(|known| known.need == found.need && known.template == found.template) {
                Some(known) => known.waiting.push(waiting),
                None => groups.push(Group { waiting: vec![waiting], ..found }),
            }
        }
        for group in &mut groups {
            group.waiting.sort_by_key(|waiting| (-waiting.priority, waiting.task));
        }
        let live: Vec<Live> = live
            .into_iter()
            .map(|(runner, project, template)| Live {
                runner: format!("r{runner}"),
                project: format!("p{project}"),
                template: format!("x{template}"),
                attempts: 1,
            })
            .collect();
        for runner in &mut runners {
            runner.running = live.iter().filter(|live| *live.runner == *runner.name).map(|live| live.attempts).sum();
        }
        let facts = |(global_runners, max_parallel_tasks)| ProjectFacts { global_runners, max_parallel_tasks };
        let projects = (0..).zip(projects).map(|(index, project)| (format!("p{index}"), facts(project))).collect();
        Situation { runners, projects, groups, live, turns: BTreeMap::new() }
    })
}

#[test]
fn ten_thousand_tasks_spread_evenly_over_a_thousand_runners() {
    let tasks: Vec<u64> = (1..=10_000).collect();
    let runners = (0..1_000).map(|number| RunnerFacts { asking: 10, ..runner(&format!("r{number:04}"), &[]) });
    let situation =
        Situation { runners: runners.collect(), groups: vec![group("p", "t", None, &tasks)], ..Situation::default() };
    let made = made(situation);
    assert_eq!(made.len(), 10_000);
    for (index, (task, runner)) in made.iter().enumerate() {
        assert_eq!((*task, runner.as_str()), (index as u64 + 1, format!("r{:04}", index % 1_000).as_str()));
    }
}

proptest! {
    #[test]
    fn limits_are_never_exceeded_and_no_task_goes_twice(situation in any_situation()) {
        let before = situation.clone();
        let (made, _) = assign(situation);
        let tasks: BTreeSet<u64> = made.iter().map(|made| made.task).collect();
        prop_assert_eq!(tasks.len(), made.len());
        for runner in &before.runners {
            let got = u32::try_from(made.iter().filter(|made| *made.runner == *runner.name).count()).expect("few");
            prop_assert!(got <= runner.asking);
            prop_assert!(got == 0 || runner.max_parallel_tasks == 0 || runner.running + got <= runner.max_parallel_tasks);
        }
        for (name, project) in &before.projects {
            let live: u32 = before.live.iter().filter(|live| live.project == *name).map(|live| live.attempts).sum();
            let got = u32::try_from(made.iter().filter(|made| made.project == *name).count()).expect("few");
            prop_assert!(got == 0 || project.max_parallel_tasks == 0 || live + got <= project.max_parallel_tasks);
        }
        for made in &made {
            let runner = before.runners.iter().find(|runner| *runner.name == *made.runner).expect("known");
            let group = before.groups.iter()
                .find(|group| group.waiting.iter().any(|waiting| waiting.task == made.task)).expect("known");
            prop_assert_eq!(suits(runner, &group.need, project_facts(&before.projects, &made.project)), Ok(()));
            prop_assert_eq!(runner.status, RunnerStatus::Online);
        }
        // Nothing that could still go is left: one more pass over what remains makes nothing.
        let mut after = before;
        for made in &made {
            for group in &mut after.groups {
                group.waiting.retain(|waiting| waiting.task != made.task);
            }
            for runner in after.runners.iter_mut().filter(|runner| *runner.name == *made.runner) {
                runner.running += 1;
                runner.asking -= 1;
            }
            after.live.push(Live { runner: made.runner.clone(), project: made.project.clone(), template: made.template.clone(), attempts: 1 });
        }
        prop_assert_eq!(assign(after).0, vec![]);
    }
}

/// The template took turns when the first was made, and does not any more.
#[test]
fn a_task_that_waits_for_its_turn_keeps_no_parallel_one_of_its_template_waiting() {
    let mut groups = vec![group("shop", "deploy", None, &[1, 2, 3])];
    for (waiting, concurrency) in
        groups[0].waiting.iter_mut().zip([Concurrency::Queue, Concurrency::Parallel, Concurrency::Queue])
    {
        waiting.concurrency = concurrency;
    }
    let live =
        Live { runner: "ny-9".to_owned(), project: "shop".to_owned(), template: "deploy".to_owned(), attempts: 1 };
    let situation = Situation { runners: vec![runner("ny-1", &[])], groups, live: vec![live], ..Situation::default() };
    assert_eq!(made(situation.clone()), [(2, "ny-1".to_owned())]);
    // In their order where nothing runs yet.
    assert_eq!(made(Situation { live: vec![], ..situation }), [(1, "ny-1".to_owned()), (2, "ny-1".to_owned())]);
}
