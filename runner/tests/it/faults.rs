//! What goes wrong around a runner: its own death, its daemon's absence, jobs that are not to be believed.

use forge_api::{AttemptOutcome, Job, OnRunnerLost};
use forge_runner::{Ended, Event, RunError, Settings};

use crate::Place;
use crate::daemon::{PluginFault, Seen};

/// A job that says where it is, waits for a file, and goes on.
fn waiting(place: &Place, task: u64) -> Job {
    let folder = place.folder.path().display().to_string();
    place.job(
        task,
        &format!("echo before; echo $$ > {folder}/pid; until [ -e {folder}/go ]; do sleep 0.02; done; echo after"),
    )
}

/// The parent of a process.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_waits_for_the_next_attempt_and_may_die_of_it() {
    let place = Place::registered().await;
    let working = place.work();
    let folder = place.folder.path().display().to_string();
    let until_told = |task: u64| {
        let wait =
            format!("echo $PPID > {folder}/supervisor-{task}; until [ -e {folder}/go-{task} ]; do sleep 0.02; done");
        place.job(task, &wait)
    };
    let supervisor =
        async |task: u64| -> u32 { place.file(&format!("supervisor-{task}")).await.trim().parse().expect("a pid") };
    // Another child of the launcher than the one that works.
    let spare = async |working: u32| -> u32 {
        let launcher = parent(working).expect("it has a parent");
        let others = || {
            let entries = std::fs::read_dir("/proc").expect("listed").flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            pids.filter(|pid| *pid != working && parent(*pid) == Some(launcher)).collect::<Vec<_>>()
        };
        place.daemon.wait("a supervisor in waiting", |_| others().first().copied()).await
    };
    let end = async |job: &Job| {
        std::fs::write(format!("{folder}/go-{}", job.attempt.task), "").expect("written");
        let (result, _) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{:?}", result.reason);
    };

    let [first, second, third] = [1, 2, 3].map(until_told);
    place.daemon.queue(&first);
    let waiting = spare(supervisor(1).await).await;
    end(&first).await;
    // It is the next one's.
    place.daemon.queue(&second);
    assert_eq!(supervisor(2).await, waiting);
    // One that somebody ended is missed by nobody.
    let killed = spare(waiting).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(killed).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    place.gone(&killed.to_string()).await;
    end(&second).await;
    place.daemon.queue(&third);
    let last = spare(supervisor(3).await).await;
    end(&third).await;
    working.drained().await.expect("it ends");
    // It leaves with its runner.
    place.gone(&last.to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_runner_attaches_to_what_runs() {
    let place = Place::registered().await;
    let mut working = place.work();
    let job = waiting(&place, 1);
    place.daemon.queue(&job);
    place.file("pid").await;
    working.task.shutdown().await;
    let again = place.work();
    place
        .daemon
        .wait("a claim that names its predecessor", |seen| (!seen.previous_sessions.is_empty()).then_some(()))
        .await;
    std::fs::write(place.path("go"), "").expect("written");
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "before\nafter\n"), "{result:?}");
    let found = Event::AttemptFound { attempt: job.attempt, alive: true };
    assert!(again.events.lock().expect("free").contains(&found));
    assert_eq!(again.drained().await.expect("it ends"), Ended::Drained);
    assert!(!place.path("tmp/attempts/1-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_stays_away_loses_its_job() {
    let place = Place::registered().await;
    let mut working = place.work();
    let mut job = waiting(&place, 1);
    job.runner_grace_ms = 500;
    place.daemon.queue(&job);
    let pid = place.file("pid").await;
    working.task.shutdown().await;
    place.gone(&pid).await;
    // Its successor hands in what is left.
    let again = place.work();
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Lost, "{result:?}");
    assert!(log.starts_with("before\n") && log.contains("runner_grace"), "{log}");
    again.drained().await.expect("it ends");
}

/// Complaint 14 (output truncated): what is written while the daemon is away lies in the spool, and comes once.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_away_loses_no_byte() {
    let place = Place::registered().await;
    let working = place.work();
    let job = waiting(&place, 1);
    place.daemon.queue(&job);
    place.file("pid").await;
    place.daemon.is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    std::fs::write(place.path("go"), "").expect("written");
    let result = place.path("tmp/attempts/1-1/result.json");
    let is_there = || std::fs::metadata(&result).is_ok_and(|file| file.len() > 0);
    place.daemon.wait("the result in the spool", |_| is_there().then_some(())).await;
    place.daemon.is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "before\nafter\n"));
    working.drained().await.expect("it ends");
}

/// Complaint 22 (lease lost, payload runs on): a job whose task may be another runner's soon ends without the daemon's word.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_would_be_queued_again_ends_when_the_daemon_is_away() {
    let place = Place::registered().await;
    let working = place.work();
    let mut job = waiting(&place, 1);
    job.runner_grace_ms = 4_000;
    job.on_runner_lost = OnRunnerLost::Retry;
    place.daemon.queue(&job);
    let pid = place.file("pid").await;
    place.daemon.is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    place.gone(&pid).await;
    place.daemon.is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    let (result, _) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Lost, "{result:?}");
    assert!(result.reason.unwrap_or_default().contains("out of reach"));
    working.drained().await.expect("it ends");
}

/// Complaint 22 (lease lost, payload runs on): a daemon that has given an attempt up says so, the job ends, and its log still comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_daemon_has_given_up_ends_and_the_rest_of_its_log_arrives() {
    let place = Place::registered().await;
    let working = place.work();
    let folder = place.folder.path().display().to_string();
    let script =
        format!("trap 'echo rest; exit 1' TERM; echo before; echo $$ > {folder}/pid; while :; do sleep 0.05; done");
    let mut job = place.job(1, &script);
    job.runner_grace_ms = 4_000;
    place.daemon.queue(&job);
    let pid = place.file("pid").await;
    place.daemon.seen.lock().expect("free").lost.push(job.attempt);
    place.gone(&pid).await;
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Lost, "{result:?}");
    assert!(log.starts_with("before\n") && log.contains("rest\n[forge] the daemon gave this attempt up"), "{log}");
    working.drained().await.expect("it ends");
}

/// Heartbeats so far.
fn beats(seen: &Seen) -> usize {
    seen.heartbeats.len()
}

/// So many heartbeats of an attempt with this grace take longer than its lease.
const LONGER_THAN_A_LEASE: (u64, usize) = (2_000, 4);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_plugin_takes_long_to_come_is_not_taken_for_lost() {
    let (grace_ms, beats_min) = LONGER_THAN_A_LEASE;
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").plugin_waits = true;
    let working = place.work();
    let mut job = place.job(1, "echo ran");
    job.runner_grace_ms = grace_ms;
    job.on_runner_lost = OnRunnerLost::Retry;
    place.daemon.queue(&job);
    place.daemon.wait("heartbeats", |seen| (beats(seen) >= beats_min).then_some(())).await;
    place.daemon.seen.lock().expect("free").plugin_waits = false;
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "ran\n"), "{result:?}");
    assert_eq!(place.daemon.seen.lock().expect("free").starts, 1, "heartbeats have renewed its lease");
    working.drained().await.expect("it ends");
}

/// Complaint 2 ("a restart leaves tasks running"), of the runner's own: between the daemon's word and the job's begin nothing ran.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_had_not_begun_when_it_was_killed_is_handed_in_at_once() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").plugin_waits = true;
    let mut working = place.work();
    let (asked, failed) = (place.job(1, "echo ran"), place.job(2, "echo ran"));
    for (job, starts) in [(&asked, 1), (&failed, 2)] {
        place.daemon.queue(job);
        place.daemon.wait("the start", |seen| (seen.starts == starts).then_some(())).await;
    }
    working.task.shutdown().await;

    // The second one had found that it cannot begin, and had not told yet.
    let record = place.path(&format!("tmp/attempts/{}/attempt.json", failed.attempt));
    let mut last: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).expect("written before the start was told")).expect("one line");
    last["stage"] = serde_json::json!({ "ended": { "outcome": "failed", "reason": "no plugin is to be had" } });
    let mut file = std::fs::File::options().append(true).open(&record).expect("there");
    std::io::Write::write_all(&mut file, format!("{last}\n").as_bytes()).expect("written");

    place.daemon.seen.lock().expect("free").plugin_waits = false;
    let working = place.work();
    let (result, log) = place.daemon.result(asked.attempt).await;
    let reason = "its runner was restarted before the job began";
    assert_eq!((result.outcome, result.reason.as_deref()), (AttemptOutcome::Lost, Some(reason)));
    assert!(result.nothing_ran, "{result:?}");
    assert_eq!(log, format!("[forge] {reason}\n"), "nothing of it ran");
    let (result, _) = place.daemon.result(failed.attempt).await;
    assert_eq!((result.outcome, result.reason.as_deref()), (AttemptOutcome::Failed, Some("no plugin is to be had")));
    assert_eq!(place.daemon.seen.lock().expect("free").starts, 2, "no start was told again");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_longer_than_a_lease_to_begin_asks_again() {
    let (grace_ms, beats_min) = LONGER_THAN_A_LEASE;
    let place = Place::registered().await;
    {
        let mut seen = place.daemon.seen.lock().expect("free");
        (seen.plugin_waits, seen.beats_are_down) = (true, true);
    }
    let working = place.work();
    let mut job = place.job(1, "echo ran");
    job.runner_grace_ms = grace_ms;
    job.on_runner_lost = OnRunnerLost::Retry;
    place.daemon.queue(&job);
    place.daemon.wait("heartbeats", |seen| (beats(seen) >= beats_min).then_some(())).await;
    {
        let mut seen = place.daemon.seen.lock().expect("free");
        assert_eq!(seen.starts, 1);
        (seen.plugin_waits, seen.beats_are_down) = (false, false);
    }
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "ran\n"), "{result:?}");
    assert_eq!(place.daemon.seen.lock().expect("free").starts, 2, "the first word was too old");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_is_told_to_stop_ends_its_job_and_says_so() {
    let place = Place::registered().await;
    let working = place.work();
    let job = hiding(&place, 1);
    place.daemon.queue(&job);
    let pids = [place.file("named").await, place.file("bare").await, place.file("deaf").await];
    let supervisor: i32 = place.file("supervisor").await.trim().parse().expect("a number");
    let supervisor = rustix::process::Pid::from_raw(supervisor).expect("a pid");
    rustix::process::kill_process(supervisor, rustix::process::Signal::HUP).expect("signalled");
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).expect("signalled");
    let (result, _) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Lost, "{result:?}");
    assert!(result.reason.is_some_and(|reason| reason.starts_with("its supervisor was told to stop")));
    for pid in pids {
        place.gone(&pid).await;
    }
    working.drained().await.expect("it ends");
}

pub(crate) fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

/// A job whose processes hide: in sessions of their own, without a name in their environment, deaf to TERM.
fn hiding(place: &Place, task: u64) -> Job {
    let folder = place.folder.path().display().to_string();
    let note = |name: &str| format!("echo \\$\\$ > {folder}/{name}");
    let named = format!("setsid bash -c \"{}; exec sleep 1000\" &", note("named"));
    let bare = format!("env -i setsid /bin/bash -c \"{}; exec sleep 1000\" &", note("bare"));
    let deaf = format!("env -i /bin/bash -c \"trap '' TERM; {}; while :; do sleep 1; done\" &", note("deaf"));
    place.job(task, &format!("echo $PPID > {folder}/supervisor; {named}\n{bare}\n{deaf}\nprintf before; wait"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_takes_its_job_along() {
    let place = Place::registered().await;
    let working = place.work();
    let job = hiding(&place, 1);
    place.daemon.queue(&job);
    let pids = [place.file("named").await, place.file("bare").await, place.file("deaf").await];
    place.daemon.wait("the output", |seen| seen.logs.get(&job.attempt).map(drop)).await;
    kill(&place.file("supervisor").await);
    let (result, log) = place.daemon.result(job.attempt).await;
    for pid in pids {
        let path = format!("/proc/{}", pid.trim());
        assert!(!std::path::Path::new(&path).exists(), "{pid} lives when the result is there");
    }
    assert_eq!(result.outcome, AttemptOutcome::Failed);
    assert_eq!(log, "before\n[forge] its supervisor died without a result\n");
    assert!(result.reason.unwrap_or_default().contains("supervisor died"));
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_launcher_is_replaced_and_its_supervisors_go_on() {
    let place = Place::registered().await;
    let runner = place.apart(&[]);
    let first = waiting(&place, 1);
    place.daemon.queue(&first);
    place.file("pid").await;
    let [launcher] = runner.children()[..] else { panic!("the launcher alone: {:?}", runner.children()) };
    kill(&launcher.to_string());
    place.daemon.wait("its supervisor's new parent", |_| (runner.children().len() > 1).then_some(())).await;

    let second = place.job(2, "printf second");
    place.daemon.queue(&second);
    let (result, log) = place.daemon.result(second.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "second"));
    std::fs::write(place.path("go"), "").expect("written");
    let (result, log) = place.daemon.result(first.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "before\nafter\n"));
    let is_one = || matches!(runner.children()[..], [only] if only != launcher);
    place.daemon.wait("the new launcher alone", |_| is_one().then_some(())).await;
}

/// A job that leaves a process with neither its environment nor its session, nor its folder, nor any descriptor, as far as `keeps` does not.
fn leaving_behind(place: &Place, keeps: &str) -> Job {
    let folder = place.folder.path().display().to_string();
    let note = format!("echo \\$\\$ > {folder}/left");
    let left =
        format!("env -i setsid /bin/bash -c \"{note}; {keeps}; exec sleep 1000\" > /dev/null 2>&1 < /dev/null &");
    place.job(1, &format!("echo $PPID > {folder}/supervisor; {left}\nwait"))
}

/// Its runner is another process than the one that started it: nothing that it left comes to that one by itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_supervisor_left_is_ended_after_a_restart() {
    // What is left to know it by: the folder, a descriptor, or (where the machine has it) the control group alone.
    let closes =
        "for fd in /proc/self/fd/*; do fd=\\${fd##*/}; [ \\$fd -gt 2 ] && eval \\\"exec \\$fd>&-\\\"; done 2>/dev/null";
    let mut marks = vec![("its folder", closes.to_owned()), ("a descriptor", "cd /".to_owned())];
    if has_control_groups() {
        marks.push(("its control group", format!("cd /; {closes}")));
    }
    for (mark, keeps) in marks {
        let place = Place::registered().await;
        let runner = place.apart(&[]);
        let job = leaving_behind(&place, &keeps);
        place.daemon.queue(&job);
        let (left, supervisor) = (place.file("left").await, place.file("supervisor").await);
        if has_control_groups() {
            let group = format!("/proc/{}/cgroup", left.trim());
            let is_in = || std::fs::read_to_string(&group).is_ok_and(|text| text.contains("/forge-supervisor-"));
            place.daemon.wait("its control group", |_| is_in().then_some(())).await;
        }
        drop(runner);
        let again = place.apart(&[]);
        place.daemon.wait("the second runner", |seen| (!seen.previous_sessions.is_empty()).then_some(())).await;
        kill(&supervisor);
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Failed, "{mark}: {result:?}\n{log}");
        // Its body may lie about until whoever it came to takes it away.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", left.trim())).unwrap_or_default();
        let is_dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        assert!(is_dead, "{mark}: {left} lives when the result is there: {stat}");
        drop(again);
    }
}

/// Whether a runner may make control groups here.
fn has_control_groups() -> bool {
    let Ok(own) = std::fs::read_to_string("/proc/self/cgroup") else { return false };
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    let Some(point) = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4))
    else {
        return false;
    };
    let probe = std::path::Path::new(point).join(own).join(format!("forge-test-{}", std::process::id()));
    std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_stood_still_goes_on_where_it_was() {
    let place = Place::registered().await;
    let runner = place.apart(&[]);
    let folder = place.folder.path().display().to_string();
    // Much news for a runner that reads none: the supervisor gives that connection up.
    // Bash's own wait: a process for each line takes a busy machine minutes.
    let chatter = "mkfifo nothing; exec 9<>nothing; for i in $(seq 1 4000); do echo $i; read -r -t 0.002 -u 9; done";
    let job = place.job(
        1,
        &format!("echo $$ > {folder}/pid; {chatter}; until [ -e {folder}/go ]; do sleep 0.02; done; echo after"),
    );
    place.daemon.queue(&job);
    place.file("pid").await;
    runner.signal(rustix::process::Signal::STOP);
    tokio::time::sleep(std::time::Duration::from_secs(14)).await;
    runner.signal(rustix::process::Signal::CONT);
    let is_told = |log: &Vec<u8>| String::from_utf8_lossy(log).ends_with("\n4000\n");
    place.daemon.wait("the log, live", |seen| seen.logs.get(&job.attempt).filter(|log| is_told(log)).map(drop)).await;
    std::fs::write(place.path("go"), "").expect("written");
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}");
    assert!(log.ends_with("\n4000\nafter\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_stands_still_for_too_long_loses_its_job() {
    let place = Place::registered().await;
    let runner = place.apart(&[]);
    let mut job = waiting(&place, 1);
    job.runner_grace_ms = 1_000;
    place.daemon.queue(&job);
    let pid = place.file("pid").await;
    runner.signal(rustix::process::Signal::STOP);
    place.gone(&pid).await;
    runner.signal(rustix::process::Signal::CONT);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Lost, "{result:?}");
    assert!(log.contains("[forge] its runner was gone for longer than runner_grace (1 s)"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_what_runs_and_hands_it_in() {
    let place = Place::registered().await;
    let working = place.work();
    let job = waiting(&place, 1);
    place.daemon.queue(&job);
    let pid = place.file("pid").await;
    working.shutdown.abort.cancel();
    assert_eq!(working.ended().await.expect("it ends"), Ended::Aborted);
    let (result, _) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Lost);
    assert_eq!(result.reason.as_deref(), Some("the runner was stopped"));
    place.gone(&pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_to_be_believed_does_not_run() {
    let place = Place::registered().await;
    let working = place.work();
    let job = place.job(1, "true");
    let mut forged = place.daemon.seal(&job);
    forged.signature = place.daemon.seal(&place.job(2, "true")).signature;
    let mut other = place.job(3, "true");
    other.runner = "west-1".to_owned();
    let other = place.daemon.seal(&other);
    place.daemon.seen.lock().expect("free").queue.extend([forged, other]);
    let events = working.events.clone();
    let reasons = place
        .daemon
        .wait("two refusals", |_| {
            let events = events.lock().expect("free");
            let reasons: Vec<String> = events
                .iter()
                .filter_map(
                    |event| if let Event::JobRefused { reason, .. } = event { Some(reason.clone()) } else { None },
                )
                .collect();
            (reasons.len() == 2).then(|| reasons.join("\n"))
        })
        .await;
    assert!(reasons.contains("signature") && reasons.contains("west-1"), "{reasons}");
    assert!(place.daemon.seen.lock().expect("free").logs.is_empty());
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_without_room_on_its_disk_takes_no_work() {
    let place = Place::registered().await;
    place.daemon.queue(&place.job(1, "true"));
    let working = place.work_as(Settings { disk_reserve_bytes: u64::MAX, ..place.settings.clone() });
    let events = working.events.clone();
    let is_said = |event: &Event| *event == Event::DiskFull(true);
    place.daemon.wait("it says why", |_| events.lock().expect("free").iter().any(is_said).then_some(())).await;
    // It is connected, and leaves the job where it is.
    let is_connected = |event: &Event| matches!(event, Event::Connected { .. });
    place.daemon.wait("a connection", |_| events.lock().expect("free").iter().any(is_connected).then_some(())).await;
    assert_eq!(place.daemon.seen.lock().expect("free").queue.len(), 1);
    working.drained().await.expect("it ends");

    let working = place.work();
    let (result, _) = place.daemon.result(place.job(1, "true").attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_known_stops_the_runner() {
    let place = Place::registered().await;
    std::fs::write(&place.settings.token_file, "another\n").expect("written");
    let error = place.work().ended().await.expect_err("it cannot go on");
    assert!(matches!(error, RunError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("forge runner register"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runners_do_not_share_a_folder() {
    let place = Place::registered().await;
    let first = place.work();
    let events = first.events.clone();
    place.daemon.wait("a connection", |_| (!events.lock().expect("free").is_empty()).then_some(())).await;
    let error = place.work().ended().await.expect_err("it is in use");
    assert!(matches!(error, RunError::InUse { .. }), "{error}");
    first.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_lost_after_it_was_acknowledged_is_handed_in_again() {
    let place = Place::registered().await;
    let working = place.work();
    let job = place.job(1, "seq 1 100000; sleep 0.5; seq 1 100000");
    place.daemon.seen.lock().expect("free").lose_at = Some(100_000);
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    let once: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(log == once.repeat(2), "{} bytes", log.len());
    assert!(place.daemon.seen.lock().expect("free").gaps > 0, "it was tried");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_arrived_damaged_is_handed_in_again() {
    let place = Place::registered().await;
    let working = place.work();
    let job = place.job(1, "seq 1 1000");
    place.daemon.seen.lock().expect("free").damages = true;
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    assert!(log.starts_with("1\n2\n"), "{log}");
    assert_eq!(place.daemon.seen.lock().expect("free").damaged, 1);
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_lost_before_it_is_synced_comes_from_the_spool() {
    let place = Place::registered().await;
    let working = place.work();
    let job = place.job(1, "seq 1 1000");
    place.daemon.seen.lock().expect("free").unsynced = true;
    place.daemon.queue(&job);
    let (_, whole) = place.daemon.result(job.attempt).await;
    {
        // The power goes after the result was acknowledged and before the log was on the disk.
        let mut seen = place.daemon.seen.lock().expect("free");
        seen.logs.remove(&job.attempt);
        seen.unsynced = false;
    }
    let (_, again) = place.daemon.result(job.attempt).await;
    assert_eq!(whole, again);
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_heard_before_the_start_is_told() {
    let place = Place::registered().await;
    let working = place.work();
    let job = place.job(1, "true");
    place.daemon.seen.lock().expect("free").starts_are_down = true;
    place.daemon.queue(&job);
    place.daemon.wait("the claim", |seen| seen.queue.is_empty().then_some(())).await;
    place.daemon.cancel(job.attempt);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Canceled, "[forge] canceled\n"));
    working.drained().await.expect("it ends");
}

/// Complaint 7 (a new connection per poll exhausts ports): the runner's descriptors do not grow with what it does.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_attempts_leave_no_descriptor_and_no_child() {
    let place = Place::registered().await;
    let runner = place.apart(&[]);
    let run = async |from: u64, to: u64| {
        let jobs: Vec<Job> = (from..to).map(|task| place.job(task, "true")).collect();
        jobs.iter().for_each(|job| place.daemon.queue(job));
        for job in &jobs {
            place.daemon.result(job.attempt).await;
        }
        let attempts = place.path("tmp/attempts");
        let is_empty = || std::fs::read_dir(&attempts).expect("listed").next().is_none();
        place.daemon.wait("the clean-up", |_| is_empty().then_some(())).await;
    };
    run(1, 11).await;
    let before = runner.descriptors();
    run(11, 211).await;
    let after = runner.descriptors();
    assert!(after <= before + 8, "{before} descriptors after 10 attempts, {after} after 210");
    let [launcher] = runner.children()[..] else { panic!("the launcher alone is left: {:?}", runner.children()) };
    let one_waits = |_: &Seen| (crate::children_of(launcher).len() <= 1).then_some(());
    place.daemon.wait("the end of the supervisors, but for the one in waiting", one_waits).await;
}

/// Complaint 7 (a new connection per poll exhausts ports): connections are kept, however often the runner asks.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_attempts_need_no_more_than_a_few_connections() {
    /// A parked claim, a heartbeat, and what an attempt says at the same time.
    const CONNECTIONS_MAX: u32 = 8;
    let place = Place::registered().await;
    let before = place.daemon.connections.load(std::sync::atomic::Ordering::SeqCst);
    let working = place.work();
    for task in 1..=200 {
        let job = place.job(task, "echo said");
        place.daemon.queue(&job);
        place.daemon.result(job.attempt).await;
    }
    let claims = place.daemon.seen.lock().expect("free").claims;
    assert!(claims >= 200, "each came by a claim of its own: {claims}");
    let opened = place.daemon.connections.load(std::sync::atomic::Ordering::SeqCst) - before;
    assert!((1..=CONNECTIONS_MAX).contains(&opened), "{opened} connections for 200 attempts");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_does_not_obey_is_killed_with_its_job() {
    let place = Place::registered().await;
    let working = place.work();
    let job = hiding(&place, 1);
    place.daemon.queue(&job);
    let pids = [place.file("named").await, place.file("bare").await, place.file("deaf").await];
    let supervisor: i32 = place.file("supervisor").await.trim().parse().expect("a number");
    let supervisor = rustix::process::Pid::from_raw(supervisor).expect("a pid");
    rustix::process::kill_process(supervisor, rustix::process::Signal::STOP).expect("stopped");
    place.daemon.cancel(job.attempt);
    let (result, _) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Canceled, "{result:?}");
    for pid in pids {
        place.gone(&pid).await;
    }
    working.drained().await.expect("it ends");
}

/// A daemon that cannot be reached when the plugin is to be fetched comes back: nothing of the job ran yet, and nothing has to fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_waited_for_as_long_as_a_daemon_may_be_away() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").plugin_faults = vec![PluginFault::Cut; 5];
    let working = place.work();
    let job = place.job(1, "echo ran");
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "ran\n"), "{result:?}");
    working.drained().await.expect("it ends");
}

/// A plugin whose download is cut, or changed on its way, is fetched again; one that stays another is refused with words.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_what_its_digest_says_or_is_not_run() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").plugin_faults = vec![PluginFault::Cut, PluginFault::Changed];
    let working = place.work();
    // Attempts that begin together fetch it once.
    let jobs = [1, 2, 3].map(|task| place.job(task, "echo ran"));
    for job in &jobs {
        place.daemon.queue(job);
    }
    for job in &jobs {
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "ran\n"), "{result:?}");
    }
    assert_eq!(place.daemon.seen.lock().expect("free").plugin_requests, 3, "two that failed and one that was good");
    working.drained().await.expect("it ends");

    std::fs::remove_dir_all(place.path("tmp/plugins")).expect("removed");
    place.daemon.seen.lock().expect("free").plugin_faults = vec![PluginFault::Changed; 9];
    let working = place.work();
    // The claim of the runner that left may still be parked, and must not get the job.
    let second = |seen: &Seen| (!seen.previous_sessions.is_empty()).then_some(());
    place.daemon.wait("the claim of the second runner", second).await;
    let job = place.job(4, "echo ran");
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Failed, "{log}");
    let reason = result.reason.expect("a reason");
    assert!(reason.starts_with("the plugin guest cannot be had: what the daemon sent ("), "{reason}");
    assert!(reason.contains(&format!("and not {}", job.plugin.sha256)), "{reason}");
    assert_eq!(std::fs::read_dir(place.path("tmp/plugins")).expect("listed").count(), 0, "nothing of it is kept");
    working.drained().await.expect("it ends");
}
