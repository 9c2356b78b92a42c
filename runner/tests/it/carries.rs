//! What an attempt that awaits approval leaves for the next one, on its way to the daemon and back, and in a workspace that is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{AttemptId, AttemptOutcome, Job, Repository, Secret};

use crate::Place;
use crate::daemon::CarryFault;

/// A job that may leave something.
fn job(place: &Place, task: u64, script: &str) -> Job {
    Job { carry_key: Some(Secret::new(STANDARD.encode([7; 32]))), ..place.job(task, script) }
}

/// A job whose plan has so many bytes.
fn planning(place: &Place, task: u64, bytes: u64) -> Job {
    job(place, task, &format!("head -c {bytes} /dev/zero > plan; exit 78"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_comes_back_with_its_modes() {
    let place = Place::registered().await;
    let working = place.work();
    place.daemon.queue(&job(&place, 1, "printf 'the plan' > plan; chmod 0751 plan; exit 78"));
    let first = AttemptId { task: 1, attempt: 1 };
    let (planned, _) = place.daemon.result(first).await;
    assert_eq!(planned.outcome, AttemptOutcome::AwaitsApproval, "{planned:?}");
    let carry = planned.carry.expect("a plan");

    let bytes = place.daemon.seen.lock().expect("free").carries[&first].clone();
    place.daemon.seen.lock().expect("free").approved = bytes;
    let second = AttemptId { task: 1, attempt: 2 };
    let approved = job(&place, 1, "cat plan; stat -c ' %a' plan");
    place.daemon.queue(&Job { attempt: second, resume: Some(carry), ..approved });
    let (done, log) = place.daemon.result(second).await;
    assert_eq!(done.outcome, AttemptOutcome::Succeeded, "{done:?}");
    assert!(log.contains("the plan 751\n"), "{log}");
    working.drained().await.expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_the_plan_fails_the_attempt_with_its_words() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").carry_fault = Some(CarryFault::Refused);
    let working = place.work();
    place.daemon.queue(&planning(&place, 1, 5));
    let (failed, _) = place.daemon.result(AttemptId { task: 1, attempt: 1 }).await;
    assert_eq!((failed.outcome, &failed.carry), (AttemptOutcome::Failed, &None));
    let reason = failed.reason.expect("a reason");
    for expected in [
        "what it has planned could not be handed in: a proxy before http://127.0.0.1:",
        "takes no body of this length (HTTP 413 Payload Too Large: \"<html>\")",
        "let it take bodies of 65 MiB",
    ] {
        assert!(reason.contains(expected), "{expected:?} is missing: {reason}");
    }
    assert_eq!(place.daemon.seen.lock().expect("free").carry_requests, 1, "it is not tried in vain");

    // One so large that it is still being sent when the answer comes.
    place.daemon.queue(&planning(&place, 2, 16 << 20));
    let (failed, _) = place.daemon.result(AttemptId { task: 2, attempt: 1 }).await;
    assert_eq!(failed.outcome, AttemptOutcome::Failed);
    assert!(failed.reason.is_some_and(|reason| reason.contains("could not be handed in")));

    // The runner works on, and a plan that gets through is taken.
    place.daemon.seen.lock().expect("free").carry_fault = None;
    place.daemon.queue(&planning(&place, 3, 5));
    let (planned, _) = place.daemon.result(AttemptId { task: 3, attempt: 1 }).await;
    assert_eq!(planned.outcome, AttemptOutcome::AwaitsApproval);
    working.drained().await.expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_off_at_the_plan_alone_fails_the_attempt_in_the_end() {
    let place = Place::registered().await;
    place.daemon.seen.lock().expect("free").carry_fault = Some(CarryFault::BrokenOff);
    let working = place.work();
    place.daemon.queue(&planning(&place, 1, 5));
    let (failed, _) = place.daemon.result(AttemptId { task: 1, attempt: 1 }).await;
    assert_eq!(failed.outcome, AttemptOutcome::Failed);
    assert!(failed.reason.is_some_and(|reason| reason.contains("could not be handed in")));
    assert!((2..20).contains(&place.daemon.seen.lock().expect("free").carry_requests), "tried again, and not for ever");
    working.drained().await.expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_kept_without_the_plan_that_its_attempt_failed_over() {
    let mut place = Place::registered().await;
    place.settings.keep_failed_workspaces = true;
    let working = place.work();
    place.daemon.queue(&job(&place, 1, "printf secret > plan; exit 78"));
    let first = AttemptId { task: 1, attempt: 1 };
    let (planned, _) = place.daemon.result(first).await;
    let bytes = place.daemon.seen.lock().expect("free").carries[&first].clone();
    place.daemon.seen.lock().expect("free").approved = bytes;
    let second = AttemptId { task: 1, attempt: 2 };
    let approved = job(&place, 1, "cp plan seen; echo more > notes; exit 3");
    place.daemon.queue(&Job { attempt: second, resume: planned.carry, ..approved });
    let (failed, log) = place.daemon.result(second).await;
    assert_eq!(failed.outcome, AttemptOutcome::Failed, "{failed:?}");
    assert!(log.contains("1-2, without the files of its plan, which may hold secrets\n"), "{log}");
    let kept = place.path("tmp/kept/1-2");
    assert!(kept.join("notes").exists() && kept.join("seen").exists() && !kept.join("plan").exists());
    working.drained().await.expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_not_what_was_approved_is_not_begun_and_may_be_tried_again() {
    let place = Place::registered().await;
    let working = place.work();
    place.daemon.queue(&job(&place, 1, "printf 'the plan' > plan; exit 78"));
    let first = AttemptId { task: 1, attempt: 1 };
    let (planned, _) = place.daemon.result(first).await;
    {
        // Longer than what was approved: it is neither read to its end nor asked for again.
        let mut seen = place.daemon.seen.lock().expect("free");
        seen.approved = [&seen.carries[&first][..], b"and more"].concat();
    }
    let second = AttemptId { task: 1, attempt: 2 };
    place.daemon.queue(&Job { attempt: second, resume: planned.carry, ..job(&place, 1, "cat plan") });
    let (ended, log) = place.daemon.result(second).await;
    // Nothing was done: a failure would say that nobody knows how much.
    assert_eq!((ended.outcome, ended.nothing_ran), (AttemptOutcome::Retry, true), "{ended:?}");
    let reason = ended.reason.expect("a reason");
    assert!(reason.contains("what the daemon sent is not what was approved"), "{reason}");
    assert!(!log.contains("the plan"), "{log}");
    working.drained().await.expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_checkout_fails_is_one_of_which_nothing_was_done() {
    let place = Place::registered().await;
    let working = place.work();
    place.daemon.queue(&job(&place, 1, "printf 'the plan' > plan; exit 78"));
    let first = AttemptId { task: 1, attempt: 1 };
    let (planned, _) = place.daemon.result(first).await;
    assert!(!planned.nothing_ran, "{planned:?}");
    let bytes = place.daemon.seen.lock().expect("free").carries[&first].clone();
    place.daemon.seen.lock().expect("free").approved = bytes;
    let gone = Repository {
        name: "gone".to_owned(),
        url: format!("file://{}", place.path("gone").display()),
        branch: None,
        commit: None,
        submodules: false,
        depth: None,
        key: None,
    };
    let second = AttemptId { task: 1, attempt: 2 };
    let resumed = Job { attempt: second, resume: planned.carry, ..job(&place, 1, "cat plan; exit 3") };
    place.daemon.queue(&Job { repository: Some(gone), ..resumed.clone() });
    let (ended, log) = place.daemon.result(second).await;
    assert_eq!((ended.outcome, ended.nothing_ran), (AttemptOutcome::Failed, true), "{ended:?}");
    assert!(!log.contains("the plan"), "{log}");
    // What has begun may have done some of it, however it ends.
    let third = AttemptId { task: 1, attempt: 3 };
    place.daemon.queue(&Job { attempt: third, ..resumed });
    let (ended, log) = place.daemon.result(third).await;
    assert_eq!((ended.outcome, ended.nothing_ran), (AttemptOutcome::Failed, false), "{ended:?}");
    assert!(log.contains("the plan"), "{log}");
    working.drained().await.expect("it drains");
}
