//! How columns become Rust and back.

use forge_api::{Approved, Task, Timestamp, Trigger};
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::scheduler::deadline::Open;
use crate::scheduler::task::Standing;

fn wrong(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// A text column that holds the name of an enum's variant.
pub(super) fn named<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error> {
    let text: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(|error| wrong(column, error))
}

/// A text column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| wrong(column, error))
}

/// A text column that holds JSON, or nothing.
pub(super) fn maybe_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>, rusqlite::Error> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| wrong(column, error))).transpose()
}

/// A moment.
pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, rusqlite::Error> {
    row.get(column).map(Timestamp::from_unix_micros)
}

/// A moment, or none.
pub(super) fn maybe_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, rusqlite::Error> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_unix_micros))
}

/// JSON as the store keeps it.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The name of an enum's variant as the store keeps it.
pub(super) fn to_name<T: Serialize>(value: &T) -> Result<String, rusqlite::Error> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        Ok(_no_name) => Err(rusqlite::Error::InvalidQuery),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
    }
}

/// The columns of [`task`], in its order.
pub(super) const TASK_COLUMNS: &str = "t.number, t.project, t.template, t.state, t.reason, t.attempt, \
     (SELECT a.runner FROM attempts a WHERE a.task = t.number AND a.attempt = t.attempt), \
     t.required_tag, t.revision, t.commit_id, t.exit_code, t.trigger_kind, t.trigger_by, t.variables, \
     t.created_at, t.assigned_at, t.started_at, t.finished_at, t.summary, \
     t.revision_author, t.revision_subject, \
     (SELECT a.log_state = 'damaged' FROM attempts a WHERE a.task = t.number AND a.attempt = t.attempt), \
     t.approved_by, t.approved_at";

/// A task as the API shows it; the log's length, and whether its template is still there, are known elsewhere.
pub(super) fn task(row: &Row<'_>) -> Result<Task, rusqlite::Error> {
    Ok(Task {
        number: row.get(0)?,
        project: row.get(1)?,
        template: row.get(2)?,
        template_removed: false,
        state: named(row, 3)?,
        reason: row.get(4)?,
        attempt: row.get(5)?,
        runner: row.get(6)?,
        required_tag: row.get::<_, Option<String>>(7)?.filter(|tag| !tag.is_empty()),
        revision: row.get(8)?,
        revision_author: row.get(19)?,
        revision_subject: row.get(20)?,
        commit: row.get(9)?,
        exit_code: row.get(10)?,
        trigger: Trigger { kind: named(row, 11)?, by: row.get(12)? },
        variables: json(row, 13)?,
        created_at: time(row, 14)?,
        assigned_at: maybe_time(row, 15)?,
        started_at: maybe_time(row, 16)?,
        finished_at: maybe_time(row, 17)?,
        log_bytes: 0,
        log_damaged: row.get::<_, Option<bool>>(21)?.unwrap_or_default(),
        summary: maybe_json(row, 18)?,
        approved: match (row.get(22)?, maybe_time(row, 23)?) {
            (Some(by), Some(at)) => Some(Approved { by, at }),
            _ => None,
        },
    })
}

/// The columns of [`standing`], in its order; `s` is the task's spec.
pub(super) const STANDING_COLUMNS: &str = "t.state, t.cancel_by, t.attempt, s.on_runner_lost, t.retries_left, \
     s.retry_delay_ms, t.queued_at, t.assigned_at, t.started_at, t.cancel_at, s.timeout_ms, \
     s.queue_timeout_ms, s.runner_grace_ms, s.approval_timeout_ms, t.resume_attempt IS NOT NULL";

/// What a task's next step depends on, its deadline's parts, and its `runner_grace`.
pub(super) fn standing(row: &Row<'_>) -> Result<(Standing, Open, u64), rusqlite::Error> {
    let state = named(row, 0)?;
    let standing = Standing {
        state,
        cancel_by: row.get(1)?,
        attempt: row.get(2)?,
        on_runner_lost: named(row, 3)?,
        retries_left: row.get(4)?,
        retry_delay_ms: row.get(5)?,
        resumes: row.get(14)?,
    };
    let open = Open {
        state,
        queued_at: time(row, 6)?,
        assigned_at: maybe_time(row, 7)?,
        started_at: maybe_time(row, 8)?,
        cancel_at: maybe_time(row, 9)?,
        timeout_ms: row.get(10)?,
        queue_timeout_ms: row.get(11)?,
        approval_timeout_ms: row.get(13)?,
    };
    Ok((standing, open, row.get(12)?))
}
