//! A plan that waits for a person: what holds and what does not, who decides, and what the next attempt is given.

use bytes::Bytes;
use forge_api::{AttemptOutcome, AttemptResult, Carry, Decision, Job, StartRequest, Task, TaskState};
use forge_daemon::core::{AttemptAccess, CoreError};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::harness::{Daemon, TestRunner, result, shop, tree, tree_but};

const PLAN: &[u8] = b"what the plan needs, as good as encrypted";

fn carry(access: &AttemptAccess, bytes: &[u8]) -> Carry {
    let sha256 = ring::digest::digest(&ring::digest::SHA256, bytes);
    Carry {
        attempt: access.attempt(),
        length: bytes.len() as u64,
        sha256: sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// An attempt's report that it has planned.
fn planned(access: &AttemptAccess, bytes: &[u8]) -> AttemptResult {
    AttemptResult {
        summary: Some(json!({ "text": "2 to add", "add": 2 })),
        carry: Some(carry(access, bytes)),
        ..result(AttemptOutcome::AwaitsApproval, b"")
    }
}

async fn hand_in(daemon: &Daemon, access: &AttemptAccess, bytes: &'static [u8]) {
    let mut incoming = daemon.core.carry_in(access).await.expect("taken");
    for piece in bytes.chunks(7) {
        incoming.write(&Bytes::from_static(piece)).await.expect("written");
    }
    incoming.keep().await.expect("kept");
}

/// Brings a new task of `template` to where it waits for approval.
async fn plan(daemon: &Daemon, runner: &TestRunner, template: &str) -> Task {
    let number = daemon.create(template).await.task.number;
    let access = runner.begin(&daemon.core).await;
    assert_eq!(access.attempt().task, number);
    hand_in(daemon, &access, PLAN).await;
    let answer = daemon.core.finish_attempt(&access, planned(&access, PLAN)).await.expect("counts");
    assert_eq!((answer.state, answer.counted), (TaskState::AwaitingApproval, true));
    daemon.core.task(number).await.expect("there")
}

async fn next_job(daemon: &Daemon, runner: &TestRunner) -> Job {
    runner.open_job(&runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0])
}

async fn carried(daemon: &Daemon, job: &Job) -> Result<Vec<u8>, CoreError> {
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await?;
    let (mut file, length) = daemon.core.carry_out(&access).await?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).await.expect("read");
    assert_eq!(bytes.len() as u64, length);
    Ok(bytes)
}

fn carries(daemon: &Daemon) -> usize {
    std::fs::read_dir(daemon.folder.path().join("carries")).expect("the folder").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_without_a_slot_and_what_was_approved_is_carried_on() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waiting = plan(&daemon, &runner, "many").await;
    assert_eq!((waiting.state, waiting.attempt), (TaskState::AwaitingApproval, 1));
    assert_eq!(waiting.summary, Some(json!({ "text": "2 to add", "add": 2 })));
    assert!(waiting.finished_at.is_none() && waiting.reason.is_none());
    assert_eq!(daemon.core.runner("ny-1").await.expect("there").running, 0);
    let why = daemon.core.why(waiting.number).await.expect("why");
    assert!(why.message.contains("2 to add"), "{why:?}");
    assert!(why.remedy.as_ref().is_some_and(|remedy| remedy.contains("forge task approve")), "{why:?}");
    assert_eq!(why.at_deadline.as_deref(), Some("the task expires"));
    // It survives the daemon.
    let mut daemon = daemon;
    daemon.restart().await;

    let decision = Decision { attempt: Some(1), reason: None };
    let going = daemon.core.approve(waiting.number, "ann", &decision).await.expect("approved");
    assert_eq!(going.state, TaskState::Queued);
    assert_eq!(going.approved.as_ref().map(|approved| approved.by.as_str()), Some("ann"));
    let database = rusqlite::Connection::open(daemon.folder.path().join("forge.db")).expect("opens");
    let written = database.query_row(
        "SELECT actor || ' ' || object || ' ' || result || ' ' || detail FROM audit WHERE action = 'task.approve'",
        [],
        |row| row.get::<_, String>(0),
    );
    let expected = format!("ann task {} ok {{\"attempt\":1,\"reason\":null}}", waiting.number);
    assert_eq!(written.expect("one row"), expected);
    let other = TestRunner::register(&daemon, "ny-2").await;
    let job = next_job(&daemon, &other).await;
    assert_eq!((job.attempt.task, job.attempt.attempt), (waiting.number, 2));
    let resumed = job.resume.clone().expect("the plan");
    assert_eq!((resumed.attempt.attempt, resumed.length), (1, PLAN.len() as u64));
    assert!(job.carry_key.is_some());
    assert_eq!(carried(&daemon, &job).await.expect("its plan"), PLAN);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
    let answer = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    assert_eq!(answer.state, TaskState::Succeeded);
    let ended = daemon.core.task(waiting.number).await.expect("there");
    assert_eq!(ended.approved.map(|approved| approved.by), Some("ann".to_owned()));
    // A closed attempt gets nothing any more, and in a moment nothing is left.
    assert!(matches!(carried(&daemon, &job).await, Err(CoreError::NotFound { .. })));
    daemon.time.advance_ms(61_000);
    daemon.until(|_| carries(&daemon) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_waits_is_decided_about_and_only_the_plan_that_was_looked_at() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waiting = plan(&daemon, &runner, "many").await;
    let of = |attempt| Decision { attempt, reason: None };
    let error = daemon.core.approve(waiting.number, "ann", &of(Some(7))).await.expect_err("another plan");
    assert!(
        error.to_string().contains("with another plan, that of attempt 1") && error.problem().status == 409,
        "{error}"
    );
    let because = Decision { attempt: None, reason: Some("too much at once".to_owned()) };
    let rejected = daemon.core.reject(waiting.number, "ann", &because).await.expect("rejected");
    assert_eq!(rejected.state, TaskState::Canceled);
    assert_eq!(rejected.reason.as_deref(), Some("rejected by ann: too much at once"));
    for again in [
        daemon.core.approve(waiting.number, "ann", &of(None)).await,
        daemon.core.reject(waiting.number, "ann", &of(None)).await,
    ] {
        let error = again.expect_err("it is over").problem();
        assert_eq!(error.status, 409);
        assert!(error.detail.contains("is canceled: nothing of it awaits approval"), "{error:?}");
    }
    let queued = daemon.create("many").await.task.number;
    let error = daemon.core.approve(queued, "ann", &of(None)).await.expect_err("nothing is planned").problem();
    assert!(error.hint.is_some_and(|hint| hint.contains("forge task why")), "{}", error.detail);
    let long = Decision { attempt: None, reason: Some("x".repeat(1_025)) };
    assert_eq!(daemon.core.reject(queued, "ann", &long).await.expect_err("too long").problem().status, 400);
    daemon.core.cancel(queued, "ann").await.expect("ends");
    // Asked for its end like any other task.
    let waiting = plan(&daemon, &runner, "many").await;
    assert_eq!(daemon.core.cancel(waiting.number, "ann").await.expect("ends").state, TaskState::Canceled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_nobody_decides_about_expires() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waiting = plan(&daemon, &runner, "many").await;
    // queue_timeout is an hour, approval_timeout two.
    daemon.time.advance_ms(3_700_000);
    daemon.core.why(waiting.number).await.expect("why");
    assert_eq!(daemon.state(waiting.number).await, TaskState::AwaitingApproval);
    daemon.time.advance_ms(3_600_000);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
    let reason = daemon.core.task(waiting.number).await.expect("there").reason.expect("a reason");
    assert_eq!(reason, "nobody approved it within approval_timeout (2h)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_none_without_what_it_needs() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let finish = |result: AttemptResult| daemon.core.finish_attempt(&access, result);
    let nothing = AttemptResult { carry: None, ..planned(&access, PLAN) };
    for missing in [nothing, planned(&access, PLAN)] {
        let problem = finish(missing).await.expect_err("it is not here").problem();
        assert_eq!((problem.status, problem.slug()), (409, "carry-missing"));
    }
    hand_in(&daemon, &access, b"something else").await;
    assert_eq!(finish(planned(&access, PLAN)).await.expect_err("other bytes").problem().slug(), "carry-missing");
    assert_eq!(daemon.state(number).await, TaskState::Running);
    hand_in(&daemon, &access, PLAN).await;
    assert_eq!(finish(planned(&access, PLAN)).await.expect("counts").state, TaskState::AwaitingApproval);
    // The same report again, as after an answer that was lost.
    assert_eq!(finish(planned(&access, PLAN)).await.expect("known").state, TaskState::AwaitingApproval);
    let closed = daemon.core.carry_in(&access).await.expect_err("the attempt is over");
    assert!(matches!(closed, CoreError::Gone { .. }), "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_may_have_been_carried_out_is_made_anew() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waiting = plan(&daemon, &runner, "again").await;
    daemon.core.approve(waiting.number, "ann", &Decision::default()).await.expect("approved");
    // Delivered and never begun: the next runner is given the same plan.
    let job = next_job(&daemon, &runner).await;
    assert!(job.resume.is_some());
    daemon.time.advance_ms(61_000);
    daemon.until(|counters| counters.tasks[&TaskState::Queued] == 1).await;
    let other = TestRunner::register(&daemon, "ny-2").await;
    let job = next_job(&daemon, &other).await;
    assert_eq!(job.resume.as_ref().map(|carry| carry.attempt.attempt), Some(1));
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
    // Begun and lost: nobody knows how much of it was done. The template retries, and plans for what is there now.
    daemon.time.advance_ms(121_000);
    daemon.until(|counters| counters.tasks[&TaskState::Queued] == 1).await;
    assert!(daemon.core.task(waiting.number).await.expect("there").approved.is_none());
    let job = next_job(&daemon, &TestRunner::register(&daemon, "ny-3").await).await;
    assert!(job.resume.is_none(), "{:?}", job.resume);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_approved_and_could_not_begin_is_done_by_the_next_runner_and_once() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    // Its template has no retry.
    let waiting = plan(&daemon, &runner, "many").await;
    daemon.core.approve(waiting.number, "ann", &Decision::default()).await.expect("approved");
    let unbegun = AttemptResult {
        reason: Some("the plugin cannot be had".to_owned()),
        nothing_ran: true,
        ..result(AttemptOutcome::Retry, b"")
    };
    let access = runner.begin(&daemon.core).await;
    for _sent_again in 0..2 {
        let answer = daemon.core.finish_attempt(&access, unbegun.clone()).await.expect("counts");
        assert_eq!((answer.state, answer.counted), (TaskState::Queued, true));
    }
    let task = daemon.core.task(waiting.number).await.expect("there");
    assert_eq!(task.approved.as_ref().map(|approved| approved.by.as_str()), Some("ann"), "{task:?}");
    let why = daemon.core.why(waiting.number).await.expect("why");
    assert!(why.unmet.iter().any(|unmet| unmet.code == "retry_delay"), "{why:?}");

    // Not at once: the next runner may fail as fast.
    let other = TestRunner::register(&daemon, "ny-2").await;
    daemon.time.advance_ms(9_000);
    assert!(other.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
    daemon.time.advance_ms(1_000);
    let job = next_job(&daemon, &other).await;
    assert_eq!((job.attempt.task, job.attempt.attempt), (waiting.number, 3));
    assert_eq!(job.resume.as_ref().map(|carry| carry.attempt.attempt), Some(1));
    assert_eq!(carried(&daemon, &job).await.expect("its plan"), PLAN);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
    // This one may have done some of it: nobody does it again.
    let failed = AttemptResult { reason: Some("exit code 1".to_owned()), ..result(AttemptOutcome::Failed, b"") };
    assert_eq!(daemon.core.finish_attempt(&access, failed).await.expect("counts").state, TaskState::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_approved_and_never_begins_expires() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waiting = plan(&daemon, &runner, "many").await;
    daemon.core.approve(waiting.number, "ann", &Decision::default()).await.expect("approved");
    // queue_timeout is an hour, counted from the approval.
    daemon.time.advance_ms(3_000_000);
    let access = runner.begin(&daemon.core).await;
    let unbegun =
        AttemptResult { reason: Some("no disk".to_owned()), nothing_ran: true, ..result(AttemptOutcome::Retry, b"") };
    daemon.core.finish_attempt(&access, unbegun).await.expect("counts");
    daemon.time.advance_ms(601_000);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
    assert_eq!(daemon.state(waiting.number).await, TaskState::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_keeps_its_templates_one_place() {
    let daemon = Daemon::start(tree_but(|tree| shop(tree).max_parallel_tasks = 1)).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let earlier = daemon.create("deploy").await.task.number;
    daemon.core.cancel(earlier, "ann").await.expect("ends");
    // `deploy` runs one at a time, `many` as many as there are runners for.
    let waiting = plan(&daemon, &runner, "deploy").await;
    let next = daemon.create("deploy").await.task.number;
    let why = daemon.core.why(next).await.expect("why");
    let unmet: Vec<&str> = why.unmet.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(unmet[0], "template_awaits_approval", "{why:?}");
    assert!(why.unmet[0].remedy.contains(&format!("forge task approve {}", waiting.number)));
    // Another template has the project's one place meanwhile.
    let other = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    assert_eq!(access.attempt().task, other);
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    // One that is older than the plan, and one that is more important, wait for it as well.
    let older = earlier;
    daemon.core.retry(older, "ann", &Default::default()).await.expect("again");
    daemon.core.approve(waiting.number, "ann", &Decision::default()).await.expect("approved");
    let why = daemon.core.why(older).await.expect("why");
    assert_eq!(why.unmet[0].code, "template_awaits_approval", "{why:?}");
    let access = runner.begin(&daemon.core).await;
    assert_eq!(access.attempt().task, waiting.number, "what was approved goes first");
    daemon.core.cancel(older, "ann").await.expect("ends");
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    assert_eq!(runner.begin(&daemon.core).await.attempt().task, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_plan_is_looked_at_by_a_person_and_not_tried_again() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    // Its template has a retry.
    let waiting = plan(&daemon, &runner, "patient").await;
    daemon.core.approve(waiting.number, "ann", &Decision::default()).await.expect("approved");
    let access = runner.begin(&daemon.core).await;
    let failed = AttemptResult { reason: Some("exit code 1".to_owned()), ..result(AttemptOutcome::Failed, b"") };
    assert_eq!(daemon.core.finish_attempt(&access, failed).await.expect("counts").state, TaskState::Failed);
    let task = daemon.core.task(waiting.number).await.expect("there");
    assert_eq!((task.reason.as_deref(), task.summary), (Some("exit code 1"), None), "the plan is not its outcome");
    // Nothing was done where the state was locked: it plans anew, and asks again.
    let waiting = plan(&daemon, &runner, "patient").await;
    daemon.core.approve(waiting.number, "ann", &Decision::default()).await.expect("approved");
    let access = runner.begin(&daemon.core).await;
    let locked = AttemptResult { reason: Some("locked".to_owned()), ..result(AttemptOutcome::Retry, b"") };
    assert_eq!(daemon.core.finish_attempt(&access, locked).await.expect("counts").state, TaskState::Queued);
    assert!(daemon.core.task(waiting.number).await.expect("there").approved.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_no_plan_back() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let (waits, approved, given) = (
        plan(&daemon, &runner, "many").await,
        plan(&daemon, &runner, "many").await,
        plan(&daemon, &runner, "many").await,
    );
    daemon.core.approve(given.number, "ann", &Decision::default()).await.expect("approved");
    assert_eq!(next_job(&daemon, &runner).await.attempt.task, given.number);
    daemon.core.approve(approved.number, "ann", &Decision::default()).await.expect("approved");
    let queued = daemon.create("elsewhere").await.task.number;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, restored) = (folder.path().join("backup.tar"), tempfile::tempdir().expect("a folder"));
    let data_dir = daemon.folder.path().to_owned();
    let into = restored.path().to_owned();
    let copied = move || {
        forge_daemon::backup(&data_dir, &file).expect("taken");
        forge_daemon::restore(&file, &into).expect("restored");
    };
    tokio::task::spawn_blocking(copied).await.expect("no panic");
    let again = Daemon::start_in(restored, tree()).await;
    for number in [waits.number, approved.number, given.number] {
        let task = again.core.task(number).await.expect("there");
        assert_eq!(task.state, TaskState::Canceled, "{task:?}");
        assert!(task.reason.is_some_and(|reason| reason.contains("came back with a backup")));
    }
    assert_eq!(again.state(queued).await, TaskState::Queued, "what has no plan goes on");
}
