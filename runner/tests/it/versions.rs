//! A runner and a daemon of versions that do not go together: it finishes what runs, says what to install, and stops.

use forge_api::{AttemptOutcome, Problem};
use forge_runner::{Event, RunError, Settings};

use crate::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_too_old_finishes_what_runs_and_says_what_to_install() {
    let place = Place::registered().await;
    // Full, so that the end of its task has it ask again at once.
    let working = place.work_as(Settings { max_parallel_tasks: 1, ..place.settings.clone() });
    let go = place.path("go");
    let job = place.job(1, &format!("while [ ! -e {} ]; do sleep 0.02; done; echo whole", go.display()));
    place.daemon.queue(&job);
    let events = working.events.clone();
    let heard = |wanted: fn(&Event) -> bool| move |event: &&Event| wanted(event);
    place
        .daemon
        .wait("it runs", |_| {
            let events = events.lock().expect("free");
            events.iter().find(heard(|event| matches!(event, Event::AttemptStarted { .. }))).map(|_| ())
        })
        .await;
    let refusal = Problem::new(426, "runner-too-old", "Runner too old", "runner east-1 is forge 0.1.0")
        .with_hint("install forge 2.0.0");
    place.daemon.seen.lock().expect("free").refusal = Some(refusal);
    let warning = place
        .daemon
        .wait("it warns", |_| {
            let events = events.lock().expect("free");
            events.iter().find_map(|event| if let Event::Warning(text) = event { Some(text.clone()) } else { None })
        })
        .await;
    assert!(warning.contains("install forge 2.0.0") && warning.contains("what runs here is finished"), "{warning}");
    std::fs::write(&go, "").expect("go");
    let (result, log) = place.daemon.result(job.attempt).await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{log}");
    let error = working.ended().await.expect_err("it cannot go on");
    assert!(matches!(error, RunError::Refused { .. }), "{error}");
    assert_eq!(error.to_string(), "runner east-1 is forge 0.1.0 (install forge 2.0.0)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_too_old_gets_nothing_started() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").version = "0.0.9".to_owned();
    let job = place.job(1, "true");
    place.daemon.queue(&job);
    let error = place.work().ended().await.expect_err("it cannot go on").to_string();
    assert!(
        error.contains("is forge 0.0.9") && error.contains("install forge 0.1.0 or newer on the daemon's host"),
        "{error}"
    );
    assert!(place.daemon.seen.lock().expect("free").logs.is_empty());
}
