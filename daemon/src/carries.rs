//! What attempts carry over an approval: one file an attempt, `data_dir/carries/<task>-<attempt>`, whole or not there.
//!
//! The bytes are encrypted by the runner with a key that only the task's own attempts get; this never opens them. A file stays
//! until its task has ended or planned anew.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use forge_api::{AttemptId, CARRY_BYTES_MAX, CARRY_OVERHEAD_BYTES_MAX, Carry};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::files::{self, FileError, MODE_PRIVATE};
use crate::hex;

/// Where they lie in the data folder.
pub(crate) const FOLDER: &str = "carries";

/// How the name of one ends that is still being written.
const UNFINISHED: &str = ".new";

/// What is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// The folder.
#[derive(Debug)]
pub(crate) struct Carries {
    folder: PathBuf,
    /// Tells apart what is written at the same time.
    writes: AtomicU64,
}

/// One that is being written; dropped before [`Incoming::keep`], it leaves nothing.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: tokio::fs::File,
    temporary: PathBuf,
    target: PathBuf,
    length: usize,
}

impl Carries {
    /// Opens the folder and removes what a killed daemon left unfinished; it blocks.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, FileError> {
        let folder = data_dir.join(FOLDER);
        files::make_private_folder(&folder)?;
        let failed = |source| FileError::new("read the folder", &folder, source);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.to_string_lossy().ends_with(UNFINISHED) {
                std::fs::remove_file(&path).map_err(|source| FileError::new("remove", &path, source))?;
            }
        }
        Ok(Self { folder, writes: AtomicU64::new(0) })
    }

    fn path(&self, attempt: AttemptId) -> PathBuf {
        self.folder.join(attempt.to_string())
    }

    /// Begins to take an attempt's.
    pub(crate) async fn take(&self, attempt: AttemptId) -> io::Result<Incoming> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!("{attempt}.{number}{UNFINISHED}"));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(MODE_PRIVATE);
        let file = tokio::fs::OpenOptions::from(options).open(&temporary).await?;
        Ok(Incoming { file, temporary, target: self.path(attempt), length: 0 })
    }

    /// Whether exactly this is there.
    pub(crate) async fn holds(&self, carry: &Carry) -> io::Result<bool> {
        let mut file = match self.read(carry.attempt).await? {
            Some((file, length)) if length == carry.length => file,
            Some(_) | None => return Ok(false),
        };
        let mut context = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk).await? {
                0 => break,
                count => context.update(chunk.get(..count).unwrap_or_default()),
            }
        }
        Ok(hex::encode(context.finish().as_ref()) == carry.sha256)
    }

    /// An attempt's, and its length.
    pub(crate) async fn read(&self, attempt: AttemptId) -> io::Result<Option<(tokio::fs::File, u64)>> {
        match tokio::fs::File::open(self.path(attempt)).await {
            Ok(file) => {
                let length = file.metadata().await?.len();
                Ok(Some((file, length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whose are there; it blocks.
    pub(crate) fn all(&self) -> io::Result<Vec<AttemptId>> {
        let entries = std::fs::read_dir(&self.folder)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())));
        names.filter_map(io::Result::transpose).collect()
    }

    /// Forgets an attempt's; it blocks.
    pub(crate) fn remove(&self, attempt: AttemptId) -> io::Result<()> {
        match std::fs::remove_file(self.path(attempt)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Incoming {
    /// Takes more of it; false when it is longer than one may be.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.length += bytes.len();
        if self.length > CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX {
            return Ok(false);
        }
        self.file.write_all(bytes).await?;
        Ok(true)
    }

    /// It is whole: from here on it survives a power cut.
    pub(crate) async fn keep(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        tokio::fs::rename(&self.temporary, &self.target).await?;
        match self.target.parent() {
            Some(folder) => tokio::fs::File::open(folder).await?.sync_all().await,
            None => Ok(()),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Once it is kept there is nothing of this name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder.join(FOLDER)).expect("the folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn one_is_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let carries = Carries::open(folder.path()).expect("opened");
        let attempt = AttemptId { task: 7, attempt: 1 };
        let carry = |bytes: &[u8]| Carry { attempt, length: bytes.len() as u64, sha256: hex::sha256(bytes) };

        let mut given_up = carries.take(attempt).await.expect("taken");
        assert!(given_up.write(b"half").await.expect("written"));
        assert!(!carries.holds(&carry(b"half")).await.expect("looked"));
        drop(given_up);
        assert!(named(folder.path()).is_empty());

        let mut whole = carries.take(attempt).await.expect("taken");
        assert!(whole.write(b"who").await.expect("written") && whole.write(b"le").await.expect("written"));
        whole.keep().await.expect("kept");
        assert!(carries.holds(&carry(b"whole")).await.expect("looked"));
        for other in [b"Whole".as_slice(), b"whole!", b""] {
            assert!(!carries.holds(&carry(other)).await.expect("looked"));
        }
        assert_eq!(carries.all().expect("listed"), [attempt]);
        // What a killed daemon left is gone after the next start, what was whole stays.
        std::fs::write(folder.path().join(FOLDER).join("7-2.0.new"), "half").expect("written");
        let carries = Carries::open(folder.path()).expect("opened");
        assert_eq!(named(folder.path()), ["7-1"]);
        carries.remove(attempt).expect("removed");
        carries.remove(attempt).expect("there is none");
        assert!(carries.all().expect("listed").is_empty());
    }

    #[tokio::test]
    async fn one_that_is_too_long_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let carries = Carries::open(folder.path()).expect("opened");
        let mut long = carries.take(AttemptId { task: 7, attempt: 1 }).await.expect("taken");
        long.length = CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX - 1;
        assert!(long.write(b"1").await.expect("the last one"));
        assert!(!long.write(b"2").await.expect("one more"));
    }
}
