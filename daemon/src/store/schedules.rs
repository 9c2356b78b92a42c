//! Schedules: until when each was looked at, and its firings. A firing and its task are one transaction, and come once.

use std::collections::BTreeMap;

use forge_api::{Firing, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::create::{self, NewTask};
use super::{Fate, StoreError, rows};

/// The newest firings of each schedule that are kept.
const FIRINGS_KEPT: u32 = 1_000;

/// A schedule, by its project and its name.
pub(crate) type ScheduleKey = (String, String);

/// What is known of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScheduleRow {
    /// Its cron line and its zone.
    pub(crate) meaning: String,
    /// Until when it was looked at.
    pub(crate) until: Timestamp,
    /// Its newest firing.
    pub(crate) last: Option<Firing>,
}

/// A firing about to be made.
#[derive(Debug)]
pub(crate) struct NewFiring {
    pub(crate) key: ScheduleKey,
    /// The time that it is meant for.
    pub(crate) nominal_at: Timestamp,
    /// Whether it makes no task while one of the same schedule is open.
    pub(crate) skips: bool,
    pub(crate) task: NewTask,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Fired {
    /// It made a task; and what happened to others (`concurrency = "replace"`).
    Made(u64, Vec<Fate>),
    /// It made none, since this one is open.
    Skipped(u64),
    /// It had been made before.
    Before,
}

/// Every schedule that was ever looked at.
pub(super) fn all(connection: &Connection) -> Result<BTreeMap<ScheduleKey, ScheduleRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT s.project, s.schedule, s.meaning, s.until, f.nominal_at, f.fired_at, f.task, f.message FROM schedules s
         LEFT JOIN firings f ON f.project = s.project AND f.schedule = s.schedule AND f.nominal_at =
             (SELECT max(l.nominal_at) FROM firings l WHERE l.project = s.project AND l.schedule = s.schedule)",
    )?;
    let found = statement.query_map([], |row| {
        let last = match (rows::maybe_time(row, 4)?, rows::maybe_time(row, 5)?) {
            (Some(nominal_at), Some(fired_at)) => {
                Some(Firing { nominal_at, fired_at, task: row.get(6)?, message: row.get(7)? })
            }
            _ => None,
        };
        let key = (row.get(0)?, row.get(1)?);
        Ok((key, ScheduleRow { meaning: row.get(2)?, until: rows::time(row, 3)?, last }))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Begins to look at a schedule, or at what it means by now: nothing from before is due.
pub(super) fn begin(
    connection: &Connection,
    (project, schedule): &ScheduleKey,
    meaning: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO schedules VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET meaning = ?3, until = ?4",
        )?
        .execute(params![project, schedule, meaning, now.unix_micros()])?;
    Ok(())
}

/// Forgets a schedule that the tree has not any more.
pub(super) fn forget(connection: &Connection, (project, schedule): &ScheduleKey) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM schedules WHERE project = ?1 AND schedule = ?2",
        "DELETE FROM firings WHERE project = ?1 AND schedule = ?2",
    ] {
        connection.prepare_cached(sql)?.execute(params![project, schedule])?;
    }
    Ok(())
}

/// Fires: the firing is written down with its task, or with why it has none.
pub(super) fn fire(connection: &Connection, new: &NewFiring, now: Timestamp) -> Result<Fired, StoreError> {
    let NewFiring { key: (project, schedule), nominal_at, skips, task } = new;
    let nominal = nominal_at.unix_micros();
    connection
        .prepare_cached("UPDATE schedules SET until = max(until, ?3) WHERE project = ?1 AND schedule = ?2")?
        .execute(params![project, schedule, nominal])?;
    let is_new = connection
        .prepare_cached("INSERT OR IGNORE INTO firings VALUES (?1, ?2, ?3, ?4, NULL, NULL)")?
        .execute(params![project, schedule, nominal, now.unix_micros()])?;
    if is_new == 0 {
        return Ok(Fired::Before);
    }
    let open = if *skips { open_task(connection, task, schedule)? } else { None };
    let (fired, number, message) = match open {
        Some(open) => {
            let message = format!("task {open} of this schedule is open (overlap = \"skip\")");
            (Fired::Skipped(open), None, Some(message))
        }
        None => {
            let made = create::create(connection, task, now)?;
            (Fired::Made(made.number, made.others), Some(made.number), None)
        }
    };
    connection
        .prepare_cached(
            "UPDATE firings SET task = ?4, message = ?5 WHERE project = ?1 AND schedule = ?2 AND nominal_at = ?3",
        )?
        .execute(params![project, schedule, nominal, number, message])?;
    connection
        .prepare_cached(
            "DELETE FROM firings WHERE project = ?1 AND schedule = ?2 AND nominal_at <=
                 (SELECT nominal_at FROM firings WHERE project = ?1 AND schedule = ?2 ORDER BY nominal_at DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![project, schedule, FIRINGS_KEPT])?;
    Ok(fired)
}

fn open_task(connection: &Connection, task: &NewTask, schedule: &str) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT min(number) FROM tasks INDEXED BY tasks_scheduled
         WHERE deadline_at IS NOT NULL AND project = ?1 AND schedule = ?2",
    )?;
    let found = statement.query_row(params![task.spec.project, schedule], |row| row.get(0));
    Ok(found.optional()?.flatten())
}

#[cfg(test)]
#[path = "schedules_tests.rs"]
mod tests;
