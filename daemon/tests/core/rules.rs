//! What a template and forge.toml say of tasks: concurrency, retries, lost runners, limits, and what people are told of it.

use forge_api::{
    AttemptOutcome, AttemptResult, ClaimRequest, ContentRange, CreateTask, RefusedJob, Secret, StartRequest, TaskState,
};
use forge_daemon::core::CoreError;

use super::harness::{Daemon, TestRunner, result, tree, trigger};

/// Complaint 2 ("a restart leaves tasks running"): what a restarted runner had not begun is nobody's loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_its_runner_never_began_is_given_away_again_at_once() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("deploy").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let lost = |nothing_ran| AttemptResult {
        reason: Some("its runner was restarted before the job began".to_owned()),
        nothing_ran,
        ..result(AttemptOutcome::Lost, b"")
    };
    let answer = daemon.core.finish_attempt(&access, lost(true)).await.expect("counts");
    assert_eq!((answer.state, answer.counted), (TaskState::Queued, true));
    let access = runner.begin(&daemon.core).await;
    assert_eq!((access.attempt().task, access.attempt().attempt), (number, 2));
    let answer = daemon.core.finish_attempt(&access, lost(false)).await.expect("counts");
    assert_eq!(
        answer.state,
        TaskState::Lost,
        "some of it may have run, and its template says on_runner_lost = \"fail\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_ends_the_second_and_replace_the_first() {
    let daemon = Daemon::start(tree()).await;
    let first = daemon.create("skipping").await.task.number;
    let second = daemon.create("skipping").await.task;
    let reason = second.reason.expect("a reason");
    assert!(second.state == TaskState::Skipped && reason.contains(&format!("task {first} ")), "{reason}");
    daemon.core.cancel(first, "ann").await.expect("ends");
    let third = daemon.create("skipping").await.task;
    assert_eq!(third.state, TaskState::Queued, "nothing is open any more");
    daemon.core.cancel(third.number, "ann").await.expect("ends");

    let runner = TestRunner::register(&daemon, "ny-1").await;
    let old = daemon.create("replacing").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let waiting = daemon.create("replacing").await.task.number;
    let new = daemon.create("replacing").await.task.number;
    let task = daemon.core.task(waiting).await.expect("there");
    assert_eq!(task.state, TaskState::Canceled);
    assert!(task.reason.is_some_and(|reason| reason.contains(&format!("task {new}, which replaces it"))));
    assert!(runner.claim_holding(&daemon.core, 0, &[access.attempt()]).await.expect("a claim").jobs.is_empty());
    let why = daemon.core.why(new).await.expect("why").message;
    assert!(why.contains(&format!("task {old} of the same template")), "{why}");
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("taken");
    assert_eq!(daemon.core.task(old).await.expect("there").state, TaskState::Canceled);
    assert_eq!(runner.begin(&daemon.core).await.attempt().task, new);
}

/// Complaint 4 (a runner dies in the middle of a task): another attempt is made only where the template says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_runner_costs_an_attempt_where_the_template_says_retry() {
    let daemon = Daemon::start(tree()).await;
    let number = daemon.create("again").await.task.number;
    let lost = TestRunner::register(&daemon, "ny-1").await.begin(&daemon.core).await;
    daemon.time.advance_ms(121_000);
    daemon.until(|counters| counters.tasks[&TaskState::Queued] == 1).await;
    let other = TestRunner::register(&daemon, "ny-2").await;
    let second = other.begin(&daemon.core).await;
    assert_eq!((second.attempt().task, second.attempt().attempt), (number, 2));
    // The first one's report is kept and decides nothing.
    let late = daemon.core.finish_attempt(&lost, result(AttemptOutcome::Failed, b"")).await.expect("kept");
    assert_eq!((late.state, late.counted), (TaskState::Running, false));
    let ended = daemon.core.finish_attempt(&second, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    assert_eq!(ended.state, TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_begins_in_one_process_however_many_have_its_token() {
    let daemon = Daemon::start(tree()).await;
    daemon.create("many").await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let job = runner.open_job(&runner.claim(&daemon.core, 0).await.expect("a claim").jobs[0]);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    let begin = |session: &str| StartRequest { commit: None, session: Some(session.to_owned()) };
    daemon.core.start_attempt(&access, begin("original")).await.expect("the first may");
    daemon.core.start_attempt(&access, begin("original")).await.expect("its answer was lost");
    let error = daemon.core.start_attempt(&access, begin("copy")).await.expect_err("a copy of the runner");
    assert!(matches!(error, CoreError::Gone { .. }) && error.to_string().contains("another process"), "{error}");
    assert_eq!(daemon.core.counters().await.expect("counts").fenced_writes, 1);
    // A commit that becomes known later begins nothing.
    let commit = StartRequest { commit: Some("0123abcd".to_owned()), session: None };
    daemon.core.start_attempt(&access, commit).await.expect("taken");
    assert_eq!(daemon.core.task(job.attempt.task).await.expect("there").commit.as_deref(), Some("0123abcd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retrys_delay_does_not_count_as_waiting_for_a_runner() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("patient").await.task.number;
    let first = runner.begin(&daemon.core).await;
    let failed = daemon.core.finish_attempt(&first, result(AttemptOutcome::Failed, b"")).await.expect("counts");
    assert_eq!(failed.state, TaskState::Queued);
    let why = daemon.core.why(number).await.expect("why").message;
    assert!(why.contains("its next attempt is due in 2h"), "{why}");
    // queue_timeout is an hour.
    daemon.time.advance_ms(7_201_000);
    let second = runner.begin(&daemon.core).await;
    let failed = daemon.core.finish_attempt(&second, result(AttemptOutcome::Failed, b"")).await.expect("counts");
    assert_eq!(failed.state, TaskState::Failed, "there was one retry");
}

/// Complaint 5 (a stop is ignored): a cancel ends the task with or without its runner's word.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_also_when_its_runner_is_gone() {
    let daemon = Daemon::start(tree()).await;
    let number = daemon.create("many").await.task.number;
    TestRunner::register(&daemon, "ny-1").await.begin(&daemon.core).await;
    let asked = daemon.core.cancel(number, "ann").await.expect("asked");
    assert_eq!(asked.state, TaskState::Running);
    let why = daemon.core.why(number).await.expect("why");
    assert!(why.message.contains("cancel asked for by ann") && why.deadline.is_some(), "{why:?}");
    daemon.time.advance_ms(61_000);
    daemon.until(|counters| counters.tasks[&TaskState::Canceled] == 1).await;
    let reason = daemon.core.task(number).await.expect("there").reason.expect("a reason");
    assert!(reason.contains("did not confirm"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_too_long_ends_its_attempt_and_a_whole_one_takes_no_more() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let piece = vec![b'x'; 1 << 20];
    let range = ContentRange::of(0, 1 << 20).expect("a range");
    daemon.core.append_log(&access, range, piece.into()).await.expect("just fits");
    let range = ContentRange::of(1 << 20, 1).expect("a range");
    let refused = daemon.core.append_log(&access, range, b"y".to_vec().into()).await.expect_err("too long");
    assert_eq!((refused.problem().status, refused.problem().slug()), (413, "log-limit"));
    let task = daemon.core.task(number).await.expect("there");
    assert_eq!((task.state, task.log_bytes), (TaskState::Failed, 1 << 20));
    assert!(task.reason.is_some_and(|reason| reason.contains("`max_bytes` under [logs]")));

    daemon.create("many").await;
    let job = runner.open_job(&runner.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0]);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    let range = ContentRange::of(0, 3).expect("a range");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
    let ended = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"abc")).await.expect("counts");
    assert!(ended.log_whole);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("the same once more");
    let more = ContentRange::of(3, 3).expect("a range");
    let refused = daemon.core.append_log(&access, more, b"def".to_vec().into()).await;
    assert!(matches!(refused, Err(CoreError::Conflict { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_new_work_and_says_so() {
    let mut daemon = Daemon::start(tree()).await;
    let number = daemon.create("many").await.task.number;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.disk_reserve_bytes = u64::MAX;
    daemon.restart().await;
    let refused = daemon.core.create_task("shop", "many", CreateTask::default(), trigger(), None).await;
    let problem = refused.expect_err("full").problem();
    assert!(problem.status == 507 && problem.hint.is_some_and(|hint| hint.contains("disk_reserve")));
    loop {
        let why = daemon.core.why(number).await.expect("why").message;
        if why.contains("disk_reserve") {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(runner.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
    daemon.disk_reserve_bytes = 0;
    daemon.restart().await;
    assert_eq!(runner.begin(&daemon.core).await.attempt().task, number);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_components_that_the_tree_or_an_open_task_names_are_handed_out() {
    let daemon = Daemon::start(tree()).await;
    let known = "07".repeat(32);
    std::fs::create_dir(daemon.folder.path().join("plugins")).expect("a folder");
    for digest in [&known, &"08".repeat(32)] {
        std::fs::write(daemon.folder.path().join(format!("plugins/{digest}.wasm")), b"component").expect("written");
    }
    let (_, length) = daemon.core.plugin_file(&known).await.expect("the tree names it");
    assert_eq!(length, b"component".len() as u64);
    for unknown in ["08".repeat(32), known.to_uppercase(), "../forge".to_owned(), String::new()] {
        let refused = daemon.core.plugin_file(&unknown).await;
        // In capitals these digits are the same.
        assert!(unknown == known || matches!(refused, Err(CoreError::NotFound { .. })), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strange_token_gets_a_name_only_with_its_key() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "free").await;
    assert_eq!(daemon.core.runner("free").await.expect("there").tags, [""; 0]);
    // Whoever reads a listing knows its public key, and any registration token may name it.
    let request = runner.request(true);
    let answer = daemon.core.register(&Secret::new("east-token"), request).await.expect("sealed to the key");
    assert_eq!(daemon.core.runner("free").await.expect("there").tags, [""; 0], "nobody proved the key");
    let token = runner.open_token(&answer);
    daemon.core.authenticate_runner(&token).await.expect("the new token");
    assert_eq!(daemon.core.runner("free").await.expect("there").tags, ["east"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_its_runner_refuses_ends_with_the_reason_and_nobody_elses_does() {
    let daemon = Daemon::start(tree()).await;
    let (one, other) = (TestRunner::register(&daemon, "ny-1").await, TestRunner::register(&daemon, "ny-2").await);
    let refused = |attempt| RefusedJob { attempt, reason: "the pinned key did not sign it".to_owned() };
    let state = async |number: u64| daemon.core.task(number).await.expect("there").state;
    daemon.create("many").await;
    let begun = one.begin(&daemon.core).await.attempt();
    daemon.create("again").await;
    let held = [begun];
    let own = one.claim_holding(&daemon.core, 30_000, &held).await.expect("a claim").jobs[0].attempt;
    daemon.create("many").await;
    let others = other.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0].attempt;

    // A copy of the runner has no say while the runner is there.
    let mut copy = one.clone();
    copy.session = "copy".to_owned();
    let clash = copy.claim_refusing(&daemon.core, &held, vec![refused(own)]).await;
    assert!(matches!(clash, Err(CoreError::SessionClash { .. })));
    let too_long = RefusedJob { attempt: own, reason: "x".repeat(forge_api::REFUSED_REASON_BYTES_MAX + 1) };
    let too_many = vec![refused(own); forge_api::REFUSED_JOBS_MAX + 1];
    for wrong in [vec![too_long], too_many] {
        let answer = one.claim_refusing(&daemon.core, &held, wrong).await;
        assert!(matches!(answer, Err(CoreError::Invalid { .. })), "{answer:?}");
    }
    assert_eq!(state(own.task).await, TaskState::Assigned);

    let all = vec![refused(begun), refused(own), refused(others)];
    let answer = one.claim_refusing(&daemon.core, &held, all).await.expect("a claim");
    assert!(answer.jobs.is_empty() && answer.lost.is_empty(), "{answer:?}");
    let task = daemon.core.task(own.task).await.expect("there");
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(task.reason.as_deref(), Some("runner ny-1 refused the job: the pinned key did not sign it"));
    assert_eq!((state(begun.task).await, state(others.task).await), (TaskState::Running, TaskState::Assigned));
    assert_eq!(daemon.core.counters().await.expect("counts").jobs_refused, 1);
    // Said once more, since the answer may have been lost.
    one.claim_refusing(&daemon.core, &held, vec![refused(own)]).await.expect("a claim");
    assert_eq!(daemon.core.counters().await.expect("counts").jobs_refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_runner_ran_is_tried_elsewhere_only_when_its_lease_is_over() {
    let daemon = Daemon::start(tree()).await;
    let (one, other) = (TestRunner::register(&daemon, "ny-1").await, TestRunner::register(&daemon, "ny-2").await);
    let number = daemon.create("again").await.task.number;
    one.begin(&daemon.core).await;
    // What was not begun cannot run on.
    let unbegun = daemon.create("again").await.task.number;
    let given = one.claim(&daemon.core, 30_000).await.expect("a claim").jobs[0].attempt;
    assert_eq!(given.task, unbegun);
    daemon.core.remove_runner("ny-1", "ann").await.expect("removed");
    assert_eq!(other.begin(&daemon.core).await.attempt().task, unbegun);
    // Its supervisor may live without its runner until runner_grace is over.
    let why = daemon.core.why(number).await.expect("why").message;
    assert!(why.contains("attempt 1 may still run on ny-1") && why.contains("(in 2m)"), "{why}");
    for wait_ms in [0, 119_000] {
        daemon.time.advance_ms(wait_ms);
        let held = [forge_api::AttemptId { task: unbegun, attempt: 2 }];
        let nothing = other.claim_holding(&daemon.core, 0, &held).await.expect("a claim");
        assert!(nothing.jobs.is_empty(), "{nothing:?}");
    }
    daemon.time.advance_ms(1_001);
    let second = other.begin(&daemon.core).await.attempt();
    assert_eq!((second.task, second.attempt), (number, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lease_that_cannot_be_acted_on_keeps_no_deadline_waiting() {
    let daemon = Daemon::start(tree()).await;
    let waits = daemon.create("elsewhere").await.task.number;
    daemon.create("again").await;
    TestRunner::register(&daemon, "ny-1").await.begin(&daemon.core).await;
    let store = rusqlite::Connection::open(daemon.folder.path().join("forge.db")).expect("its database");
    let spoil = "UPDATE specs SET on_runner_lost = 'nonsense' WHERE on_runner_lost = 'retry'";
    assert_eq!(store.execute(spoil, []).expect("spoilt"), 1);
    // Its runner is lost, which cannot be written down.
    daemon.time.advance_ms(3_600_001);
    daemon.until(|counters| counters.tasks[&TaskState::Expired] == 1).await;
    assert_eq!(daemon.core.task(waits).await.expect("there").state, TaskState::Expired);
    // It is not given up.
    store.execute("UPDATE specs SET on_runner_lost = 'fail' WHERE on_runner_lost = 'nonsense'", []).expect("mended");
    daemon.time.advance_ms(61_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_takes_too_long_ends_as_timed_out_though_its_runner_is_gone() {
    let daemon = Daemon::start(tree()).await;
    let number = daemon.create("brief").await.task.number;
    TestRunner::register(&daemon, "ny-1").await.begin(&daemon.core).await;
    // Its runner has two minutes more to end it itself, and a day before it counts as lost.
    daemon.time.advance_ms(120_000);
    let why = daemon.core.why(number).await.expect("why");
    assert!(why.state == TaskState::Running && why.at_deadline.is_some_and(|then| then.contains("timed out")));
    daemon.time.advance_ms(1_001);
    daemon.until(|counters| counters.tasks[&TaskState::TimedOut] == 1).await;
    let reason = daemon.core.task(number).await.expect("there").reason.expect("a reason");
    assert!(reason.contains("timeout (1s)"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_of_the_nearest_end_when_a_runner_is_away() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "declared").await;
    let number = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let why = async || daemon.core.why(number).await.expect("why");
    assert!(why().await.remedy.is_some_and(|remedy| remedy.contains("its timeout (30m)")));
    daemon.apply(super::harness::tree_but(|tree| tree.runners.get_mut("declared").expect("its file").enabled = false));
    daemon.time.advance_ms(40_000);
    let away = why().await;
    assert_eq!(away.unmet.first().map(|unmet| unmet.code.as_str()), Some("runner_unreachable"), "{away:?}");
    assert_eq!(away.deadline, Some(super::harness::START.plus_millis(120_000)));
    assert_eq!(away.at_deadline.as_deref(), Some("the attempt is lost and the task ends as lost"));
    // There again, and without the attempt.
    runner.claim(&daemon.core, 0).await.expect("a claim");
    let without = why().await;
    assert!(
        without.message.contains("declared is there and does not hold this attempt: it said nothing of it for 40s"),
        "{without:?}"
    );
    runner.claim_holding(&daemon.core, 0, &[access.attempt()]).await.expect("a claim");
    assert!(why().await.unmet.is_empty());
    // One that is away and disabled needs two things, and one that stops asks for none; `bound` never came.
    let waiting = daemon.create("many").await.task.number;
    daemon.time.advance_ms(31_000);
    let codes = async || {
        let unmet = daemon.core.why(waiting).await.expect("why").unmet;
        assert!(unmet.iter().all(|unmet| !unmet.remedy.is_empty()), "{unmet:?}");
        unmet.into_iter().map(|unmet| unmet.code).collect::<Vec<_>>()
    };
    assert_eq!(codes().await, ["runner_offline", "runner_disabled", "runner_offline"]);
    daemon.apply(tree());
    let (core, stopping) = (daemon.core.clone(), runner.clone());
    let parked = tokio::spawn(async move { stopping.claim_slots(&core, 30_000, &[], 0).await });
    daemon.until(|counters| counters.parked_claims == 1).await;
    assert_eq!(codes().await, ["runner_offline", "runner_not_asking"]);
    parked.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_what_its_runner_wrote_is_shown_as_damaged() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let number = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let range = ContentRange::of(0, 3).expect("a range");
    for length in [0, 3] {
        assert!(!daemon.core.task(number).await.expect("there").log_damaged);
        daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
        // Asked for again once, then kept as it is.
        let ended =
            daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"abd")).await.expect("taken");
        assert_eq!((ended.log_length, ended.log_whole), (length, false));
    }
    let task = daemon.core.task(number).await.expect("there");
    assert!(task.log_damaged && task.state == TaskState::Succeeded && task.log_bytes == 3, "{task:?}");
    let listed = daemon.core.tasks(Default::default(), None, 10).await.expect("listed").items;
    assert!(listed[0].log_damaged);
    // Nothing is said of it where nothing is wrong.
    let fine = daemon.create("many").await.task;
    assert!(serde_json::to_value(&fine).expect("JSON").get("log_damaged").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_says_makes_no_session_of_long_ago_fresh() {
    let mut daemon = Daemon::start(tree()).await;
    daemon.create("many").await;
    let mut runner = TestRunner::register(&daemon, "ny-1").await;
    let access = runner.begin(&daemon.core).await;
    // The session that the store knows fell silent; the runner has started so often since that it does not remember it.
    daemon.restart_after(31_000).await;
    runner.session = "of many starts later".to_owned();
    let range = ContentRange::of(0, 3).expect("a range");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("the rest of its log comes first");
    runner.claim_holding(&daemon.core, 0, &[access.attempt()]).await.expect("it is no clone");
}

/// Complaint 14 (output truncated): what was acknowledged stays, whatever a runner says that has lost it since.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_has_lost_some_of_a_log_takes_nothing_from_what_was_acknowledged() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    for (left, says_it_first) in [("abc[forge] down\n", true), ("a!\n", false), ("abcdefgh", true)] {
        let number = daemon.create("many").await.task.number;
        let access = runner.begin(&daemon.core).await;
        let patch = async |bytes: &str| {
            let range = ContentRange::of(0, bytes.len() as u64).expect("a range");
            daemon.core.append_log(&access, range, bytes.as_bytes().to_vec().into()).await
        };
        patch("abcdef\n\n").await.expect("taken");
        if says_it_first {
            let differs = patch(left).await.expect_err("other bytes are held");
            assert_eq!((differs.problem().status, differs.problem().slug()), (409, forge_api::LOG_DIFFERS));
        }
        for _ in 0..3 {
            let report = result(AttemptOutcome::Lost, left.as_bytes());
            let ended = daemon.core.finish_attempt(&access, report).await.expect("taken");
            assert!(!ended.log_whole && ended.log_length > 0, "{left}: nothing is asked for again: {ended:?}");
        }
        let task = daemon.core.task(number).await.expect("there");
        assert!(task.log_damaged, "{left}");
        let log = daemon.core.log(number, None).await.expect("a log").read(0, 100).await.expect("reads");
        assert_eq!(log, &b"abcdef\n\n"[..], "{left}");
    }
}

/// A copy of a runner's machine, its disk included, names the session that is at work: it is refused while that one waits for work.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_with_its_disk_is_refused_while_the_other_waits() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let waits = daemon.park(&runner, &[]).await;
    let successor = || ClaimRequest {
        session: "of its copy".to_owned(),
        previous_sessions: vec![runner.session.clone()],
        slots: 1,
        version: "1".to_owned(),
        ..ClaimRequest::default()
    };
    for _ in 0..2 {
        let clash = daemon.core.claim(&runner.identity, successor()).await.expect_err("refused");
        assert!(matches!(clash, CoreError::SessionClash { .. }), "{clash:?}");
    }
    assert!(!waits.is_finished(), "the one that waits is none the worse");
    // Its successor on the same machine comes once it is gone.
    waits.abort();
    assert!(waits.await.is_err());
    daemon.until(|counters| counters.parked_claims == 0).await;
    daemon.core.claim(&runner.identity, successor()).await.expect("its own next start");
}
