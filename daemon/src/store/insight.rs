//! What pages ask of tasks beyond the tasks themselves: their attempts, how a template's went, and what ended badly lately.

use std::collections::BTreeSet;

use forge_api::{Attempt, Task, TaskOutcome, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Store, StoreError, queries, rows};

pub(super) const NEXT_PROJECT_OF_BAD_ENDS: &str = "SELECT project FROM tasks INDEXED BY tasks_bad_ends
     WHERE state IN ('failed', 'timed_out', 'lost', 'expired') AND project > ?1 ORDER BY project LIMIT 1";

/// The last bad ends of a project.
pub(super) fn bad_ends_sql() -> String {
    format!(
        "SELECT {} FROM tasks t INDEXED BY tasks_bad_ends
         WHERE t.state IN ('failed', 'timed_out', 'lost', 'expired') AND t.project = ?1 AND t.finished_at >= ?2
         ORDER BY t.finished_at DESC LIMIT ?3",
        rows::TASK_COLUMNS
    )
}

/// Which projects have bad ends: a step along the index each.
fn projects_of_bad_ends(connection: &Connection) -> Result<BTreeSet<String>, StoreError> {
    let mut next = connection.prepare_cached(NEXT_PROJECT_OF_BAD_ENDS)?;
    let mut found = BTreeSet::new();
    let mut last = String::new();
    while let Some(project) = next.query_row([&last], |row| row.get(0)).optional()? {
        last = project;
        found.insert(last.clone());
    }
    Ok(found)
}

fn bad_ends(
    connection: &Connection,
    visible: Option<Vec<String>>,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<Task>, StoreError> {
    let projects = match visible {
        Some(visible) => visible.into_iter().collect(),
        None => projects_of_bad_ends(connection)?,
    };
    let mut newest = connection.prepare_cached(&bad_ends_sql())?;
    let mut found = Vec::new();
    for project in projects {
        let of_project = newest.query_map(params![project, since.unix_micros(), limit], rows::task)?;
        found.extend(of_project.collect::<Result<Vec<_>, _>>()?);
    }
    found.sort_by_key(|task| std::cmp::Reverse(task.finished_at));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

impl Store {
    /// What ended badly since a moment, the last end first; of every project, or of those that are visible.
    pub(crate) async fn bad_ends(
        &self,
        visible: Option<Vec<String>>,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<Task>, StoreError> {
        self.readers.read(move |connection| bad_ends(connection, visible, since, limit)).await
    }

    /// Every attempt of a task, the oldest first.
    pub(crate) async fn attempts(&self, task: u64) -> Result<Vec<Attempt>, StoreError> {
        self.readers.read(move |connection| queries::attempts(connection, task)).await
    }

    /// How a template's newest finished tasks went.
    pub(crate) async fn outcomes(
        &self,
        project: String,
        template: String,
        limit: u32,
    ) -> Result<Vec<TaskOutcome>, StoreError> {
        self.readers.read(move |connection| queries::outcomes(connection, &project, &template, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open;

    #[test]
    fn what_ended_last_comes_first_whenever_it_was_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        connection
            .execute_batch(
                "INSERT INTO specs VALUES (1, x'00', '{}', 1000, 1000, 1000, 'fail', 0, 0, 1000, '[]');
                 WITH ends(number, project, state, at) AS (VALUES
                     (1, 'shop', 'timed_out', 90), (2, 'shop', 'failed', 50), (3, 'bank', 'lost', 80),
                     (4, 'shop', 'succeeded', 99), (5, 'shop', 'expired', 70), (6, 'shop', 'failed', 10))
                 INSERT INTO tasks (number, project, template, state, required_tag, priority, concurrency, revision,
                     trigger_kind, trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at,
                     queued_at, ready_at, finished_at)
                 SELECT number, project, 'many', state, '', 0, 'parallel', 'r', 'user', 'ann', '{}', '[]', 0, 1, 0, number,
                     number, number, at FROM ends;",
            )
            .expect("tasks");
        let numbers = |visible: Option<&str>, since: i64, limit: u32| -> Vec<u64> {
            let visible = visible.map(|project| vec![project.to_owned()]);
            let found = bad_ends(&connection, visible, Timestamp::from_unix_micros(since), limit).expect("read");
            found.iter().map(|task| task.number).collect()
        };
        assert_eq!(numbers(None, 0, 9), [1, 3, 5, 2, 6]);
        assert_eq!(numbers(None, 50, 3), [1, 3, 5]);
        assert_eq!(numbers(Some("shop"), 20, 9), [1, 5, 2]);
        assert!(numbers(Some("elsewhere"), 0, 9).is_empty());
    }
}
