//! What a supervisor does before the daemon has said that its attempt may begin: it gets ready, nothing of the job runs, and where the word
//! does not come nothing stays.

use std::path::{Path, PathBuf};

use forge_api::{AttemptOutcome, Job, Secret};
use rustix::process::{Pid, Signal, kill_process};

use crate::Place;

/// An attempt that is ready and waits for the word.
struct Waiting {
    job: Job,
    /// Made by the job as soon as it runs.
    ran: PathBuf,
    /// The attempt's own folders.
    spool: PathBuf,
    workspace: PathBuf,
    private: PathBuf,
    supervisor: Pid,
}

/// The process that works in `folder`.
fn works_in(folder: &Path) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").expect("listed").flatten();
    let mut found =
        processes.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder));
    Pid::from_raw(found.next()?.file_name().to_str()?.parse().ok()?)
}

/// Has the runner know the plugin, as it does after the first attempt.
async fn know_plugin(place: &Place) {
    let job = place.job(1, "true");
    place.daemon.queue(&job);
    let (result, _) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}");
}

/// A job that was given to the runner, whose word the daemon does not give.
async fn waiting(place: &Place, task: u64) -> Waiting {
    let refused = {
        let mut seen = place.daemon.seen.lock().expect("free");
        seen.starts_are_down = true;
        seen.starts_refused
    };
    let ran = place.path(&format!("ran-{task}"));
    let mut job = place.job(task, &format!("echo ran; touch {}", ran.display()));
    job.secret_variables.insert("word".to_owned(), Secret::new("a-secret-word"));
    place.daemon.queue(&job);
    let spool = place.path(&format!("tmp/attempts/{}", job.attempt));
    let record = || -> Option<serde_json::Value> {
        let text = std::fs::read_to_string(spool.join("attempt.json")).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    };
    let record = place.daemon.wait("the record", |_| record()).await;
    let folder = |name: &str| PathBuf::from(record[name].as_str().expect("a path"));
    let (workspace, private) = (folder("workspace"), folder("private"));
    let variables = private.join("variables.json");
    let is_whole = || std::fs::read_to_string(&variables).is_ok_and(|text| text.contains("a-secret-word"));
    place.daemon.wait("the secret files", |_| is_whole().then_some(())).await;
    // It has asked again meanwhile, for longer than a plugin's call takes.
    place.daemon.wait("starts", |seen| (seen.starts_refused >= refused + 4).then_some(())).await;
    let supervisor = works_in(&spool).expect("a supervisor");
    assert!(!ran.exists(), "it ran without the daemon's word");
    Waiting { job, ran, spool, workspace, private, supervisor }
}

impl Waiting {
    /// Waits until nothing of the attempt is left but, perhaps, its spool.
    async fn leaves_nothing(&self, place: &Place) {
        place.gone(&self.supervisor.as_raw_nonzero().to_string()).await;
        let is_left = || self.workspace.exists() || self.private.exists();
        place.daemon.wait("the end of its folders", |_| (!is_left()).then_some(())).await;
        assert!(!self.ran.exists(), "it ran without the daemon's word");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_runs_as_soon_as_the_daemon_says_so() {
    let place = Place::registered().await;
    let working = place.work();
    know_plugin(&place).await;
    let waiting = waiting(&place, 2).await;
    place.daemon.seen.lock().expect("free").starts_are_down = false;
    let (result, log) = place.daemon.result(waiting.job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "ran\n"), "{result:?}");
    assert!(waiting.ran.exists());
    working.drained().await.expect("it ends");
    assert!(!waiting.private.exists() && !waiting.spool.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_runners_by_then_leaves_nothing() {
    let place = Place::registered().await;
    let working = place.work();
    know_plugin(&place).await;
    let waiting = waiting(&place, 2).await;
    place.daemon.seen.lock().expect("free").starts_are_gone = true;
    waiting.leaves_nothing(&place).await;
    place.daemon.wait("the end of its spool", |_| (!waiting.spool.exists()).then_some(())).await;
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_does_not_wait_for_a_supervisor_that_stands_still() {
    let place = Place::registered().await;
    let working = place.work();
    know_plugin(&place).await;
    let waiting = waiting(&place, 2).await;
    kill_process(waiting.supervisor, Signal::STOP).expect("stopped");
    place.daemon.cancel(waiting.job.attempt);
    let (result, log) = place.daemon.result(waiting.job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Canceled, "[forge] canceled\n"), "{result:?}");
    waiting.leaves_nothing(&place).await;
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_takes_what_waits_with_it() {
    let place = Place::registered().await;
    let runner = place.apart(&[]);
    know_plugin(&place).await;
    let waiting = waiting(&place, 2).await;
    runner.signal(Signal::KILL);
    waiting.leaves_nothing(&place).await;

    place.daemon.seen.lock().expect("free").starts_are_down = false;
    let working = place.work();
    let (result, _) = place.daemon.result(waiting.job.attempt).await;
    assert!(result.outcome == AttemptOutcome::Lost && result.nothing_ran, "{result:?}");
    working.drained().await.expect("it ends");
}

/// Somebody ends it, or the kernel for want of memory: nothing of the job ran, and another one takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_ends_before_the_word_is_replaced() {
    let place = Place::registered().await;
    let working = place.work();
    know_plugin(&place).await;
    for (task, signal) in [(2, Signal::TERM), (3, Signal::KILL)] {
        let waiting = waiting(&place, task).await;
        kill_process(waiting.supervisor, signal).expect("told");
        place.gone(&waiting.supervisor.as_raw_nonzero().to_string()).await;
        assert!(!waiting.ran.exists(), "it ran without the daemon's word");
        place.daemon.seen.lock().expect("free").starts_are_down = false;
        let (result, log) = place.daemon.result(waiting.job.attempt).await;
        assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "ran\n"), "{result:?}");
        assert!(!waiting.private.exists());
    }
    working.drained().await.expect("it ends");
}
