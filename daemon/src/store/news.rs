//! News that no step of a task brings: that tasks wait with no runner there, and that runners come, go and are idle. What was told is
//! kept, so that it is told once, over restarts too.

use forge_api::{DeliveryState, Timestamp};
use rusqlite::{Connection, params};

use super::events::{self, NewEvent};
use super::{StoreError, deliveries, plan, rows};
use crate::scheduler::assign::{Concurrency, Need};

/// The most tasks of one group that are looked at: whoever starts machines for so many has enough to do.
const TASKS_MAX: u32 = 500;

/// How long the log of an attempt that ended is waited for before its runner counts as idle, in milliseconds: one that was lost never
/// arrives.
const LOG_AWAITED_MS: i64 = 300_000;

/// A task that waits and could go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitingTask {
    pub(crate) number: u64,
    /// When it was told of last, since it waits.
    pub(crate) told_at: Option<Timestamp>,
    /// The targets of its template and project.
    pub(crate) own: Vec<String>,
}

/// Tasks of one template and tag that wait and could go now.
#[derive(Clone, Debug)]
pub(crate) struct WaitingGroup {
    pub(crate) need: Need,
    pub(crate) template: String,
    pub(crate) concurrency: Concurrency,
    pub(crate) tasks: Vec<WaitingTask>,
}

/// How a registered runner stands, and what was last told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunnerTold {
    /// Of its registration: another one of the same name is another runner.
    pub(crate) key: i64,
    pub(crate) name: String,
    pub(crate) online: bool,
    pub(crate) idle: bool,
    pub(crate) draining: bool,
    /// Whether it holds an attempt.
    pub(crate) holds: bool,
    /// Whether the log of an attempt that ended is still on its way.
    pub(crate) sends: bool,
}

/// What is new of a runner.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RunnerNews {
    /// It came, or it is gone.
    Contact {
        /// Which.
        online: bool,
        /// What is told; nothing where it was told to be idle: that it goes then is no news, and its machine may be starting anew.
        event: Option<NewEvent>,
    },
    /// It is drained and holds nothing.
    Idle {
        /// What is told.
        event: NewEvent,
    },
    /// It may take tasks again.
    Resumed,
}

/// What waits and could go now, by the rules of the queue itself: of a template that runs one at a time it is its next task.
pub(super) fn waiting(connection: &Connection, now: Timestamp) -> Result<Vec<WaitingGroup>, StoreError> {
    let mut look = connection.prepare_cached(
        "SELECT iif(t.waiting_told_at >= t.queued_at, t.waiting_told_at, NULL), s.webhooks
         FROM tasks t JOIN specs s ON s.id = t.spec WHERE t.number = ?1",
    )?;
    let mut found = Vec::new();
    for group in plan::groups(connection, TASKS_MAX, now)? {
        let Some(concurrency) = group.waiting.first().map(|waiting| waiting.concurrency) else { continue };
        let at_a_time = if concurrency == Concurrency::Parallel { usize::MAX } else { 1 };
        let mut tasks = Vec::new();
        for waiting in group.waiting.into_iter().take(at_a_time) {
            let (told_at, own) =
                look.query_row([waiting.task], |row| Ok((rows::maybe_time(row, 0)?, rows::json(row, 1)?)))?;
            tasks.push(WaitingTask { number: waiting.task, told_at, own });
        }
        found.push(WaitingGroup { need: group.need, template: group.template, concurrency, tasks });
    }
    Ok(found)
}

/// Tells targets that a task waits, if it still does. A target that has not heard of the last time yet is not told once more.
pub(super) fn tell_waiting(
    connection: &Connection,
    number: u64,
    targets: &[String],
    now: Timestamp,
) -> Result<(), StoreError> {
    let waits = connection
        .prepare_cached("UPDATE tasks SET waiting_told_at = ?2 WHERE number = ?1 AND state = 'queued'")?
        .execute(params![number, now.unix_micros()])?;
    if waits == 0 {
        return Ok(());
    }
    let mut unheard = connection.prepare_cached(
        "SELECT 1 FROM deliveries d INDEXED BY deliveries_order JOIN events e ON e.id = d.event
         WHERE d.state = 'waiting' AND d.target = ?1 AND d.subject = ?2 AND e.event = 'task.waiting'",
    )?;
    let mut told = Vec::new();
    for target in targets {
        if !unheard.exists(params![target, format!("task {number}")])? {
            told.push(target);
        }
    }
    if !told.is_empty() {
        connection
            .prepare_cached(
                "INSERT INTO events (event, at, body, uid, task, targets)
                 VALUES ('task.waiting', 0, '', lower(hex(randomblob(16))), ?1, ?2)",
            )?
            .execute(params![number, rows::to_json(&told)?])?;
    }
    Ok(())
}

/// What a target has heard of a task that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitingTold {
    pub(crate) target: String,
    pub(crate) state: DeliveryState,
    /// How often it was tried.
    pub(crate) tries: u32,
    /// When it was made.
    pub(crate) told_at: Timestamp,
}

/// The newest delivery to each target that tells that a task waits, since it does.
pub(super) fn waiting_told(connection: &Connection, number: u64) -> Result<Vec<WaitingTold>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT d.target, d.state, d.tries, max(d.created_at)
         FROM events e INDEXED BY events_task JOIN deliveries d INDEXED BY deliveries_event ON d.event = e.id
         WHERE e.task = ?1 AND e.event = 'task.waiting'
             AND d.created_at >= (SELECT t.queued_at FROM tasks t WHERE t.number = ?1)
         GROUP BY d.target ORDER BY d.target",
    )?;
    let found = statement.query_map([number], |row| {
        Ok(WaitingTold {
            target: row.get(0)?,
            state: rows::named(row, 1)?,
            tries: row.get(2)?,
            told_at: rows::time(row, 3)?,
        })
    })?;
    found.collect()
}

/// Every registered runner, and what was last told of it.
pub(super) fn runners(connection: &Connection, now: Timestamp) -> Result<Vec<RunnerTold>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT name, told_online, told_idle, draining,
             EXISTS (SELECT 1 FROM attempts a INDEXED BY attempts_live WHERE a.closed_at IS NULL AND a.runner = r.name),
             EXISTS (SELECT 1 FROM attempts a INDEXED BY attempts_sending
                 WHERE a.runner = r.name AND a.closed_at > ?1 AND a.log_state = 'open' AND a.started_at IS NOT NULL
                     AND a.runner_key = r.key), key
         FROM runners r ORDER BY name",
    )?;
    let awaited_since = now.plus_millis(-LOG_AWAITED_MS).unix_micros();
    let found = statement.query_map([awaited_since], |row| {
        Ok(RunnerTold {
            key: row.get(6)?,
            name: row.get(0)?,
            online: row.get(1)?,
            idle: row.get(2)?,
            draining: row.get(3)?,
            holds: row.get(4)?,
            sends: row.get(5)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Keeps what is told of a runner and has it told, if it is still so.
pub(super) fn tell_runner(
    connection: &Connection,
    (key, name): (i64, &str),
    news: &RunnerNews,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (changed, event) = match news {
        RunnerNews::Contact { online, event } => {
            let mut update = connection
                .prepare_cached("UPDATE runners SET told_online = ?2 WHERE key = ?1 AND told_online <> ?2")?;
            let changed = update.execute(params![key, online])?;
            if *online && changed > 0 {
                deliveries::skip_of_runner(connection, name, now)?;
            }
            (changed, event.as_ref())
        }
        RunnerNews::Idle { event } => {
            let mut update = connection.prepare_cached(
                "UPDATE runners SET told_idle = 1 WHERE key = ?1 AND draining AND NOT told_idle AND NOT EXISTS
                     (SELECT 1 FROM attempts a INDEXED BY attempts_live WHERE a.closed_at IS NULL AND a.runner = ?2)",
            )?;
            (update.execute(params![key, name])?, Some(event))
        }
        RunnerNews::Resumed => {
            let mut update =
                connection.prepare_cached("UPDATE runners SET told_idle = 0 WHERE key = ?1 AND NOT draining")?;
            (update.execute([key])?, None)
        }
    };
    match event {
        Some(event) if changed > 0 => events::record(connection, event),
        Some(_) | None => Ok(()),
    }
}
