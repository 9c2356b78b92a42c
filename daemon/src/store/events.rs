//! Events, append-only and numbered: written as they happen, kept until there are too many, and read by whoever has to tell of them.

use forge_api::Timestamp;
use rusqlite::{Connection, params};
use serde_json::Value;

use super::{Store, StoreError, rows};

/// The most events that are kept; the newest are.
const EVENTS_MAX: i64 = 100_000;

/// An event about to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewEvent {
    /// Its name, such as `config.applied`.
    pub(crate) event: &'static str,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// What it is about: an object with `task`, `runner` or `config`.
    pub(crate) body: Value,
}

impl Store {
    /// Records events in their order.
    pub(crate) async fn record_events(&self, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| events.iter().try_for_each(|event| record(connection, event)))
            .await
    }
}

fn record(connection: &Connection, new: &NewEvent) -> Result<(), StoreError> {
    let sql = "INSERT INTO events (event, at, body) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![new.event, new.at.unix_micros(), rows::to_json(&new.body)?])?;
    let oldest = connection.last_insert_rowid().saturating_sub(EVENTS_MAX);
    connection.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute([oldest])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open;

    #[test]
    fn events_are_numbered_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let event = |at| NewEvent {
            event: "config.applied",
            at: Timestamp::from_unix_micros(at),
            body: serde_json::json!({ "config": { "revision": "c0ffee" } }),
        };
        record(&connection, &event(1)).expect("recorded");
        connection.execute("UPDATE events SET id = id + ?1", [EVENTS_MAX - 1]).expect("numbered on");
        connection.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events'", [EVENTS_MAX]).expect("too");
        for at in [2, 3] {
            record(&connection, &event(at)).expect("recorded");
        }
        let mut statement = connection.prepare("SELECT id, at FROM events ORDER BY id").expect("SQL");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        let kept: Vec<(i64, i64)> = rows.map(|row| row.expect("a row")).collect();
        assert_eq!(kept, [(EVENTS_MAX, 1), (EVENTS_MAX + 1, 2), (EVENTS_MAX + 2, 3)]);
        connection.execute("UPDATE events SET id = 1 WHERE at = 1", []).expect("the oldest");
        record(&connection, &event(4)).expect("recorded");
        let oldest: i64 = connection.query_row("SELECT min(at) FROM events", [], |row| row.get(0)).expect("some");
        assert_eq!(oldest, 2);
    }
}
