//! What a job sees, what becomes of its output, and how it ends.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use forge_api::{AttemptOutcome, Inventory, InventorySource, Secret};
use forge_runner::{Ended, Event, Settings};
use serde_json::Value;

use crate::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_and_leaves_nothing_behind() {
    let place = Place::registered().await;
    let mut job =
        place.job(1, "echo out; echo err >&2; env | sort; cat $HOME/../inventory/inventory.ini; mktemp; pwd; ls -A");
    job.env.insert("COLOUR".to_owned(), "green".to_owned());
    // The tree does not choose where an attempt is at home.
    job.env.insert("HOME".to_owned(), "/root".to_owned());
    job.secret_env.insert("TMPDIR".to_owned(), Secret::new("/var/tmp/of-all"));
    job.variables.insert("version".to_owned(), Value::from(7));
    job.secret_variables.insert("pin-code".to_owned(), Secret::new("one two three"));
    job.survey = vec!["version".to_owned(), "pin-code".to_owned()];
    job.inventory =
        Some(Inventory { name: "east".to_owned(), source: InventorySource::Static("[hosts]\nalpha\n".to_owned()) });
    place.daemon.queue(&job);
    let working = place.work_as(Settings { one_off: true, ..place.settings.clone() });
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}\n{log}");
    assert_eq!(result.summary, Some(serde_json::json!({ "text": "guest" })));
    let workspace = place.path("tmp/workspaces/1-1");
    for line in [
        "out",
        "err",
        "COLOUR=green",
        "FORGE_TASK=1",
        "FORGE_PROJECT=shop",
        "FORGE_TEMPLATE=deploy",
        "FORGE_REVISION=abc",
        "FORGE_RUNNER=east-1",
        "FORGE_VAR_VERSION=7",
        "FORGE_VAR_PIN_CODE=[masked]",
        &format!("FORGE_WORKSPACE={}", workspace.display()),
        &format!("HOME={}", workspace.join("home").display()),
        &format!("TMPDIR={}", workspace.join("tmp").display()),
        "[forge] HOME of the environment does not count: each attempt has one of its own",
        "[forge] TMPDIR of the environment does not count: each attempt has one of its own",
        "alpha",
    ] {
        assert!(log.lines().any(|found| found == line), "{line} is not in:\n{log}");
    }
    let made = format!("{}/tmp.", workspace.join("tmp").display());
    assert!(log.lines().any(|line| line.starts_with(&made)), "programs use them:\n{log}");
    assert!(!log.contains("CARGO"), "the runner's own environment stays its own:\n{log}");
    let attempt = job.attempt;
    let events = working.events.clone();
    assert_eq!(working.ended().await.expect("it ends"), Ended::OneOff { attempt });
    let events = events.lock().expect("free").clone();
    assert!(
        events.contains(&Event::AttemptEnded { attempt, outcome: AttemptOutcome::Succeeded, reason: None }),
        "{events:?}"
    );
    assert_eq!(left_of(&place, "1-1"), [] as [String; 0]);
}

/// What is still there of an attempt: its folders, and its secret files in memory.
fn left_of(place: &Place, attempt: &str) -> Vec<String> {
    let sessions = std::fs::read_to_string(place.path("tmp/session")).expect("sessions");
    let secrets = sessions.lines().map(|session| format!("/dev/shm/forge-{session}-{attempt}").into());
    let folders = ["tmp/attempts", "tmp/workspaces", "tmp/kept"].map(|folder| place.path(folder).join(attempt));
    let beside = place.path("tmp/workspaces").join(format!("{attempt}.private"));
    let all = folders.into_iter().chain([beside]).chain(secrets);
    all.filter(|path: &PathBuf| path.exists()).map(|path| path.display().to_string()).collect()
}

/// Waits until nothing of an attempt is left.
async fn nothing_left(place: &Place, attempt: &str) {
    let what = format!("the end of all folders of {attempt}");
    place.daemon.wait(&what, |_| left_of(place, attempt).is_empty().then_some(())).await;
}

/// A folder that nobody may write to, with a file in it: what a plain removal cannot remove.
const READ_ONLY: &str =
    "cd \"$FORGE_WORKSPACE\"; mkdir d home/e; touch d/x home/e/x; chmod 500 d home/e; chmod 500 home; ";

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_an_attempt_removes_what_it_had() {
    let place = Place::registered().await;
    let working = place.work();
    let folder = place.folder.path().display().to_string();
    let with_secrets = |task: u64, script: &str| {
        let mut job = place.job(task, &format!("{READ_ONLY}{script}"));
        job.secret_variables.insert("word".to_owned(), Secret::new("a-secret-word"));
        job
    };
    let failing = with_secrets(1, "exit 3");
    let mut slow = with_secrets(2, "sleep 1000");
    slow.timeout_ms = 1_500;
    let killed = with_secrets(3, &format!("echo $PPID > {folder}/supervisor; sleep 1000"));
    let canceled = with_secrets(4, &format!("echo $$ > {folder}/canceled; sleep 1000"));
    for job in [&failing, &slow, &killed, &canceled] {
        place.daemon.queue(job);
    }
    let supervisor: i32 = place.file("supervisor").await.trim().parse().expect("a number");
    let had = left_of(&place, "3-1");
    assert!(
        had.len() == 3 && had.iter().any(|path| path.starts_with("/dev/shm/")),
        "workspace, spool, secrets: {had:?}"
    );
    let supervisor = rustix::process::Pid::from_raw(supervisor).expect("a pid");
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).expect("killed");
    place.file("canceled").await;
    place.daemon.cancel(canceled.attempt);
    let ends = [
        (&failing, AttemptOutcome::Failed),
        (&slow, AttemptOutcome::TimedOut),
        (&killed, AttemptOutcome::Failed),
        (&canceled, AttemptOutcome::Canceled),
    ];
    for (job, outcome) in ends {
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, outcome, "{result:?}\n{log}");
        nothing_left(&place, &job.attempt.to_string()).await;
    }
    assert!(!place.path("tmp/kept").exists(), "nobody asked for that");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workspace_of_a_failed_attempt_is_kept_where_that_is_asked_for() {
    let place = Place::registered().await;
    let working = place.work_as(Settings { keep_failed_workspaces: true, ..place.settings.clone() });
    let folder = place.folder.path().display().to_string();
    let job = |task: u64, script: &str| {
        let mut job = place.job(task, &format!("{READ_ONLY}{script}"));
        job.secret_variables.insert("word".to_owned(), Secret::new("a-secret-word"));
        job
    };
    let failing = job(1, "echo before; exit 3");
    let mut slow = job(2, "sleep 1000");
    slow.timeout_ms = 1_500;
    let killed = job(3, &format!("echo $PPID > {folder}/supervisor; sleep 1000"));
    let fine = job(4, "true");
    let canceled = job(5, &format!("echo $$ > {folder}/canceled; sleep 1000"));
    for job in [&failing, &slow, &killed, &fine, &canceled] {
        place.daemon.queue(job);
    }
    let supervisor: i32 = place.file("supervisor").await.trim().parse().expect("a number");
    let supervisor = rustix::process::Pid::from_raw(supervisor).expect("a pid");
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).expect("killed");
    for job in [&failing, &slow, &killed] {
        let attempt = job.attempt.to_string();
        let (result, log) = place.daemon.result(job.attempt).await;
        let kept = place.path("tmp/kept").join(&attempt);
        let last = format!("[forge] the workspace is kept: {}", kept.display());
        assert_eq!(log.lines().last(), Some(last.as_str()), "{result:?}\n{log}");
        assert!(kept.join("d/x").is_file() && kept.join("home/e/x").is_file(), "{attempt} is whole");
        let only = [kept.display().to_string()];
        place.daemon.wait("nothing else is left", |_| (left_of(&place, &attempt) == only).then_some(())).await;
    }
    let mode = std::fs::metadata(place.path("tmp/kept")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "no job gets at them");
    place.file("canceled").await;
    place.daemon.cancel(canceled.attempt);
    for job in [&fine, &canceled] {
        let (_, log) = place.daemon.result(job.attempt).await;
        assert!(!log.contains("kept"), "{log}");
        nothing_left(&place, &job.attempt.to_string()).await;
    }
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_the_kept_workspaces_goes_first() {
    let place = Place::registered().await;
    let working = place.work_as(Settings { keep_failed_workspaces: true, ..place.settings.clone() });
    // Ten are kept.
    let jobs: Vec<_> = (1..=12).map(|task| place.job(task, "exit 3")).collect();
    for job in &jobs {
        place.daemon.queue(job);
        place.daemon.result(job.attempt).await;
    }
    let kept = || {
        let entries = std::fs::read_dir(place.path("tmp/kept")).expect("listed").map(|entry| entry.expect("one"));
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let expected = jobs.iter().skip(2).map(|job| job.attempt.to_string()).collect();
    place.daemon.wait("the newest ten alone", |_| (kept() == expected).then_some(())).await;
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_why_and_what_is_missing() {
    let place = Place::registered().await;
    let working = place.work();
    let failing = place.job(1, "exit 3");
    let mut missing = place.job(2, "");
    missing.arguments = vec!["no-such-program".to_owned()];
    let mut denied = place.job(3, "");
    denied.arguments = vec!["rm".to_owned()];
    for job in [&failing, &missing, &denied] {
        place.daemon.queue(job);
    }
    let (result, _) = place.daemon.result(failing.attempt).await;
    assert_eq!((result.outcome, result.exit_code), (AttemptOutcome::Failed, Some(3)), "{result:?}");
    let (result, log) = place.daemon.result(missing.attempt).await;
    let reason = result.reason.unwrap_or_default();
    assert!(reason.contains("no-such-program is not on PATH") && log.contains(&reason), "{reason}\n{log}");
    let (result, _) = place.daemon.result(denied.attempt).await;
    assert!(result.reason.unwrap_or_default().contains("plugins/guest.toml"));
    assert_eq!(working.drained().await.expect("it ends"), Ended::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_masked_in_any_piece() {
    let place = Place::registered().await;
    let working = place.work();
    let script =
        r#"printf 'a-very'; sleep 0.05; printf -- '-secret-word\n'; echo "$WORD" | base64; echo "token ${#WORD}""#;
    let mut job = place.job(1, script);
    job.secret_env.insert("WORD".to_owned(), Secret::new("a-very-secret-word"));
    place.daemon.queue(&job);
    let (_, log) = place.daemon.result(job.attempt).await;
    assert_eq!(log.lines().next(), Some("[masked]"), "{log}");
    assert!(log.lines().nth(1).is_some_and(|line| line.starts_with("[masked]")), "{log}");
    assert!(log.contains("token 18"), "{log}");
    working.drained().await.expect("it ends");
}

/// Complaint 6 (stop kills the top process only): the whole tree ends, escapees too, and the attempt is done only when nobody is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_every_descendant() {
    let place = Place::registered().await;
    let working = place.work();
    let folder = place.folder.path().display().to_string();
    // One that ignores TERM, and one that forks twice into a session of its own. Their end is what the result waits for: the first process
    // ends at once when it is told to, and so does the output.
    let script = format!(
        "(trap '' TERM; echo $BASHPID > {folder}/deaf; while :; do sleep 1000 || :; done) &\n\
         setsid bash -c '(exec setsid bash -c \"trap : TERM; echo \\$\\$ > {folder}/escaped; while :; do sleep 1000 & wait; done\") & exit' &\n\
         exec >/dev/null 2>&1; echo $$ > {folder}/main; wait; sleep 1000"
    );
    let job = place.job(1, &script);
    place.daemon.queue(&job);
    let pids = [place.file("deaf").await, place.file("escaped").await, place.file("main").await];
    let pids = pids.map(|pid| pid.trim().parse::<u32>().expect("a number"));
    place.daemon.seen.lock().expect("free").watched = pids.into();
    let is_there = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(pids.iter().all(is_there), "{pids:?}");
    place.daemon.cancel(job.attempt);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Canceled, "{result:?}\n{log}");
    let alive = place.daemon.seen.lock().expect("free").alive_at_result.clone();
    assert_eq!(alive, [] as [u32; 0], "they live when the result comes");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_computes_without_end_is_ended_however_long_its_process_took() {
    let place = Place::registered().await;
    let working = place.work();
    for (task, script) in [(1, "exit 77"), (2, "sleep 0.6; exit 77")] {
        let mut job = place.job(task, script);
        job.plugin.limits.time_ms = 100;
        place.daemon.queue(&job);
        let (result, _) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Failed);
        assert!(result.reason.as_ref().is_some_and(|reason| reason.contains("[limits].time")), "{result:?}");
    }
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_live_while_its_process_runs_and_after_it() {
    let place = Place::registered().await;
    let working = place.work();
    let folder = place.folder.path().display().to_string();
    let wait = |name: &str| format!("until [ -e {folder}/{name} ]; do sleep 0.02; done");
    let job = place.job(1, &format!("echo first; {}; seq 300000; exit 3", wait("go")));
    place.daemon.queue(&job);
    let is_told = |log: &Vec<u8>| log == b"first\n";
    place.daemon.wait("the first line", |seen| seen.logs.get(&job.attempt).filter(|log| is_told(log)).map(drop)).await;
    std::fs::write(place.path("go"), "").expect("written");
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.exit_code, Some(3));
    assert!(log.ends_with("\n300000\n[forge] the process failed\n"), "{}", log.len());
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_a_job_and_a_left_daemon_does_not_hold_it() {
    let place = Place::registered().await;
    let working = place.work();
    let mut slow = place.job(1, "sleep 1000");
    slow.timeout_ms = 1_500;
    let folder = place.folder.path().display().to_string();
    let leaving = place.job(2, &format!("setsid sleep 1000 & echo $! > {folder}/left; echo done"));
    place.daemon.queue(&slow);
    place.daemon.queue(&leaving);
    let (result, _) = place.daemon.result(slow.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::TimedOut, "{result:?}");
    let (result, log) = place.daemon.result(leaving.attempt).await;
    assert_eq!((result.outcome, log.as_str()), (AttemptOutcome::Succeeded, "done\n"), "{result:?}");
    let pid = place.file("left").await;
    place.gone(&pid).await;
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_thousand_lines_stay_whole_and_in_order() {
    let place = Place::registered().await;
    let working = place.work();
    let job = place.job(1, "seq 1 200000; seq 200001 200010 >&2");
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    let expected: String = (1..=200_010).map(|number| format!("{number}\n")).collect();
    assert!(log == expected, "{} lines", log.lines().count());
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_orphans_do_not_pile_up() {
    let place = Place::registered().await;
    let working = place.work();
    let script =
        "for i in $(seq 50); do (true &); done; sleep 5; cat /proc/[0-9]*/stat 2>/dev/null | grep -c \") Z $PPID \"";
    let job = place.job(1, script);
    place.daemon.queue(&job);
    let (_, log) = place.daemon.result(job.attempt).await;
    assert_eq!(log.lines().next(), Some("0"), "{log}");
    working.drained().await.expect("it ends");
}

/// Complaint 24 ("lost communication" when the job starves the runner): heartbeats are sent while every CPU is busy, and sooner than a
/// lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_every_cpu_does_not_hold_up_heartbeats() {
    let place = Place::registered().await;
    let _runner = place.apart(&[]);
    let loops = 2 * std::thread::available_parallelism().expect("some").get() + 2;
    let go = place.path("go").display().to_string();
    let mut job = place.job(1, &format!("for i in $(seq {loops}); do (while [ ! -e {go} ]; do :; done) & done; wait"));
    job.runner_grace_ms = 4_000;
    let lease = std::time::Duration::from_millis(job.runner_grace_ms);
    place.daemon.queue(&job);
    // More of them than fit into two leases, were each as late as it may be.
    let beats = place
        .daemon
        .wait("ten heartbeats", |seen| (seen.heartbeats.len() >= 10).then(|| seen.heartbeats.clone()))
        .await;
    std::fs::write(place.path("go"), "").expect("written");
    let longest = beats.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().expect("some");
    assert!(longest < lease, "{longest:?} between two heartbeats, with a lease of {lease:?}");
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}\n{log}");
}

/// Complaint 24 ("lost communication" when the job starves the runner): a job that the kernel ends for want of memory says so in its
/// reason. The limit is a control group's, which takes root; without one the words alone are tested, where they are made
/// (`executor::tests::want_of_memory_stands_in_the_reason_of_a_failure`).
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_out_of_memory_says_so_in_its_reason() {
    const GROUPS: [(&str, &str); 2] =
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    let name = format!("forge-test-{}", std::process::id());
    let made = GROUPS.iter().find_map(|(root, limit)| {
        let group = std::path::Path::new(root).join(&name);
        std::fs::create_dir(&group).ok()?;
        let is_limited = std::fs::write(group.join(limit), "33554432").is_ok();
        // Without swap, where the machine has any.
        let _ = std::fs::write(group.join("memory.swap.max"), "0");
        if is_limited { Some(group) } else { std::fs::remove_dir(&group).ok().and(None) }
    });
    let Some(group) = made else {
        let said = writeln!(std::io::stdout(), "no control group can be made here: nothing runs out of memory");
        return said.expect("stdout is there");
    };
    let place = Place::registered().await;
    let working = place.work();
    // The last of a line without an end is all of it.
    let script = format!("echo $BASHPID > {}/cgroup.procs && head -c 256M /dev/zero | tail", group.display());
    let job = place.job(1, &script);
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    std::fs::remove_dir(&group).expect("it is empty");
    assert_eq!((result.outcome, result.exit_code), (AttemptOutcome::Failed, Some(137)), "{result:?}\n{log}");
    let reason = result.reason.expect("a reason");
    assert!(reason.contains("memory ran out") && log.contains(&reason), "{reason}\n{log}");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_cache_is_there_for_the_next_attempt_of_the_same_project() {
    let place = Place::registered().await;
    let script = r#"cd "$CACHE" && echo "mode $(stat -c %a .)" && echo "found $(ls)" && echo x > "of-$FORGE_PROJECT""#;
    let working = place.work();
    for (task, project, found) in [(1, "shop", ""), (2, "bank", ""), (3, "shop", "of-shop")] {
        let mut job = place.job(task, script);
        job.project = project.to_owned();
        place.daemon.queue(&job);
        let (result, log) = place.daemon.result(job.attempt).await;
        assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{log}");
        assert_eq!(log, format!("mode 700\nfound {found}\n"));
    }
    working.drained().await.expect("it ends");
    // One that cannot be made is missed by nobody who does without.
    let caches = place.path("tmp/caches");
    std::fs::remove_dir_all(&caches).expect("removed");
    let working = place.work();
    place.daemon.wait("the folder is made", |_| caches.is_dir().then_some(())).await;
    std::fs::remove_dir_all(&caches).expect("removed");
    let job = place.job(4, "echo \"cache '$CACHE'\"");
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{log}");
    assert!(
        log.starts_with("[forge] warning: the job does without its folder in ") && log.ends_with("cache ''\n"),
        "{log}"
    );
    working.drained().await.expect("it ends");
}
