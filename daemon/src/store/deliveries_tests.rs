//! The outbox and its deliveries on a real database: what is put out, in which order it goes, and what is forgotten.

use super::*;
use crate::store::events::{self, NewEvent};
use crate::store::outbox::{self, Teller, Tidings};
use crate::store::{news, open};

/// Tells everything to two targets.
struct Two;

impl Teller for Two {
    fn tells(&self) -> bool {
        true
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

fn due_at(connection: &Connection, target: &str, now: i64) -> Vec<(String, String)> {
    let found = due(connection, target, at(now), 100).expect("read");
    found
        .into_iter()
        .map(|due| {
            let payload = payload(&due.uid, &due.event, due.at, &due.body);
            (due.event, payload["task"]["state"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

fn end(connection: &Connection, target: &str, now: i64, state: DeliveryState) {
    let first = due(connection, target, at(now), 1).expect("read").remove(0);
    let came = Came::Ended { state, message: None };
    tried(connection, first.number, Some(first.tries), &came, "[]", at(now)).expect("written");
}

#[test]
fn each_step_of_a_task_is_an_event_with_the_task_as_it_was() {
    let (_folder, connection) = database();
    make_task(&connection, 1);
    assert!(put_out(&connection, 1));
    for (state, deadline) in [("assigned", Some(9)), ("running", Some(9)), ("succeeded", None)] {
        set_state(&connection, 1, state, deadline);
        assert_eq!(put_out(&connection, 2), state != "assigned", "{state}: being given away is no news");
    }
    assert!(!put_out(&connection, 3), "each once");
    // The three go out one after the other.
    let told = |event: &str, state: &str| vec![(event.to_owned(), state.to_owned())];
    assert_eq!(due_at(&connection, "a", 9), told("task.queued", "queued"));
    end(&connection, "a", 9, DeliveryState::Delivered);
    assert_eq!(due_at(&connection, "a", 9), told("task.started", "running"));
    end(&connection, "a", 9, DeliveryState::Dead);
    assert_eq!(due_at(&connection, "a", 9), told("task.finished", "succeeded"));
    assert_eq!(due_at(&connection, "b", 9), told("task.queued", "queued"), "the other target is where it was");
    let counts = counts(&connection).expect("counted");
    let of_a: Vec<_> = counts["a"].iter().map(|(state, count)| (*state, *count)).collect();
    assert_eq!(of_a, [(DeliveryState::Waiting, 1), (DeliveryState::Delivered, 1), (DeliveryState::Dead, 1)]);
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
    let first = due(&connection, "a", at(1), 9).expect("read").remove(0);
    let again = Came::Again { message: "the answer was 500".to_owned(), at: at(50) };
    tried(&connection, first.number, Some(0), &again, "[]", at(3)).expect("written");
    assert_eq!(due(&connection, "a", at(49), 9).expect("read").len(), 1, "that of the other task");
    assert_eq!(next_moment(&connection, at(49)).expect("read"), Some(at(50)));
    assert_eq!(due(&connection, "a", at(50), 9).expect("read").len(), 2);
    let shown = show(&connection, &first.id).expect("read").expect("there");
    assert_eq!((shown.tries, shown.message.as_deref()), (1, Some("the answer was 500")));
    // By hand it goes at once, and counts its tries anew.
    redeliver(&connection, &first.id, at(20)).expect("it is there");
    assert_eq!(due(&connection, "a", at(20), 9).expect("read").iter().map(|due| due.tries).collect::<Vec<_>>(), [0, 0]);
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
    let second = due(&connection, "c", at(100), 1).expect("read").remove(0);
    assert_eq!(still_due(&connection, second.number).expect("looked"), Still::Due);
    set_state(&connection, 1, "running", Some(9));
    news::tell_waiting(&connection, 1, &["c".to_owned()], at(100)).expect("looked");
    assert_eq!((of("a"), of("c")), (1, 2), "it waits no more");
    assert_eq!(
        still_due(&connection, second.number).expect("looked"),
        Still::Untrue,
        "and who was to hear of it need not"
    );
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
        assert!(steps.iter().all(|step| step.starts_with("SEARCH ")), "{sql}: {steps:?}");
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
    let due = due(&connection, "stop", at(9), 9).expect("read");
    assert_eq!(due.iter().map(|due| due.event.as_str()).collect::<Vec<_>>(), ["runner.online"]);
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
        ids.push(due(&connection, "a", at(9), 1).expect("read").remove(0).id);
        end(&connection, "a", 9, DeliveryState::Dead);
    }
    for id in &ids {
        redeliver(&connection, id, at(10)).expect("it is there");
    }
    let first = due(&connection, "a", at(10), 9).expect("read");
    assert_eq!(
        first.iter().map(|due| due.event.as_str()).collect::<Vec<_>>(),
        ["task.queued"],
        "the second waits for it"
    );
    let again = Came::Again { message: "the answer was 500".to_owned(), at: at(11) };
    tried(&connection, first[0].number, Some(0), &again, "[]", at(10)).expect("written");
    // Its second try is under way when somebody asks for another; then that try is the last.
    redeliver(&connection, &ids[0], at(12)).expect("it is there");
    let dead = Came::Ended { state: DeliveryState::Dead, message: None };
    tried(&connection, first[0].number, Some(1), &dead, "[]", at(13)).expect("looked");
    assert_eq!(due(&connection, "a", at(13), 9).expect("read")[0].tries, 0, "it is sent once more");
    assert_eq!(still_due(&connection, first[0].number).expect("looked"), Still::Due);
    end(&connection, "a", 14, DeliveryState::Delivered);
    assert_eq!(due_at(&connection, "a", 14), [("task.started".to_owned(), "running".to_owned())]);
    assert_eq!(still_due(&connection, first[0].number).expect("looked"), Still::Ended);
}
