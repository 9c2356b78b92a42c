//! One round of bringing logs to disk for good: a few by themselves, many by syncing their whole file system, whose journal is
//! then written once and not once a log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::file::{LogFile, Syncing};
use super::{LOGS_SYNCED_BY_FILE_MAX, LogError};

/// Brings them to disk; `folder` is where all logs lie. It blocks. One that cannot be synced keeps no other from it.
pub(super) fn sync(logs: &[Arc<LogFile>], folder: &Path) -> Result<(), LogError> {
    let mut first = Ok(());
    let mut begun: Vec<(&LogFile, Syncing)> = Vec::with_capacity(logs.len());
    for log in logs {
        match log.begin_sync() {
            Ok(syncing) => begun.extend(syncing.map(|syncing| (&**log, syncing))),
            Err(error) => first = first.and(Err(error)),
        }
    }
    let in_folder = |source| LogError::Io { path: folder.to_owned(), source };
    if begun.len() > LOGS_SYNCED_BY_FILE_MAX {
        let root = File::open(folder).map_err(in_folder)?;
        rustix::fs::syncfs(&root).map_err(|error| in_folder(error.into()))?;
    } else {
        begun.retain(|(log, syncing)| match syncing.file.sync_data() {
            Ok(()) => true,
            Err(error) => {
                let before = std::mem::replace(&mut first, Ok(()));
                first = before.and(Err(log.failed(error)));
                false
            }
        });
        let new = begun.iter().filter(|(_, syncing)| syncing.entry_is_new).filter_map(|(log, _)| log.folder());
        let folders: BTreeSet<&Path> = new.collect();
        if !folders.is_empty() {
            folders.into_iter().chain([folder]).try_for_each(sync_folder).map_err(in_folder)?;
        }
    }
    for (log, syncing) in &begun {
        log.end_sync(syncing);
    }
    first
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few go by themselves and many at once; either way each is as long on disk as it was.
    #[test]
    fn a_round_brings_every_log_to_disk_however_many_there_are() {
        let folder = tempfile::tempdir().expect("a folder");
        for count in [1, LOGS_SYNCED_BY_FILE_MAX, LOGS_SYNCED_BY_FILE_MAX + 3] {
            let path = |number: usize| folder.path().join(format!("{count}/{number}-1.log"));
            let logs: Vec<_> = (0..count).map(|number| Arc::new(LogFile::new(path(number), 100))).collect();
            for log in &logs {
                assert_eq!(log.append(0, b"abc").expect("written").synced, 0);
            }
            sync(&logs, folder.path()).expect("synced");
            for log in &logs {
                assert!(!log.is_dirty());
                assert_eq!(log.append(0, b"abcd").expect("written").synced, 3);
            }
        }
    }
}
