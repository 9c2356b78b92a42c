//! Forgetting: history beyond a template's retention, keys of old requests, specs that no task shares any more.

use forge_api::{AttemptId, LogState, Timestamp};
use rusqlite::{Connection, params};

use super::{StoreError, rows};

/// The most tasks that one transaction forgets.
const FORGOTTEN_TASKS_MAX: u32 = 500;

/// How much of a template's history stays.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    pub(crate) project: String,
    pub(crate) template: String,
    /// The newest so many finished tasks; 0 is all.
    pub(crate) tasks: u32,
    /// Finished tasks that ended at this moment or later; `None` is all.
    pub(crate) since: Option<Timestamp>,
}

/// What went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forgotten {
    /// How many tasks; none when all is done.
    pub(crate) tasks: usize,
    /// Their attempts, whose logs are to go.
    pub(crate) attempts: Vec<AttemptId>,
}

const NEWEST_BEYOND: &str = "SELECT max(number) FROM (SELECT number FROM tasks WHERE project = ?1 AND template = ?2
     AND deadline_at IS NULL ORDER BY number DESC LIMIT 1 OFFSET ?3)";

pub(super) const OLDEST: &str = "SELECT number FROM (SELECT number, finished_at FROM tasks WHERE project = ?1
     AND template = ?2 AND deadline_at IS NULL ORDER BY number LIMIT ?5) WHERE number <= ?3 OR finished_at < ?4";

/// The oldest finished tasks beyond `keep`, some of them: who gets any asks again. Read beside the writer, and never all of
/// the history: what is old stands at its beginning.
pub(super) fn beyond(connection: &Connection, keep: &Keep) -> Result<Vec<u64>, StoreError> {
    let offset = if keep.tasks == 0 { i64::MAX } else { i64::from(keep.tasks) };
    let last: Option<u64> = connection
        .prepare_cached(NEWEST_BEYOND)?
        .query_row(params![keep.project, keep.template, offset], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(OLDEST)?;
    let numbers = statement.query_map(
        params![
            keep.project,
            keep.template,
            last.unwrap_or_default(),
            keep.since.map_or(i64::MIN, Timestamp::unix_micros),
            FORGOTTEN_TASKS_MAX
        ],
        |row| row.get(0),
    )?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

/// Forgets those of the tasks that are still finished, and answers with their attempts, whose logs are to go.
pub(super) fn forget_tasks(connection: &Connection, numbers: &[u64]) -> Result<Forgotten, StoreError> {
    let mut forgotten = Forgotten::default();
    let mut list = connection.prepare_cached("SELECT attempt FROM attempts WHERE task = ?1")?;
    // Its attempts go with it (ON DELETE CASCADE).
    let mut forget = connection.prepare_cached("DELETE FROM tasks WHERE number = ?1 AND deadline_at IS NULL")?;
    for number in numbers {
        let of_task: Vec<u32> = list.query_map([number], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if forget.execute([number])? > 0 {
            forgotten.tasks += 1;
            forgotten.attempts.extend(of_task.into_iter().map(|attempt| AttemptId { task: *number, attempt }));
        }
    }
    Ok(forgotten)
}

/// Forgets keys of requests older than `before`, and specs without a task.
pub(super) fn sweep(connection: &Connection, before: Timestamp) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM idempotency_keys WHERE created_at < ?1")?.execute([before.unix_micros()])?;
    connection
        .prepare_cached("DELETE FROM specs WHERE NOT EXISTS (SELECT 1 FROM tasks t WHERE t.spec = specs.id)")?
        .execute([])?;
    Ok(())
}

/// Keeps what is known of a closed attempt's log.
pub(super) fn set_log_state(
    connection: &Connection,
    id: AttemptId,
    state: LogState,
    resends: u32,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE attempts SET log_state = ?3, resends = ?4 WHERE task = ?1 AND attempt = ?2")?
        .execute(params![id.task, id.attempt, rows::to_name(&state)?, resends])?;
    Ok(())
}
