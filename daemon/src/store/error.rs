//! Why the store did not open, or did not do what it was asked: in words for people, and as data for the core.

use std::path::PathBuf;
use std::sync::Arc;

use forge_api::TaskState;

/// Why the store did not open, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error(
        "{} cannot be used: {source}; give data_dir a folder that this user may write, or run `chown` on this one",
        path.display()
    )]
    Folder {
        /// The folder or the file in it.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another daemon is at work there.
    #[error("another forge daemon (pid {pid}) uses {}; stop it, or give this one a data_dir of its own", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other's process id, as it wrote it.
        pid: String,
    },
    /// A newer Forge wrote it.
    #[error(
        "{} has schema version {found}, and this forge knows version {known} at most; it was not touched: run a newer \
         forge, or bring back the backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Something else's file.
    #[error("{} is not a database of Forge; move it away, or give data_dir another folder", path.display())]
    NotForge {
        /// The file.
        path: PathBuf,
    },
    /// SQLite could not open it.
    #[error("{} could not be opened: {source}; restore it from a backup when it is damaged", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Something held the database for too long.
    #[error("{} was locked for too long to be copied; try again, and look for another program that has it open", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// A copy of it is not whole.
    #[error("{} is damaged: {verdict}", path.display())]
    Damaged {
        /// The copy.
        path: PathBuf,
        /// What SQLite says.
        verdict: String,
    },
    /// A thread could not be started.
    #[error("the store's thread could not be started: {source}")]
    Thread {
        /// What the system says.
        source: std::io::Error,
    },
    /// The transaction was not committed: nothing of it happened.
    #[error("the store could not commit: {0}")]
    Commit(Arc<rusqlite::Error>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// SQLite refused a statement.
    #[error("the store failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The operation is one of our own mistakes; it changed nothing.
    #[error("the store's operation panicked; the daemon's log says where")]
    Panicked,
    /// The operation does not go with how things stand.
    #[error("refused: {0:?}")]
    Refused(Refused),
}

impl StoreError {
    /// Whether there was no room for it.
    pub(crate) fn is_full(&self) -> bool {
        let is_full = |error: &rusqlite::Error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        match self {
            Self::Sql(error) => is_full(error),
            Self::Commit(error) => is_full(error),
            Self::Folder { .. }
            | Self::InUse { .. }
            | Self::Newer { .. }
            | Self::NotForge { .. }
            | Self::Open { .. }
            | Self::Busy { .. }
            | Self::Damaged { .. }
            | Self::Thread { .. }
            | Self::Closed
            | Self::Panicked
            | Self::Refused(_) => false,
        }
    }

    /// Whether it is the disk's or the database's own trouble, and not that of the one row that was asked for.
    pub(crate) fn is_everyones(&self) -> bool {
        match self {
            Self::Sql(error) => matches!(error, rusqlite::Error::SqliteFailure(..)),
            Self::Refused(_) | Self::Panicked => false,
            Self::Folder { .. }
            | Self::InUse { .. }
            | Self::Newer { .. }
            | Self::NotForge { .. }
            | Self::Open { .. }
            | Self::Busy { .. }
            | Self::Damaged { .. }
            | Self::Thread { .. }
            | Self::Commit(_)
            | Self::Closed => true,
        }
    }
}

/// What does not go with how things stand; the core says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such task.
    NoTask,
    /// There is no such attempt.
    NoAttempt,
    /// There is no such runner.
    NoRunner,
    /// There is no such delivery.
    NoDelivery,
    /// The task ended.
    Ended {
        /// How.
        state: TaskState,
    },
    /// The task is in an open state to which this cannot happen.
    Open {
        /// Which.
        state: TaskState,
    },
    /// The attempt is closed.
    Gone {
        /// Why.
        reason: String,
    },
    /// A newer attempt exists.
    Older {
        /// Its number.
        newest: u32,
    },
    /// The idempotency key was used for another request.
    KeyReused {
        /// The task that it made.
        task: u64,
    },
    /// Another key is registered under the name.
    NameTaken,
    /// The registration token is used up.
    TokenUsedUp {
        /// How often it was good.
        uses: u32,
    },
}
