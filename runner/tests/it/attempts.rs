//! What a job sees, what becomes of its output, and how it ends.

use forge_api::{AttemptOutcome, Inventory, InventorySource, Secret};
use forge_runner::{Ended, Event, Settings};
use serde_json::Value;

use crate::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_and_leaves_nothing_behind() {
    let place = Place::registered().await;
    let mut job = place.job(1, "echo out; echo err >&2; env | sort; cat $HOME/../inventory/inventory.ini; pwd; ls -A");
    job.env.insert("COLOUR".to_owned(), "green".to_owned());
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
        "alpha",
    ] {
        assert!(log.lines().any(|found| found == line), "{line} is not in:\n{log}");
    }
    assert!(!log.contains("CARGO"), "the runner's own environment stays its own:\n{log}");
    let attempt = job.attempt;
    let events = working.events.clone();
    assert_eq!(working.ended().await.expect("it ends"), Ended::OneOff { attempt });
    let events = events.lock().expect("free").clone();
    assert!(
        events.contains(&Event::AttemptEnded { attempt, outcome: AttemptOutcome::Succeeded, reason: None }),
        "{events:?}"
    );
    for left in ["tmp/workspaces/1-1", "tmp/attempts/1-1"] {
        assert!(!place.path(left).exists(), "{left} stays");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_every_descendant() {
    let place = Place::registered().await;
    let working = place.work();
    let folder = place.folder.path().display().to_string();
    // One that ignores TERM, and one that forks twice into a session of its own.
    let script = format!(
        "(trap '' TERM; echo $BASHPID > {folder}/deaf; while :; do sleep 1000 || :; done) &\n\
         setsid bash -c '(exec setsid bash -c \"trap : TERM; echo \\$\\$ > {folder}/escaped; while :; do sleep 1000 & wait; done\") & exit' &\n\
         echo $$ > {folder}/main; wait; sleep 1000"
    );
    let job = place.job(1, &script);
    place.daemon.queue(&job);
    let pids = [place.file("deaf").await, place.file("escaped").await, place.file("main").await];
    place.daemon.cancel(job.attempt);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Canceled, "{result:?}\n{log}");
    for pid in pids {
        let path = format!("/proc/{}", pid.trim());
        assert!(!std::path::Path::new(&path).exists(), "{pid} lives when the result is there");
    }
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
    slow.timeout_ms = 300;
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
