//! The outbox and its deliveries on a real database: what is put out, in which order it goes, and what is forgotten.

use super::*;
use crate::store::events::{self, NewEvent};
use crate::store::outbox::{self, Teller, Tidings};
use crate::store::{news, open};

/// Tells everything to two targets.
struct Two;

impl Teller for Two {
    fn tells(&self) -> Option<bool> {
        Some(true)
    }
    fn targets(&self, tidings: &Tidings<'_>) -> Vec<String> {
        assert_eq!(tidings.own, ["a"], "the spec's own");
        vec!["a".to_owned(), "b".to_owned()]
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_micros(millis * 1_000)
}

fn database() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
    connection
        .execute_batch("INSERT INTO specs VALUES (1, x'00', '{}', 1000, 1000, 1000, 'fail', 0, 0, 1000, '[\"a\"]')")
        .expect("a spec");
    outbox::set_tells(&connection, true).expect("set");
    (folder, connection)
}

fn make_task(connection: &Connection, number: u64) {
    connection
        .execute(
            "INSERT INTO tasks (number, project, template, state, required_tag, priority, concurrency, revision, trigger_kind,
                 trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at, queued_at, ready_at, deadline_at)
             VALUES (?1, 'shop', 'quick', 'queued', '', 0, 'parallel', 'r', 'user', 'ann', '{}', '[]', 0, 1, 0, 1, 1, 1, 9)",
            [number],
        )
        .expect("a task");
}

fn set_state(connection: &Connection, number: u64, state: &str, deadline: Option<i64>) {
    let sql = "UPDATE tasks SET state = ?2, deadline_at = ?3 WHERE number = ?1";
    connection.execute(sql, params![number, state, deadline]).expect("changed");
}

fn put_out(connection: &Connection, now: i64) -> bool {
    outbox::put_out(connection, &Two, at(now)).expect("put out")
}

/// A delivery that is due.
struct Found {
    number: i64,
    due: Due,
}

/// What is due for a target, with what it says.
fn found(connection: &Connection, target: &str, now: i64) -> Vec<Found> {
    let numbers = due(connection, target, at(now), 100).expect("read");
    numbers
        .into_iter()
        .map(|number| match still_due(connection, number).expect("looked") {
            Still::Due(due) => Found { number, due },
            other => panic!("{number}: {other:?}"),
        })
        .collect()
}

fn due_at(connection: &Connection, target: &str, now: i64) -> Vec<(String, String)> {
    found(connection, target, now)
        .into_iter()
        .map(|Found { due, .. }| {
            let payload: serde_json::Value =
                serde_json::from_str(&payload(&due.uid, &due.event, due.at, &due.body)).expect("it is JSON");
            (due.event, payload["task"]["state"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

fn is_ended(connection: &Connection, number: i64) -> bool {
    matches!(still_due(connection, number).expect("looked"), Still::Ended)
}

fn end(connection: &Connection, target: &str, now: i64, state: DeliveryState) {
    let first = found(connection, target, now).remove(0);
    let came = Came::Ended { state, message: None };
    tried(connection, first.number, Some(first.due.tries), &came, "[]", at(now)).expect("written");
}

#[test]
fn each_step_of_a_task_is_an_event_with_the_task_as_it_was() {
    let (_folder, connection) = database();
    make_task(&connection, 1);
    assert!(put_out(&connection, 1));
    let steps = [("assigned", Some(9)), ("running", Some(9)), ("awaiting_approval", Some(9)), ("succeeded", None)];
    for (state, deadline) in steps {
        set_state(&connection, 1, state, deadline);
        assert_eq!(put_out(&connection, 2), state != "assigned", "{state}: being given away is no news");
    }
    assert!(!put_out(&connection, 3), "each once");
    // The four go out one after the other.
    let told = |event: &str, state: &str| vec![(event.to_owned(), state.to_owned())];
    assert_eq!(due_at(&connection, "a", 9), told("task.queued", "queued"));
    end(&connection, "a", 9, DeliveryState::Delivered);
    assert_eq!(due_at(&connection, "a", 9), told("task.started", "running"));
    end(&connection, "a", 9, DeliveryState::Dead);
    assert_eq!(due_at(&connection, "a", 9), told("task.awaiting_approval", "awaiting_approval"));
    end(&connection, "a", 9, DeliveryState::Delivered);
    assert_eq!(due_at(&connection, "a", 9), told("task.finished", "succeeded"));
    assert_eq!(due_at(&connection, "b", 9), told("task.queued", "queued"), "the other target is where it was");
    let counts = counts(&connection).expect("counted");
    let of_a: Vec<_> = counts["a"].iter().map(|(state, count)| (*state, *count)).collect();
    assert_eq!(of_a, [(DeliveryState::Waiting, 1), (DeliveryState::Delivered, 2), (DeliveryState::Dead, 1)]);
}

#[test]
fn a_change_that_is_taken_back_has_told_nobody() {
    let (_folder, connection) = database();
    connection.execute_batch("SAVEPOINT operation").expect("begun");
    make_task(&connection, 1);
    put_out(&connection, 1);
    connection.execute_batch("ROLLBACK TO operation; RELEASE operation").expect("taken back");
    assert_eq!(targets_due(&connection, at(9)).expect("read"), [""; 0]);
    let events: u32 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("counted");
    assert_eq!(events, 0);
}

#[test]
fn without_a_target_nothing_is_written_and_what_was_before_is_not_told_later() {
    let (_folder, connection) = database();
    outbox::set_tells(&connection, false).expect("set");
    make_task(&connection, 1);
    let event =
        NewEvent { event: "config.applied", at: at(1), body: serde_json::json!({}), runner: None, targets: None };
    events::record(&connection, &event).expect("recorded");
    outbox::set_tells(&connection, true).expect("set");
    assert!(!put_out(&connection, 2));
    set_state(&connection, 1, "running", Some(9));
    assert!(put_out(&connection, 3));
    assert_eq!(due_at(&connection, "a", 9), [("task.started".to_owned(), "running".to_owned())]);
}

#[test]
fn a_delivery_is_due_when_its_time_has_come() {
    let (_folder, connection) = database();
    for number in [1, 2] {
        make_task(&connection, number);
        put_out(&connection, i64::try_from(number).expect("small"));
    }
    assert_eq!(targets_due(&connection, at(1)).expect("read"), ["a", "b"]);
    let first = found(&connection, "a", 1).remove(0);
    let again = Came::Again { message: "the answer was 500".to_owned(), at: at(50) };
    tried(&connection, first.number, Some(0), &again, "[]", at(3)).expect("written");
    assert_eq!(due(&connection, "a", at(49), 9).expect("read").len(), 1, "that of the other task");
    assert_eq!(next_moment(&connection, at(49)).expect("read"), Some(at(50)));
    assert_eq!(due(&connection, "a", at(50), 9).expect("read").len(), 2);
    let shown = show(&connection, &first.due.id).expect("read").expect("there");
    assert_eq!((shown.tries, shown.message.as_deref()), (1, Some("the answer was 500")));
    // By hand it goes at once, and counts its tries anew.
    redeliver(&connection, &first.due.id, at(20)).expect("it is there");
    assert_eq!(found(&connection, "a", 20).iter().map(|found| found.due.tries).collect::<Vec<_>>(), [0, 0]);
    assert!(matches!(redeliver(&connection, "no", at(20)), Err(StoreError::Refused(Refused::NoDelivery))));
}

#[test]
fn a_waiting_task_is_told_once_and_not_to_who_has_not_heard_of_the_last_time() {
    let (_folder, connection) = database();
    make_task(&connection, 1);
    put_out(&connection, 1);
    let waiting = |now: i64| {
        let found = news::waiting(&connection, at(now)).expect("read");
        found.into_iter().flat_map(|group| group.tasks).map(|task| task.told_at).collect::<Vec<_>>()
    };
    assert_eq!(waiting(5), [None]);
    news::tell_waiting(&connection, 1, &["a".to_owned(), "c".to_owned()], at(5)).expect("told");
    put_out(&connection, 5);
    assert_eq!(waiting(99), [Some(at(5))]);
    // `a` has the first one waiting, behind `task.queued`; `c` has taken it.
    end(&connection, "c", 6, DeliveryState::Delivered);
    news::tell_waiting(&connection, 1, &["a".to_owned(), "c".to_owned()], at(99)).expect("told");
    put_out(&connection, 99);
    let of = |target: &str| {
        let listing = DeliveryListing { target: Some(target.to_owned()), limit: 9, ..DeliveryListing::default() };
        let found = list(&connection, &listing).expect("read");
        found.into_iter().filter(|(_, delivery)| delivery.event == "task.waiting").count()
    };
    assert_eq!((of("a"), of("c")), (1, 2));
    let told = news::waiting_told(&connection, 1).expect("read");
    let told: Vec<_> = told.iter().map(|told| (told.target.as_str(), told.state, told.told_at)).collect();
    assert_eq!(told, [("a", DeliveryState::Waiting, at(5)), ("c", DeliveryState::Waiting, at(99))]);
    let second = found(&connection, "c", 100).remove(0);
    set_state(&connection, 1, "running", Some(9));
    news::tell_waiting(&connection, 1, &["c".to_owned()], at(100)).expect("looked");
    assert_eq!((of("a"), of("c")), (1, 2), "it waits no more");
    let still = still_due(&connection, second.number).expect("looked");
    assert!(matches!(still, Still::Untrue("the task does not wait any more")), "{still:?}");
}

#[test]
fn what_ended_long_ago_is_forgotten_and_what_waits_is_not() {
    let (_folder, connection) = database();
    for number in 1..=3 {
        make_task(&connection, number);
    }
    put_out(&connection, 1);
    for state in [DeliveryState::Delivered, DeliveryState::Dead] {
        end(&connection, "a", 10, state);
    }
    let after = |millis: i64| at(11 + millis);
    assert!(!forget(&connection, at(10)).expect("looked"));
    assert!(forget(&connection, after(KEPT_MS)).expect("forgotten"));
    assert!(forget(&connection, after(DEAD_KEPT_MS)).expect("forgotten"));
    assert!(!forget(&connection, after(DEAD_KEPT_MS)).expect("looked"));
    let left = counts(&connection).expect("counted");
    assert_eq!(left["a"].values().sum::<u64>() + left["b"].values().sum::<u64>(), 4);
}

#[test]
fn what_is_due_is_found_without_reading_what_waits() {
    let (_folder, connection) = database();
    let explained = |sql: &str| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>();
        steps.expect("a plan")
    };
    for sql in [TARGETS_DUE, DUE, NEXT_TARGET, NEXT_MOMENT] {
        let steps = explained(sql);
        let is_covered = |step: &String| step.starts_with("SEARCH ") && step.contains("COVERING INDEX deliveries_due");
        assert!(
            steps.iter().any(is_covered) && steps.iter().all(|step| step.starts_with("SEARCH ")),
            "{sql}: {steps:?}"
        );
    }
}

#[test]
fn old_news_of_a_runner_that_is_back_are_not_told() {
    let (_folder, connection) = database();
    connection
        .execute_batch(
            "INSERT INTO runners (name, token_sha256, public_key, registered_at, tags, token_max, own_max, one_off, draining, version,
                 told_online) VALUES ('cloud-1', x'01', 'k', 1, '[]', 0, 0, 0, 1, '0.1.0', 1)",
        )
        .expect("a runner");
    let event = |event| NewEvent {
        event,
        at: at(1),
        body: serde_json::json!({ "runner": { "name": "cloud-1" } }),
        runner: Some("cloud-1".to_owned()),
        targets: Some(vec!["stop".to_owned()]),
    };
    let key: i64 = connection.query_row("SELECT key FROM runners", [], |row| row.get(0)).expect("its key");
    let tell = |news: news::RunnerNews, now: i64| {
        news::tell_runner(&connection, (key, "cloud-1"), &news, at(now)).expect("told");
        put_out(&connection, now);
    };
    tell(news::RunnerNews::Idle { event: event("runner.idle") }, 1);
    tell(news::RunnerNews::Idle { event: event("runner.idle") }, 2);
    tell(news::RunnerNews::Contact { online: false, event: None }, 3);
    assert_eq!(due(&connection, "stop", at(9), 9).expect("read").len(), 1, "once, whatever is looked at again");
    tell(news::RunnerNews::Contact { online: true, event: Some(event("runner.online")) }, 4);
    let events = found(&connection, "stop", 9).into_iter().map(|found| found.due.event);
    assert_eq!(events.collect::<Vec<_>>(), ["runner.online"]);
    let counts = counts(&connection).expect("counted");
    assert_eq!(counts["stop"][&DeliveryState::Skipped], 1, "and it is said why");
}

#[test]
fn what_is_redelivered_goes_in_its_turn_and_is_not_lost_to_a_try_that_was_under_way() {
    let (_folder, connection) = database();
    make_task(&connection, 1);
    put_out(&connection, 1);
    set_state(&connection, 1, "running", Some(9));
    put_out(&connection, 2);
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(found(&connection, "a", 9).remove(0).due.id);
        end(&connection, "a", 9, DeliveryState::Dead);
    }
    for id in &ids {
        redeliver(&connection, id, at(10)).expect("it is there");
    }
    let first = found(&connection, "a", 10);
    assert_eq!(
        first.iter().map(|found| found.due.event.as_str()).collect::<Vec<_>>(),
        ["task.queued"],
        "the second waits for it"
    );
    let again = Came::Again { message: "the answer was 500".to_owned(), at: at(11) };
    tried(&connection, first[0].number, Some(0), &again, "[]", at(10)).expect("written");
    // Its second try is under way when somebody asks for another; then that try is the last.
    redeliver(&connection, &ids[0], at(12)).expect("it is there");
    let dead = Came::Ended { state: DeliveryState::Dead, message: None };
    tried(&connection, first[0].number, Some(1), &dead, "[]", at(13)).expect("looked");
    assert_eq!(found(&connection, "a", 13)[0].due.tries, 0, "it is sent once more");
    end(&connection, "a", 14, DeliveryState::Delivered);
    assert_eq!(due_at(&connection, "a", 14), [("task.started".to_owned(), "running".to_owned())]);
    assert!(is_ended(&connection, first[0].number));
}

#[test]
fn the_end_of_one_delivery_names_the_next_of_its_subject() {
    let (_folder, connection) = database();
    make_task(&connection, 1);
    put_out(&connection, 1);
    set_state(&connection, 1, "running", Some(9));
    put_out(&connection, 2);
    let first = found(&connection, "a", 9).remove(0);
    let write =
        |came: &Came| tried(&connection, first.number, Some(first.due.tries), came, "[]", at(3)).expect("written");
    let postponed = Came::Postponed { message: "no room".to_owned(), at: at(4) };
    assert_eq!(write(&postponed), Kept::Written { follower: None });
    let shown = show(&connection, &first.due.id).expect("read").expect("there");
    assert_eq!((shown.tries, shown.tried_at, shown.message.as_deref()), (0, None, Some("no room")), "that was no try");
    let ended = Came::Ended { state: DeliveryState::Delivered, message: None };
    let Kept::Written { follower: Some(follower) } = write(&ended) else { panic!("the second waited for it") };
    assert_eq!(due(&connection, "a", at(9), 9).expect("read"), [follower]);
    assert_eq!(write(&ended), Kept::Overtaken, "once");
    let came = tried(&connection, follower, Some(0), &ended, "[]", at(5)).expect("written");
    assert_eq!(came, Kept::Written { follower: None }, "nobody waits for the last");
}

#[test]
fn what_is_redelivered_goes_before_what_came_after_it() {
    let (_folder, connection) = database();
    make_task(&connection, 1);
    put_out(&connection, 1);
    set_state(&connection, 1, "running", Some(9));
    put_out(&connection, 2);
    let first = found(&connection, "a", 9).remove(0);
    end(&connection, "a", 9, DeliveryState::Dead);
    let second = found(&connection, "a", 9).remove(0);
    let again = Came::Again { message: "the answer was 500".to_owned(), at: at(20) };
    tried(&connection, second.number, Some(0), &again, "[]", at(10)).expect("written");
    redeliver(&connection, &first.due.id, at(11)).expect("it is there");
    assert_eq!(due(&connection, "a", at(99), 9).expect("read"), [first.number], "the second waits for it again");
    end(&connection, "a", 12, DeliveryState::Delivered);
    assert_eq!(due(&connection, "a", at(12), 9).expect("read"), [second.number]);
}

#[test]
fn a_machine_is_not_stopped_by_news_that_are_told_once_more() {
    let (_folder, connection) = database();
    connection
        .execute_batch(
            "INSERT INTO runners (name, token_sha256, public_key, registered_at, tags, token_max, own_max, one_off, draining, version,
                 told_online) VALUES ('cloud-1', x'01', 'k', 1, '[]', 0, 0, 0, 1, '0.1.0', 0)",
        )
        .expect("a runner");
    for event in ["runner.idle", "runner.offline"] {
        let event = NewEvent {
            event,
            at: at(1),
            body: serde_json::json!({ "runner": { "name": "cloud-1" } }),
            runner: Some("cloud-1".to_owned()),
            targets: Some(vec![event.to_owned()]),
        };
        events::record(&connection, &event).expect("recorded");
    }
    put_out(&connection, 1);
    let number = |target: &str| due(&connection, target, at(9), 9).expect("read")[0];
    let (idle, offline) = (number("runner.idle"), number("runner.offline"));
    let is_untrue = |number| match still_due(&connection, number).expect("looked") {
        Still::Due(_) => false,
        Still::Untrue(why) => why == "the runner is back",
        Still::Ended => panic!("nobody ended it"),
    };
    assert!(!is_untrue(idle) && !is_untrue(offline), "it is drained, and gone");
    let set = |what: &str| connection.execute(&format!("UPDATE runners SET {what}"), []).expect("changed");
    set("draining = 0");
    assert!(is_untrue(idle), "it may take tasks");
    set("draining = 1, registered_at = 5000");
    assert!(is_untrue(idle), "it is another machine");
    set("registered_at = 1");
    make_task(&connection, 7);
    let attempt =
        "INSERT INTO attempts (task, attempt, runner, project, template, nonce, token_sha256, grace_ms, assigned_at)
         VALUES (7, 1, 'cloud-1', 'shop', 'quick', x'02', x'03', 1, 2)";
    connection.execute(attempt, []).expect("it works");
    assert!(is_untrue(idle), "it holds an attempt");
    assert!(!is_untrue(offline));
    set("told_online = 1");
    assert!(is_untrue(offline), "it is there");
    connection.execute("DELETE FROM attempts", []).expect("gone");
    connection.execute("DELETE FROM runners", []).expect("gone");
    assert!(!is_untrue(idle) && !is_untrue(offline), "without a registration both are so");
}

#[test]
fn what_is_told_is_put_in_front_of_what_it_is_about() {
    let at = at(1);
    let told = payload("u-1", "task.queued", at, r#"{"task":{"number":7,"by":"}{"}}"#);
    let head = format!(r#"{{"id":"u-1","event":"task.queued","at":"{at}","task":"#);
    assert!(told.starts_with(&head), "{told}");
    let read: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
    assert_eq!((read["task"]["number"].as_u64(), read["task"]["by"].as_str()), (Some(7), Some("}{")));
    for empty in ["{}", ""] {
        let read: serde_json::Value = serde_json::from_str(&payload("u", "e", at, empty)).expect("it is JSON");
        assert_eq!(read.as_object().map(serde_json::Map::len), Some(3));
    }
}
