//! Which task goes to which runner and when, through the whole core: tags, projects, limits, turns and slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use forge_api::{AttemptId, AttemptOutcome, CreateTask, HeartbeatRequest, RetryTask, StartRequest, TaskState};
use forge_config::meant::Tree;
use forge_daemon::core::CoreError;

use super::harness::{Daemon, TestRunner, name, result, rule, shop, template_of, tree, tree_but, trigger};

/// Adds a project with the templates of the first.
fn add_project(tree: &mut Tree, other: &str) {
    let mut project = shop(tree).clone();
    project.name = name(other);
    tree.projects.insert(name(other), Arc::new(project));
}

/// Takes one task after the other and answers with their numbers.
async fn one_by_one(daemon: &Daemon, runner: &TestRunner, count: usize) -> Vec<u64> {
    let mut held: Vec<AttemptId> = Vec::new();
    for _ in 0..count {
        let claimed = runner.claim_holding(&daemon.core, 0, &held).await.expect("a claim");
        held.extend(claimed.jobs.iter().map(|job| job.attempt));
    }
    held.into_iter().map(|attempt| attempt.task).collect()
}

/// Complaint 1 (stuck in Waiting until a restart): a task that waits starts by itself when a commit gives a runner its tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_gives_or_takes_a_tag_acts_at_once_on_what_is_not_assigned() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "declared").await;
    let waits = daemon.park(&runner, &[]).await;
    let number = daemon.create("elsewhere").await.task.number;
    let why = daemon.core.why(number).await.expect("why");
    let wanting = why.unmet.iter().find(|unmet| unmet.runner.as_deref() == Some("declared")).expect("told of");
    assert_eq!(wanting.remedy, "\"mars\" in `tags` of runners/declared.toml");

    let with_tag = || tree_but(|tree| drop(tree.runners.insert(name("declared"), rule(&["mars"], None))));
    daemon.apply(with_tag());
    let given = waits.await.expect("no panic").expect("a claim").jobs;
    assert_eq!(given[0].attempt.task, number);
    // What was given stays given; what is not waits for the tag again.
    daemon.apply(tree());
    let access = runner.begin_one(&daemon.core, &given[0]).await;
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    let waits = daemon.park(&runner, &[]).await;
    let second = daemon.create("elsewhere").await.task.number;
    assert_eq!(daemon.state(second).await, TaskState::Queued);
    daemon.apply(with_tag());
    assert_eq!(waits.await.expect("no panic").expect("a claim").jobs[0].attempt.task, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_runner_gets_nothing_more_at_once_and_ends_what_it_has() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "declared").await;
    daemon.create("many").await;
    let access = runner.begin(&daemon.core).await;
    let waits = daemon.park(&runner, &[access.attempt()]).await;
    daemon.apply(tree_but(|tree| tree.runners.get_mut("declared").expect("its file").enabled = false));
    let second = daemon.create("many").await.task.number;
    assert_eq!(daemon.state(second).await, TaskState::Queued);
    let why = daemon.core.why(second).await.expect("why").message;
    assert!(why.contains("declared disabled in runners/declared.toml"), "{why}");
    daemon.apply(tree());
    assert_eq!(waits.await.expect("no panic").expect("a claim").jobs[0].attempt.task, second);
    let ended = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    assert!(ended.counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_served_in_turn_from_one_pass_to_the_next() {
    let daemon = Daemon::start(tree_but(|tree| add_project(tree, "bakery"))).await;
    for project in ["shop", "shop", "shop", "bakery", "bakery"] {
        daemon.create_in(project, "many").await;
    }
    let runner = TestRunner::register(&daemon, "ny-1").await;
    assert_eq!(one_by_one(&daemon, &runner, 5).await, [4, 1, 5, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_priority_of_one_template_is_served_first_then_the_older() {
    let daemon = Daemon::start(tree()).await;
    for priority in [0, 10, 10, -5] {
        daemon.apply(tree_but(|tree| template_of(tree, "many").priority = priority));
        daemon.create("many").await;
    }
    let runner = TestRunner::register(&daemon, "ny-1").await;
    assert_eq!(one_by_one(&daemon, &runner, 4).await, [2, 3, 1, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_takes_what_its_file_and_the_project_let_it_take() {
    let daemon = Daemon::start(tree_but(|tree| {
        add_project(tree, "bakery");
        tree.projects.get_mut("bakery").and_then(Arc::get_mut).expect("the project").global_runners = false;
        let tagged = forge_config::meant::RunnerRule { run_untagged: false, ..rule(&["east"], None) };
        let bakers = forge_config::meant::RunnerRule { project: Some(name("bakery")), ..rule(&[], None) };
        tree.runners.extend([(name("tagged"), tagged), (name("bakers"), bakers)]);
    }))
    .await;
    let anyone = daemon.park(&TestRunner::register(&daemon, "anyone").await, &[]).await;
    let tagged = daemon.park(&TestRunner::register(&daemon, "tagged").await, &[]).await;
    let bakers = TestRunner::register(&daemon, "bakers").await;
    // The project takes no global runner, and only those ask.
    let own = daemon.create_in("bakery", "many").await.task.number;
    assert_eq!(daemon.state(own).await, TaskState::Queued);
    let held = [bakers.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0].attempt];
    assert_eq!(held[0].task, own);
    let global = daemon.create_in("shop", "many").await.task.number;
    assert_eq!(anyone.await.expect("no panic").expect("a claim").jobs[0].attempt.task, global);
    // Of the two that ask now one is another project's, and one takes nothing without a tag.
    let bakers = daemon.park(&bakers, &held).await;
    let waits = daemon.create_in("shop", "many").await.task.number;
    assert_eq!(daemon.state(waits).await, TaskState::Queued);
    assert!(!tagged.is_finished() && !bakers.is_finished());
}

/// Complaint 3 (dead runners are given work): only a runner that is asking right now gets work.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_claim_is_gone_is_given_nothing() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waits = daemon.park(&runner, &[]).await;
    // Its connection breaks.
    waits.abort();
    assert!(waits.await.is_err());
    daemon.until(|counters| counters.parked_claims == 0).await;
    let number = daemon.create("many").await.task.number;
    assert_eq!(daemon.state(number).await, TaskState::Queued);
    daemon.time.advance_ms(31_000);
    let why = daemon.core.why(number).await.expect("why").message;
    assert!(why.contains("ny-1 offline for 31s"), "{why}");
    assert_eq!(daemon.core.counters().await.expect("counts").assignments, 0);
    assert_eq!(runner.begin(&daemon.core).await.attempt().task, number);
}

/// The end of what a removed runner ran makes room for the next task, in the same transaction: that is another runner's.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_removed_is_given_nothing_in_that_very_moment() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    // One at a time: the second waits for the end of the first.
    let first = daemon.create("deploy").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let second = daemon.create("deploy").await.task.number;
    let waits = daemon.park(&runner, &[access.attempt()]).await;
    daemon.core.remove_runner("ny-1", "ann").await.expect("removed");
    assert!(matches!(waits.await.expect("no panic"), Err(CoreError::Unauthorized)));
    let waiting = daemon.core.task(second).await.expect("there");
    assert_eq!((waiting.state, waiting.attempt), (TaskState::Queued, 0));
    assert_eq!(daemon.state(first).await, TaskState::Lost);
    let other = TestRunner::register(&daemon, "ny-2").await;
    assert_eq!(other.begin(&daemon.core).await.attempt().task, second);
}

/// Complaint 11 (one runner gets everything; a limit of 0 matched none): the least loaded is next, and 0 is unlimited.
#[tokio::test(flavor = "multi_thread")]
async fn the_least_loaded_is_next_and_a_limit_of_0_is_none() {
    let daemon = Daemon::start(tree()).await;
    let runners = [TestRunner::register(&daemon, "ny-1").await, TestRunner::register(&daemon, "ny-2").await];
    let mut held = [Vec::new(), Vec::new()];
    for _ in 0..6 {
        let mut parked = Vec::new();
        for (runner, held) in runners.iter().zip(&held) {
            parked.push(daemon.park(runner, held).await);
        }
        let number = daemon.create("many").await.task.number;
        let on = daemon.core.task(number).await.expect("there").runner.expect("given at once");
        let index = usize::from(on == "ny-2");
        for (of, claim) in parked.into_iter().enumerate() {
            if of == index {
                held[of].extend(claim.await.expect("no panic").expect("a claim").jobs.iter().map(|job| job.attempt));
            } else {
                claim.abort();
                assert!(claim.await.is_err());
            }
        }
        daemon.until(|counters| counters.parked_claims == 0).await;
    }
    assert_eq!(held.map(|held| held.len()), [3, 3]);
    for _ in 0..40 {
        daemon.create("many").await;
    }
    let other = TestRunner::register(&daemon, "ny-3").await;
    assert_eq!(other.claim_slots(&daemon.core, 0, &[], 40).await.expect("a claim").jobs.len(), 40);
}

/// A runner that is leaving, or whose disk is full, is not sent again what it did not take: another gets it at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_that_takes_nothing_was_given_goes_to_another_at_once() {
    let daemon = Daemon::start(tree()).await;
    let leaving = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let given = leaving.claim(&daemon.core, 30_000).await.expect("a claim").jobs;
    assert_eq!(given[0].attempt.task, number);
    // The answer crossed its end: it holds nothing and asks for nothing.
    let asks = tokio::spawn({
        let (core, leaving) = (daemon.core.clone(), leaving.clone());
        async move { leaving.claim_slots(&core, 30_000, &[], 0).await }
    });
    daemon.until(|counters| counters.parked_claims == 1).await;
    assert_eq!(daemon.state(number).await, TaskState::Queued);
    let other = TestRunner::register(&daemon, "ny-2").await;
    let access = other.begin(&daemon.core).await;
    assert_eq!((access.attempt().task, access.attempt().attempt), (number, 2));
    // What came late all the same begins nothing.
    let job = leaving.open_job(&given[0]);
    let late = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    let refused = daemon.core.start_attempt(&late, StartRequest::default()).await;
    assert!(matches!(refused, Err(CoreError::Gone { .. } | CoreError::Older { .. })), "{refused:?}");
    asks.abort();
}

/// Complaint 21 (leaked concurrency slots): a slot is a live attempt, and is free when that has ended, however it ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_free_again_however_its_attempt_ended() {
    let mut daemon = Daemon::start(tree_but(|tree| shop(tree).max_parallel_tasks = 1)).await;
    for way in ["canceled", "removed", "lost", "restarted"] {
        let gone = TestRunner::register(&daemon, &format!("gone-{way}")).await;
        let first = daemon.create("many").await.task.number;
        assert_eq!(gone.begin(&daemon.core).await.attempt().task, first);
        let next = daemon.create("many").await.task.number;
        let heir = TestRunner::register(&daemon, &format!("heir-{way}")).await;
        assert!(heir.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty(), "{way}: one at a time");
        let why = daemon.core.why(next).await.expect("why");
        assert!(why.unmet.iter().any(|unmet| unmet.code == "project_limit"), "{why:?}");
        match way {
            "canceled" => {
                daemon.core.cancel(first, "ann").await.expect("asked");
                daemon.time.advance_ms(61_000);
            }
            "removed" => daemon.core.remove_runner(gone.identity.name(), "ann").await.expect("removed"),
            "lost" => daemon.time.advance_ms(121_000),
            _restarted => {
                daemon.restart().await;
                assert_eq!(daemon.state(first).await, TaskState::Running, "its runner may come back");
                daemon.time.advance_ms(121_000);
            }
        }
        let access = heir.begin(&daemon.core).await;
        assert_eq!(access.attempt().task, next, "{way}");
        assert!(daemon.state(first).await.is_final());
        daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    }
}

/// Complaint 22 (the lease is lost and the payload runs on): whoever comes back too late is told so with every answer, and begins nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_comes_back_too_late_is_told_to_end_what_it_runs() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.create("many").await;
    let access = runner.begin(&daemon.core).await;
    daemon.time.advance_ms(121_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    let held = vec![access.attempt()];
    for _ in 0..2 {
        let request =
            HeartbeatRequest { session: runner.session.clone(), held: held.clone(), ..HeartbeatRequest::default() };
        assert_eq!(daemon.core.heartbeat(&runner.identity, request).await.expect("heard").lost, held);
    }
    assert_eq!(runner.claim_holding(&daemon.core, 0, &held).await.expect("a claim").lost, held);
    assert!(matches!(daemon.core.start_attempt(&access, StartRequest::default()).await, Err(CoreError::Gone { .. })));
}

/// How many tasks may run at a time in the test below: of the project, and on one of its runners.
const PROJECT_MAX: u32 = 5;
const RUNNER_MAX: u32 = 2;

/// Complaint 23 (limits are exceeded under load): a project's and a runner's limits hold however many ask at once.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_however_many_ask_at_once() {
    const TASKS: u64 = 60;
    let daemon = Daemon::start(tree_but(|tree| {
        shop(tree).max_parallel_tasks = PROJECT_MAX;
        tree.runners.get_mut("declared").expect("its file").max_parallel_tasks = RUNNER_MAX;
    }))
    .await;
    let (live, on_declared) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let peak = Arc::new(AtomicU32::new(0));
    let mut work = tokio::task::JoinSet::new();
    for number in 0..6 {
        let runner_name = if number == 0 { "declared".to_owned() } else { format!("r-{number}") };
        let runner = TestRunner::register(&daemon, &runner_name).await;
        let (core, live, on_declared, peak) =
            (daemon.core.clone(), Arc::clone(&live), Arc::clone(&on_declared), Arc::clone(&peak));
        work.spawn(async move {
            let mut held: Vec<forge_daemon::core::AttemptAccess> = Vec::new();
            loop {
                let ids: Vec<AttemptId> = held.iter().map(|access| access.attempt()).collect();
                let claimed = runner.claim_slots(&core, 0, &ids, 4).await.expect("a claim");
                for sealed in &claimed.jobs {
                    let now = live.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(now <= PROJECT_MAX, "{now} at a time");
                    peak.fetch_max(now, Ordering::SeqCst);
                    if number == 0 {
                        assert!(on_declared.fetch_add(1, Ordering::SeqCst) < RUNNER_MAX);
                    }
                    held.push(runner.begin_one(&core, sealed).await);
                }
                let counters = core.counters().await.expect("counts");
                let by_store = counters.tasks[&TaskState::Assigned] + counters.tasks[&TaskState::Running];
                assert!(by_store <= u64::from(PROJECT_MAX), "{counters:?}");
                if let Some(access) = held.pop() {
                    // From here on another may begin.
                    live.fetch_sub(1, Ordering::SeqCst);
                    if number == 0 {
                        on_declared.fetch_sub(1, Ordering::SeqCst);
                    }
                    core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
                } else if counters.tasks[&TaskState::Succeeded] == TASKS {
                    return;
                }
            }
        });
    }
    for _ in 0..TASKS {
        let core = daemon.core.clone();
        work.spawn(async move {
            core.create_task("shop", "many", CreateTask::default(), trigger(), None).await.expect("created");
        });
    }
    work.join_all().await;
    assert!(peak.load(Ordering::SeqCst) > 1, "they did run side by side");
}

/// Complaint 2 (a restart leaves tasks Running): what was begun ends when its runner stays away, what was not is given to another.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_leaves_no_task_behind() {
    let mut daemon = Daemon::start(tree()).await;
    let overdue = daemon.create("elsewhere").await.task.number;
    daemon.time.advance_ms(3_000_000);
    let gone = TestRunner::register(&daemon, "ny-1").await;
    let begun = daemon.create("many").await.task.number;
    let held = [gone.begin(&daemon.core).await.attempt()];
    let assigned = daemon.create("many").await.task.number;
    let given = gone.claim_holding(&daemon.core, 30_000, &held).await.expect("a claim").jobs[0].attempt;
    assert_eq!((given.task, given.attempt), (assigned, 1));
    daemon.restart_after(700_000).await;
    // What was due is looked at before the first request; what is with a runner gets time to be heard of.
    assert_eq!(daemon.state(overdue).await, TaskState::Expired);
    for (number, state) in [(begun, TaskState::Running), (assigned, TaskState::Assigned)] {
        assert_eq!(daemon.state(number).await, state);
        assert!(daemon.core.why(number).await.expect("why").deadline.is_some());
    }
    daemon.time.advance_ms(61_000);
    let other = TestRunner::register(&daemon, "ny-2").await;
    let again = other.begin(&daemon.core).await.attempt();
    assert_eq!((again.task, again.attempt), (assigned, 2));
    daemon.time.advance_ms(60_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    assert_eq!((daemon.state(begun).await, daemon.state(assigned).await), (TaskState::Lost, TaskState::Running));
}

/// What a project did not allow it does not allow once it has left the tree, nor while no tree is there at all.
#[tokio::test(flavor = "multi_thread")]
async fn rules_do_not_go_with_the_tree() {
    let closed = |tree: &mut Tree| shop(tree).global_runners = false;
    let daemon = Daemon::start(tree_but(closed)).await;
    let number = daemon.create("many").await.task.number;
    daemon.apply(tree_but(|tree| tree.projects.clear()));
    let global = TestRunner::register(&daemon, "ny-1").await;
    assert!(global.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty(), "it takes no global runner");
    let why = daemon.core.why(number).await.expect("why");
    assert!(why.unmet.iter().any(|unmet| unmet.code == "wrong_project"), "{why:?}");
    daemon.apply_nothing();
    assert!(global.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
    let why = daemon.core.why(number).await.expect("why");
    assert!(why.unmet.iter().any(|unmet| unmet.code == "no_configuration"), "{why:?}");
    // The project as it was made: any global runner takes what was made then.
    daemon.apply(tree());
    assert_eq!(global.claim(&daemon.core, 0).await.expect("a claim").jobs[0].attempt.task, number);
    let open = daemon.create("many").await.task.number;
    daemon.apply_nothing();
    let disabled = TestRunner::register(&daemon, "declared").await;
    assert!(disabled.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty(), "nothing is known of any runner");
    daemon.apply(tree_but(|tree| tree.projects.clear()));
    assert_eq!(disabled.claim(&daemon.core, 0).await.expect("a claim").jobs[0].attempt.task, open);
}

/// What the metric of the oldest counts is what somebody could mend with a runner: not what waits for its turn.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_is_the_one_that_only_lacks_a_runner() {
    let daemon = Daemon::start(tree_but(|tree| {
        add_project(tree, "bakery");
        tree.projects.get_mut("bakery").and_then(Arc::get_mut).expect("the project").max_parallel_tasks = 1;
    }))
    .await;
    let oldest_ms = async || daemon.core.counters().await.expect("counts").oldest_ready_ms;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    // One of a template that runs one at a time, and one of a project that does; behind each waits another.
    let deploy = daemon.create("deploy").await.task.number;
    let first = runner.begin(&daemon.core).await;
    assert_eq!(first.attempt().task, deploy);
    daemon.create("deploy").await;
    daemon.create_in("bakery", "many").await;
    let held = [first.attempt()];
    let claimed = runner.claim_holding(&daemon.core, 0, &held).await.expect("a claim");
    runner.begin_one(&daemon.core, &claimed.jobs[0]).await;
    daemon.create_in("bakery", "many").await;
    daemon.time.advance_ms(20_000);
    assert_eq!(oldest_ms().await, 0);
    // Its turn has come, and no runner asks.
    daemon.core.finish_attempt(&first, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    assert_eq!(oldest_ms().await, 20_000);
}

/// A runner that is out of reach may still be at it, for as long as the attempt's own timeout: the person's retry begins when it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_lost_task_waits_until_nothing_of_it_runs() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    runner.begin(&daemon.core).await;
    daemon.time.advance_ms(121_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    let why = daemon.core.why(number).await.expect("why").message;
    assert!(why.contains("attempt 1 may still run on ny-1, which has not said how it ended, until"), "{why}");
    daemon.core.retry(number, "ann", &RetryTask::default()).await.expect("again");
    let other = TestRunner::register(&daemon, "ny-2").await;
    // Its timeout is half an hour, and two minutes are for what is ended then.
    daemon.time.advance_ms(32 * 60_000 - 121_000 - 1_000);
    assert!(other.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
    let why = daemon.core.why(number).await.expect("why");
    let held = why.unmet.iter().find(|unmet| unmet.code == "may_still_run").expect("told of");
    assert_eq!(held.runner.as_deref(), Some("ny-1"), "{held:?}");
    assert!(held.remedy.contains("`forge task retry 1 --now`"), "{held:?}");
    daemon.time.advance_ms(1_001);
    assert_eq!(other.begin(&daemon.core).await.attempt().attempt, 2);
}

/// Its runner's word ends the wait: it says how the attempt ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_no_longer_than_for_its_runners_word() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    daemon.time.advance_ms(121_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    daemon.core.retry(number, "ann", &RetryTask::default()).await.expect("again");
    let other = TestRunner::register(&daemon, "ny-2").await;
    assert!(other.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
    let late = daemon.core.finish_attempt(&access, result(AttemptOutcome::Lost, b"")).await.expect("kept");
    assert!(!late.counted);
    assert_eq!(other.begin(&daemon.core).await.attempt().attempt, 2);
    // Where its runner has said so before nothing is waited for.
    let second = daemon.create("many").await.task.number;
    let third = TestRunner::register(&daemon, "ny-3").await;
    let ends = third.begin(&daemon.core).await;
    assert_eq!(ends.attempt().task, second);
    daemon.core.finish_attempt(&ends, result(AttemptOutcome::Lost, b"")).await.expect("counts");
    daemon.core.retry(second, "ann", &RetryTask::default()).await.expect("again");
    assert_eq!(third.begin(&daemon.core).await.attempt().attempt, 2);
}

/// A person who knows better has it run at once, and who did so is written down.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_have_a_retry_run_beside_what_may_still_run() {
    let now = RetryTask { now: true };
    for asks_first in [true, false] {
        let daemon = Daemon::start(tree()).await;
        let runner = TestRunner::register(&daemon, "ny-1").await;
        let number = daemon.create("many").await.task.number;
        runner.begin(&daemon.core).await;
        daemon.time.advance_ms(121_000);
        daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
        if asks_first {
            daemon.core.retry(number, "ann", &RetryTask::default()).await.expect("again");
        }
        let other = TestRunner::register(&daemon, "ny-2").await;
        assert!(other.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
        let retried = daemon.core.retry(number, "bob", &now).await.expect("at once");
        assert_eq!(retried.trigger.by, "bob");
        assert_eq!(other.begin(&daemon.core).await.attempt().attempt, 2);
        // A task that waits for something else is not to be hurried.
        let waits = daemon.create("elsewhere").await.task.number;
        let refused = daemon.core.retry(waits, "bob", &now).await.expect_err("it waits").problem();
        assert_eq!(refused.status, 409);
    }
}
