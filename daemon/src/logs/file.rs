//! One log: its length, how much of it is on disk for good, and the running SHA-256 of all of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use forge_api::LogAccepted;
use ring::digest::{Context, Digest, SHA256, digest};
use tokio::sync::watch;

use super::{LogError, Verdict};
use crate::scheduler::spec::hex;

/// The hash of nothing.
static EMPTY: LazyLock<Digest> = LazyLock::new(|| digest(&SHA256, b""));

/// How much is read at a time to compare or to hash.
const PIECE_BYTES: usize = 256 * 1024;

/// One attempt's log.
pub(crate) struct LogFile {
    path: PathBuf,
    bytes_max: u64,
    state: Mutex<Option<Opened>>,
    /// The same as in `state`, for those who must not wait for a disk: [`UNKNOWN`] while the file is not open.
    known_length: AtomicU64,
    known_synced: AtomicU64,
    /// The length, for those who wait for more.
    length: watch::Sender<u64>,
}

/// What `known_length` holds while it is not known.
const UNKNOWN: u64 = u64::MAX;

struct Opened {
    file: File,
    /// How often the log was emptied: a sync that began before says nothing of what came after.
    restarts: u64,
    length: u64,
    synced: u64,
    /// Whether the folder's entry for it is on disk for good.
    entry_synced: bool,
    /// Over the first `hashed` bytes.
    hash: Context,
    hashed: u64,
    /// Its runner said other bytes than it holds.
    is_disputed: bool,
}

/// A log on its way to the disk: what of it is there once its file is synced, and its folder's entry where that is new.
pub(super) struct Syncing {
    pub(super) file: File,
    pub(super) entry_is_new: bool,
    length: u64,
    restarts: u64,
}

impl std::fmt::Debug for LogFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LogFile {
    pub(super) fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self {
            path,
            bytes_max,
            state: Mutex::new(None),
            known_length: AtomicU64::new(UNKNOWN),
            known_synced: AtomicU64::new(0),
            length: watch::Sender::new(0),
        }
    }

    fn io(&self) -> impl Fn(std::io::Error) -> LogError + '_ {
        |source| LogError::Io { path: self.path.clone(), source }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        // What a panicking thread left is a length and a hash that were advanced only after the write.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows others what a change under the lock came to.
    fn publish(&self, opened: &Opened) {
        self.known_synced.store(opened.synced, Ordering::Release);
        self.known_length.store(opened.length, Ordering::Release);
    }

    fn opened<'a>(&self, state: &'a mut Option<Opened>) -> Result<&'a mut Opened, LogError> {
        if let Some(opened) = state {
            return Ok(opened);
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(self.io())?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .map_err(self.io())?;
        let length = file.metadata().map_err(self.io())?.len();
        self.length.send_replace(length);
        // What an earlier process wrote counts as synced once it is, with the next round.
        let opened = Opened {
            file,
            restarts: 0,
            length,
            synced: 0,
            entry_synced: false,
            hash: Context::new(&SHA256),
            hashed: 0,
            is_disputed: false,
        };
        self.publish(&opened);
        Ok(state.insert(opened))
    }

    /// The length, where it is known without asking the disk; it never waits.
    pub(super) fn known_length(&self) -> Option<u64> {
        Some(self.known_length.load(Ordering::Acquire)).filter(|length| *length != UNKNOWN)
    }

    /// The length; it never opens the file.
    pub(super) fn current_length(&self) -> Result<u64, LogError> {
        if let Some(length) = self.known_length() {
            return Ok(length);
        }
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(LogError::Io { path: self.path.clone(), source }),
        }
    }

    /// Whether the log is this one, and on disk for good; false also where that cannot be told without waiting.
    pub(super) fn is_whole_now(&self, length: u64, sha256: &str) -> bool {
        let Ok(state) = self.state.try_lock() else { return false };
        match &*state {
            None => length == 0 && sha256 == hex(EMPTY.as_ref()) && !self.path.exists(),
            Some(opened) => {
                [opened.length, opened.synced, opened.hashed] == [length; 3]
                    && hex(opened.hash.clone().finish().as_ref()) == sha256
            }
        }
    }

    /// Whether something is not on disk for good; it never waits.
    pub(super) fn is_dirty(&self) -> bool {
        self.known_length().is_some_and(|length| self.known_synced.load(Ordering::Acquire) < length)
    }

    /// Who waits for more.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.length.subscribe()
    }

    /// Takes `bytes` that begin at `first`.
    pub(super) fn append(&self, first: u64, bytes: &[u8]) -> Result<LogAccepted, LogError> {
        let mut state = self.lock();
        let opened = self.opened(&mut state)?;
        let length = opened.length;
        if first > length {
            return Err(LogError::Gap { length });
        }
        let end = first.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > self.bytes_max && end > length {
            return Err(LogError::TooLong { bytes_max: self.bytes_max });
        }
        let known = usize::try_from(length - first).unwrap_or(usize::MAX).min(bytes.len());
        let (known, new) = bytes.split_at(known);
        if !same_bytes(&opened.file, first, known).map_err(self.io())? {
            opened.is_disputed = true;
            return Err(LogError::Differs { length });
        }
        if !new.is_empty() {
            opened.file.write_all_at(new, length).map_err(self.io())?;
            if opened.hashed == length {
                opened.hash.update(new);
                opened.hashed = end;
            }
            opened.length = end;
            self.publish(opened);
            self.length.send_replace(end);
        }
        Ok(LogAccepted { length: opened.length, synced: opened.synced })
    }

    /// What has to be brought to disk; `None` where nothing has. Appending goes on meanwhile.
    pub(super) fn begin_sync(&self) -> Result<Option<Syncing>, LogError> {
        match &*self.lock() {
            Some(opened) if opened.synced < opened.length => Ok(Some(Syncing {
                file: opened.file.try_clone().map_err(self.io())?,
                entry_is_new: !opened.entry_synced,
                length: opened.length,
                restarts: opened.restarts,
            })),
            Some(_) | None => Ok(None),
        }
    }

    /// The folder that its entry is in.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// It was brought to disk, its folder's entry too.
    pub(super) fn end_sync(&self, syncing: &Syncing) {
        if let Some(opened) = self.lock().as_mut().filter(|opened| opened.restarts == syncing.restarts) {
            opened.synced = opened.synced.max(syncing.length);
            opened.entry_synced = true;
            self.publish(opened);
        }
    }

    /// An error of this file.
    pub(super) fn failed(&self, source: std::io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }

    /// Compares with what its runner says of it.
    pub(super) fn verify(&self, length: u64, sha256: &str) -> Result<(Verdict, u64), LogError> {
        let mut state = self.lock();
        // An empty log has no file, and needs none.
        if state.is_none() && length == 0 && !self.path.exists() {
            let same = sha256 == hex(EMPTY.as_ref());
            return Ok((if same { Verdict::Whole } else { Verdict::Wrong }, 0));
        }
        let opened = self.opened(&mut state)?;
        if opened.is_disputed || opened.length > length {
            return Ok((Verdict::Forked, opened.length));
        }
        if opened.length < length {
            return Ok((Verdict::Short, opened.length));
        }
        // After a restart the running hash begins anew: what lies on disk is read once.
        let mut piece = vec![0; PIECE_BYTES];
        while opened.hashed < opened.length {
            let read = opened.file.read_at(&mut piece, opened.hashed).map_err(self.io())?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Ok((Verdict::Wrong, opened.length));
            };
            opened.hash.update(bytes);
            opened.hashed += u64::try_from(read).unwrap_or_default();
        }
        let same = hex(opened.hash.clone().finish().as_ref()) == sha256;
        Ok((if same { Verdict::Whole } else { Verdict::Wrong }, opened.length))
    }

    /// Empties the log.
    pub(super) fn restart(&self) -> Result<(), LogError> {
        let mut state = self.lock();
        let opened = self.opened(&mut state)?;
        opened.file.set_len(0).map_err(self.io())?;
        *opened = Opened {
            file: opened.file.try_clone().map_err(self.io())?,
            restarts: opened.restarts + 1,
            length: 0,
            synced: 0,
            entry_synced: opened.entry_synced,
            hash: Context::new(&SHA256),
            hashed: 0,
            is_disputed: false,
        };
        self.publish(opened);
        self.length.send_replace(0);
        Ok(())
    }

    /// At most `length_max` bytes from `offset`.
    pub(super) fn read(&self, offset: u64, length_max: usize) -> Result<Vec<u8>, LogError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(LogError::Io { path: self.path.clone(), source }),
        };
        let left = self.current_length()?.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(length_max)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match file.read_at(rest, at).map_err(self.io())? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

fn same_bytes(file: &File, first: u64, bytes: &[u8]) -> Result<bool, std::io::Error> {
    let mut piece = vec![0; bytes.len().min(PIECE_BYTES)];
    let mut at = first;
    for expected in bytes.chunks(PIECE_BYTES) {
        let Some(found) = piece.get_mut(..expected.len()) else {
            return Ok(false);
        };
        file.read_exact_at(found, at)?;
        if found != expected {
            return Ok(false);
        }
        at += u64::try_from(expected.len()).unwrap_or_default();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sha256(bytes: &[u8]) -> String {
        hex(digest(&SHA256, bytes).as_ref())
    }

    #[test]
    fn a_gap_is_refused_with_the_length_and_other_bytes_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("0/1-1.log"), 1_000);
        assert_eq!(log.append(0, b"hello ").expect("the first").length, 6);
        assert!(matches!(log.append(7, b"x"), Err(LogError::Gap { length: 6 })));
        assert_eq!(log.append(3, b"lo world").expect("overlaps").length, 11);
        assert_eq!(log.read(0, 100).expect("reads"), b"hello world");
        assert_eq!(log.verify(11, &sha256(b"hello world")).expect("hashes"), (Verdict::Whole, 11));
        assert_eq!(log.verify(12, &sha256(b"hello world")).expect("hashes"), (Verdict::Short, 11));
        assert_eq!(log.verify(10, &sha256(b"hello worl")).expect("looks"), (Verdict::Forked, 11));
        assert!(matches!(log.append(0, b"jello"), Err(LogError::Differs { length: 11 })));
        assert_eq!(log.verify(12, &sha256(b"jello world!")).expect("looks"), (Verdict::Forked, 11));
    }

    #[test]
    fn only_what_is_synced_is_said_to_be_and_another_process_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1-1.log");
        let log = LogFile::new(path.clone(), 1_000);
        assert_eq!(log.append(0, b"abc").expect("written").synced, 0);
        assert!(log.is_dirty() && !log.is_whole_now(3, &sha256(b"abc")));
        let syncing = log.begin_sync().expect("begins").expect("there is something");
        assert!(syncing.entry_is_new);
        log.end_sync(&syncing);
        assert!(log.is_whole_now(3, &sha256(b"abc")) && !log.is_whole_now(3, &sha256(b"abd")));
        assert!(log.begin_sync().expect("begins").is_none());
        assert_eq!(log.append(0, b"abc").expect("again"), LogAccepted { length: 3, synced: 3 });
        drop(log);
        let log = LogFile::new(path, 1_000);
        assert_eq!(log.append(3, b"def").expect("goes on").length, 6);
        assert_eq!(log.verify(6, &sha256(b"abcdef")).expect("hashes"), (Verdict::Whole, 6));
    }

    #[test]
    fn an_empty_log_is_whole_without_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0/1-1.log");
        let log = LogFile::new(path.clone(), 1_000);
        assert!(log.is_whole_now(0, &sha256(b"")) && !log.is_whole_now(0, "00"));
        assert_eq!(log.verify(0, &sha256(b"")).expect("looks"), (Verdict::Whole, 0));
        assert_eq!(log.verify(0, "00").expect("looks"), (Verdict::Wrong, 0));
        assert!(!path.exists() && !path.parent().expect("a folder").exists());
        log.append(0, b"a").expect("written");
        assert_eq!(log.verify(0, &sha256(b"")).expect("looks"), (Verdict::Forked, 1));
    }

    #[test]
    fn a_log_that_is_too_long_says_so_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("1-1.log"), 4);
        log.append(0, b"abcd").expect("just fits");
        assert!(matches!(log.append(4, b"e"), Err(LogError::TooLong { bytes_max: 4 })));
        assert_eq!(log.append(2, b"cd").expect("known bytes").length, 4);
    }

    #[test]
    fn who_asks_for_a_length_never_waits_for_a_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("1-1.log"), 1_000);
        assert_eq!((log.known_length(), log.is_dirty()), (None, false));
        log.append(0, b"abc").expect("written");
        // As long as a write or a hash takes, its thread holds this.
        let _busy = log.lock();
        assert_eq!((log.known_length(), log.is_dirty()), (Some(3), true));
    }

    proptest! {
        #[test]
        fn any_patches_give_exactly_the_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 1..2_000),
            cuts in proptest::collection::vec((0..2_000_usize, 1..400_usize), 0..60),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let log = LogFile::new(folder.path().join("1-1.log"), 10_000);
            let mut length = 0;
            for (first, size) in cuts {
                let first = first % bytes.len();
                let piece = &bytes[first..bytes.len().min(first + size)];
                match log.append(first as u64, piece) {
                    Ok(accepted) => {
                        prop_assert!(first as u64 <= length);
                        length = length.max((first + piece.len()) as u64);
                        prop_assert_eq!(accepted.length, length);
                    }
                    Err(LogError::Gap { length: held }) => {
                        prop_assert!(first as u64 > length);
                        prop_assert_eq!(held, length);
                    }
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
                prop_assert_eq!(log.read(0, 10_000).expect("reads"), &bytes[..length as usize]);
            }
            log.append(length, &bytes[length as usize..]).expect("the rest");
            prop_assert_eq!(log.verify(bytes.len() as u64, &sha256(&bytes)).expect("hashes").0, Verdict::Whole);
        }
    }
}
