//! Opening the data folder: one daemon a folder, one schema a database.
//!
//! Refuses a folder that another daemon uses, one that cannot be written, a file that is no database of Forge, and a database
//! from a newer version, which it leaves untouched.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use crate::files;

/// "FORG": what makes a database Forge's.
const APPLICATION_ID: i32 = 0x464f_5247;

/// Numbered changes of the schema, oldest first; a database's `user_version` is how many of them it has.
const MIGRATIONS: [&str; 20] = [
    include_str!("schema/0001_initial.sql"),
    include_str!("schema/0002_grants_and_counts.sql"),
    include_str!("schema/0003_revoked_tokens.sql"),
    include_str!("schema/0004_revisions_and_events.sql"),
    include_str!("schema/0005_tasks_by_state_and_project.sql"),
    include_str!("schema/0006_attempt_sessions.sql"),
    include_str!("schema/0007_approvals.sql"),
    include_str!("schema/0008_webhooks.sql"),
    include_str!("schema/0009_schedules.sql"),
    include_str!("schema/0010_integrations.sql"),
    include_str!("schema/0011_sessions.sql"),
    include_str!("schema/0012_revisions_and_load.sql"),
    include_str!("schema/0013_one_off_wait.sql"),
    include_str!("schema/0014_schedule_of_tasks.sql"),
    include_str!("schema/0015_told_of_approvals.sql"),
    include_str!("schema/0016_audit.sql"),
    include_str!("schema/0017_bad_ends.sql"),
    include_str!("schema/0018_clock.sql"),
    include_str!("schema/0019_tasks_by_state_and_template.sql"),
    include_str!("schema/0020_audit_filters.sql"),
];

/// How much of the disk is taken for the write-ahead log at once, in bytes: what is written within it changes no file's length, and a
/// commit waits for its own bytes alone. It is about what lies between two checkpoints.
const WAL_BYTES: u64 = 4 * 1024 * 1024;

/// How long a connection waits for another one's lock: only checkpoints and readers ever hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The lock that keeps a second daemon out, held for as long as this lives.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

/// Takes the data folder for this process.
pub(super) fn lock(data_dir: &Path) -> Result<FolderLock, StoreError> {
    let path = data_dir.join("forge.lock");
    let not_writable = |source| StoreError::Folder { path: data_dir.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(not_writable)?;
    if !files::lock_alone(&file).map_err(not_writable)? {
        let mut pid = String::new();
        // Who holds it is a courtesy: an unreadable file leaves the number out.
        let _read = file.read_to_string(&mut pid);
        let pid = pid.trim();
        let pid = if pid.is_empty() { "unknown".to_owned() } else { pid.to_owned() };
        return Err(StoreError::InUse { path: data_dir.to_owned(), pid });
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(not_writable)?;
    Ok(FolderLock { _file: file })
}

/// Opens the database for writing and brings its schema up to date.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    if !path.exists() {
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        created.map_err(|source| StoreError::Folder { path: path.to_owned(), source })?;
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check_kind(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(|error| opening(path, error))?;
    connection.pragma_update(None, "synchronous", "full").map_err(|error| opening(path, error))?;
    connection.pragma_update(None, "foreign_keys", true).map_err(|error| opening(path, error))?;
    // What takes one operation of a batch back would go to a file once it is longer than 64 KiB, and making a task is.
    connection.pragma_update(None, "temp_store", "memory").map_err(|error| opening(path, error))?;
    // Checkpoints run on a connection of their own, so that no commit waits for one.
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(|error| opening(path, error))?;
    migrate(&mut connection).map_err(|error| opening(path, error))?;
    if let Err(error) = extend_wal(path) {
        // It grows by itself, only slower.
        tracing::debug!(%error, "the write-ahead log was not made longer");
    }
    Ok(connection)
}

/// Fills the write-ahead log up with zeros. SQLite passes over what follows the last whole commit: an older log leaves such ends, too.
fn extend_wal(path: &Path) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let mut file = OpenOptions::new().append(true).open(PathBuf::from(name))?;
    let length = file.metadata()?.len();
    let missing = usize::try_from(WAL_BYTES.saturating_sub(length)).unwrap_or_default();
    file.write_all(&vec![0; missing])?;
    file.sync_all()
}

/// Opens the database for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens the database for checkpoints.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn opening(path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Open { path: path.to_owned(), source }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| opening(path, error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| opening(path, error))?;
    connection.set_prepared_statement_cache_capacity(128);
    // Plans do not hang on what is bound to a statement. Otherwise SQLite, as it is built here (STAT4), prepares most statements
    // anew at each use, since another value might let it use a partial index: a third of the daemon's time under load.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|error| opening(path, error))?;
    Ok(connection)
}

/// Refuses what is no database of Forge, and one from a newer version.
pub(super) fn check_kind(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let read = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = read("user_version").map_err(|error| opening(path, error))?;
    let application = read("application_id").map_err(|error| opening(path, error))?;
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(|error| opening(path, error))?;
    if application != i64::from(APPLICATION_ID) && (objects > 0 || application != 0) {
        return Err(StoreError::NotForge { path: path.to_owned() });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(StoreError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or_default();
    for (number, sql) in (1_i64..).zip(MIGRATIONS).skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

/// A database that is nowhere else.
#[cfg(test)]
pub(super) fn in_memory() -> Connection {
    let mut connection = Connection::open_in_memory().expect("a database");
    migrate(&mut connection).expect("its schema");
    connection
}

/// Where the database lies.
pub(super) fn database_path(data_dir: &Path) -> PathBuf {
    data_dir.join("forge.db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_from_a_newer_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = database_path(folder.path());
        drop(open_writer(&path).expect("a new database"));
        let connection = Connection::open(&path).expect("opens");
        connection.pragma_update(None, "user_version", 1_000).expect("set");
        connection.pragma_update(None, "journal_mode", "delete").expect("one file");
        drop(connection);
        let before = std::fs::read(&path).expect("read");
        let error = open_writer(&path).expect_err("newer");
        let text = error.to_string();
        assert!(text.contains("version 1000") && text.contains(&format!("version {}", MIGRATIONS.len())), "{text}");
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }

    #[test]
    fn a_strange_database_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = database_path(folder.path());
        Connection::open(&path).expect("opens").execute_batch("CREATE TABLE pets (name TEXT)").expect("a table");
        assert!(matches!(open_writer(&path), Err(StoreError::NotForge { .. })));
        std::fs::write(&path, "not a database at all, but long enough to look at").expect("write");
        assert!(matches!(open_writer(&path), Err(StoreError::Open { .. })));
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_whose_folder_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = lock(folder.path()).expect("the first");
        let text = lock(folder.path()).expect_err("the second").to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        drop(held);
        lock(folder.path()).expect("free again");
    }

    #[test]
    fn a_lengthened_write_ahead_log_loses_nothing_and_is_written_from_its_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = database_path(folder.path());
        let connection = open_writer(&path).expect("new");
        let wal = folder.path().join("forge.db-wal");
        assert!(std::fs::metadata(&wal).expect("there").len() >= WAL_BYTES);
        connection.execute_batch("CREATE TABLE kept (n); INSERT INTO kept VALUES (7)").expect("written");
        assert!(std::fs::metadata(&wal).expect("there").len() < WAL_BYTES + 64 * 1024, "it did not grow");
        // As after a power cut: what another process finds is the files alone.
        let copy = tempfile::tempdir().expect("a folder");
        for name in ["forge.db", "forge.db-wal"] {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).expect("copied");
        }
        let again = open_writer(&database_path(copy.path())).expect("recovered");
        let kept: i64 = again.query_row("SELECT n FROM kept", [], |row| row.get(0)).expect("there");
        assert_eq!(kept, 7);
    }

    #[test]
    fn opening_twice_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = database_path(folder.path());
        drop(open_writer(&path).expect("new"));
        drop(open_writer(&path).expect("known"));
    }
}
