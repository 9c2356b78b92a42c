//! Files that are whole or not there: written beside their place, synced, renamed.
//!
//! It knows nothing of what is in them. It refuses to follow a half-written file: readers see the old one or the new one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The mode of what only the daemon reads.
pub(crate) const MODE_PRIVATE: u32 = 0o600;

/// The mode of what everyone may read.
pub(crate) const MODE_PUBLIC: u32 = 0o644;

/// How long a lock is tried that somebody holds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long is waited between two tries.
const LOCK_NAP: Duration = Duration::from_millis(10);

/// Something about a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {source}", path = path.display())]
pub struct FileError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// `verb` is what was tried, as in "write".
    pub(crate) fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self { verb, path: path.to_owned(), source }
    }

    /// What the system said.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Puts `bytes` at `path` in one step, with `mode`.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = temporary_beside(path);
    let written = write_synced(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_folder_of(path));
    written.map_err(|source| {
        // The rename may have happened already: then this finds nothing, which is fine.
        let _ = fs::remove_file(&temporary);
        FileError::new("write", path, source)
    })
}

/// Makes the folder `path`, 0700, where it is missing; one that is there keeps its mode.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FileError::new("make the folder", path, source))
}

/// The bytes of `path`; `None` when there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::new("read", path, source)),
    }
}

/// Two daemons never share a data folder, so the process's id keeps the name apart from a crashed one's leftovers.
fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The umask may have taken bits away, and a leftover of a crash keeps its own mode.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

/// Takes `file` for this process alone, for as long as it stays open; answers whether it could.
///
/// A program that was started a moment ago holds the files of who started it until it has become that program. So what a daemon or a
/// runner that was just killed seems to hold is tried again before it is believed.
pub(crate) fn lock_alone(file: &File) -> io::Result<bool> {
    let until = Instant::now() + LOCK_WAIT_MAX;
    lock_alone_until(file, || {
        std::thread::sleep(LOCK_NAP);
        Instant::now() >= until
    })
}

fn lock_alone_until(file: &File, mut gives_up: impl FnMut() -> bool) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if gives_up() => return Ok(false),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        write_atomic(&path, b"one", MODE_PUBLIC).expect("written");
        write_atomic(&path, b"two", MODE_PRIVATE).expect("replaced");
        assert_eq!(read_optional(&path).expect("readable").as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn an_error_names_the_file() {
        let error = write_atomic(Path::new("/nowhere/at/all"), b"", MODE_PRIVATE).expect_err("no such folder");
        assert!(error.to_string().starts_with("cannot write /nowhere/at/all: "), "{error}");
    }

    #[test]
    fn a_lock_that_is_let_go_is_taken_and_one_that_is_held_is_not() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let holder = File::open(file.path()).expect("opened");
        holder.lock().expect("locked");
        assert!(!lock_alone_until(file.as_file(), || true).expect("tried"));
        let mut holder = Some(holder);
        let lets_go = || {
            holder = None;
            false
        };
        assert!(lock_alone_until(file.as_file(), lets_go).expect("tried"));
    }
}
