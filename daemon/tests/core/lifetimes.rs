//! What ends by itself: history beyond its retention, one-off runners, runners that stay away, registration tokens.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forge_api::{AttemptOutcome, ContentRange, RunnerStatus, Secret, TaskState};
use forge_config::Digest;
use forge_config::meant::Retention;
use forge_daemon::core::{AttemptAccess, CoreError};

use super::harness::{Daemon, START, TestRunner, result, tree, tree_but, tree_with, trigger};

/// More than one transaction of the housekeeping forgets, twice.
const MANY: usize = 1_100;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_asked_about_is_closed_again_and_one_that_grows_is_not() {
    let daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let mut begun = Vec::new();
    for _ in 0..2 {
        daemon.create("many").await;
        let access = runner.begin(&daemon.core).await;
        let range = ContentRange::of(0, 3).expect("a range");
        daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
        begun.push(access);
    }
    let is_open = |access: &AttemptAccess| {
        let name = format!("{}.log", access.attempt());
        let open = std::fs::read_dir("/proc/self/fd").expect("listed").flatten();
        let mut open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        open.any(|path| path.starts_with(daemon.folder.path()) && path.ends_with(&name))
    };
    daemon.core.finish_attempt(&begun[0], result(AttemptOutcome::Succeeded, b"abc")).await.expect("counts");
    assert!(!is_open(&begun[0]) && is_open(&begun[1]));
    // Its runner wants to know how much of it is on disk.
    let range = ContentRange::of(2, 1).expect("a range");
    let again = || daemon.core.append_log(&begun[0], range, b"c".to_vec().into());
    while again().await.expect("the same once more").synced < 3 {
        tokio::task::yield_now().await;
    }
    assert!(is_open(&begun[0]));
    daemon.time.advance_ms(61_000);
    while is_open(&begun[0]) {
        tokio::task::yield_now().await;
    }
    assert!(is_open(&begun[1]), "its attempt goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_beyond_retention_goes_in_one_round_and_its_logs_with_it() {
    let daemon = Daemon::start(tree_with(Retention { tasks: 3, age_ms: 0 }, None)).await;
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let oldest = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    let range = ContentRange::of(0, 3).expect("a range");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"abc")).await.expect("counts");
    let log = daemon.folder.path().join(format!("logs/0/{}.log", access.attempt()));
    assert!(log.exists());
    let mut ends = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let core = daemon.core.clone();
        ends.spawn(async move {
            let made = core.create_task("shop", "elsewhere", Default::default(), trigger(), None).await;
            core.cancel(made.expect("created").task.number, "ann").await.expect("ends").number
        });
    }
    let newest = ends.join_all().await.into_iter().max().expect("some");
    for _ in 0..3 {
        let number = daemon.create("many").await.task.number;
        daemon.core.cancel(number, "ann").await.expect("ends");
    }
    daemon.time.advance_ms(61_000);
    // Three of each template stay.
    daemon.until(|counters| counters.tasks.values().sum::<u64>() == 6).await;
    daemon.core.task(newest).await.expect("the newest stay");
    assert!(matches!(daemon.core.task(oldest).await, Err(CoreError::NotFound { .. })));
    while log.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_too_old_goes_and_what_is_open_stays() {
    let daemon = Daemon::start(tree_with(Retention { tasks: 0, age_ms: 1_800_000 }, None)).await;
    let old = daemon.create("many").await.task.number;
    daemon.core.cancel(old, "ann").await.expect("ends");
    daemon.time.advance_ms(1_200_000);
    let young = daemon.create("many").await.task.number;
    daemon.core.cancel(young, "ann").await.expect("ends");
    let open = daemon.create("elsewhere").await.task.number;
    daemon.time.advance_ms(1_200_000);
    daemon.until(|counters| counters.tasks[&TaskState::Canceled] == 1).await;
    for number in [young, open] {
        daemon.core.task(number).await.expect("stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_left_the_tree_keeps_its_history() {
    let retention = Retention { tasks: 1, age_ms: 0 };
    let daemon = Daemon::start(tree_with(retention, None)).await;
    let mut removed = Vec::new();
    for _ in 0..3 {
        removed.push(daemon.create("many").await.task.number);
        let stays = daemon.create("elsewhere").await.task.number;
        daemon.core.cancel(stays, "ann").await.expect("ends");
    }
    for number in &removed {
        daemon.core.cancel(*number, "ann").await.expect("ends");
    }
    let mut without = tree_with(retention, None);
    let shop = without.projects.values_mut().next().and_then(std::sync::Arc::get_mut).expect("the project");
    shop.templates.remove("many").expect("it was there");
    daemon.apply(without);
    daemon.time.advance_ms(61_000);
    daemon.until(|counters| counters.tasks.values().sum::<u64>() == 4).await;
    for number in removed {
        daemon.core.task(number).await.expect("stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_runner_ends_with_its_first_report_even_one_that_does_not_count() {
    let daemon = Daemon::start(tree()).await;
    let mut runner = TestRunner::register_with(&daemon.core, "once", true).await;
    daemon.create("many").await;
    let access = runner.begin(&daemon.core).await;
    // It is away for longer than its grace, and reports then.
    daemon.time.advance_ms(121_000);
    daemon.until(|counters| counters.tasks[&TaskState::Lost] == 1).await;
    let late = daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("kept");
    assert!(!late.counted);
    // Its registration ended with its task, and is cleared away in a moment.
    let left = runner.claim(&daemon.core, 0).await;
    assert!(left.is_err() || left.is_ok_and(|answer| answer.over));
    // The same machine comes back under its name: it begins anew.
    let answer = daemon.core.register(&Secret::new("the-single-token"), runner.request(true)).await.expect("its key");
    let token = runner.open_token(&answer);
    runner.identity = daemon.core.authenticate_runner(&token).await.expect("the new token");
    // Not even the housekeeping takes it for the one that had its task.
    for _ in 0..2 {
        daemon.time.advance_ms(40_000);
        assert!(!runner.claim(&daemon.core, 0).await.expect("a claim").over);
    }
    assert_ne!(daemon.core.runner("once").await.expect("there").status, RunnerStatus::Draining);
    let number = daemon.create("many").await.task.number;
    let access = runner.begin(&daemon.core).await;
    assert_eq!(access.attempt().task, number);
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    gone(&daemon, "once", 62_000).await;
    assert!(matches!(runner.claim(&daemon.core, 0).await, Err(CoreError::Unauthorized)));
}

/// Registers a machine with a fresh disk, and so a key of its own, under a name.
async fn another_machine(daemon: &Daemon, name: &str) -> Result<(), CoreError> {
    let public_key = age::x25519::Identity::generate().to_public().to_string();
    let request = forge_api::RegisterRequest {
        name: name.to_owned(),
        public_key,
        version: "1".to_owned(),
        max_parallel_tasks: 0,
        one_off: true,
        ..forge_api::RegisterRequest::default()
    };
    daemon.core.register(&Secret::new("the-single-token"), request).await.map(|_registered| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_runners_name_is_free_when_its_task_has_ended_however_that_was() {
    let daemon = Daemon::start(tree()).await;
    // How its task ends: lost with its runner, canceled without its word, timed out.
    for end in [TaskState::Lost, TaskState::Canceled, TaskState::TimedOut] {
        let name = end.as_str().replace('_', "-");
        let template = if end == TaskState::TimedOut { "brief" } else { "many" };
        let once = TestRunner::register_with(&daemon.core, &name, true).await;
        let number = daemon.create(template).await.task.number;
        let access = once.begin(&daemon.core).await;
        // The name is taken for as long as there is something of its own.
        daemon.time.advance_ms(40_000);
        let taken = another_machine(&daemon, &name).await.expect_err("taken").problem();
        assert_eq!((taken.status, taken.slug()), (409, "name-taken"));
        if end == TaskState::Canceled {
            daemon.core.cancel(number, "ann").await.expect("asked");
        }
        daemon.time.advance_ms(90_000);
        daemon.until(|counters| counters.tasks[&end] == 1).await;
        assert_eq!(daemon.core.task(number).await.expect("there").state, end);
        another_machine(&daemon, &name).await.expect("its predecessor is gone");
        assert!(matches!(once.claim(&daemon.core, 0).await, Err(CoreError::Unauthorized)));
        // The old machine still hands in what it has, which is nothing to the new one.
        daemon.core.finish_attempt(&access, result(AttemptOutcome::Failed, b"")).await.expect("kept");
        assert_eq!(daemon.core.runner(&name).await.expect("there").status, RunnerStatus::NeverConnected);
        assert!(another_machine(&daemon, &name).await.is_err(), "the new one did nothing yet");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_runners_name_is_free_at_once_after_its_acknowledged_end() {
    let daemon = Daemon::start(tree()).await;
    let once = TestRunner::register_with(&daemon.core, "once", true).await;
    daemon.create("many").await;
    let access = once.begin(&daemon.core).await;
    assert!(another_machine(&daemon, "once").await.is_err());
    // Its log is not there yet: it stays to hand that in.
    let end = result(AttemptOutcome::Succeeded, b"abc");
    let early = daemon.core.finish_attempt(&access, end.clone()).await.expect("counts");
    assert!(early.counted && !early.log_whole);
    assert!(another_machine(&daemon, "once").await.is_err());
    let range = ContentRange::of(0, 3).expect("a range");
    daemon.core.append_log(&access, range, b"abc".to_vec().into()).await.expect("taken");
    assert!(daemon.core.finish_attempt(&access, end).await.expect("again").log_whole);
    another_machine(&daemon, "once").await.expect("it is done");
    // A runner that is no one-off one keeps its name.
    TestRunner::register(&daemon, "stays").await;
    daemon.time.advance_ms(3_600_000);
    assert!(another_machine(&daemon, "stays").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_died_before_its_task_leaves_its_name_to_the_next() {
    let daemon = Daemon::start(tree()).await;
    // It has a file, as the machines of an example have: that alone must not keep it for ever.
    TestRunner::register_with(&daemon.core, "declared", true).await;
    daemon.time.advance_ms(40_000);
    assert!(another_machine(&daemon, "declared").await.is_err(), "it may be starting");
    daemon.time.advance_ms(40_000);
    while another_machine(&daemon, "declared").await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(daemon.core.runner("declared").await.expect("there").status, RunnerStatus::NeverConnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_for_one_task_the_second_leaves() {
    let daemon = Daemon::start(tree()).await;
    let first = TestRunner::register_with(&daemon.core, "cloud-1", true).await;
    let second = TestRunner::register_with(&daemon.core, "cloud-2", true).await;
    let keeps = TestRunner::register(&daemon, "keeps").await;
    daemon.create("many").await;
    first.begin(&daemon.core).await;
    // It is heard of all the time: nothing but its wait ends it.
    let waited = async |minutes: u64| {
        for _ in 0..minutes * 3 {
            daemon.time.advance_ms(20_000);
            for runner in [&second, &keeps] {
                assert!(!runner.claim(&daemon.core, 0).await.expect("a claim").over);
            }
        }
    };
    waited(9).await;
    daemon.time.advance_ms(60_000);
    while !second.claim(&daemon.core, 0).await.expect("a claim").over {
        tokio::task::yield_now().await;
    }
    assert!(!keeps.claim(&daemon.core, 0).await.expect("a claim").over, "a runner that is none of them waits on");
    // It goes, and its name is free.
    gone(&daemon, "cloud-2", 62_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_own_absence_is_not_its_runners() {
    let mut daemon = Daemon::start(tree()).await;
    let runner = TestRunner::register(&daemon, "free").await;
    runner.claim(&daemon.core, 0).await.expect("a claim");
    TestRunner::register(&daemon, "declared").await;
    let once = TestRunner::register_with(&daemon.core, "once", true).await;
    daemon.create("many").await;
    let access = once.begin(&daemon.core).await;
    daemon.core.finish_attempt(&access, result(AttemptOutcome::Succeeded, b"")).await.expect("counts");
    daemon.restart_after(72 * 3_600_000).await;
    // The first round of the housekeeping is over when it has taken the one-off runner.
    gone(&daemon, "once", 0).await;
    daemon.core.authenticate_runner(&runner.token).await.expect("it may come back");
    // It does not.
    for _ in 0..2 {
        daemon.time.advance_ms(3_600_000);
    }
    gone(&daemon, "free", 61_000).await;
    daemon.core.runner("declared").await.expect("who has a file stays registered");
}

/// Waits until a runner is forgotten.
async fn gone(daemon: &Daemon, name: &str, after_ms: u64) {
    daemon.time.advance_ms(after_ms);
    while daemon.core.runner(name).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_token_ends() {
    let retention = Retention { tasks: 0, age_ms: 0 };
    let daemon = Daemon::start(tree_with(retention, Some(START.plus_millis(3_600_000)))).await;
    let east = Secret::new("east-token");
    let request = TestRunner::register(&daemon, "other").await.request(false);
    let named = |name: &str| forge_api::RegisterRequest { name: name.to_owned(), ..request.clone() };
    daemon.core.register(&east, named("in-time")).await.expect("good for an hour");
    daemon.time.advance_ms(3_600_000);
    let refused = daemon.core.register(&east, named("late")).await.expect_err("over").problem();
    assert!(refused.status == 403 && refused.detail.contains("the registration token east has expired"), "{refused:?}");
    assert!(refused.hint.is_some_and(|hint| hint.contains("registration-tokens/east.toml a later `expires`")));
}

/// A component on disk that was last known to be needed so many days before the clock of these tests began.
fn component(daemon: &Daemon, byte: u8, days_ago: u64) -> PathBuf {
    let folder = daemon.folder.path().join("plugins");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(format!("{}.wasm", format!("{byte:02x}").repeat(32)));
    std::fs::write(&path, [byte]).expect("written");
    let start = Duration::from_micros(START.unix_micros().unsigned_abs());
    let marked = SystemTime::UNIX_EPOCH + start - Duration::from_secs(days_ago * 24 * 3_600);
    std::fs::File::open(&path).and_then(|file| file.set_modified(marked)).expect("marked");
    path
}

async fn wait_until_gone(path: &Path) {
    while path.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_goes_when_neither_the_tree_nor_an_open_task_has_named_it_for_thirty_days() {
    let daemon = Daemon::start(tree()).await;
    let [ended, open] = [daemon.create("many").await.task.number, daemon.create("many").await.task.number];
    daemon.core.cancel(ended, "ann").await.expect("ends");
    // Another revision of the plugin: the task that waits still runs with the one before.
    daemon.apply(tree_but(|tree| {
        let plugin = tree.plugins.get_mut("shell").and_then(std::sync::Arc::get_mut).expect("the plugin");
        plugin.sha256 = Digest([6; 32]);
    }));
    let [serving, before] = [6, 7].map(|byte| component(&daemon, byte, 300));
    let [old, young] = [(8, 31), (9, 29)].map(|(byte, days)| component(&daemon, byte, days));
    daemon.time.advance_ms(61_000);
    wait_until_gone(&old).await;
    assert!(serving.exists() && before.exists() && young.exists());
    let fetched = daemon.core.plugin_file(&"07".repeat(32)).await;
    let (_, length) = fetched.expect("a job of the revision before fetches it");
    assert_eq!(length, 1);

    // A task that ended and is retried needs it again.
    daemon.core.cancel(open, "ann").await.expect("ends");
    component(&daemon, 7, 300);
    daemon.core.retry(ended, "ann", &Default::default()).await.expect("its component is there");
    component(&daemon, 8, 31);
    daemon.time.advance_ms(61_000);
    wait_until_gone(&old).await;
    assert!(before.exists());

    // Nothing names it any more.
    daemon.core.cancel(ended, "ann").await.expect("ends");
    component(&daemon, 7, 300);
    daemon.time.advance_ms(61_000);
    wait_until_gone(&before).await;
    assert!(serving.exists() && young.exists());
    let problem = daemon.core.retry(ended, "ann", &Default::default()).await.expect_err("it is gone").problem();
    assert!(
        problem.status == 409 && problem.detail.contains("no revision has named for 30 days"),
        "{}",
        problem.detail
    );
    assert!(problem.hint.is_some_and(|hint| hint.contains("forge run")));
}
