//! What a runner hands in where it is not taken as it is: proxies between, results that are too long, a spool that a power cut has shortened.

use forge_api::{AttemptOutcome, RESULT_REASON_BYTES_MAX};

use crate::Place;
use crate::daemon::LogFault;

/// Waits until nothing of any attempt is left in the spool.
async fn spool_is_empty(place: &Place) {
    let attempts = place.path("tmp/attempts");
    let is_empty = || std::fs::read_dir(&attempts).expect("listed").next().is_none();
    place.daemon.wait("an empty spool", |_| is_empty().then_some(())).await;
}

/// Complaint 14 (output truncated): what the daemon has acknowledged stays, also where the runner has lost it since.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_a_power_cut_has_shortened_takes_nothing_from_what_was_acknowledged() {
    for left_bytes in [0, 40, 580] {
        let place = Place::registered().await;
        let mut working = place.work();
        let folder = place.folder.path().display().to_string();
        let script = format!("seq 1 200 | head -c 600; echo $PPID > {folder}/supervisor; exec sleep 1000");
        let job = place.job(1, &script);
        place.daemon.queue(&job);
        let whole =
            place.daemon.wait("the output", |seen| seen.logs.get(&job.attempt).filter(|log| log.len() == 600).cloned());
        let whole = whole.await;
        let supervisor = place.file("supervisor").await;
        working.task.shutdown().await;
        crate::faults::kill(&supervisor);
        place.gone(&supervisor).await;
        // The machine comes up again: another boot, and the end of the log was not on its disk.
        let record = place.path("tmp/attempts/1-1/attempt.json");
        let lines = std::fs::read_to_string(&record).expect("read");
        let mut text: serde_json::Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
        text["boot_id"] = "another".into();
        std::fs::write(&record, format!("{text}\n")).expect("written");
        let log = std::fs::File::options().write(true).open(place.path("tmp/attempts/1-1/log")).expect("opened");
        log.set_len(left_bytes).expect("cut");

        let again = place.work();
        let result = place.daemon.wait("the result", |seen| seen.results.get(&job.attempt).cloned()).await;
        assert_eq!(result.outcome, AttemptOutcome::Lost, "{result:?}");
        assert_eq!(result.reason.as_deref(), Some("the runner's machine went down"));
        spool_is_empty(&place).await;
        {
            let seen = place.daemon.seen.lock().expect("free");
            assert!(
                seen.logs[&job.attempt] == whole,
                "{left_bytes}: {:?}",
                String::from_utf8_lossy(&seen.logs[&job.attempt])
            );
            assert_eq!(seen.differed, 1, "{left_bytes}");
        }
        again.drained().await.expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_or_a_reason_that_is_too_long_ends_a_job_as_it_ended() {
    let place = Place::registered().await;
    let working = place.work();
    let summary = place.job(1, "exit 79");
    place.daemon.queue(&summary);
    let (result, log) = place.daemon.result(summary.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{:?}", result.reason);
    let kept = result.summary.expect("a summary");
    assert!(kept["text"].as_str().is_some_and(|text| text.starts_with("aaaa")), "{kept}");
    assert!(kept["output_left_out"].as_str().is_some_and(|words| words.ends_with("at most 524288 are kept")), "{kept}");
    assert!(log.starts_with("[forge] the summary of this attempt is left out: 2097"), "{log}");

    let reason = place.job(2, "exit 80");
    place.daemon.queue(&reason);
    let (result, log) = place.daemon.result(reason.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Failed);
    let kept = result.reason.expect("a reason");
    assert!(kept.len() <= RESULT_REASON_BYTES_MAX && kept.ends_with("aaa [...]"), "{}", kept.len());
    assert!(log.len() > 192 * 1024, "the log has all of it");
    working.drained().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_gets_through_a_proxy_that_takes_small_bodies_only() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").log_fault = Some(LogFault::LongerThan(100_000));
    let working = place.work();
    let job = place.job(1, "seq 1 100000");
    place.daemon.queue(&job);
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    assert!(log.ends_with("\n100000\n"));
    assert!(!place.daemon.seen.lock().expect("free").pieces_refused.is_empty(), "it was tried");
    working.drained().await.expect("it ends");
}

/// The result never depends on the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_gets_through_in_no_way_is_given_up_and_its_task_ends() {
    for fault in [LogFault::LongerThan(1_000), LogFault::Garbled(1_000)] {
        let place = Place::registered().await;
        place.daemon.seen.lock().expect("free").log_fault = Some(fault);
        let working = place.work();
        // One piece of the smallest length is enough: how they get there is told without a network.
        let job = place.job(1, "seq 1 2000; exit 3");
        place.daemon.queue(&job);
        let result = place.daemon.wait("the result", |seen| seen.results.get(&job.attempt).cloned()).await;
        assert_eq!((result.outcome, result.exit_code), (AttemptOutcome::Failed, Some(3)), "{result:?}");
        spool_is_empty(&place).await;
        let result = place.daemon.seen.lock().expect("free").results[&job.attempt].clone();
        let reason = result.reason.expect("a reason");
        assert!(reason.contains("the rest of its log does not get through"), "{fault:?}: {reason}");
        working.drained().await.expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_a_proxy_does_not_take_is_handed_in_short() {
    let place = Place::registered().await;
    // The summary's text alone is longer.
    place.daemon.seen.lock().expect("free").log_fault = Some(LogFault::LongerThan(4_000));
    let working = place.work();
    let job = place.job(1, "exit 79");
    place.daemon.queue(&job);
    let (result, _) = place.daemon.result(job.attempt).await;
    assert_eq!((result.outcome, result.summary), (AttemptOutcome::Succeeded, None));
    assert!(result.reason.is_some_and(|reason| reason.contains("a proxy before")));
    working.drained().await.expect("it ends");
}
