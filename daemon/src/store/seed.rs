//! A long history, for measuring with one: finished tasks that are copies of finished tasks. `forge bench` asks for it, on a
//! folder that it made itself, and nothing else does.

use std::path::Path;

use rusqlite::{Connection, params};

use super::{StoreError, open};

/// How many tasks one transaction copies.
const TASKS_PER_TRANSACTION: u64 = 50_000;

const FINISHED: &str = "SELECT count(*) FROM tasks WHERE state = 'succeeded'";

/// Copies of the newest task that succeeded, with its attempts, under new numbers.
const COPY_TASKS: &str = "WITH RECURSIVE copy(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM copy WHERE number < ?1)
     INSERT INTO tasks (project, template, state, reason, attempt, required_tag, priority, concurrency, revision, commit_id,
         exit_code, trigger_kind, trigger_by, variables, arguments, had_secret_answers, summary, spec, retries_left,
         created_at, queued_at, ready_at, assigned_at, started_at, finished_at)
     SELECT project, template, state, reason, attempt, required_tag, priority, concurrency, revision, commit_id,
         exit_code, trigger_kind, trigger_by, variables, arguments, had_secret_answers, summary, spec, retries_left,
         created_at, queued_at, ready_at, assigned_at, started_at, finished_at
     FROM copy JOIN tasks ON tasks.number = ?2";

const COPY_ATTEMPTS: &str =
    "INSERT INTO attempts (task, attempt, runner, project, template, nonce, token_sha256, grace_ms,
         assigned_at, started_at, closed_at, closed_why, result, result_at, counted, resends, log_state)
     SELECT tasks.number, a.attempt, runner, a.project, a.template, nonce, token_sha256, grace_ms, a.assigned_at,
         a.started_at, closed_at, closed_why, result, result_at, counted, resends, log_state
     FROM tasks JOIN attempts a ON a.task = ?2 WHERE tasks.number > ?1";

/// Fills the store of a data folder up to `tasks` tasks that succeeded, by copying the newest of those that are there; answers
/// how many it added. The copies have no logs. No daemon may run on the folder; it blocks.
///
/// # Errors
/// The folder is another daemon's, or holds no task that succeeded.
pub fn seed_history(data_dir: &Path, tasks: u64) -> Result<u64, StoreError> {
    let _lock = open::lock(data_dir)?;
    let mut connection = open::open_writer(&open::database_path(data_dir))?;
    let pattern: u64 = connection
        .query_row("SELECT max(number) FROM tasks WHERE state = 'succeeded'", [], |row| row.get::<_, Option<u64>>(0))?
        .ok_or(StoreError::Refused(super::Refused::NoTask))?;
    let there: u64 = connection.query_row(FINISHED, [], |row| row.get(0))?;
    let missing = tasks.saturating_sub(there);
    let mut added = 0;
    while added < missing {
        let count = TASKS_PER_TRANSACTION.min(missing - added);
        copy(&mut connection, pattern, count)?;
        added += count;
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(added)
}

fn copy(connection: &mut Connection, pattern: u64, count: u64) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    let last: u64 = transaction.query_row("SELECT max(number) FROM tasks", [], |row| row.get(0))?;
    transaction.execute(COPY_TASKS, params![count, pattern])?;
    transaction.execute(COPY_ATTEMPTS, params![last, pattern])?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_filled_up_with_copies_that_count() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(seed_history(folder.path(), 10), Err(StoreError::Refused(super::super::Refused::NoTask))));
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        connection
            .execute_batch(
                "INSERT INTO specs VALUES (1, x'00', '{}', 1000, 1000, 1000, 'fail', 0, 0, 1000, '[]');
                 INSERT INTO tasks (project, template, state, attempt, required_tag, priority, concurrency, revision,
                     trigger_kind, trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at,
                     queued_at, ready_at, finished_at)
                 VALUES ('shop', 'many', 'succeeded', 1, '', 0, 'parallel', 'r', 'user', 'ann', '{}', '[]', 0, 1, 0, 1, 1, 1, 1);
                 INSERT INTO attempts (task, attempt, runner, project, template, nonce, token_sha256, grace_ms, assigned_at,
                     closed_at, log_state)
                 VALUES (1, 1, 'r', 'shop', 'many', x'00', x'00', 1000, 1, 1, 'whole');",
            )
            .expect("a task that succeeded");
        assert_eq!(seed_history(folder.path(), 300).expect("filled"), 299);
        assert_eq!(seed_history(folder.path(), 300).expect("full"), 0);
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).expect("counts");
        assert_eq!(count("SELECT tasks FROM task_counts WHERE state = 'succeeded'"), 300);
        assert_eq!(count("SELECT count(DISTINCT task) FROM attempts WHERE closed_at IS NOT NULL"), 300);
        assert_eq!(count("SELECT count(*) FROM tasks WHERE deadline_at IS NOT NULL"), 0);
    }
}
