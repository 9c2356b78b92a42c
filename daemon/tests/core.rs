//! The core as its callers see it: real SQLite, real files, real keys; time moves only where a test moves it.

#[path = "core/approvals.rs"]
mod approvals;
#[path = "core/clock.rs"]
mod clock;
#[path = "core/crash.rs"]
mod crash;
#[path = "core/harness.rs"]
mod harness;
#[path = "core/insight.rs"]
mod insight;
#[path = "core/lifetimes.rs"]
mod lifetimes;
#[path = "core/routing.rs"]
mod routing;
#[path = "core/rules.rs"]
mod rules;
#[path = "core/schedules.rs"]
mod schedules;
#[path = "core/space.rs"]
mod space;

use std::collections::BTreeSet;
use std::sync::Arc;

use forge_api::{
    AttemptOutcome, ContentRange, CreateTask, HeartbeatRequest, RegisterRequest, RunnerStatus, Secret, StartRequest,
    TaskState,
};
use forge_config::SecretValue;
use forge_daemon::core::CoreError;
use harness::{Daemon, TestRunner, result, tree_but, trigger};

/// Complaint 14 (output truncated): a result may come before its log, which is then handed in by offset and compared as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_walks_from_creation_to_success() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let parked = tokio::spawn({
        let (core, runner) = (daemon.core.clone(), runner.clone());
        async move { runner.claim(&core, 30_000).await }
    });
    daemon.until(|counters| counters.parked_claims == 1).await;
    let created = daemon.create("deploy").await;
    assert!(!created.replayed);
    let response = parked.await.expect("no panic").expect("a claim");
    let job = runner.open(&daemon, &response.jobs[0]);
    assert_eq!((job.project.as_str(), job.template.as_str(), job.runner.as_str()), ("shop", "deploy", "ny-1"));
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its own token");
    assert!(matches!(
        daemon.core.authenticate_attempt(job.attempt, &Secret::new("forge_attempt_x")).await,
        Err(CoreError::Unauthorized)
    ));
    let commit = Some("a".repeat(40));
    assert!(
        !daemon
            .core
            .start_attempt(&access, StartRequest { commit: commit.clone(), session: None })
            .await
            .expect("starts")
            .cancel
    );

    let mut reader = daemon.core.log(created.task.number, None).await.expect("a log");
    let following = tokio::spawn(async move {
        let (mut bytes, mut offset) = (Vec::new(), 0);
        while let Some(more) = reader.follow(offset, 1_000).await.expect("reads") {
            offset += more.len() as u64;
            bytes.extend_from_slice(&more);
        }
        bytes
    });
    let log = b"one\ntwo\n";
    let range = ContentRange::of(0, 4).expect("four bytes");
    daemon.core.append_log(&access, range, log[..4].to_vec().into()).await.expect("taken");
    let early = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, log)).await.expect("counts");
    assert_eq!((early.state, early.counted, early.log_length, early.log_whole), (TaskState::Succeeded, true, 4, false));
    let range = ContentRange::of(2, 6).expect("six bytes");
    assert_eq!(daemon.core.append_log(&access, range, log[2..].to_vec().into()).await.expect("overlaps").length, 8);
    let again = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, log)).await.expect("again");
    assert!(again.counted && again.log_whole);
    assert_eq!(following.await.expect("no panic"), log);

    let task = daemon.core.task(created.task.number).await.expect("there");
    assert_eq!((task.state, task.attempt, task.commit, task.log_bytes), (TaskState::Succeeded, 1, commit, 8));
    assert!(matches!(daemon.core.cancel(task.number, "ann").await, Err(CoreError::Conflict { .. })));
    let retried = daemon.core.retry(task.number, "ann", &Default::default()).await.expect("again");
    assert_eq!((retried.state, retried.attempt, retried.reason), (TaskState::Queued, 1, None));
    let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    assert_eq!(job.attempt.attempt, 2);
    assert!(matches!(daemon.core.start_attempt(&access, StartRequest::default()).await, Err(CoreError::Older { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_assigned_once_however_many_ask() {
    let daemon = Daemon::start(harness::tree()).await;
    let mut claims = tokio::task::JoinSet::new();
    for number in 0..64 {
        let runner = TestRunner::register(&daemon, &format!("r-{number}")).await;
        let core = daemon.core.clone();
        claims.spawn(async move {
            let mut got = Vec::new();
            // A claim that waits for nothing still takes what is there.
            loop {
                let response = runner.claim_holding(&core, 0, &got).await.expect("a claim");
                got.extend(response.jobs.iter().map(|job| job.attempt));
                let counters = core.counters().await.expect("counts");
                if response.jobs.is_empty() && counters.tasks[&TaskState::Assigned] == 200 {
                    return got;
                }
            }
        });
    }
    let mut creations = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let core = daemon.core.clone();
        creations.spawn(async move {
            core.create_task("shop", "many", CreateTask::default(), trigger(), None).await.expect("created").task.number
        });
    }
    let created: BTreeSet<u64> = creations.join_all().await.into_iter().collect();
    daemon.until(|counters| counters.tasks[&TaskState::Assigned] == 200).await;
    let got: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    let tasks: BTreeSet<u64> = got.iter().map(|id| id.task).collect();
    assert_eq!(got.len(), 200, "each attempt was delivered once");
    assert_eq!(tasks, created);
    assert!(got.iter().all(|id| id.attempt == 1));
}

/// A claim makes its job ready while that is being committed, and must not hear of one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_committed_is_given_to_nobody() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waits = daemon.park(&runner, &[]).await;
    let database = rusqlite::Connection::open(daemon.folder.path().join("forge.db")).expect("the database");
    // Checked when all else is done: SQLite says no to the commit itself.
    let at_commit = "CREATE TABLE none (id INTEGER PRIMARY KEY);
         CREATE TABLE points (id INTEGER REFERENCES none (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER never AFTER INSERT ON attempts BEGIN INSERT INTO points VALUES (1); END;";
    database.execute_batch(at_commit).expect("a trigger");
    let refused = daemon.core.create_task("shop", "many", CreateTask::default(), trigger(), None).await;
    assert_eq!(refused.expect_err("not committed").problem().status, 500);
    database.execute_batch("DROP TRIGGER never").expect("gone");
    let number = daemon.create("deploy").await.task.number;
    let jobs = waits.await.expect("no panic").expect("a claim").jobs;
    let [sealed] = &jobs[..] else { panic!("{} jobs", jobs.len()) };
    let job = runner.open(&daemon, sealed);
    assert_eq!((job.template.as_str(), job.attempt.task), ("deploy", number));
}

/// Complaint 5 (a stop is ignored, a report overwrites it): whichever comes first counts, and the task ends either way.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_report_never_leave_a_task_open() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    for _ in 0..20 {
        let number = daemon.create("many").await.task.number;
        let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
        let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
        daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
        let (canceled, finished) = tokio::join!(
            daemon.core.cancel(number, "ann"),
            daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")),
        );
        let (state, counted) = finished.map(|accepted| (accepted.state, accepted.counted)).expect("taken");
        assert!(counted);
        match canceled {
            Ok(_) => assert_eq!(state, TaskState::Canceled),
            Err(CoreError::Conflict { .. }) => assert_eq!(state, TaskState::Succeeded),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_parked_runner_once_and_its_heartbeats_always() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    let held = [job.attempt];
    let waits = tokio::spawn({
        let (core, runner) = (daemon.core.clone(), runner.clone());
        async move { runner.claim_holding(&core, 30_000, &held).await }
    });
    daemon.until(|counters| counters.parked_claims == 1).await;
    daemon.core.cancel(number, "ann").await.expect("asked");
    assert_eq!(waits.await.expect("no panic").expect("a claim").cancels, held);
    assert_eq!(runner.claim_holding(&daemon.core, 0, &held).await.expect("a claim").cancels, []);
    let request = HeartbeatRequest {
        session: "s-ny-1".to_owned(),
        previous_sessions: Vec::new(),
        held: held.to_vec(),
        ..HeartbeatRequest::default()
    };
    assert_eq!(daemon.core.heartbeat(&runner.identity, request).await.expect("heard").cancels, held);
}

/// Complaint 4 (a runner dies in the middle of a task): its lease ends by the daemon's clock, and its late word changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_wait_ends_by_the_daemons_clock() {
    let daemon = Daemon::start(harness::tree()).await;
    let expired = daemon.create("elsewhere").await.task.number;
    let why = daemon.core.why(expired).await.expect("why");
    assert!(why.message.contains("needs tag mars") && why.deadline.is_some(), "{why:?}");

    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let first = runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0].attempt;
    // It never arrived: the same attempt comes again with the same token.
    let again = runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0].attempt;
    assert_eq!(first, again);
    // It never starts: it is taken back.
    daemon.time.advance_ms(61_000);
    daemon.until(|counters| counters.tasks[&TaskState::Assigned] == 0).await;
    let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    assert_eq!((job.attempt.task, job.attempt.attempt), (number, 2));
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
    daemon.time.advance_ms(40_000);
    assert_eq!(daemon.core.runner("ny-1").await.expect("there").status, RunnerStatus::Offline);
    let why = daemon.core.why(number).await.expect("why");
    assert!(why.message.contains("runner unreachable since"), "{}", why.message);
    // Its runner stays away for longer than runner_grace.
    daemon.time.advance_ms(90_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    let late = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("kept");
    assert_eq!((late.state, late.counted), (TaskState::Lost, false));
    assert!(matches!(daemon.core.start_attempt(&access, StartRequest::default()).await, Err(CoreError::Gone { .. })));
    let counters = daemon.core.counters().await.expect("counts");
    assert_eq!((counters.fenced_writes, counters.lease_expiries, counters.assignments), (2, 1, 2));
    // The other one waits for a runner that is not there, since before all of this.
    assert!(counters.oldest_ready_ms >= 190_000, "{counters:?}");
    // Nobody ever took the other one.
    daemon.time.advance_ms(24 * 3_600_000);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
    let task = daemon.core.task(expired).await.expect("there");
    assert!(task.reason.is_some_and(|reason| reason.contains("queue_timeout (1h)")));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_stay_with_their_keys() {
    let daemon = Daemon::start(harness::tree()).await;
    let first = TestRunner::register(&daemon, "ny-1").await;
    let request = |public_key: String| RegisterRequest {
        name: "ny-1".to_owned(),
        public_key,
        version: "1".to_owned(),
        max_parallel_tasks: 0,
        one_off: false,
        ..RegisterRequest::default()
    };
    let stranger = age::x25519::Identity::generate().to_public().to_string();
    let token = Secret::new("the-single-token");
    let refused = daemon.core.register(&token, request(stranger.clone())).await.expect_err("taken").problem();
    assert_eq!((refused.status, refused.slug()), (409, "name-taken"));
    let wrong = daemon.core.register(&Secret::new("wrong"), request(stranger)).await.expect_err("wrong");
    assert_eq!(wrong.problem().status, 401);

    let again = daemon.core.register(&token, request(first.public_key())).await.expect("the same key");
    let old = first.token.clone();
    daemon.core.authenticate_runner(&old).await.expect("the old one is good until the new one is used");
    let new = first.open_token(&again);
    daemon.core.authenticate_runner(&new).await.expect("the new one");
    assert!(matches!(daemon.core.authenticate_runner(&old).await, Err(CoreError::Unauthorized)));

    // A clone with the same token and another session is told of the first.
    let mut clone = first.clone();
    clone.session = "another".to_owned();
    first.claim(&daemon.core, 0).await.expect("the first");
    assert!(matches!(clone.claim(&daemon.core, 0).await, Err(CoreError::SessionClash { .. })));
    daemon.time.advance_ms(30_000);
    clone.claim(&daemon.core, 0).await.expect("the first is away");

    // By now the daemon knows the token without asking its store; that ends with the registration.
    daemon.core.authenticate_runner(&new).await.expect("known");
    daemon.core.remove_runner("ny-1", "ann").await.expect("removed");
    assert!(matches!(daemon.core.authenticate_runner(&new).await, Err(CoreError::Unauthorized)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_without_a_log_ends_whole_leaves_no_file_and_takes_nothing_later() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.create("many").await;
    let claimed = runner.claim(&daemon.core, 30_000).await.expect("a claim");
    let job = runner.open(&daemon, &claimed.jobs[0]);
    let prove = async || daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its own token");
    daemon.core.start_attempt(&prove().await, StartRequest::default()).await.expect("starts");
    for _ in 0..2 {
        let end = result(AttemptOutcome::Succeeded, b"");
        let accepted = daemon.core.finish_attempt(&prove().await, end).await.expect("counts");
        assert!(accepted.counted && accepted.log_whole && accepted.log_length == 0);
    }
    let range = ContentRange::of(0, 1).expect("a byte");
    let late = daemon.core.append_log(&prove().await, range, b"x".to_vec().into()).await;
    assert!(matches!(late, Err(CoreError::Conflict { .. })));
    assert!(!daemon.folder.path().join(format!("logs/0/{}.log", job.attempt)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn scoped_tokens_register_what_they_may() {
    let daemon = Daemon::start(harness::tree()).await;
    let token = Secret::new("east-token");
    let register = |name: &str| {
        let public_key = age::x25519::Identity::generate().to_public().to_string();
        let name = name.to_owned();
        daemon.core.register(&token, RegisterRequest { name, public_key, ..RegisterRequest::default() })
    };
    // Its own file names no token, so that a scoped one may not take the name.
    assert!(matches!(register("declared").await, Err(CoreError::Forbidden { .. })));
    assert_eq!(register("bound").await.expect("its file names the token").tags, ["bound"]);
    assert_eq!(register("free").await.expect("no file").tags, ["east"]);
    // It is good for two.
    let problem = register("third").await.expect_err("used up").problem();
    assert!(
        problem.status == 403 && problem.detail.contains("used up: it was good for 2 registrations"),
        "{problem:?}"
    );
    assert!(problem.hint.is_some_and(|hint| hint.contains("raise `uses`")));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_idempotent_and_secrets_never_lie_in_clear() {
    let daemon = Daemon::start(harness::tree()).await;
    let mut request = CreateTask::default();
    request.variables.insert("password".to_owned(), "hunter2-of-the-test".into());
    let key = Some("k-1".to_owned());
    let first = daemon.core.create_task("shop", "secretive", request.clone(), trigger(), key.clone()).await;
    let second = daemon.core.create_task("shop", "secretive", request, trigger(), key.clone()).await;
    let (first, second) = (first.expect("made"), second.expect("found"));
    assert!(!first.replayed && second.replayed && first.task.number == second.task.number);
    let other = daemon.core.create_task("shop", "secretive", CreateTask::default(), trigger(), key).await;
    assert!(other.is_err());
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    assert_eq!(job.secret_variables["password"].reveal(), "hunter2-of-the-test");
    for entry in std::fs::read_dir(daemon.folder.path()).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            assert!(!bytes.windows(19).any(|window| window == b"hunter2-of-the-test"), "{}", path.display());
        }
    }
}

/// Complaint 10 (one bad key means endless Starting): a secret that does not resolve ends its task with the reason, and its runner
/// goes on with the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_resolve_ends_its_task_with_the_reason() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waits = daemon.park(&runner, &[]).await;
    let failing = daemon.create("unresolvable").await.task.number;
    daemon.until(|counters| counters.tasks[&TaskState::Failed] == 1).await;
    let reason = daemon.core.task(failing).await.expect("there").reason.expect("a reason");
    assert!(reason.contains("DB_PASSWORD") && reason.contains("[secrets.allow.shop]"), "{reason}");
    let next = daemon.create("many").await.task.number;
    assert_eq!(waits.await.expect("no panic").expect("a claim").jobs[0].attempt.task, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_a_plugin_s_config_is_the_plugin_s_and_no_project_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2-of-the-plugin\n").expect("written");
    let with_secret = |path: &str| {
        let value = SecretValue::File(path.to_owned());
        tree_but(|tree| {
            let plugin = tree.plugins.values_mut().next().and_then(Arc::get_mut).expect("the plugin");
            plugin.config = [("token".to_owned(), "{{secret:token}}".into())].into_iter().collect();
            plugin.config_secrets = [("token".to_owned(), value)].into();
        })
    };
    let path = file.to_str().expect("UTF-8");
    // A project that may read it lends it to no plugin.
    let daemon = Daemon::start_allowing("shop", path, with_secret(path)).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let _waits = daemon.park(&runner, &[]).await;
    let failing = daemon.create("many").await.task.number;
    daemon.until(|counters| counters.tasks[&TaskState::Failed] == 1).await;
    let reason = daemon.core.task(failing).await.expect("there").reason.expect("a reason");
    assert!(
        reason.contains("config.token of plugins/shell.toml") && reason.contains("[secrets.allow.plugins]"),
        "{reason}"
    );

    let daemon = Daemon::start_allowing("plugins", path, with_secret(path)).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.create("many").await;
    let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    assert_eq!(job.plugin.config["token"], "{{secret:token}}");
    assert_eq!(job.plugin_secrets["token"].reveal(), "hunter2-of-the-plugin");
    assert!(job.secrets().iter().any(|secret| secret.reveal() == "hunter2-of-the-plugin"), "it is masked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let job = runner.open(&daemon, &runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
    let range = ContentRange::of(0, 3).expect("three bytes");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
    assert!(daemon.second().await.expect_err("in use").to_string().contains("another forge daemon (pid"));
    daemon.restart().await;
    assert_eq!(daemon.core.task(number).await.expect("there").state, TaskState::Running);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("the same token");
    let range = ContentRange::of(3, 3).expect("three bytes");
    daemon.core.append_log(&access, range, b"def".to_vec().into()).await.expect("goes on");
    let accepted =
        daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"abcdef")).await.expect("ends");
    assert!(accepted.counted && accepted.log_whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_whoever_waits() {
    let daemon = Daemon::start(harness::tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waits = tokio::spawn({
        let core = daemon.core.clone();
        async move { runner.claim(&core, 30_000).await }
    });
    daemon.until(|counters| counters.parked_claims == 1).await;
    daemon.core.drain();
    let response = waits.await.expect("no panic").expect("an answer");
    assert!(response.jobs.is_empty() && response.draining);
    let refused = daemon.core.create_task("shop", "many", CreateTask::default(), trigger(), None).await;
    assert!(matches!(refused, Err(CoreError::ShuttingDown)));
}
