//! `forge backup` and `forge restore`: what a daemon remembers, in one tar file and back again.
//!
//! A backup is taken beside a daemon that runs. It holds the database, the logs of exactly the attempts that the database knows,
//! the daemon's keys (without them no runner would believe it, and no secret answer could be opened), its own CA and certificate,
//! the last good revision and the components that open tasks name. It does not hold what stands in git, forge.toml, or the files
//! that forge.toml names. Restoring needs a data folder without any of that, and refuses every other.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use forge_api::{AttemptId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::files::{self, MODE_PRIVATE};
use crate::store::StoreError;
use crate::store::copies::{self, Copied};

/// The format's number; another number is another format.
const FORMAT: u32 = 1;

/// The first entry of the file: what it is.
const NOTE: &str = "forge-backup.json";

/// The most bytes of that entry.
const NOTE_BYTES_MAX: u64 = 64 * 1024;

/// The database's name in the data folder and in the file.
const DATABASE: &str = "forge.db";

/// The folder of logs in the data folder and in the file.
const LOGS: &str = "logs";

/// What else is kept, whole: what waits for approval, the keys, the TLS material, the last good revision, the components of plugins.
const FOLDERS: [&str; 5] = [crate::carries::FOLDER, "config", "keys", "plugins", "tls"];

/// What is made again and need not be kept: plugins as this machine compiled them.
const COMPILED: &str = "compiled";

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or folder.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    File {
        /// What was tried, as in "write".
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing to back up.
    #[error("{path} holds no database: name the settings of the daemon that is meant with --config", path = path.display())]
    Nothing {
        /// The data folder.
        path: PathBuf,
    },
    /// The file is no backup.
    #[error("{path} is no backup of Forge: {cause}; name a file that `forge backup` wrote", path = path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Something would be overwritten.
    #[error("{path} is there already, and nothing is overwritten: stop the daemon and move its data folder away first", path = path.display())]
    Occupied {
        /// What is there.
        path: PathBuf,
    },
}

/// What a backup holds.
#[derive(Clone, Copy, Debug)]
pub struct BackupReport {
    /// How many tasks.
    pub tasks: u64,
    /// How many logs.
    pub logs: u64,
    /// How long the file is.
    pub bytes: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
}

/// What the first entry says.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    version: String,
    taken_at: Timestamp,
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { verb, path, source }
}

/// Writes what the daemon of `data_dir` remembers into `target`, whole or not at all, for its owner alone; the daemon may run.
/// It blocks.
///
/// # Errors
/// A file cannot be read or written, or the database's copy is not whole.
pub fn backup(data_dir: &Path, target: &Path) -> Result<BackupReport, BackupError> {
    if !data_dir.join(DATABASE).exists() {
        return Err(BackupError::Nothing { path: data_dir.to_owned() });
    }
    let folder = folder_of(target);
    // Both lie beside the target, where there must be space for them: the data folder's disk may be the full one.
    let mut scratch = tempfile::Builder::new();
    scratch.prefix(".forge-backup-");
    let copy = scratch.tempdir_in(folder).map_err(failed("make a folder in", folder))?;
    let file = scratch.tempfile_in(folder).map_err(failed("make a file in", folder))?;
    let taken_at = Clock::system().now();
    let mut tar = tar::Builder::new(file.as_file());
    let note = Note { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), taken_at };
    let note = serde_json::to_vec_pretty(&note).map_err(|error| failed("write", target)(error.into()))?;
    append_bytes(&mut tar, NOTE, &note).map_err(failed("write", target))?;

    // The database comes first: a log that is copied later has at least the bytes that the database knows of.
    let database = copy.path().join(DATABASE);
    let Copied { tasks, attempts } = copies::copy(data_dir, &database)?;
    append_file(&mut tar, &database, Path::new(DATABASE))?;
    for name in FOLDERS {
        append_folder(&mut tar, data_dir, Path::new(name))?;
    }
    let mut logs = 0;
    for path in logs_of(data_dir, |id| attempts.contains(&id))? {
        // One that was forgotten meanwhile is not missed: its task was over, and past its retention.
        logs += u64::from(append_file(&mut tar, &data_dir.join(&path), &path)?);
    }
    tar.finish().map_err(failed("write", target))?;
    drop(tar);
    let bytes = file.as_file().metadata().map_err(failed("read", target))?.len();
    file.as_file().sync_all().map_err(failed("write", target))?;
    file.persist(target).map_err(|error| failed("write", target)(error.error))?;
    sync(folder)?;
    Ok(BackupReport { tasks, logs, bytes, taken_at })
}

/// Brings a backup back into `data_dir`, which must hold no daemon's data. Everything is unpacked beside its place and looked at
/// before anything is put there, the database last. It blocks.
///
/// # Errors
/// The file is no whole backup, or the folder is in use.
pub fn restore(source: &Path, data_dir: &Path) -> Result<BackupReport, BackupError> {
    files::make_private_folder(data_dir).map_err(|error| failed("make the folder", data_dir)(error.kind().into()))?;
    let names = || [DATABASE, LOGS].into_iter().chain(FOLDERS);
    for name in names().chain(["forge.sock", "addresses.json"]) {
        let path = data_dir.join(name);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(BackupError::Occupied { path });
        }
    }
    let mut scratch = tempfile::Builder::new();
    scratch.prefix(".forge-restore-");
    let scratch = scratch.tempdir_in(data_dir).map_err(failed("make a folder in", data_dir))?;
    let file = File::open(source).map_err(failed("read", source))?;
    let bytes = file.metadata().map_err(failed("read", source))?.len();
    let note = unpack(file, source, scratch.path())?;
    let Copied { tasks, attempts } = copies::look(&scratch.path().join(DATABASE))?;
    copies::end_plans(&scratch.path().join(DATABASE), Clock::system().now())?;
    let logs = logs_of(scratch.path(), |id| attempts.contains(&id))?.len() as u64;
    give_to_owner_of(data_dir, scratch.path()).map_err(failed("give away", scratch.path()))?;
    // Logs are there even when none was kept, and the database makes the folder a daemon's: it comes last.
    for name in names().filter(|name| *name != DATABASE).chain([DATABASE]) {
        let from = scratch.path().join(name);
        if from.exists() {
            let to = data_dir.join(name);
            fs::rename(&from, &to).map_err(failed("write", &to))?;
        }
    }
    sync(data_dir)?;
    Ok(BackupReport { tasks, logs, bytes, taken_at: note.taken_at })
}

/// Unpacks what a backup may hold, and refuses everything else.
fn unpack(file: File, source: &Path, into: &Path) -> Result<Note, BackupError> {
    let no_backup = |cause: String| BackupError::NoBackup { path: source.to_owned(), cause };
    let garbled = |error: io::Error| no_backup(error.to_string());
    let mut tar = tar::Archive::new(io::BufReader::new(file));
    let mut note = None;
    for entry in tar.entries().map_err(garbled)? {
        let mut entry = entry.map_err(garbled)?;
        let path = entry.path().map_err(garbled)?.into_owned();
        if note.is_none() {
            if path != Path::new(NOTE) {
                return Err(no_backup(format!("it begins with {path:?} and not with {NOTE}")));
            }
            let mut text = Vec::new();
            entry.by_ref().take(NOTE_BYTES_MAX).read_to_end(&mut text).map_err(garbled)?;
            let read: Note = serde_json::from_slice(&text).map_err(|error| no_backup(error.to_string()))?;
            if read.format != FORMAT {
                let cause = format!("format {} of forge {}; this one knows {FORMAT}", read.format, read.version);
                return Err(no_backup(cause));
            }
            note = Some(read);
            continue;
        }
        if !is_ours(&path) || !entry.header().entry_type().is_file() {
            return Err(no_backup(format!("it holds {path:?}, which no backup does")));
        }
        let target = into.join(&path);
        files::make_private_folder(folder_of(&target))
            .map_err(|error| failed("make the folder of", &target)(error.kind().into()))?;
        let mode = entry.header().mode().map_err(garbled)? & 0o644;
        let mut written = File::create_new(&target).map_err(failed("write", &target))?;
        io::copy(&mut entry, &mut written).map_err(failed("write", &target))?;
        written
            .set_permissions(fs::Permissions::from_mode(mode))
            .and_then(|()| written.sync_all())
            .map_err(failed("write", &target))?;
    }
    note.ok_or_else(|| no_backup("it is empty".to_owned()))
}

/// Whether a backup may hold this path: nothing leads out of the folder, and nothing is put where Forge would not.
fn is_ours(path: &Path) -> bool {
    let mut parts = path.components();
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let first = parts.next().map(|part| part.as_os_str().to_owned()).unwrap_or_default();
    let is_folder = first == LOGS || FOLDERS.iter().any(|name| first == *name);
    is_plain && if is_folder { parts.next().is_some() } else { path == Path::new(DATABASE) }
}

/// The logs of the attempts that are wanted, relative to the data folder, in order.
fn logs_of(data_dir: &Path, wanted: impl Fn(AttemptId) -> bool) -> Result<BTreeSet<PathBuf>, BackupError> {
    let mut found = BTreeSet::new();
    for shelf in entries(&data_dir.join(LOGS))? {
        for path in entries(&shelf)? {
            // What follows the first dot is how the log is kept.
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let id = name.split('.').next().and_then(|name| name.parse::<AttemptId>().ok());
            if let (Some(_wanted), Ok(relative)) = (id.filter(|id| wanted(*id)), path.strip_prefix(data_dir)) {
                found.insert(relative.to_owned());
            }
        }
    }
    Ok(found)
}

/// What lies in a folder; a folder that is not there holds nothing.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let paths = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    paths.map_err(failed("list", folder))
}

fn append_folder(tar: &mut tar::Builder<&File>, data_dir: &Path, relative: &Path) -> Result<(), BackupError> {
    for path in entries(&data_dir.join(relative))? {
        let Some(name) = path.file_name() else { continue };
        // A dot begins what is half written.
        if name == COMPILED || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let below = relative.join(name);
        if path.is_dir() {
            append_folder(tar, data_dir, &below)?;
        } else {
            append_file(tar, &path, &below)?;
        }
    }
    Ok(())
}

/// Appends a file as long as it is at this moment; answers false when there is none.
fn append_file(tar: &mut tar::Builder<&File>, path: &Path, name: &Path) -> Result<bool, BackupError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    let length = metadata.len();
    let mut header = header(length, metadata.mode() & 0o777);
    // A log grows while it is read; what comes after this moment is not in the backup.
    tar.append_data(&mut header, name, file.take(length)).map_err(failed("copy", path))?;
    Ok(true)
}

fn append_bytes(tar: &mut tar::Builder<&File>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64, MODE_PRIVATE), name, bytes)
}

fn header(length: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(mode);
    header
}

/// Root restores for the daemon's user: what is unpacked gets the owner of the data folder.
fn give_to_owner_of(data_dir: &Path, path: &Path) -> io::Result<()> {
    let owner = fs::metadata(data_dir)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn sync(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_holds_nothing_that_leads_elsewhere() {
        for ours in ["forge.db", "keys/signing.key", "logs/0/1-1.log", "tls/ca.pem"] {
            assert!(is_ours(Path::new(ours)), "{ours}");
        }
        for foreign in ["/etc/passwd", "../forge.db", "keys/../../x", "logs", "other", "forge.db/x", "forge.lock", ""] {
            assert!(!is_ours(Path::new(foreign)), "{foreign}");
        }
    }

    #[test]
    fn a_file_that_is_no_backup_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, data_dir) = (folder.path().join("file"), folder.path().join("data"));
        fs::write(&file, [b'x'; 2_048]).expect("written");
        assert!(matches!(restore(&file, &data_dir), Err(BackupError::NoBackup { .. })));
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header(2, 0o600), "forge.db", &b"no"[..]).expect("appended");
        fs::write(&file, tar.into_inner().expect("a tar")).expect("written");
        let error = restore(&file, &data_dir).expect_err("no note").to_string();
        assert!(error.contains(NOTE), "{error}");
        assert_eq!(fs::read_dir(&data_dir).expect("a folder").count(), 0);
    }
}
