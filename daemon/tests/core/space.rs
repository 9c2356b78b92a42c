//! A data folder without room: no new work, nothing lost of what runs, and all of it goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forge_api::{AttemptOutcome, ContentRange, CreateTask, StartRequest, TaskState};
use forge_daemon::clock::Clock;
use forge_daemon::core::{Core, FreeSpace};

use super::harness::{Daemon, START, TestRunner, config, options, result, tree, trigger};

/// How much space is left, as a test says it.
fn told(free_bytes: u64) -> (FreeSpace, Arc<AtomicU64>) {
    let said = Arc::new(AtomicU64::new(free_bytes));
    (FreeSpace::Told(Arc::clone(&said)), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_stops_new_work_and_goes_on_by_itself_when_there_is_room() {
    let mut daemon = Daemon::start(tree()).await;
    let (free_space, free) = told(1_000);
    (daemon.free_space, daemon.disk_reserve_bytes) = (free_space, 1_000);
    daemon.restart().await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.create("many").await;
    let access = runner.begin(&daemon.core).await;
    let waiting = daemon.create("many").await.task.number;

    free.store(999, Ordering::Relaxed);
    let refused = daemon.core.create_task("shop", "many", CreateTask::default(), trigger(), None).await;
    assert_eq!(refused.expect_err("full").problem().status, 507);
    daemon.time.advance_ms(1_001);
    while !daemon.core.why(waiting).await.expect("why").unmet.iter().any(|unmet| unmet.code == "storage_full") {
        tokio::task::yield_now().await;
    }
    // What runs goes on and is taken.
    let range = ContentRange::of(0, 3).expect("a range");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
    let ended = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"abc")).await.expect("counts");
    assert!(ended.counted);
    assert!(runner.claim(&daemon.core, 0).await.expect("a claim").jobs.is_empty());
    assert_eq!(daemon.state(waiting).await, TaskState::Queued);
    let waits = daemon.park(&runner, &[]).await;

    free.store(1_000, Ordering::Relaxed);
    daemon.time.advance_ms(1_001);
    assert_eq!(waits.await.expect("no panic").expect("a claim").jobs[0].attempt.task, waiting);
    daemon.create("many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_finds_no_room_is_answered_507_and_taken_when_there_is() {
    let mut daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    daemon.create("many").await;
    let job = runner.open_job(&runner.claim(&daemon.core, 0).await.expect("a claim").jobs[0]);
    let access = daemon.core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
    daemon.core.start_attempt(&access, StartRequest::default()).await.expect("starts");
    // A file that never has room.
    let log = daemon.folder.path().join(format!("logs/0/{}.log", job.attempt));
    std::fs::create_dir_all(log.parent().expect("a folder")).expect("made");
    std::os::unix::fs::symlink("/dev/full", &log).expect("linked");
    let range = ContentRange::of(0, 3).expect("a range");
    let refused = daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect_err("full").problem();
    assert_eq!((refused.status, refused.slug()), (507, "storage-full"));
    std::fs::remove_file(&log).expect("room again");
    daemon.restart().await;
    assert_eq!(daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken").length, 3);
    let ended = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"abc")).await.expect("counts");
    assert!(ended.counted && ended.log_whole);
}

/// The database itself finds no room, whatever was measured before: whoever asks is told so, and all goes on when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_finds_no_room_says_so_and_goes_on_when_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, _time) = Clock::test(START);
    let config = config(tree());
    let (core, _tasks, stepper) =
        Core::start_stepwise(options(folder.path(), &config, &clock, 0)).await.expect("starts");
    let create = async || core.create_task("shop", "many", CreateTask::default(), trigger(), None).await;
    create().await.expect("there is room");
    stepper.limit_store(1).await.expect("limited");
    let full = loop {
        if let Err(error) = create().await {
            break error.problem();
        }
    };
    assert_eq!((full.status, full.slug()), (507, "storage-full"), "{full:?}");
    // Many at a time share a transaction, and each is told the same.
    let refused = futures_util::future::join_all((0..20).map(|_| create())).await;
    let refused: Vec<u16> = refused.into_iter().filter_map(Result::err).map(|error| error.problem().status).collect();
    assert!(!refused.is_empty() && refused.iter().all(|status| *status == 507), "{refused:?}");
    let before = core.counters().await.expect("counts").tasks[&TaskState::Queued];
    stepper.limit_store(u32::MAX).await.expect("there is room again");
    create().await.expect("it goes on by itself");
    assert_eq!(core.counters().await.expect("counts").tasks[&TaskState::Queued], before + 1);
}
