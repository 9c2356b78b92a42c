//! Firings on a real database: each once, with its task or with why it has none.

use forge_api::{Trigger, TriggerKind};

use super::*;
use crate::scheduler::assign::Concurrency;
use crate::scheduler::spec::{TaskSpec, sample};
use crate::store::{Actor, open};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000)
}

fn firing(nominal: i64, skips: bool) -> NewFiring {
    let task = NewTask {
        spec: TaskSpec { concurrency: Concurrency::Parallel, ..sample() },
        revision: "r".to_owned(),
        revision_commit: None,
        trigger: Trigger { kind: TriggerKind::Schedule, by: "nightly".to_owned() },
        actor: Actor::new(forge_api::AuditActor::Schedule, "nightly"),
        variables: serde_json::Map::new(),
        arguments: Vec::new(),
        secret_answers: None,
        idempotency: None,
    };
    NewFiring { key: ("shop".to_owned(), "nightly".to_owned()), nominal_at: at(nominal), skips, task }
}

fn audited(connection: &Connection) -> Vec<String> {
    let sql = "SELECT actor_kind || ' ' || actor || ' ' || action || ' ' || project || ' ' || object FROM audit";
    let mut statement = connection.prepare(sql).expect("prepared");
    let rows = statement.query_map([], |row| row.get(0)).expect("read");
    rows.collect::<Result<_, _>>().expect("read")
}

#[test]
fn what_a_schedule_starts_is_written_down_for_it() {
    let (_folder, connection) = database();
    fire(&connection, &firing(10, true), at(11)).expect("fired");
    fire(&connection, &firing(10, true), at(12)).expect("it had fired before");
    assert_eq!(audited(&connection), ["schedule nightly task.create shop task 1"]);
}

fn database() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
    begin(&connection, &firing(0, true).key, "0 4 * * * UTC", at(5)).expect("begun");
    (folder, connection)
}

fn tasks(connection: &Connection) -> u32 {
    connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).expect("counted")
}

#[test]
fn a_firing_comes_once_and_moves_the_schedule_on() {
    let (_folder, connection) = database();
    assert!(matches!(fire(&connection, &firing(10, false), at(11)), Ok(Fired::Made(1, _))));
    assert!(matches!(fire(&connection, &firing(10, false), at(12)), Ok(Fired::Before)), "whoever asks again");
    assert_eq!(tasks(&connection), 1);
    let all = all(&connection).expect("read");
    let row = &all[&firing(0, true).key];
    assert_eq!((row.until, row.last.as_ref().map(|last| last.task)), (at(10), Some(Some(1))));
    // One that was meant for an earlier time does not move it back.
    assert!(matches!(fire(&connection, &firing(7, false), at(13)), Ok(Fired::Made(2, _))));
    assert_eq!(super::all(&connection).expect("read")[&firing(0, true).key].until, at(10));
}

#[test]
fn overlap_skip_makes_no_second_task_while_one_is_open() {
    let (_folder, connection) = database();
    assert!(matches!(fire(&connection, &firing(10, true), at(10)), Ok(Fired::Made(1, _))));
    assert!(matches!(fire(&connection, &firing(20, true), at(20)), Ok(Fired::Skipped(1))));
    assert_eq!(tasks(&connection), 1);
    let last = all(&connection).expect("read")[&firing(0, true).key].last.clone().expect("it fired");
    assert_eq!(last.message.as_deref(), Some("task 1 of this schedule is open (overlap = \"skip\")"));
    assert!(
        matches!(fire(&connection, &firing(30, false), at(30)), Ok(Fired::Made(2, _))),
        "queue makes one all the same"
    );
    connection.execute("UPDATE tasks SET state = 'succeeded', deadline_at = NULL", []).expect("ended");
    assert!(matches!(fire(&connection, &firing(40, true), at(40)), Ok(Fired::Made(3, _))));
}

#[test]
fn a_task_that_somebody_has_retried_is_still_one_of_its_schedule() {
    let (_folder, connection) = database();
    assert!(matches!(fire(&connection, &firing(10, true), at(10)), Ok(Fired::Made(1, _))));
    connection.execute("UPDATE tasks SET trigger_kind = 'retry', trigger_by = 'ann'", []).expect("as a retry does");
    assert!(matches!(fire(&connection, &firing(20, true), at(20)), Ok(Fired::Skipped(1))));
}

#[test]
fn a_delivery_is_known_for_longer_than_its_task() {
    let (_folder, connection) = database();
    let make = |kind: TriggerKind, now: i64| {
        let idempotency = create::Idempotency { key: "d-1".to_owned(), request_mac: vec![1] };
        let by = "sender".to_owned();
        let task = NewTask { trigger: Trigger { kind, by }, idempotency: Some(idempotency), ..firing(0, false).task };
        let made = create::create(&connection, &task, at(now)).expect("made or found");
        (made.number, made.replayed)
    };
    assert_eq!(make(TriggerKind::Integration, 10), (1, false));
    connection.execute("DELETE FROM tasks", []).expect("as retention does");
    assert_eq!(make(TriggerKind::Integration, 11), (1, true), "what was delivered once starts nothing more");
    assert_eq!(make(TriggerKind::User, 12), (2, false), "and a person's key is free again");
}

#[test]
fn another_meaning_begins_anew() {
    let (_folder, connection) = database();
    let key = firing(0, true).key;
    assert!(fire(&connection, &firing(10, true), at(10)).is_ok());
    begin(&connection, &key, "0 5 * * * UTC", at(100)).expect("begun");
    let row = &all(&connection).expect("read")[&key];
    assert_eq!((row.until, row.meaning.as_str()), (at(100), "0 5 * * * UTC"));
}
