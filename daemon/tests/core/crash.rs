//! A daemon's process is killed in the middle of many writes: everything that it had acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use forge_api::{AttemptOutcome, ContentRange, CreateTask, TaskState};
use forge_daemon::clock::Clock;
use forge_daemon::core::Core;

use super::harness::{Daemon, TestRunner, config, options, result, tree, trigger};

/// Names the folder to the process that is killed.
const FOLDER: &str = "FORGE_TEST_CRASH_FOLDER";

/// It is killed after so many acknowledgements.
const ACKNOWLEDGEMENTS: usize = 600;

/// How many callers write at a time, and how many runners.
const CALLERS: usize = 12;
const RUNNERS: usize = 4;

/// Says on standard output that something is done for good.
fn acknowledge(what: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nack {what} {number}").and_then(|()| out.flush()).expect("someone reads");
}

fn key(caller: usize, round: usize) -> Option<String> {
    Some(format!("{caller}-{round}"))
}

/// The process that is killed; alone it does nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other test of this file runs it as a process of its own"]
async fn the_one_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let config = config(tree());
    let (core, _tasks) = Core::start(options(&folder, &config, &Clock::system(), 0)).await.expect("starts");
    let mut work = tokio::task::JoinSet::new();
    for number in 0..RUNNERS {
        let core = core.clone();
        work.spawn(async move {
            let runner = TestRunner::register_with(&core, &format!("r-{number}"), false).await;
            loop {
                let claimed = runner.claim(&core, 1_000).await.expect("a claim");
                for sealed in &claimed.jobs {
                    let job = runner.open_job(sealed);
                    let access = core.authenticate_attempt(job.attempt, &job.token).await.expect("its token");
                    // A cancel may have come first.
                    if core.start_attempt(&access, Default::default()).await.is_err() {
                        continue;
                    }
                    acknowledge("started", job.attempt.task);
                    let log = job.attempt.to_string().into_bytes();
                    let range = ContentRange::of(0, log.len() as u64).expect("a range");
                    core.append_log(&access, range, log.clone().into()).await.expect("taken");
                    let ended = core.finish_attempt(&access, result(AttemptOutcome::Succeeded, &log)).await;
                    if ended.expect("counts").state == TaskState::Succeeded {
                        acknowledge("succeeded", job.attempt.task);
                    }
                }
            }
        });
    }
    for caller in 0..CALLERS {
        let core = core.clone();
        work.spawn(async move {
            for round in 0_usize.. {
                let made = core.create_task("shop", "many", CreateTask::default(), trigger(), key(caller, round)).await;
                let number = made.expect("created").task.number;
                acknowledge(&format!("created:{caller}-{round}"), number);
                if round.is_multiple_of(3) && core.cancel(number, "ann").await.is_ok() {
                    acknowledge("cancel-asked", number);
                }
            }
        });
    }
    work.join_next().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_is_there_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::the_one_that_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for line in out.lines() {
        let line = line.expect("text");
        let mut words = line.split(' ');
        if words.next() == Some("ack")
            && let (Some(what), Some(Ok(number))) = (words.next(), words.next().map(str::parse))
        {
            acknowledged.push((what.to_owned(), number));
        }
        if acknowledged.len() == ACKNOWLEDGEMENTS {
            // SIGKILL; what is in the pipe by then was acknowledged too and is read on.
            child.kill().expect("ours");
        }
    }
    child.wait().expect("ended");
    // The last line may have been cut by the kill: then its number may be, too.
    acknowledged.pop();
    assert!(acknowledged.len() >= ACKNOWLEDGEMENTS - 1, "it ended by itself after {}", acknowledged.len());

    let daemon = Daemon::start_in(folder, tree()).await;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for (what, number) in &acknowledged {
        let task = daemon.core.task(*number).await.expect("there");
        let kind = what.split(':').next().unwrap_or_default();
        *seen.entry(kind).or_default() += 1;
        match kind {
            "created" => {
                let key = what.split(':').nth(1).map(str::to_owned);
                let again = daemon.core.create_task("shop", "many", CreateTask::default(), trigger(), key).await;
                let again = again.expect("found");
                assert!(again.replayed && again.task.number == *number, "{what}");
            }
            "started" => assert!(task.started_at.is_some(), "{task:?}"),
            "succeeded" => {
                let log = format!("{number}-{}", task.attempt);
                assert_eq!((task.state, task.log_bytes), (TaskState::Succeeded, log.len() as u64), "{task:?}");
                let read = daemon.core.log(*number, None).await.expect("a log").read(0, 100).await.expect("reads");
                assert_eq!(read, log.as_bytes());
            }
            "cancel-asked" if task.state.is_final() => assert_eq!(task.state, TaskState::Canceled, "{task:?}"),
            "cancel-asked" => {
                let why = daemon.core.why(*number).await.expect("why").message;
                assert!(why.contains("cancel asked for by ann"), "{why}");
            }
            other => panic!("{other}"),
        }
        let why = daemon.core.why(*number).await.expect("why");
        assert_eq!(why.deadline.is_none(), task.state.is_final(), "{why:?}");
    }
    assert_eq!(seen.len(), 4, "every kind of write was under way: {seen:?}");
    // By the clock of this daemon the child's tasks are from the future: a deadline of theirs has not passed, and none is lost.
    let counters = daemon.core.counters().await.expect("counts");
    assert_eq!(counters.tasks[&TaskState::Lost], 0);
}
