//! Compiled plugins on disk, keyed by the component's digest and by what the engine's code depends on.
//!
//! Compiled code runs without a sandbox of its own, so it is never taken from anyone: the folder is this user's with
//! mode 0700, each file is this user's, regular and not writable by others, and ends in the SHA-256 of what precedes it. What does not
//! hold to this is not used, and is compiled again. A file appears whole: written beside, synced, renamed.
//!
//! Whoever compiles one removes what was not used for long, and beyond a bound what was used longest ago. A file's time of change is
//! when it was last taken. What was taken a short while ago stays in any case: a process may be about to load it.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW};
use wasmtime::Engine;
use wasmtime::component::Component;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Bits by which others could change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// What is read at a time while a file is checked.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a file ends in that is whole.
const END: &str = ".compiled";

/// What a file begins with that is being written.
const UNFINISHED: &str = ".";

/// How long after it was last found a compiled plugin is sure to stay: whoever asks again sooner need not look. It is also how
/// long a file that is being written is left alone.
pub const KEPT_AT_LEAST: Duration = Duration::from_secs(60 * 60);

/// How long one stays that nobody uses.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The same, for one that another version of the engine compiled: that version may come back, most likely it does not.
const OTHER_ENGINE_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How much the folder may hold, in bytes: some thousand plugins in Rust, some twenty that bring a Python along.
const BYTES_MAX: u64 = 2 << 30;

/// Why the folder of compiled plugins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file system call failed.
    #[error("the folder of compiled plugins: {}: {error}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another user could put code there.
    #[error(
        "the folder of compiled plugins, {}, {problem}: compiled code is only taken from a folder of this user's alone; \
         remove it, or run `chmod 0700` and `chown` on it",
        .path.display()
    )]
    NotPrivate {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Of the engine, its settings and the processor's features.
    engine_hash: u64,
}

/// Tells apart the temporary files of this process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

impl Cache {
    pub(crate) fn open(folder: PathBuf, engine: &Engine) -> Result<Self, CacheError> {
        let failed = |error| CacheError::Io { path: folder.clone(), error };
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder).map_err(failed)?;
        let metadata = fs::metadata(&folder).map_err(failed)?;
        if let Some(problem) = problem_of(&metadata, 0o077) {
            return Err(CacheError::NotPrivate { path: folder, problem });
        }
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder, engine_hash: hasher.finish() })
    }

    fn path(&self, sha256_hex: &str) -> PathBuf {
        self.folder.join(format!("{sha256_hex}{}", self.ending()))
    }

    /// How the names of this engine's files end.
    fn ending(&self) -> String {
        format!("-{:016x}{END}", self.engine_hash)
    }

    /// Whether something is kept, whole or not.
    pub(crate) fn has(&self, sha256_hex: &str) -> bool {
        self.path(sha256_hex).exists()
    }

    /// What was kept, when it is whole and this user's.
    pub(crate) fn get(&self, engine: &Engine, sha256_hex: &str) -> Result<Option<Component>, CacheError> {
        let path = self.path(sha256_hex);
        let _lock = self.lock(FlockOperation::LockShared)?;
        let mut file = match OpenOptions::new()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::Io { path, error }),
        };
        if let Err(problem) = check(&mut file) {
            tracing::warn!(file = %path.display(), problem, "a compiled plugin is not used");
            return Ok(None);
        }
        match deserialize(engine, &path) {
            Ok(component) => {
                let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
                rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now })
                    .map_err(|error| CacheError::Io { path, error: error.into() })?;
                Ok(Some(component))
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), error = format!("{error:#}"), "a compiled plugin is not used");
                Ok(None)
            }
        }
    }

    /// Keeps a compiled component.
    pub(crate) fn put(&self, sha256_hex: &str, component: &Component) -> Result<(), CacheError> {
        let failed = |error: io::Error| CacheError::Io { path: self.folder.clone(), error };
        let code = component.serialize().map_err(|error| failed(io::Error::other(format!("{error:#}"))))?;
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!(".{sha256_hex}.{}.{number}", std::process::id()));
        let written = write_synced(&temporary, &code).and_then(|()| fs::rename(&temporary, self.path(sha256_hex)));
        if written.is_err() {
            // What matters is the first error; a file that stays behind is only room.
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| File::open(&self.folder)?.sync_all()).map_err(failed)?;
        if let Err(error) = self.evict(SystemTime::now()) {
            tracing::warn!(folder = %self.folder.display(), %error, "old compiled plugins cannot be removed");
        }
        Ok(())
    }

    /// Keeps others from removing files, or from taking them. It ends with what it returns, or with this process.
    fn lock(&self, operation: FlockOperation) -> Result<File, CacheError> {
        File::open(&self.folder)
            .and_then(|folder| rustix::fs::flock(&folder, operation).map(|()| folder).map_err(io::Error::from))
            .map_err(|error| CacheError::Io { path: self.folder.clone(), error })
    }

    /// Removes what is old or too much. Who has one mapped keeps what it has: a removed file lives until then.
    fn evict(&self, now: SystemTime) -> Result<(), CacheError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let failed = |error: io::Error| CacheError::Io { path: self.folder.clone(), error };
        let own = self.ending();
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Another process renames what it has written, without a lock: that is another entry, which is young.
            let Some(metadata) = still_there(entry.metadata()).map_err(failed)? else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // One that lies in the future was just used, on a clock that was set back since.
            let unused = metadata.modified().ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            let age_max = match (name.ends_with(&own), name.ends_with(END), name.starts_with(UNFINISHED)) {
                (true, ..) => AGE_MAX,
                (false, true, _) => OTHER_ENGINE_AGE_MAX,
                // Of a process that was ended while it wrote.
                (false, false, true) => KEPT_AT_LEAST,
                (false, false, false) => continue,
            };
            if unused > age_max {
                still_there(fs::remove_file(entry.path())).map_err(failed)?;
            } else {
                kept.push((unused, metadata.len(), entry.path()));
            }
        }
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        kept.sort();
        // The one that was used longest ago is last.
        while let Some((unused, bytes, path)) = kept.pop()
            && total > BYTES_MAX
            && unused > KEPT_AT_LEAST
        {
            still_there(fs::remove_file(path)).map_err(failed)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// What is gone meanwhile is nobody's mistake.
fn still_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn write_synced(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(code)?;
    file.write_all(ring::digest::digest(&SHA256, code).as_ref())?;
    file.sync_all()
}

/// What keeps a file or folder from being this user's alone.
fn problem_of(metadata: &fs::Metadata, refused_mode: u32) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Some(format!("belongs to user {} and not to {user}", metadata.uid()));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & refused_mode != 0).then(|| format!("has mode {mode:04o}"))
}

fn check(file: &mut File) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if let Some(problem) = problem_of(&metadata, WRITABLE_BY_OTHERS) {
        return Err(format!("it {problem}"));
    }
    let digest_bytes = SHA256_OUTPUT_LEN as u64;
    let code_bytes = metadata.len().checked_sub(digest_bytes).ok_or("it is too short")?;
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut code = Read::by_ref(file).take(code_bytes);
    loop {
        match code.read(&mut chunk).map_err(|error| error.to_string())? {
            0 => break,
            count => context.update(chunk.get(..count).unwrap_or_default()),
        }
    }
    file.seek(SeekFrom::Start(code_bytes)).map_err(|error| error.to_string())?;
    let mut expected = [0; SHA256_OUTPUT_LEN];
    file.read_exact(&mut expected).map_err(|error| error.to_string())?;
    if context.finish().as_ref() == expected {
        Ok(())
    } else {
        Err("its bytes are not those that were written".to_owned())
    }
}

#[expect(unsafe_code, reason = "wasmtime cannot know who wrote the file; the caller has checked")]
fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the code must be what `Component::serialize` made and must not change while it is mapped. `check` has
    // found the digest that `put` wrote and an owner and mode that keep others out, in a folder that `open` found to be
    // this user's alone; `put` replaces a file by renaming and never writes into one.
    unsafe { Component::deserialize_file(engine, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_took_away_meanwhile_ends_no_clearing_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = folder.path().join(".0.1.0");
        assert_eq!(still_there(fs::symlink_metadata(&gone).map(drop)).expect("no error"), None);
        assert_eq!(still_there(fs::remove_file(&gone)).expect("no error"), None);
        assert!(still_there(fs::remove_file(folder.path())).is_err(), "what is there and stays is told of");
    }
}
