//! One append-only file an attempt, `data_dir/logs/<task / 1000>/<task>-<attempt>.log`: the process's exact bytes.
//!
//! A patch that repeats what is there changes nothing, one that leaves a gap is refused with the length that is held. What is
//! written is brought to disk for good within a second, many files at a time; only then may a runner forget its copy.
//! Nothing here blocks an async thread. What pages show of a log, line by line, is in `lines`, `ansi` and `indexes`.

mod ansi;
mod file;
mod indexes;
mod lines;
mod reader;
mod round;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forge_api::{AttemptId, ContentRange, LogAccepted};
use rustix::process::{Resource, getrlimit};

use crate::core::{FreeSpace, LogLimits};
use file::LogFile;
pub use lines::Wanted as LinesWanted;
pub use reader::LogReader;
pub(crate) use reader::{Attempts, Expectation};

/// How many tasks share a folder.
const TASKS_PER_FOLDER: u64 = 1_000;

/// The most logs that stay open without being written to, where descriptors allow it; closed ones are opened again when they
/// are asked for. One whose attempt is over is closed at once.
const OPEN_LOGS_MAX: u64 = 4_096;

/// Logs may stay open in one of so many of the descriptors that this process may have.
const DESCRIPTORS_PER_OPEN_LOG: u64 = 10;

/// With more logs than this to bring to disk the whole file system is, which costs no more than a few files do.
const LOGS_SYNCED_BY_FILE_MAX: usize = 4;

/// How often what was written is brought to disk for good, in milliseconds.
pub(crate) const SYNC_INTERVAL_MS: u64 = 250;

/// Why a log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The patch does not begin where the log ends, or before.
    #[error("the patch leaves a gap after byte {length}")]
    Gap {
        /// The length that is held.
        length: u64,
    },
    /// The patch repeats bytes, and they are other bytes than before.
    #[error("the patch says other bytes than the log holds before byte {length}")]
    Differs {
        /// The length that is held.
        length: u64,
    },
    /// The range's length is not the body's.
    #[error("the range covers {range} bytes and the body has {body}")]
    WrongLength {
        /// By the header.
        range: u64,
        /// By the body.
        body: u64,
    },
    /// The log would be longer than one may be.
    #[error("the log would be longer than {bytes_max} bytes")]
    TooLong {
        /// The limit.
        bytes_max: u64,
    },
    /// The blocking thread went away; only at the process's end.
    #[error("the log's thread ended")]
    Ended,
}

impl LogError {
    /// Whether there was no room for it: that passes, and whoever sends it sends it again.
    pub(crate) fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// All logs of a data folder.
#[derive(Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    limits: LogLimits,
    free_space: FreeSpace,
    files: Mutex<HashMap<AttemptId, Arc<LogFile>>>,
    open_max: usize,
    /// Whose turn it is to bring logs to disk: who waits finds that another has done its work.
    syncing: tokio::sync::Mutex<()>,
    taken_bytes: AtomicU64,
    /// Where the lines of the logs that were looked at last begin.
    indexes: indexes::Indexes,
}

/// What a finished log is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Bytes are missing.
    Short,
    /// The SHA-256 is the one that was named.
    Whole,
    /// As long as it should be, and not what it should be.
    Wrong,
    /// More, or other bytes, than its runner still has.
    Forked,
}

impl Logs {
    /// Opens the folder; it blocks.
    pub(crate) fn open(data_dir: &Path, limits: LogLimits, free_space: FreeSpace) -> Result<Self, LogError> {
        let folder = data_dir.join("logs");
        std::fs::create_dir_all(&folder).map_err(|source| LogError::Io { path: folder.clone(), source })?;
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open_max = (descriptors / DESCRIPTORS_PER_OPEN_LOG).min(OPEN_LOGS_MAX);
        Ok(Self {
            folder,
            limits,
            free_space,
            files: Mutex::default(),
            open_max: usize::try_from(open_max).unwrap_or(usize::MAX),
            syncing: tokio::sync::Mutex::default(),
            taken_bytes: AtomicU64::new(0),
            indexes: indexes::Indexes::default(),
        })
    }

    /// Bytes taken since the start.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are free where logs lie; it blocks for no longer than a system call.
    pub(crate) fn free_bytes(&self) -> Result<u64, LogError> {
        if let FreeSpace::Told(free_bytes) = &self.free_space {
            return Ok(free_bytes.load(Ordering::Relaxed));
        }
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|error| LogError::Io { path: self.folder.clone(), source: error.into() })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, id: AttemptId) -> PathBuf {
        self.folder.join((id.task / TASKS_PER_FOLDER).to_string()).join(format!("{id}.log"))
    }

    /// The attempt's log, opened when it is not.
    pub(crate) fn file(&self, id: AttemptId) -> Arc<LogFile> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= self.open_max && !files.contains_key(&id) {
            // One that nobody else holds and that is on disk for good is opened again when it is asked for. The older half
            // goes: those of tasks under way are mostly the younger, and not each new log looks through all.
            let mut idle: Vec<AttemptId> = files
                .iter()
                .filter(|(_, file)| Arc::strong_count(file) == 1 && !file.is_dirty())
                .map(|(id, _)| *id)
                .collect();
            idle.sort_unstable();
            for id in idle.iter().take(idle.len().div_ceil(2)) {
                files.remove(id);
            }
        }
        Arc::clone(files.entry(id).or_insert_with(|| Arc::new(self.new_file(id))))
    }

    /// How many bytes of the log there are; it blocks for no longer than a system call.
    pub(crate) fn length(&self, id: AttemptId) -> u64 {
        let known = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone);
        match known.and_then(|file| file.known_length()) {
            Some(length) => length,
            None => std::fs::metadata(self.path(id)).map_or(0, |metadata| metadata.len()),
        }
    }

    /// Takes a patch.
    pub(crate) async fn append(
        &self,
        id: AttemptId,
        range: ContentRange,
        bytes: Bytes,
    ) -> Result<LogAccepted, LogError> {
        let body = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if range.length() != body {
            return Err(LogError::WrongLength { range: range.length(), body });
        }
        let file = self.file(id);
        let accepted = blocking(move || file.append(range.first, &bytes)).await?;
        self.taken_bytes.fetch_add(body, Ordering::Relaxed);
        Ok(accepted)
    }

    /// Brings everything that was written to disk for good. Many who ask at once wait for one round or two.
    pub(crate) async fn sync(&self) -> Result<(), LogError> {
        let _turn = self.syncing.lock().await;
        let dirty: Vec<Arc<LogFile>> = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.values().filter(|file| file.is_dirty()).map(Arc::clone).collect()
        };
        if dirty.is_empty() {
            return Ok(());
        }
        let folder = self.folder.clone();
        blocking(move || round::sync(&dirty, &folder)).await
    }

    /// The same for one log, which another's round may have brought to disk already.
    pub(crate) async fn sync_one(&self, id: AttemptId) -> Result<(), LogError> {
        let file = self.file(id);
        if file.is_dirty() { self.sync().await } else { Ok(()) }
    }

    /// Whether the log is this one, whole and on disk for good; false also where that cannot be told without waiting.
    pub(crate) fn is_whole_now(&self, id: AttemptId, length: u64, sha256: &str) -> bool {
        let known = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone);
        known.unwrap_or_else(|| Arc::new(self.new_file(id))).is_whole_now(length, sha256)
    }

    /// Closes a log that is whole: nobody will write to it.
    pub(crate) fn close(&self, id: AttemptId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Closes what was opened again, as for a runner that wants to know what is on disk: all that nobody holds, that has nothing to
    /// bring to disk, and whose attempt `is_over`.
    pub(crate) fn close_idle(&self, is_over: impl Fn(AttemptId) -> bool) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|id, file| Arc::strong_count(file) > 1 || file.is_dirty() || !is_over(*id));
    }

    fn new_file(&self, id: AttemptId) -> LogFile {
        LogFile::new(self.path(id), self.limits.attempt_bytes_max)
    }

    /// Compares the log with what its runner says of it; also answers with its length.
    pub(crate) async fn verify(&self, id: AttemptId, length: u64, sha256: String) -> Result<(Verdict, u64), LogError> {
        let file = self.file(id);
        blocking(move || file.verify(length, &sha256)).await
    }

    /// Empties the log, so that it is sent again.
    pub(crate) async fn restart(&self, id: AttemptId) -> Result<(), LogError> {
        let file = self.file(id);
        let restarted = blocking(move || file.restart()).await;
        self.indexes.forget(id);
        restarted
    }

    /// Removes logs of tasks that are forgotten.
    pub(crate) async fn remove(&self, attempts: Vec<AttemptId>) -> Result<(), LogError> {
        let mut paths = Vec::new();
        {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            for id in attempts {
                files.remove(&id);
                self.indexes.forget(id);
                paths.push(self.path(id));
            }
        }
        blocking(move || {
            let mut first = Ok(());
            for path in paths {
                match std::fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    // Nothing names the others any more: they go now or never.
                    Err(source) => first = first.and(Err(LogError::Io { path: path.clone(), source })),
                }
                // A folder that still holds logs stays; that is what this refusal means.
                let _emptied = path.parent().map(std::fs::remove_dir);
            }
            first
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LogError::Ended)?
}
