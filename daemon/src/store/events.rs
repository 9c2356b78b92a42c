//! Events, append-only and numbered: written as they happen, kept until there are too many, and read by whoever has to tell of them.

use forge_api::{ConfigRevision, Timestamp};
use rusqlite::{Connection, params};
use serde_json::Value;

use super::audit::{self, Ended, Note};
use super::{Store, StoreError, revisions, rows};

/// The most events that are kept; the newest are.
const EVENTS_MAX: i64 = 100_000;

/// The most that one transaction forgets.
const FORGOTTEN_MAX: i64 = 2_000;

/// An event about to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewEvent {
    /// Its name, such as `config.applied`.
    pub(crate) event: &'static str,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// What it is about: an object with `task`, `runner` or `config`.
    pub(crate) body: Value,
    /// The runner that it is about.
    pub(crate) runner: Option<String>,
    /// Who is told of it, where whoever records it knows that best.
    pub(crate) targets: Option<Vec<String>>,
}

impl Store {
    /// Records what happened to the configuration, in its order: the event, the revision, and what is written down for it.
    pub(crate) async fn record_config_events(
        &self,
        happened: Vec<(NewEvent, ConfigRevision, (Note, Ended))>,
    ) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                happened.iter().try_for_each(|(event, revision, (note, ended))| {
                    record(connection, event)?;
                    revisions::record(connection, revision)?;
                    audit::record(connection, note, ended, event.at)
                })
            })
            .await
    }
}

/// Records one event.
pub(super) fn record(connection: &Connection, new: &NewEvent) -> Result<(), StoreError> {
    let sql = "INSERT INTO events (event, at, body, uid, runner, targets)
         VALUES (?1, ?2, ?3, lower(hex(randomblob(16))), ?4, ?5)";
    let targets = new.targets.as_ref().map(rows::to_json).transpose()?;
    connection.prepare_cached(sql)?.execute(params![
        new.event,
        new.at.unix_micros(),
        rows::to_json(&new.body)?,
        new.runner,
        targets
    ])?;
    Ok(())
}

/// Forgets some of the oldest beyond what is kept, but for those that are still to be told; answers whether there may be more. Each round
/// goes on behind the last one, and begins again when it is through: what is still to be told is not looked at every time.
pub(super) fn forget(connection: &Connection) -> Result<bool, StoreError> {
    let (looked, last): (i64, Option<i64>) = connection
        .prepare_cached(
            "SELECT count(*), max(id) FROM (SELECT id FROM events WHERE id > (SELECT forget_from FROM outbox)
                 AND id <= (SELECT max(id) FROM events) - ?1 ORDER BY id LIMIT ?2)",
        )?
        .query_row([EVENTS_MAX, FORGOTTEN_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM events WHERE id > (SELECT forget_from FROM outbox) AND id <= ?1
                 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = events.id)",
        )?
        .execute([last])?;
    let from = last.filter(|_| looked >= FORGOTTEN_MAX).unwrap_or_default();
    connection.prepare_cached("UPDATE outbox SET forget_from = ?1 WHERE forget_from <> ?1")?.execute([from])?;
    Ok(forgotten > 0)
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
            runner: None,
            targets: None,
        };
        record(&connection, &event(1)).expect("recorded");
        record(&connection, &event(2)).expect("recorded");
        let deliver = "INSERT INTO deliveries (id, event, target, subject, state, created_at) VALUES ('d', 2, 'a', 's', 'waiting', 0)";
        connection.execute(deliver, []).expect("a delivery of the second");
        connection
            .execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events'", [EVENTS_MAX])
            .expect("numbered on");
        for at in [3, 4] {
            record(&connection, &event(at)).expect("recorded");
        }
        assert!(forget(&connection).expect("forgotten"));
        assert!(!forget(&connection).expect("looked"));
        let mut statement = connection.prepare("SELECT id, at FROM events ORDER BY id").expect("SQL");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        let kept: Vec<(i64, i64)> = rows.map(|row| row.expect("a row")).collect();
        assert_eq!(kept, [(2, 2), (EVENTS_MAX + 1, 3), (EVENTS_MAX + 2, 4)], "the second is still to be told");
    }

    #[test]
    fn what_is_still_to_be_told_is_not_looked_at_in_each_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        // A round full of events that are to be told, one more, and one that is not.
        let pinned = FORGOTTEN_MAX + 1;
        let made = format!(
            "INSERT INTO events (id, event, at, body, uid) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= {pinned})
                 SELECT i, 'config.applied', 0, '{{}}', i FROM n;
             INSERT INTO deliveries (id, event, target, subject, state, created_at)
                 SELECT id, id, 'a', 's', 'waiting', 0 FROM events WHERE id <= {pinned};
             INSERT INTO events (id, event, at, body, uid) VALUES ({pinned} + 1 + {EVENTS_MAX}, 'config.applied', 0, '{{}}', 'new');"
        );
        connection.execute_batch(&made).expect("made");
        let from =
            || -> i64 { connection.query_row("SELECT forget_from FROM outbox", [], |row| row.get(0)).expect("read") };
        assert!(!forget(&connection).expect("looked"));
        assert_eq!(from(), FORGOTTEN_MAX, "the next round goes on behind them");
        assert!(forget(&connection).expect("forgotten"), "and finds the one");
        assert_eq!(from(), 0, "then it begins again");
        assert!(!forget(&connection).expect("looked"));
    }
}
