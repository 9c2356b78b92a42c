//! Small steps on files that must never be half done or readable by others.
//!
//! What is written here is written whole: to a temporary name, synced, renamed, and the folder synced after it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock is tried that somebody holds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long is waited between two tries.
const LOCK_NAP: Duration = Duration::from_millis(10);

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of `bytes` in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The length and the SHA-256 of a file, however large; of an empty one when there is none.
pub(crate) fn measure(path: &Path) -> io::Result<(u64, String)> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut length = 0;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, sha256_hex(b""))),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; MEASURE_BYTES];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok((length, hex(digest.finish().as_ref()))),
            Ok(read) => {
                digest.update(buffer.get(..read).unwrap_or_default());
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// How much of a file is read at a time while it is measured, in bytes.
const MEASURE_BYTES: usize = 256 * 1024;

/// Random bytes in lower-case hex.
pub(crate) fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(hex(&bytes))
}

/// Makes a folder that only this user can enter, with its parents; one that is there already is closed to others.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path)?;
            if !found.is_dir() {
                return Err(io::Error::other("it is there and is no folder"));
            }
            if found.uid() != rustix::process::geteuid().as_raw() {
                return Err(io::Error::other(format!("it belongs to another user (uid {})", found.uid())));
            }
            if found.mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Writes a new file that only this user can read; one that is there already is an error.
pub(crate) fn write_new_private(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)
}

/// Puts `bytes` in the place of whatever is at `path`, 0600, wholly or not at all, also over a power cut.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = crate::settings::folder_of(path);
    let mut file = tempfile::Builder::new().prefix(".forge-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync(folder)
}

/// Has a file or folder survive a power cut; one that is not there does not matter.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what is at `path`, a folder with everything in it; what is not there is as good as removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What keeps a secret file from being one: `Some` with words for people when others can read it.
pub(crate) fn readable_by_others(path: &Path, file: &File) -> io::Result<Option<String>> {
    let mode = file.metadata()?.mode() & 0o777;
    Ok((mode & 0o077 != 0).then(|| format!("others can read it (mode {mode:04o}): run `chmod 600 {}`", path.display())))
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
    fn a_replaced_file_is_private_and_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        fs::write(&path, "old").expect("written");
        replace_private(&path, b"new").expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(fs::metadata(&path).expect("found").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_private_folder_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b");
        make_private_folder(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opened");
        make_private_folder(&path).expect("made again");
        assert_eq!(fs::metadata(&path).expect("found").mode() & 0o777, 0o700);
        remove(&path).expect("removed");
        remove(&path).expect("removed already");
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
