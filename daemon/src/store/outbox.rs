//! Puts events out: whom an event is to be told to is written down in the transaction that the event comes from, so that no change of
//! a task is without its event and no event without its deliveries.
//!
//! Steps of tasks leave their events through triggers (`schema/0008_webhooks.sql`); this fills in what they say, while it is true.

use forge_api::{AttemptId, Task, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;

use super::{queries, rows};

/// The most deliveries that wait for one target. What comes on top is dead from its beginning, and can be redelivered.
const WAITING_MAX: u64 = 100_000;

/// An event whose targets are to be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tidings<'a> {
    /// Such as `task.finished`.
    pub(crate) event: &'a str,
    /// The task that it is about.
    pub(crate) task: Option<&'a Task>,
    /// The runner that it is about.
    pub(crate) runner: Option<&'a str>,
    /// The targets of that task's template and project, from when it was made.
    pub(crate) own: &'a [String],
}

/// Who knows whom events are told to.
pub(crate) trait Teller {
    /// Whether the tree that serves has any webhook target; `None` while none serves: what happens then is told when one does.
    fn tells(&self) -> Option<bool> {
        Some(false)
    }
    /// The targets of an event; it must not block.
    fn targets(&self, _tidings: &Tidings<'_>) -> Vec<String> {
        Vec::new()
    }
    /// Deliveries were committed.
    fn put_out(&self) {}
}

/// Says whether events are put out from now on. What happened before is not told later.
pub(super) fn set_tells(connection: &Connection, tells: bool) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "UPDATE outbox SET tells = ?1, put_out = (SELECT coalesce(max(id), 0) FROM events) WHERE tells <> ?1",
        )?
        .execute([tells])?;
    Ok(())
}

/// An event that was written and is not put out.
struct Written {
    id: i64,
    event: String,
    task: Option<u64>,
    runner: Option<String>,
    targets: Option<Vec<String>>,
    body: String,
}

/// Puts out what was written since the last time; answers whether anything is to be delivered.
pub(super) fn put_out(connection: &Connection, teller: &dyn Teller, now: Timestamp) -> Result<bool, rusqlite::Error> {
    let written: Vec<Written> = connection
        .prepare_cached(
            "SELECT id, event, task, runner, targets, body FROM events WHERE id > (SELECT put_out FROM outbox) ORDER BY id",
        )?
        .query_map([], |row| {
            let (id, event, task, runner) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Written { id, event, task, runner, targets: rows::maybe_json(row, 4)?, body: row.get(5)? })
        })?
        .collect::<Result<_, _>>()?;
    let Some(newest) = written.last().map(|written| written.id) else { return Ok(false) };
    let mut any = false;
    for one in written {
        any |= put_out_one(connection, teller, &one, now)?;
    }
    connection.prepare_cached("UPDATE outbox SET put_out = ?1")?.execute([newest])?;
    Ok(any)
}

fn put_out_one(
    connection: &Connection,
    teller: &dyn Teller,
    written: &Written,
    now: Timestamp,
) -> Result<bool, rusqlite::Error> {
    let found = match written.task {
        Some(number) => task(connection, number)?,
        None => None,
    };
    let task = found.as_ref().map(|(task, _)| task);
    let own = found.as_ref().map_or(&[][..], |(_, own)| own);
    let targets = match &written.targets {
        Some(targets) => targets.clone(),
        None => teller.targets(&Tidings { event: &written.event, task, runner: written.runner.as_deref(), own }),
    };
    if targets.is_empty() && written.body.is_empty() {
        // Nobody is told, and without what it says the event is nothing to keep.
        connection.prepare_cached("DELETE FROM events WHERE id = ?1")?.execute([written.id])?;
        return Ok(false);
    }
    if written.body.is_empty() {
        // Of a runner whose registration ended its name is all that is left.
        let body = match (task, &written.runner) {
            (Some(task), _) => json!({ "task": task }),
            (None, Some(name)) => json!({ "runner": { "name": name } }),
            (None, None) => json!({}),
        };
        let body = rows::to_json(&body)?;
        connection.prepare_cached("UPDATE events SET body = ?2, at = ?3 WHERE id = ?1")?.execute(params![
            written.id,
            body,
            now.unix_micros()
        ])?;
    }
    for target in &targets {
        let subject = subject(written);
        deliver(connection, written.id, target, &subject, now)?;
    }
    Ok(!targets.is_empty())
}

/// What deliveries go in order by.
fn subject(written: &Written) -> String {
    match (written.task, &written.runner) {
        (Some(number), _) => format!("task {number}"),
        (None, Some(name)) => format!("runner {name}"),
        // A test that does not arrive must not hold up the next one, or what is no test.
        (None, None) if written.targets.is_some() => format!("test {}", written.id),
        (None, None) => written.event.split('.').next().unwrap_or_default().to_owned(),
    }
}

/// A task as its event shows it, and its template's and project's targets.
fn task(connection: &Connection, number: u64) -> Result<Option<(Task, Vec<String>)>, rusqlite::Error> {
    let sql = format!("SELECT {} FROM tasks t WHERE t.number = ?1", rows::TASK_COLUMNS);
    let Some(mut task) = connection.prepare_cached(&sql)?.query_row([number], rows::task).optional()? else {
        return Ok(None);
    };
    let own = connection
        .prepare_cached("SELECT s.webhooks FROM tasks t JOIN specs s ON s.id = t.spec WHERE t.number = ?1")?
        .query_row([number], |row| rows::json(row, 0))?;
    let attempt = AttemptId { task: number, attempt: task.attempt };
    task.log_bytes = queries::reported_log_bytes(connection, attempt)?;
    Ok(Some((task, own)))
}

fn deliver(
    connection: &Connection,
    event: i64,
    target: &str,
    subject: &str,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let waiting: u64 = connection
        .prepare_cached(
            "SELECT coalesce((SELECT deliveries FROM delivery_counts WHERE target = ?1 AND state = 'waiting'), 0)",
        )?
        .query_row([target], |row| row.get(0))?;
    let (state, message) = match waiting >= WAITING_MAX {
        true => ("dead", Some(format!("{WAITING_MAX} deliveries waited for this target already"))),
        false => ("waiting", None),
    };
    connection
        .prepare_cached(
            "INSERT INTO deliveries (id, event, target, subject, state, next_at, message, created_at, ended_at)
             SELECT lower(hex(randomblob(16))), ?1, ?2, ?3, ?4,
                 iif(?4 = 'dead' OR EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_order
                                            WHERE state = 'waiting' AND target = ?2 AND subject = ?3), NULL, ?5),
                 ?6, ?5, iif(?4 = 'dead', ?5, NULL)",
        )?
        .execute(params![event, target, subject, state, now.unix_micros(), message])?;
    Ok(())
}
