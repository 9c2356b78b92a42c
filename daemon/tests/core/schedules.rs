//! Schedules on a clock that a test moves: each time once, over restarts, and one for all that were missed.

use forge_api::{Schedule as Shown, TaskState, Timestamp, TriggerKind};
use forge_config::meant::{Overlap, Schedule, Tree};
use forge_daemon::core::TaskFilter;

use super::harness::{Daemon, START, TestRunner, name, shop, tree_but};

/// The tree with a schedule of the template `many`. The clock starts at 22:13:20.
fn scheduled(cron: &str, overlap: Overlap) -> Tree {
    tree_but(|tree| {
        let schedule = Schedule {
            template: name("many"),
            cron: cron.to_owned(),
            timezone: "UTC".to_owned(),
            answers: serde_json::Map::new(),
            enabled: true,
            overlap,
        };
        shop(tree).schedules.insert(name("often"), schedule);
    })
}

const MINUTE_MS: u64 = 60_000;

/// The moment of 2023-11-14, or of the day after, at an hour and a minute.
fn at(hour: i64, minute: i64) -> Timestamp {
    let midnight = START.unix_micros() - (22 * 3_600 + 13 * 60 + 20) * 1_000_000;
    Timestamp::from_unix_micros(midnight + (hour * 3_600 + minute * 60) * 1_000_000)
}

async fn shown(daemon: &Daemon) -> Shown {
    daemon.core.schedules(None).await.expect("listed").remove(0)
}

/// Waits until the schedule has fired for a time.
async fn fired(daemon: &Daemon, nominal_at: Timestamp) -> Shown {
    loop {
        let shown = shown(daemon).await;
        if shown.last.as_ref().is_some_and(|last| last.nominal_at == nominal_at) {
            return shown;
        }
        tokio::task::yield_now().await;
    }
}

async fn tasks(daemon: &Daemon) -> Vec<u64> {
    let page = daemon.core.tasks(TaskFilter::default(), None, 100).await.expect("listed");
    assert!(page.items.iter().all(|task| task.trigger.kind == TriggerKind::Schedule));
    page.items.into_iter().filter(|task| task.trigger.by == "often").map(|task| task.number).rev().collect()
}

/// Moves the clock once the schedule waits for its next firing.
async fn advance(daemon: &Daemon, minutes: u64) {
    // The first look only begins: what was before it is nobody's.
    while daemon.core.schedules(None).await.expect("listed")[0].looked_at.is_none() {
        tokio::task::yield_now().await;
    }
    daemon.time.advance_ms(minutes * MINUTE_MS);
}

/// Complaint 16 (schedules fire twice or pile up): a time comes once, also to a daemon that was restarted, and what was missed comes once.
#[tokio::test(flavor = "multi_thread")]
async fn each_time_comes_once_and_what_was_missed_once_for_all() {
    let mut daemon = Daemon::start(scheduled("*/10 * * * *", Overlap::Queue)).await;
    assert_eq!(shown(&daemon).await.next, [at(22, 20), at(22, 30), at(22, 40)]);
    advance(&daemon, 7).await;
    assert_eq!(fired(&daemon, at(22, 20)).await.last.expect("it fired").task, Some(1));
    daemon.restart().await;
    advance(&daemon, 10).await;
    fired(&daemon, at(22, 30)).await;
    assert_eq!(tasks(&daemon).await, [1, 2]);
    // It is away from 22:30:20 to 01:35:20.
    daemon.restart_after(185 * MINUTE_MS).await;
    let shown = fired(&daemon, at(25, 30)).await;
    assert_eq!(tasks(&daemon).await, [1, 2, 3], "one for all that were missed");
    assert_eq!(shown.next[0], at(25, 40));
    advance(&daemon, 5).await;
    fired(&daemon, at(25, 40)).await;
    assert_eq!(tasks(&daemon).await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_skip_waits_for_the_end_of_the_one_before() {
    let daemon = Daemon::start(scheduled("*/10 * * * *", Overlap::Skip)).await;
    advance(&daemon, 7).await;
    fired(&daemon, at(22, 20)).await;
    advance(&daemon, 10).await;
    let last = fired(&daemon, at(22, 30)).await.last.expect("it fired");
    assert_eq!(last.message.as_deref(), Some("task 1 of this schedule is open (overlap = \"skip\")"));
    assert_eq!(last.task, None);
    daemon.core.cancel(1, "ann").await.expect("it ends");
    assert_eq!(daemon.state(1).await, TaskState::Canceled);
    advance(&daemon, 10).await;
    fired(&daemon, at(22, 40)).await;
    assert_eq!(tasks(&daemon).await, [1, 2]);
    // Its tasks are run like any other.
    let runner = TestRunner::register(&daemon, "ny-1").await;
    let claimed = runner.claim(&daemon.core, 0).await.expect("claimed");
    assert_eq!(claimed.jobs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_time_begins_anew_and_one_that_is_off_does_not_fire() {
    let daemon = Daemon::start(scheduled("*/10 * * * *", Overlap::Queue)).await;
    advance(&daemon, 7).await;
    fired(&daemon, at(22, 20)).await;
    // Nothing that the new line would have meant before now is due.
    daemon.apply(scheduled("5 * * * *", Overlap::Queue));
    while shown(&daemon).await.next[0] != at(23, 5) {
        tokio::task::yield_now().await;
    }
    let seen = |shown: &Shown| shown.looked_at;
    while seen(&shown(&daemon).await) != Some(at(22, 20).plus_millis(20_000)) {
        tokio::task::yield_now().await;
    }
    advance(&daemon, 45).await;
    fired(&daemon, at(23, 5)).await;
    assert_eq!(tasks(&daemon).await, [1, 2]);
    daemon.apply(tree_but(|tree| {
        let mut off = scheduled("* * * * *", Overlap::Queue);
        let schedules = std::mem::take(&mut shop(&mut off).schedules);
        for (name, schedule) in schedules {
            shop(tree).schedules.insert(name, Schedule { enabled: false, ..schedule });
        }
        // Another one, whose firing shows that it was looked.
        let another = scheduled("30 * * * *", Overlap::Queue);
        let another = another.projects["shop"].schedules["often"].clone();
        shop(tree).schedules.insert(name("other"), Schedule { template: name("again"), ..another });
    }));
    while shown(&daemon).await.enabled {
        tokio::task::yield_now().await;
    }
    let turned_off = at(23, 5).plus_millis(20_000);
    while seen(&shown(&daemon).await) != Some(turned_off) {
        tokio::task::yield_now().await;
    }
    daemon.time.advance_ms(30 * MINUTE_MS);
    while daemon.core.schedules(None).await.expect("listed")[1].last.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&daemon).await.next, []);
    assert_eq!(shown(&daemon).await.last.map(|last| last.nominal_at), Some(at(23, 5)), "it is off");
    daemon.core.cancel(3, "ann").await.expect("the other's is of no interest here");
    // On again, it begins from now.
    daemon.apply(scheduled("5 * * * *", Overlap::Queue));
    while seen(&shown(&daemon).await) != Some(turned_off.plus_millis(30 * 60_000)) {
        tokio::task::yield_now().await;
    }
    advance(&daemon, 30).await;
    fired(&daemon, at(24, 5)).await;
    assert_eq!(tasks(&daemon).await, [1, 2, 4]);
}
