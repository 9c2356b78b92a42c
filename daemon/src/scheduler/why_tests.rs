//! Every state of a task and everything that can keep a runner from one, each with what would change it.

use forge_api::{OnRunnerLost, RunnerStatus};

use super::super::deadline::Open;
use super::super::task::Standing;
use super::*;

const NOW: Timestamp = Timestamp::from_unix_micros(10_000_000_000);

const OPEN_PROJECT: ProjectFacts = ProjectFacts { global_runners: true, max_parallel_tasks: 0 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_micros(second * 1_000_000)
}

/// Task 7 of shop/deploy, which needs the tag ny, with nothing in its way.
fn circumstances(state: TaskState) -> Circumstances {
    let task = serde_json::json!({
        "number": 7, "project": "shop", "template": "deploy", "state": state.as_str(), "reason": "it is so",
        "attempt": 1, "runner": "ny-1", "required_tag": "ny", "revision": "r1", "commit": null, "exit_code": null,
        "trigger": { "kind": "user", "by": "ann" }, "variables": {}, "created_at": at(0), "assigned_at": null,
        "started_at": null, "finished_at": null, "log_bytes": 0, "summary": null,
    });
    let open = Open {
        state,
        queued_at: at(9_000),
        assigned_at: Some(at(9_990)),
        started_at: Some(at(9_990)),
        cancel_at: None,
        timeout_ms: 1_800_000,
        queue_timeout_ms: 3_600_000,
        approval_timeout_ms: 7_200_000,
    };
    Circumstances {
        task: serde_json::from_value(task).expect("a task"),
        standing: Standing {
            state,
            cancel_by: None,
            attempt: 1,
            on_runner_lost: OnRunnerLost::Fail,
            retries_left: 0,
            retry_delay_ms: 0,
            resumes: false,
        },
        still_runs: None,
        global_runners: true,
        deadline_at: deadline::deadline(&open),
        open,
        grace_ms: 120_000,
        concurrency: Concurrency::Queue,
        ready_at: at(9_000),
        live: Vec::new(),
        ahead: Vec::new(),
        running_sibling: None,
        asking_sibling: None,
        told: Vec::new(),
    }
}

/// ny-1, which takes the task at once.
fn candidate() -> Candidate {
    Candidate {
        facts: RunnerFacts {
            name: "ny-1".into(),
            project: None,
            tags: vec!["ny".to_owned()].into(),
            run_untagged: false,
            status: RunnerStatus::Online,
            max_parallel_tasks: 2,
            running: 0,
            asking: 1,
            resumes: true,
        },
        last_contact_at: Some(NOW),
        in_contact: true,
        declared: true,
        draining: false,
        one_off: false,
        waits: true,
        key: Some(1),
    }
}

fn told(circumstances: &Circumstances, candidates: &[Candidate]) -> Why {
    let situation =
        Situation { candidates, project: OPEN_PROJECT, lease: None, storage_full: false, has_rules: true, now: NOW };
    why(circumstances, &situation)
}

fn codes(why: &Why) -> Vec<&str> {
    why.unmet.iter().map(|unmet| unmet.code.as_str()).collect()
}

#[test]
fn every_state_says_what_would_change_it_and_no_end_does() {
    for state in TaskState::ALL {
        for cancel_by in [None, Some("ann".to_owned())] {
            let mut circumstances = circumstances(state);
            circumstances.open.cancel_at = cancel_by.as_ref().map(|_| NOW);
            circumstances.standing.cancel_by = cancel_by;
            let why = told(&circumstances, &[candidate()]);
            assert!(!why.message.is_empty(), "{why:?}");
            assert_eq!(why.remedy.is_none(), state.is_final(), "{why:?}");
            assert_eq!(why.deadline.is_none(), state.is_final(), "{why:?}");
            assert_eq!(why.at_deadline.is_none(), state.is_final(), "{why:?}");
        }
    }
}

/// One runner that shows an obstacle.
fn with(obstacle: Unmet) -> Candidate {
    let mut one = candidate();
    match obstacle {
        Unmet::WrongProject => one.facts.project = Some("bakery".into()),
        // By the project's own word; see below.
        Unmet::GlobalRefused => {}
        Unmet::NoTag => one.facts.tags = vec!["la".to_owned()].into(),
        Unmet::UntaggedRefused => one.facts.run_untagged = false,
        Unmet::Disabled => one.facts.status = RunnerStatus::Disabled,
        Unmet::Draining => (one.facts.status, one.draining) = (RunnerStatus::Draining, true),
        Unmet::NeverConnected => {
            one.facts.status = RunnerStatus::NeverConnected;
            (one.in_contact, one.last_contact_at) = (false, None);
        }
        Unmet::Offline => {
            one.facts.status = RunnerStatus::Offline;
            (one.in_contact, one.last_contact_at) = (false, Some(at(9_280)));
        }
        Unmet::CannotResume => one.facts.resumes = false,
        Unmet::Full => one.facts.running = 2,
        Unmet::NotAsking => one.facts.asking = 0,
    }
    one
}

#[test]
fn what_keeps_other_runners_from_a_task_is_no_matter_where_one_takes_it() {
    let mut away = with(Unmet::Offline);
    away.facts.name = "ny-2".into();
    let why = told(&circumstances(TaskState::Queued), &[candidate(), away]);
    assert!(why.unmet.is_empty() && why.message.contains("in a moment"), "{why:?}");
    // Nor is a task before it that has no runner.
    let elsewhere = vec![Ahead { required_tag: Some("mars".to_owned()), tasks: 3 }];
    let second = Circumstances { ahead: elsewhere, ..circumstances(TaskState::Queued) };
    assert!(told(&second, &[candidate()]).unmet.is_empty());
}

#[test]
fn a_task_that_waits_says_for_how_long() {
    let message = told(&circumstances(TaskState::Queued), &[with(Unmet::Offline)]).message;
    assert!(message.starts_with("waiting for 16m: needs tag ny; "), "{message}");
}

#[test]
fn every_obstacle_is_told_of_with_what_would_change_it() {
    for (obstacle, code, words, remedy) in [
        (Unmet::WrongProject, "wrong_project", "belongs to project bakery", "a runner of project shop"),
        (Unmet::GlobalRefused, "wrong_project", "global_runners = false", "projects/shop/project.toml"),
        (Unmet::NoTag, "no_runner_with_tag", "has tags [la]", "\"ny\" in `tags` of runners/ny-1.toml"),
        (Unmet::UntaggedRefused, "untagged_refused", "without a tag", "`run_untagged = true` in runners/ny-1.toml"),
        (Unmet::Disabled, "runner_disabled", "disabled in runners/ny-1.toml", "`enabled = true`"),
        (Unmet::Draining, "runner_draining", "is draining", "`forge runners resume ny-1`"),
        (Unmet::NeverConnected, "runner_offline", "declared and never connected", "`forge runner register`"),
        (Unmet::Offline, "runner_offline", "offline for 12m", "start ny-1"),
        (Unmet::CannotResume, "runner_too_old", "ny-1 runs an older Forge", "upgrade ny-1"),
        (Unmet::Full, "runner_full", "is full (2 of 2)", "max_parallel_tasks"),
        (Unmet::NotAsking, "runner_not_asking", "asks for nothing new", "start ny-1 again"),
    ] {
        let mut circumstances = circumstances(TaskState::Queued);
        let mut project = OPEN_PROJECT;
        match obstacle {
            Unmet::UntaggedRefused => circumstances.task.required_tag = None,
            Unmet::GlobalRefused => project.global_runners = false,
            Unmet::WrongProject
            | Unmet::NoTag
            | Unmet::Disabled
            | Unmet::Draining
            | Unmet::NeverConnected
            | Unmet::Offline
            | Unmet::Full
            | Unmet::NotAsking => {}
            Unmet::CannotResume => circumstances.standing.resumes = true,
        }
        let candidates = [with(obstacle)];
        let Task { required_tag, .. } = circumstances.task.clone();
        let need = Need { project: "shop".to_owned(), required_tag, resume: circumstances.standing.resumes };
        assert_eq!(verdict(&candidates[0].facts, &need, project), Err(obstacle), "the example shows what it should");
        let situation =
            Situation { candidates: &candidates, project, lease: None, storage_full: false, has_rules: true, now: NOW };
        let why = why(&circumstances, &situation);
        let unmet = why.unmet.iter().find(|unmet| unmet.runner.as_deref() == Some("ny-1")).expect("told of");
        assert_eq!(unmet.code, code, "{obstacle:?}");
        assert!(unmet.message.contains(words) && why.message.contains(words), "{obstacle:?}: {unmet:?}");
        assert!(unmet.remedy.contains(remedy), "{obstacle:?}: {unmet:?}");
    }
}

#[test]
fn everything_that_has_to_be_mended_is_told_of() {
    let queued = circumstances(TaskState::Queued);
    let mut away = with(Unmet::Offline);
    away.facts.status = RunnerStatus::Disabled;
    away.draining = true;
    let why = told(&queued, &[away]);
    assert_eq!(codes(&why), ["runner_disabled", "runner_draining", "runner_offline"]);

    let mut once = with(Unmet::NotAsking);
    once.one_off = true;
    assert!(told(&queued, &[once.clone()]).message.contains("one-off runner that has its task"));
    once.waits = false;
    let moment = told(&queued, &[once]);
    assert!(moment.unmet.is_empty() && moment.message.contains("in a moment"), "{moment:?}");
}

#[test]
fn what_its_project_its_template_and_the_disk_hold_against_it_is_told_of() {
    let live = |template: &str| super::super::assign::Live {
        runner: "ny-2".to_owned(),
        project: "shop".to_owned(),
        template: template.to_owned(),
        attempts: 1,
    };
    let project = ProjectFacts { global_runners: true, max_parallel_tasks: 1 };
    let mut queued = circumstances(TaskState::Queued);
    queued.live = vec![live("deploy")];
    queued.running_sibling = Some(3);
    queued.ready_at = at(10_090);
    queued.ahead = vec![Ahead { required_tag: Some("ny".to_owned()), tasks: 2 }];
    let candidates = [candidate()];
    let situation =
        Situation { candidates: &candidates, project, lease: None, storage_full: true, has_rules: true, now: NOW };
    let why = why(&queued, &situation);
    assert_eq!(codes(&why), ["retry_delay", "project_limit", "template_concurrency", "storage_full", "turn"]);
    for (unmet, remedy) in why.unmet.iter().zip([
        "by itself",
        "projects/shop/project.toml",
        "`forge task cancel 3`",
        "`disk_reserve` under [logs]",
        "their start",
    ]) {
        assert!(unmet.remedy.contains(remedy), "{unmet:?}");
    }
    let nobody = told(&circumstances(TaskState::Queued), &[]);
    assert_eq!(codes(&nobody), ["no_runner_with_tag"]);
    assert!(nobody.unmet[0].remedy.contains("tags = [\"ny\"]"), "{nobody:?}");
}

#[test]
fn the_words_name_a_few_runners_and_the_data_all() {
    let away = |number: u32| {
        let mut away = with(Unmet::Offline);
        away.draining = number.is_multiple_of(2);
        away.facts.name = format!("ny-{number}").into();
        away
    };
    let fleet: Vec<Candidate> = (0..200).map(away).collect();
    let why = told(&circumstances(TaskState::Queued), &fleet);
    assert!(why.message.contains("ny-4 ") && !why.message.contains("ny-5 "), "{}", why.message);
    assert!(why.message.ends_with(", and the like of 195 more runners"), "{}", why.message);
    assert!(why.message.len() < 1_000, "{}", why.message);
    assert!(why.unmet.iter().any(|unmet| unmet.runner.as_deref() == Some("ny-199")), "{why:?}");
    let few = told(&circumstances(TaskState::Queued), &fleet[..5]);
    assert!(!few.message.contains("more runner"), "{}", few.message);
}

#[test]
fn what_may_still_run_is_told_of_with_what_has_it_run_at_once() {
    let still_runs = Some(StillRuns { attempt: 1, runner: "ny-2".to_owned(), until: at(90_000) });
    let held = Circumstances { ready_at: at(90_000), still_runs, ..circumstances(TaskState::Queued) };
    let why = told(&held, &[candidate()]);
    assert_eq!(codes(&why), ["may_still_run"]);
    let words = "attempt 1 may still run on ny-2, which has not said how it ended: the next one waits until 1970-01-02T01:00:00";
    assert!(why.message.contains(words), "{why:?}");
    assert!(why.unmet[0].remedy.contains("`forge task retry 7 --now`"), "{why:?}");
    let lost = Circumstances { still_runs: held.still_runs, ..circumstances(TaskState::Lost) };
    assert!(told(&lost, &[]).message.contains("lost: it is so; attempt 1 may still run on ny-2"));
}

#[test]
fn the_nearest_end_of_a_task_whose_runner_is_away_is_told_of() {
    let lease = LeaseFacts { is_held: true, quiet_ms: 40_000, left_ms: 80_000 };
    let tell = |circumstances: &Circumstances, candidate: Candidate, lease| {
        let situation = Situation {
            candidates: &[candidate],
            project: OPEN_PROJECT,
            lease: Some(lease),
            storage_full: false,
            has_rules: true,
            now: NOW,
        };
        why(circumstances, &situation)
    };
    let mut running = circumstances(TaskState::Running);
    // Its runner is there: it may run until its timeout.
    let fine = tell(&running, candidate(), LeaseFacts { is_held: true, quiet_ms: 5_000, left_ms: 115_000 });
    assert_eq!((fine.deadline, codes(&fine).len()), (running.deadline_at, 0));
    // Disabled and away, or there without the attempt.
    let mut away = with(Unmet::Offline);
    away.facts.status = RunnerStatus::Disabled;
    for (runner, words) in
        [(away.clone(), "runner unreachable since"), (candidate(), "nothing of this attempt for 40s")]
    {
        let why = tell(&running, runner, lease);
        assert_eq!(codes(&why), ["runner_unreachable"]);
        assert!(why.message.contains(words), "{why:?}");
        assert_eq!(why.deadline, Some(NOW.plus_millis(80_000)));
        assert_eq!(why.at_deadline.as_deref(), Some("the attempt is lost and the task ends as lost"));
    }
    // Its runner speaks, and not of it: a short grace is over long before half a minute is.
    running.grace_ms = 10_000;
    let not_held = LeaseFacts { is_held: false, quiet_ms: 6_000, left_ms: 4_000 };
    let why_not = tell(&running, candidate(), not_held);
    assert_eq!(codes(&why_not), ["attempt_not_held"]);
    assert!(why_not.message.contains("ny-1 is there and does not hold this attempt"), "{why_not:?}");
    assert_eq!(why_not.deadline, Some(NOW.plus_millis(4_000)));
    running.grace_ms = 120_000;
    running.standing.on_runner_lost = OnRunnerLost::Retry;
    let retried = tell(&running, away.clone(), lease);
    assert_eq!(retried.at_deadline.as_deref(), Some("the attempt is lost and the task is queued again"));
    // Its timeout is nearer.
    let nearer = tell(&running, away.clone(), LeaseFacts { left_ms: 86_400_000, ..lease });
    assert_eq!(nearer.deadline, running.deadline_at);
    // So is the end of a cancel.
    running.standing.cancel_by = Some("ann".to_owned());
    running.open.cancel_at = Some(NOW);
    running.deadline_at = deadline::deadline(&running.open);
    let canceled = tell(&running, away, lease);
    assert_eq!(codes(&canceled), ["cancel_pending", "runner_unreachable"]);
    assert_eq!(canceled.deadline, Some(NOW.plus_millis(60_000)));
    assert!(canceled.at_deadline.is_some_and(|words| words.contains("canceled")));
}
