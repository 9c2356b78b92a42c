//! A copy of the database while the daemon writes, through SQLite's online backup; and a look at a copy before it is trusted.
//!
//! The copy is made in one step, which is one read transaction: it holds everything that was committed, and so acknowledged,
//! before it began, and nothing by halves. In WAL mode it keeps no writer waiting.

use std::collections::HashSet;
use std::path::Path;

use forge_api::{AttemptId, Timestamp};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, params};

use super::{StoreError, open};

/// All pages in one step.
const ALL_PAGES: i32 = -1;

/// What a copied database holds.
#[derive(Debug)]
pub(crate) struct Copied {
    /// How many tasks.
    pub(crate) tasks: u64,
    /// Which attempts: the logs that belong to it.
    pub(crate) attempts: HashSet<AttemptId>,
}

/// Copies the database of `data_dir` to `target`, and reads the copy once to prove that it can be; it blocks.
pub(crate) fn copy(data_dir: &Path, target: &Path) -> Result<Copied, StoreError> {
    let path = open::database_path(data_dir);
    let source = open::open_checkpointer(&path)?;
    open::check_kind(&source, &path)?;
    let mut copy = Connection::open(target)?;
    match Backup::new(&source, &mut copy)?.step(ALL_PAGES)? {
        StepResult::Done => {}
        // A step of all pages is done, or a lock was in its way for longer than the busy timeout.
        _ => return Err(StoreError::Busy { path }),
    }
    // One file without a log beside it; the daemon that opens it sets its own mode.
    copy.pragma_update(None, "journal_mode", "delete")?;
    drop(copy);
    look(target)
}

/// Looks whether `path` is a whole database of Forge, of a version that this one knows; it blocks.
pub(crate) fn look(path: &Path) -> Result<Copied, StoreError> {
    let copy = open::open_reader(path)?;
    open::check_kind(&copy, path)?;
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged { path: path.to_owned(), verdict });
    }
    let tasks = copy.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))?;
    let mut statement = copy.prepare("SELECT task, attempt FROM attempts")?;
    let attempts = statement.query_map([], |row| Ok(AttemptId { task: row.get(0)?, attempt: row.get(1)? }))?;
    Ok(Copied { tasks, attempts: attempts.collect::<Result<_, _>>()? })
}

/// The schema's version from which on tasks wait for approval.
const APPROVALS_SINCE: u32 = 7;

/// Why a task ends whose plan a restored database holds.
const PLAN_OF_A_BACKUP: &str =
    "its plan came back with a backup, and may have been carried out since that was taken: run the template again";

/// The schema that brought deliveries.
const DELIVERIES_SINCE: u32 = 8;

/// The schema that brought schedules.
const SCHEDULES_SINCE: u32 = 9;

/// Why a delivery of a backup is not sent.
const DELIVERY_OF_A_BACKUP: &str = "it came back with a backup, and may have been delivered since that was taken";

/// Ends what waits for approval, or was approved and did not begin, in a copy that is about to be used: the plan may have been carried
/// out since, and must not be a second time. Webhooks that wait are not sent either: they tell of what was true then; and a schedule has
/// fired since for what it would have missed. It blocks.
pub(crate) fn end_plans(path: &Path, now: Timestamp) -> Result<(), StoreError> {
    let mut copy = Connection::open(path)?;
    let version: u32 = copy.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < APPROVALS_SINCE {
        return Ok(());
    }
    const OPEN_PLANS: &str = "SELECT number FROM tasks WHERE state = 'awaiting_approval'
         OR (state IN ('queued', 'assigned') AND resume_attempt IS NOT NULL)";
    let transaction = copy.transaction()?;
    transaction.execute(
        &format!(
            "UPDATE attempts SET closed_at = ?1, closed_why = ?2 WHERE closed_at IS NULL AND task IN ({OPEN_PLANS})"
        ),
        params![now.unix_micros(), PLAN_OF_A_BACKUP],
    )?;
    transaction.execute(
        &format!(
            "UPDATE tasks SET state = 'canceled', reason = ?2, finished_at = ?1, deadline_at = NULL, secret_answers = NULL
             WHERE number IN ({OPEN_PLANS})"
        ),
        params![now.unix_micros(), PLAN_OF_A_BACKUP],
    )?;
    if version >= DELIVERIES_SINCE {
        transaction.execute(
            "UPDATE deliveries SET state = 'skipped', message = ?2, next_at = NULL, ended_at = ?1 WHERE state = 'waiting'",
            params![now.unix_micros(), DELIVERY_OF_A_BACKUP],
        )?;
    }
    if version >= SCHEDULES_SINCE {
        transaction.execute("UPDATE schedules SET until = max(until, ?1)", [now.unix_micros()])?;
    }
    Ok(transaction.commit()?)
}
