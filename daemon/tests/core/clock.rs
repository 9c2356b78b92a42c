//! A calendar that is set, a machine that sleeps, a start with another clock: `docs/decisions/0016-clock.md`.

use forge_api::{AttemptId, AttemptOutcome, HeartbeatRequest, RunnerStatus, TaskState, Timestamp};

use super::harness::{Daemon, START, TestRunner, result, tree};

const HOUR_MS: u64 = 3_600_000;

/// What is signed for a calendar that is set back.
fn by(ms: u64) -> i64 {
    i64::try_from(ms).expect("small")
}

/// Waits until a task's moments are where they are to be.
async fn until_created_at(daemon: &Daemon, number: u64, created_at: Timestamp) {
    while daemon.core.task(number).await.expect("there").created_at != created_at {
        tokio::task::yield_now().await;
    }
}

/// Sets the calendar and waits until that is minded; `number` is an open task, made when the test began.
async fn set(daemon: &Daemon, number: u64, jump_ms: i64) {
    let was = daemon.core.task(number).await.expect("there").created_at;
    daemon.time.set_calendar_by_ms(jump_ms);
    daemon.time.advance_ms(1_001);
    until_created_at(daemon, number, was.plus_millis(jump_ms)).await;
}

/// A runner says again and again that it is there and what it holds.
async fn beat(daemon: &Daemon, runner: &TestRunner, held: &[AttemptId], each_ms: u64, times: u64) {
    for _ in 0..times {
        daemon.time.advance_ms(each_ms);
        let request =
            HeartbeatRequest { session: runner.session.clone(), held: held.to_vec(), ..HeartbeatRequest::default() };
        let answer = daemon.core.heartbeat(&runner.identity, request).await.expect("heard");
        assert_eq!((answer.lost, answer.cancels), (Vec::new(), Vec::new()));
        // Each look is over before the next moment comes.
        daemon.turn().await;
    }
}

/// Tasks that were made by a clock which was ahead go on at once, and in their order.
#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_that_is_set_back_stops_no_queue() {
    let daemon = Daemon::start(tree()).await;
    let waiting = daemon.create("elsewhere").await.task.number;
    let first = daemon.create("many").await.task.number;
    let other = daemon.create("again").await.task.number;
    let gone = TestRunner::register(&daemon, "gone").await;
    let running = gone.begin(&daemon.core).await.attempt();
    assert_eq!(running.task, first);
    let second = daemon.create("many").await.task.number;
    daemon.time.advance_ms(10_000);
    set(&daemon, waiting, -by(HOUR_MS)).await;
    let third = daemon.create("many").await.task.number;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    for expected in [other, second, third] {
        assert_eq!(runner.begin(&daemon.core).await.attempt().task, expected, "the oldest first");
    }
    // What was asked for is over in its time, and what waits expires in its own.
    daemon.core.cancel(first, "ann").await.expect("asked");
    daemon.time.advance_ms(61_000);
    daemon.until(|counters| counters.tasks[&TaskState::Canceled] == 1).await;
    assert_eq!(daemon.state(waiting).await, TaskState::Queued);
    daemon.time.advance_ms(HOUR_MS - 80_000);
    daemon.turn().await;
    assert_eq!(daemon.state(waiting).await, TaskState::Queued, "an hour is not over");
    daemon.time.advance_ms(20_000);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
}

/// A delay is as long as it was, whichever way the calendar goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_delay_keeps_its_length() {
    for jump_ms in [by(HOUR_MS), -by(HOUR_MS)] {
        let daemon = Daemon::start(tree()).await;
        let waiting = daemon.create("elsewhere").await.task.number;
        let number = daemon.create("patient").await.task.number;
        let runner = TestRunner::register(&daemon, "ny-1").await;
        let access = runner.begin(&daemon.core).await;
        daemon.core.finish_attempt(&access, result(AttemptOutcome::Failed, b"")).await.expect("counts");
        set(&daemon, waiting, jump_ms).await;
        daemon.time.advance_ms(2 * HOUR_MS - 60_000);
        daemon.turn().await;
        assert!(runner.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty(), "{jump_ms}: not yet");
        daemon.time.advance_ms(60_000);
        let again = runner.begin(&daemon.core).await.attempt();
        assert_eq!((again.task, again.attempt), (number, 2), "{jump_ms}");
    }
}

/// A clock that is set forward ends nothing: what waits and what runs has not waited or run for longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_that_is_set_forward_ends_nothing() {
    let daemon = Daemon::start(tree()).await;
    let waiting = daemon.create("elsewhere").await.task.number;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let running = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    set(&daemon, waiting, by(30 * 24 * HOUR_MS)).await;
    let begun = daemon.core.task(running).await.expect("there");
    assert_eq!(begun.started_at, Some(START.plus_millis(by(30 * 24 * HOUR_MS))));
    // Its timeout is half an hour: it has that, and the margin of two minutes, from its start on.
    beat(&daemon, &runner, &[access.attempt()], 60_000, 31).await;
    assert_eq!((daemon.state(waiting).await, daemon.state(running).await), (TaskState::Queued, TaskState::Running));
    assert_eq!(daemon.core.runner("ny-1").await.expect("it stays registered").status, RunnerStatus::Online);
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    let ended = daemon.core.task(running).await.expect("there");
    assert_eq!(ended.state, TaskState::Succeeded);
    let ran_ms = ended.finished_at.expect("ended").millis_since(ended.started_at.expect("began"));
    assert_eq!(ran_ms, 31 * 60_000 + 1_001, "and it took as long as it took");
    // It waits as long as it would have.
    daemon.time.advance_ms(HOUR_MS - 31 * 60_000);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_as_long_as_it_was() {
    for jump_ms in [by(HOUR_MS), -by(HOUR_MS)] {
        let daemon = Daemon::start(tree()).await;
        let waiting = daemon.create("elsewhere").await.task.number;
        let runner = TestRunner::register(&daemon, "ny-1").await;
        let number = daemon.create("brief").await.task.number;
        runner.begin(&daemon.core).await;
        set(&daemon, waiting, jump_ms).await;
        daemon.time.advance_ms(100_000);
        daemon.turn().await;
        assert_eq!(daemon.state(number).await, TaskState::Running, "{jump_ms}");
        daemon.time.advance_ms(30_000);
        daemon.until(|counters| counters.tasks[&TaskState::TimedOut] == 1).await;
    }
}

/// A machine without a battery begins in 1970, with tasks that were made by a clock that was right.
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_with_a_clock_that_is_behind_makes_no_task_wait_for_ever() {
    let mut daemon = Daemon::start(tree()).await;
    let years_ms = by(50 * 365 * 24 * HOUR_MS);
    let waiting = daemon.create("elsewhere").await.task.number;
    let ready = daemon.create("many").await.task.number;
    daemon.restart_when(|time| time.set_calendar_by_ms(-years_ms)).await;
    // By a clock that is behind it goes on as by any other.
    let runner = TestRunner::register(&daemon, "ny-1").await;
    assert_eq!(runner.begin(&daemon.core).await.attempt().task, ready);
    daemon.time.advance_ms(60_000);
    set(&daemon, waiting, years_ms).await;
    daemon.time.advance_ms(HOUR_MS - 120_000);
    daemon.turn().await;
    assert_eq!(daemon.state(waiting).await, TaskState::Queued, "its wait began anew with the boot");
    daemon.time.advance_ms(60_000);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
}

/// What the daemon slept through it could not hear: no attempt is lost for it, and no runner forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_sleeps_loses_no_attempt_and_no_runner() {
    let daemon = Daemon::start(tree()).await;
    let waiting = daemon.create("elsewhere").await.task.number;
    let free = TestRunner::register(&daemon, "free").await;
    free.claim(&daemon.core, 0).await.expect("a claim");
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let [heard, unheard] = [daemon.create("many").await.task.number, daemon.create("many").await.task.number];
    let mut held = vec![runner.begin(&daemon.core).await.attempt()];
    let claimed = runner.claim_holding(&daemon.core, 0, &held).await.expect("a claim");
    runner.begin_one(&daemon.core, &claimed.jobs[0]).await;
    daemon.time.sleep_machine_ms(30 * HOUR_MS);
    daemon.turn().await;
    // Time has passed for what waits.
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
    assert_eq!(daemon.state(waiting).await, TaskState::Expired);
    assert_eq!((daemon.state(heard).await, daemon.state(unheard).await), (TaskState::Running, TaskState::Running));
    // A runner that is there says so; of the other attempt it says nothing, and that one is lost in its time.
    held.truncate(1);
    beat(&daemon, &runner, &held, 5_000, 25).await;
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    assert_eq!((daemon.state(heard).await, daemon.state(unheard).await), (TaskState::Running, TaskState::Lost));
    let reason = daemon.core.task(unheard).await.expect("there").reason.expect("a reason");
    assert!(reason.contains("ny-1 is there and does not hold this attempt"), "{reason}");
    // The housekeeping has looked by now.
    daemon.core.runner("free").await.expect("it may come back");
}

/// Whether a runner was heard of is not the calendar's to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_days_forgets_no_runner_and_no_history() {
    let daemon = Daemon::start(super::harness::tree_with(
        forge_config::meant::Retention { tasks: 0, age_ms: 24 * HOUR_MS },
        None,
    ))
    .await;
    let ended = daemon.create("many").await.task.number;
    daemon.core.cancel(ended, "ann").await.expect("ends");
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let away = TestRunner::register(&daemon, "away").await;
    away.claim(&daemon.core, 0).await.expect("a claim");
    // Longer than runners have after a start.
    beat(&daemon, &runner, &[], HOUR_MS + 60_000, 1).await;
    let waiting = daemon.create("elsewhere").await.task.number;
    set(&daemon, waiting, by(48 * HOUR_MS)).await;
    // The housekeeping looks once a minute.
    beat(&daemon, &runner, &[], 20_000, 8).await;
    for name in ["ny-1", "away"] {
        daemon.core.runner(name).await.expect("it stays registered");
    }
    daemon.core.task(ended).await.expect("it stays in the history");
}

/// Promise 2: 30 seconds without a word are what makes a runner offline, and its claim is its word when it comes in.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waits_is_no_word() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waits = daemon.park(&runner, &[]).await;
    daemon.time.advance_ms(20_000);
    // It is looked at again, which says nothing of its runner.
    daemon.core.set_draining("ny-1", true, "ann").await.expect("drains");
    daemon.core.set_draining("ny-1", false, "ann").await.expect("resumes");
    daemon.time.advance_ms(5_000);
    assert!(waits.await.expect("no panic").expect("an answer").jobs.is_empty());
    let shown = daemon.core.runner("ny-1").await.expect("there");
    assert_eq!((shown.status, shown.last_contact_at), (RunnerStatus::Online, Some(START)));
    daemon.time.advance_ms(5_000);
    assert_eq!(daemon.core.runner("ny-1").await.expect("there").status, RunnerStatus::Offline);
}

/// A one-off runner's registration ends with its task, whatever the calendar says of which was first.
#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_runner_ends_with_its_task_whatever_the_calendar_says() {
    let daemon = Daemon::start(tree()).await;
    let once = TestRunner::register_with(&daemon.core, "once", true).await;
    daemon.time.set_calendar_by_ms(-by(HOUR_MS));
    daemon.create("many").await;
    let access = once.begin(&daemon.core).await;
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    assert!(once.claim(&daemon.core, 0).await.expect("a claim").over);
}
