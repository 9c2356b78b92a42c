//! A copy of the database while the daemon writes, through SQLite's online backup; and a look at a copy before it is trusted.
//!
//! The copy is made in one step, which is one read transaction: it holds everything that was committed, and so acknowledged,
//! before it began, and nothing by halves. In WAL mode it keeps no writer waiting.

use std::collections::HashSet;
use std::path::Path;

use forge_api::AttemptId;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

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
