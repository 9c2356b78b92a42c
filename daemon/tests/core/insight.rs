//! What pages read of tasks: attempts, a log's lines, and how a template's tasks went.

use forge_api::{AttemptOutcome, ContentRange, LogState, TaskState};
use forge_daemon::core::{AttemptAccess, CoreError, LinesWanted, LogSearch};

use super::harness::{Daemon, TestRunner, result, tree};

/// Hands in a whole log and its end.
async fn end(daemon: &Daemon, access: &AttemptAccess, outcome: AttemptOutcome, log: &[u8]) {
    if let Some(range) = ContentRange::of(0, log.len() as u64) {
        daemon.core.append_log(access, range, log.to_vec().into()).await.expect("taken");
    }
    daemon.core.finish_attempt(access, result(outcome, log)).await.expect("counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_shown_with_its_report_and_whether_that_counted() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let task = daemon.create("deploy").await.task.number;
    assert_eq!(daemon.core.attempts(task).await.expect("listed"), []);
    let first = runner.begin(&daemon.core).await;
    let running = daemon.core.attempts(task).await.expect("listed").remove(0);
    assert_eq!((running.number, running.runner.as_str(), running.outcome), (1, "ny-1", None));
    assert!(running.started_at.is_some() && running.closed_at.is_none() && running.log_state == LogState::Open);
    end(&daemon, &first, AttemptOutcome::Failed, b"no\n").await;
    daemon.core.retry(task, "ann", &Default::default()).await.expect("again");
    runner.begin(&daemon.core).await;
    daemon.core.remove_runner("ny-1", "ann").await.expect("gone");

    let attempts = daemon.core.attempts(task).await.expect("listed");
    assert_eq!(attempts.len(), 2);
    let (first, second) = (&attempts[0], &attempts[1]);
    assert_eq!((first.outcome, first.exit_code, first.counted), (Some(AttemptOutcome::Failed), Some(0), Some(true)));
    assert_eq!((first.log_bytes, first.reported_at), (3, first.closed_at));
    assert_eq!((second.number, second.counted, second.outcome), (2, None, None));
    assert!(second.closed_why.as_ref().is_some_and(|why| why.contains("removed")), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_log_come_by_number_while_it_grows_and_once_it_is_whole() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let task = daemon.create("deploy").await.task.number;
    let waiting = daemon.core.log_lines(task, None, LinesWanted::new(1, 10)).await.expect("read");
    assert_eq!((waiting.attempt, waiting.total, waiting.complete), (0, 0, false));
    let access = runner.begin(&daemon.core).await;
    let log = b"\x1b[32mok\x1b[0m\nfatal: nothing\nlast";
    let range = ContentRange::of(0, 10).expect("ten bytes");
    daemon.core.append_log(&access, range, log[..10].to_vec().into()).await.expect("taken");
    let some = daemon.core.log_lines(task, None, LinesWanted::new(1, 10)).await.expect("read");
    assert_eq!((some.attempt, some.total, some.bytes, some.complete), (1, 1, 10, false));
    assert_eq!(some.items[0].segments[0].style, ["fg-2"]);
    end(&daemon, &access, AttemptOutcome::Failed, log).await;
    let all = daemon.core.log_lines(task, Some(1), LinesWanted::new(-2, 10)).await.expect("read");
    assert_eq!((all.total, all.bytes, all.complete), (3, log.len() as u64, true));
    assert_eq!(all.items.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 3]);

    let errors = daemon.core.search_log(task, None, &LogSearch::Errors, 1, 10).await.expect("searched");
    assert_eq!((errors.items.len(), errors.items[0].number, errors.next_from), (1, 2, None));
    let text = LogSearch::Text("LAST".to_owned());
    assert_eq!(daemon.core.search_log(task, None, &text, 1, 10).await.expect("searched").items[0].text, "last");
    assert!(matches!(
        daemon.core.log_lines(task, Some(7), LinesWanted::new(1, 1)).await,
        Err(CoreError::NotFound { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_templates_numbers_are_those_of_its_newest_finished_tasks() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    for outcome in [AttemptOutcome::Succeeded, AttemptOutcome::Failed, AttemptOutcome::Succeeded] {
        daemon.create("many").await;
        let access = runner.begin(&daemon.core).await;
        daemon.time.advance_ms(1_500);
        end(&daemon, &access, outcome, b"").await;
    }
    daemon.create("many").await;
    daemon.create("skipping").await;
    let stats = daemon.core.template_stats("shop", "many", 2).await.expect("counted");
    assert_eq!(stats.items.iter().map(|task| task.number).collect::<Vec<_>>(), [3, 2]);
    assert!(stats.items.iter().all(|task| task.duration_ms == Some(1_500)), "{stats:?}");
    assert_eq!(stats.outcomes, [(TaskState::Succeeded, 1), (TaskState::Failed, 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn how_busy_the_runners_are_is_kept_by_the_minute_over_a_restart() {
    let mut daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.create("many").await;
    daemon.create("many").await;
    runner.begin(&daemon.core).await;
    daemon.time.advance_ms(61_000);
    let sample = loop {
        match daemon.core.load(1).await.expect("listed").items.pop() {
            Some(sample) => break sample,
            None => tokio::task::yield_now().await,
        }
    };
    // Its runner has not been heard of for a minute.
    assert_eq!((sample.queued, sample.running, sample.runners_online), (1, 1, 0));
    daemon.restart().await;
    assert_eq!(daemon.core.load(1).await.expect("listed").items, [sample]);
    runner.claim(&daemon.core, 0).await.expect("heard of");
    let now = daemon.core.load_now().await.expect("looked");
    assert_eq!((now.runners_online, now.slots), (1, None), "a runner without a limit has no number of slots");
}
