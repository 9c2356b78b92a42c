//! Deliveries: which are due, what became of a try, and what people ask of them. One is sent until it arrived, was not for its target,
//! or is dead; those about one subject go to a target one after the other.

use std::collections::BTreeMap;

use forge_api::{DeliveryState, Timestamp, WebhookDelivery};
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Value as Sql};

use super::{Refused, StoreError, rows};

/// How long deliveries that ended well are kept, in milliseconds.
const KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// How long dead ones are kept, in milliseconds: somebody may mend the target and redeliver them.
const DEAD_KEPT_MS: i64 = 30 * 24 * 3_600_000;

/// The most deliveries of one state that are kept once they ended; the newest are.
const ENDED_MAX: u32 = 50_000;

/// The most rows that one transaction forgets.
const FORGOTTEN_MAX: u32 = 2_000;

/// A delivery that is due, with what its target is told.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) id: String,
    pub(crate) target: String,
    /// How often it was tried.
    pub(crate) tries: u32,
    /// Such as `task.finished`.
    pub(crate) event: String,
    /// When that happened.
    pub(crate) at: Timestamp,
    /// The event's id.
    pub(crate) uid: String,
    /// What it is about, as JSON: an object with `task`, `runner` or `config`.
    pub(crate) body: String,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It ended.
    Ended {
        /// How; not `waiting`.
        state: DeliveryState,
        /// Why, where it did not arrive.
        message: Option<String>,
    },
    /// It is tried again.
    Again {
        /// Why.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// It was not tried at all, and is then.
    Postponed {
        /// Why.
        message: String,
        /// When.
        at: Timestamp,
    },
}

/// What is due for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DueOfTarget {
    pub(crate) target: String,
    /// The oldest first.
    pub(crate) numbers: Vec<i64>,
}

/// What was written down of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// What it came to; and the delivery that had to wait for it and is due now.
    Written {
        /// Its number.
        follower: Option<i64>,
    },
    /// Nothing: the delivery ended meanwhile, or was redelivered.
    Overtaken,
}

const TARGETS_DUE: &str = "SELECT target, next_at <= ?2 FROM deliveries INDEXED BY deliveries_due
     WHERE next_at IS NOT NULL AND target > ?1 ORDER BY target, next_at LIMIT 1";

const DUE: &str = "SELECT number FROM deliveries INDEXED BY deliveries_due
     WHERE target = ?1 AND next_at IS NOT NULL AND next_at <= ?2 ORDER BY next_at LIMIT ?3";

const NEXT_TARGET: &str =
    "SELECT target FROM deliveries INDEXED BY deliveries_due WHERE next_at IS NOT NULL AND target > ?1
     ORDER BY target LIMIT 1";

const NEXT_MOMENT: &str =
    "SELECT min(next_at) FROM deliveries INDEXED BY deliveries_due WHERE target = ?1 AND next_at > ?2";

/// Targets that have something due at `now`: a step along the index each.
pub(super) fn targets_due(connection: &Connection, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let mut next = connection.prepare_cached(TARGETS_DUE)?;
    let (mut found, mut last) = (Vec::new(), String::new());
    while let Some((target, is_due)) = next
        .query_row(params![last, now.unix_micros()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))
        .optional()?
    {
        if is_due {
            found.push(target.clone());
        }
        last = target;
    }
    Ok(found)
}

/// The oldest deliveries that are due for a target: their numbers, which stand in the index itself.
pub(super) fn due(connection: &Connection, target: &str, now: Timestamp, limit: u32) -> Result<Vec<i64>, StoreError> {
    let mut statement = connection.prepare_cached(DUE)?;
    let found = statement.query_map(params![target, now.unix_micros(), limit], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// When the next delivery is due that is not due at `now`.
pub(super) fn next_moment(connection: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let mut targets = connection.prepare_cached(NEXT_TARGET)?;
    let mut next = connection.prepare_cached(NEXT_MOMENT)?;
    let (mut nearest, mut last): (Option<i64>, String) = (None, String::new());
    while let Some(target) = targets.query_row([&last], |row| row.get::<_, String>(0)).optional()? {
        let at: Option<i64> = next.query_row(params![target, now.unix_micros()], |row| row.get(0))?;
        nearest = nearest.into_iter().chain(at).min();
        last = target;
    }
    Ok(nearest.map(Timestamp::from_unix_micros))
}

/// Whether a delivery that was found due is still to be sent.
#[derive(Clone, Debug)]
pub(super) enum Still {
    /// It is, and what it says.
    Due(Due),
    /// It ended, or is tried later.
    Ended,
    /// It says what is not so any more, and why: a machine that is started for it would find nothing to do, and one that is stopped for
    /// it may be at work.
    Untrue(&'static str),
}

const STILL_DUE: &str = "SELECT d.id, d.target, d.tries, e.event, e.at, coalesce(e.uid, ''), e.body,
     d.state = 'waiting' AND d.next_at IS NOT NULL,
     CASE e.event
         WHEN 'task.waiting' THEN e.task IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.number = e.task AND t.state = 'queued')
         WHEN 'runner.idle' THEN EXISTS (SELECT 1 FROM runners r WHERE r.name = e.runner
             AND (NOT r.draining OR r.registered_at > e.at OR EXISTS
                 (SELECT 1 FROM attempts a INDEXED BY attempts_live WHERE a.closed_at IS NULL AND a.runner = r.name)))
         WHEN 'runner.offline' THEN EXISTS (SELECT 1 FROM runners r WHERE r.name = e.runner AND r.told_online)
         ELSE 0 END
     FROM deliveries d JOIN events e ON e.id = d.event WHERE d.number = ?1";

/// Looks once more, right before it is sent.
pub(super) fn still_due(connection: &Connection, number: i64) -> Result<Still, StoreError> {
    let mut statement = connection.prepare_cached(STILL_DUE)?;
    let found = statement.query_row([number], |row| {
        let (is_due, is_untrue): (bool, bool) = (row.get(7)?, row.get(8)?);
        if !is_due {
            return Ok(Still::Ended);
        }
        let event: String = row.get(3)?;
        if is_untrue {
            let why = if event == "task.waiting" { "the task does not wait any more" } else { "the runner is back" };
            return Ok(Still::Untrue(why));
        }
        Ok(Still::Due(Due {
            id: row.get(0)?,
            target: row.get(1)?,
            tries: row.get(2)?,
            event,
            at: rows::time(row, 4)?,
            uid: row.get(5)?,
            body: row.get(6)?,
        }))
    });
    Ok(found.optional()?.unwrap_or(Still::Ended))
}

/// Writes down what a try came to. One that ended meanwhile stays as it is, and so does one that was redelivered: then it was not tried as
/// often before as `tries` says, where that is known.
pub(super) fn tried(
    connection: &Connection,
    number: i64,
    tries: Option<u32>,
    came: &Came,
    exchanges: &str,
    now: Timestamp,
) -> Result<Kept, StoreError> {
    let (state, message, next_at, ended_at) = match came {
        Came::Ended { state, message } => (*state, message.as_deref(), None, Some(now.unix_micros())),
        Came::Again { message, at } | Came::Postponed { message, at } => {
            (DeliveryState::Waiting, Some(message.as_str()), Some(at.unix_micros()), None)
        }
    };
    let counts = tries.is_some() && !matches!(came, Came::Postponed { .. });
    let changed = connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, message = ?3, next_at = ?4, ended_at = ?5, exchanges = ?6,
                 tried_at = iif(?9, ?7, tried_at), tries = tries + ?9
             WHERE number = ?1 AND state = 'waiting' AND (?8 IS NULL OR tries = ?8) RETURNING target, subject",
        )?
        .query_row(
            params![
                number,
                rows::to_name(&state)?,
                message,
                next_at,
                ended_at,
                exchanges,
                now.unix_micros(),
                tries,
                counts
            ],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        )
        .optional()?;
    let Some((target, subject)) = changed else { return Ok(Kept::Overtaken) };
    let follower = match came {
        Came::Ended { .. } => follower(connection, &target, &subject, now)?,
        Came::Again { .. } | Came::Postponed { .. } => None,
    };
    Ok(Kept::Written { follower })
}

/// Lets the first go that waits about a subject, where it had to wait for another.
fn follower(
    connection: &Connection,
    target: &str,
    subject: &str,
    now: Timestamp,
) -> Result<Option<i64>, rusqlite::Error> {
    let first: Option<(i64, bool)> = connection
        .prepare_cached(
            "SELECT number, next_at IS NULL FROM deliveries INDEXED BY deliveries_order
             WHERE state = 'waiting' AND target = ?1 AND subject = ?2 ORDER BY number LIMIT 1",
        )?
        .query_row([target, subject], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, true)) = first else { return Ok(None) };
    connection
        .prepare_cached("UPDATE deliveries SET next_at = ?2 WHERE number = ?1")?
        .execute(params![number, now.unix_micros()])?;
    Ok(Some(number))
}

/// Ends what waits to tell that a runner is idle or gone: it is back, and whoever would stop its machine now would stop what it begins.
pub(super) fn skip_of_runner(connection: &Connection, name: &str, now: Timestamp) -> Result<(), rusqlite::Error> {
    let subject = format!("runner {name}");
    let targets: Vec<String> = connection
        .prepare_cached("SELECT target FROM delivery_counts WHERE state = 'waiting' AND deliveries > 0")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for target in targets {
        let ended = connection
            .prepare_cached(
                "UPDATE deliveries INDEXED BY deliveries_order SET state = 'skipped', next_at = NULL, ended_at = ?3,
                     message = 'the runner came back before this could be told'
                 WHERE state = 'waiting' AND target = ?1 AND subject = ?2 AND EXISTS
                     (SELECT 1 FROM events e WHERE e.id = deliveries.event AND e.event IN ('runner.idle', 'runner.offline'))",
            )?
            .execute(params![target, subject, now.unix_micros()])?;
        if ended > 0 {
            follower(connection, &target, &subject, now)?;
        }
    }
    Ok(())
}

/// The delivery of an event that has one target.
pub(super) fn of_event(connection: &Connection, event: i64) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id FROM deliveries WHERE event = ?1")?;
    Ok(statement.query_row([event], |row| row.get(0)).optional()?)
}

/// Has a delivery that ended sent once more, or one that waits sent now; with the same id, and in its turn.
pub(super) fn redeliver(connection: &Connection, id: &str, now: Timestamp) -> Result<(), StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'waiting', tries = 0, ended_at = NULL,
                 next_at = iif(EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_order WHERE d.state = 'waiting'
                     AND d.target = deliveries.target AND d.subject = deliveries.subject
                     AND d.number < deliveries.number), NULL, ?2)
             WHERE id = ?1 AND (state <> 'waiting' OR next_at IS NOT NULL)",
        )?
        .execute(params![id, now.unix_micros()])?;
    if changed == 1 {
        // Those behind it wait for it again, as they did the first time.
        connection
            .prepare_cached(
                "UPDATE deliveries INDEXED BY deliveries_order SET next_at = NULL FROM deliveries AS first
                 WHERE first.id = ?1 AND deliveries.state = 'waiting' AND deliveries.target = first.target
                     AND deliveries.subject = first.subject AND deliveries.number > first.number
                     AND deliveries.next_at IS NOT NULL",
            )?
            .execute([id])?;
        return Ok(());
    }
    let is_there = connection.prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?.exists([id])?;
    // One that waits for an earlier one of its subject goes when that has gone.
    if is_there { Ok(()) } else { Err(StoreError::Refused(Refused::NoDelivery)) }
}

/// Which deliveries a listing shows; the numbers below `before`, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryListing {
    pub(crate) target: Option<String>,
    pub(crate) state: Option<DeliveryState>,
    pub(crate) before: Option<i64>,
    pub(crate) limit: u32,
}

const COLUMNS: &str = "d.number, d.id, d.target, d.subject, d.state, d.tries, d.next_at, d.message, d.created_at, d.tried_at, \
     d.ended_at, e.event, d.exchanges, coalesce(e.uid, ''), e.at";

fn delivery(row: &Row<'_>) -> Result<(i64, WebhookDelivery), rusqlite::Error> {
    let delivery = WebhookDelivery {
        id: row.get(1)?,
        target: row.get(2)?,
        subject: row.get(3)?,
        event: row.get(11)?,
        state: rows::named(row, 4)?,
        tries: row.get(5)?,
        next_at: rows::maybe_time(row, 6)?,
        message: row.get(7)?,
        created_at: rows::time(row, 8)?,
        tried_at: rows::maybe_time(row, 9)?,
        ended_at: rows::maybe_time(row, 10)?,
        exchanges: rows::json(row, 12)?,
        payload: None,
    };
    Ok((row.get(0)?, delivery))
}

/// Deliveries, newest first, with their numbers.
pub(super) fn list(
    connection: &Connection,
    listing: &DeliveryListing,
) -> Result<Vec<(i64, WebhookDelivery)>, StoreError> {
    let mut sql = format!("SELECT {COLUMNS} FROM deliveries d JOIN events e ON e.id = d.event WHERE true");
    let mut values: Vec<Sql> = Vec::new();
    if let Some(target) = &listing.target {
        sql.push_str(" AND d.target = ?");
        values.push(Sql::Text(target.clone()));
    }
    if let Some(state) = listing.state {
        sql.push_str(" AND d.state = ?");
        values.push(Sql::Text(rows::to_name(&state)?));
    }
    if let Some(before) = listing.before {
        sql.push_str(" AND d.number < ?");
        values.push(Sql::Integer(before));
    }
    sql.push_str(" ORDER BY d.number DESC LIMIT ?");
    values.push(Sql::Integer(i64::from(listing.limit)));
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(rusqlite::params_from_iter(values), delivery)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// One delivery with what it says.
pub(super) fn show(connection: &Connection, id: &str) -> Result<Option<WebhookDelivery>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, e.body FROM deliveries d JOIN events e ON e.id = d.event WHERE d.id = ?1");
    let found = connection.prepare_cached(&sql)?.query_row([id], |row| {
        let (_, found) = delivery(row)?;
        let payload =
            payload(&row.get::<_, String>(13)?, &found.event, rows::time(row, 14)?, &row.get::<_, String>(15)?);
        // What was put together of JSON is JSON.
        Ok(WebhookDelivery { payload: serde_json::from_str(&payload).ok(), ..found })
    });
    Ok(found.optional()?)
}

/// An event as it is told, `{"id", "event", "at", ...}` with what it is about, as JSON. What it is about is put in as it was written: it is
/// an object, and its fields are others.
pub(crate) fn payload(uid: &str, event: &str, at: Timestamp, body: &str) -> String {
    // Text as JSON cannot fail.
    let text = |value: &str| serde_json::to_string(value).unwrap_or_default();
    let head = format!("{{\"id\":{},\"event\":{},\"at\":{}", text(uid), text(event), text(&at.to_string()));
    match body.strip_prefix('{') {
        Some(rest) if !rest.trim_start().starts_with('}') => format!("{head},{rest}"),
        Some(_) | None => format!("{head}}}"),
    }
}

/// How many deliveries of each target stand in each state.
pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<String, BTreeMap<DeliveryState, u64>>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT target, state, deliveries FROM delivery_counts WHERE deliveries > 0")?;
    let found = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, rows::named(row, 1)?, row.get(2)?)))?;
    let mut counts: BTreeMap<String, BTreeMap<DeliveryState, u64>> = BTreeMap::new();
    for row in found {
        let (target, state, count) = row?;
        counts.entry(target).or_default().insert(state, count);
    }
    Ok(counts)
}

/// Since when the oldest delivery waits: the first by its number, which are given in order.
pub(super) fn oldest_waiting(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let sql =
        "SELECT created_at FROM deliveries INDEXED BY deliveries_state WHERE state = 'waiting' ORDER BY number LIMIT 1";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| rows::time(row, 0)).optional()?)
}

/// Forgets some of what ended long ago, and of what is too much; answers whether there may be more.
pub(super) fn forget(connection: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut forgotten = 0;
    for state in [DeliveryState::Delivered, DeliveryState::Skipped, DeliveryState::Dead] {
        let kept_ms = if state == DeliveryState::Dead { DEAD_KEPT_MS } else { KEPT_MS };
        forgotten += connection
            .prepare_cached(
                "DELETE FROM deliveries WHERE number IN (
                     SELECT number FROM (SELECT number, ended_at FROM deliveries INDEXED BY deliveries_state
                         WHERE state = ?1 ORDER BY number LIMIT ?4)
                     WHERE ended_at < ?2 OR number <= coalesce((SELECT number FROM deliveries INDEXED BY deliveries_state
                         WHERE state = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?3), -1))",
            )?
            .execute(params![
                rows::to_name(&state)?,
                now.plus_millis(-kept_ms).unix_micros(),
                ENDED_MAX,
                FORGOTTEN_MAX
            ])?;
    }
    Ok(forgotten > 0)
}

#[cfg(test)]
#[path = "deliveries_tests.rs"]
mod tests;
