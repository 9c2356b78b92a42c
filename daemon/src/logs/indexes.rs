//! The indexes of the logs that were looked at last, and what asks them on threads that may block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use forge_api::AttemptId;
use regex::bytes::Regex;
use tokio::sync::Semaphore;

use super::lines::{Found, LineIndex, Wanted, Window};
use super::{LogError, Logs, blocking};

/// The most indexes that are kept; each has a bounded number of points.
const INDEXES_MAX: usize = 32;

/// How many logs are looked through at a time: more wait, so that pages never take the threads that logs are written on.
const SCANS_MAX: usize = 2;

/// The indexes.
#[derive(Debug)]
pub(super) struct Indexes {
    known: Mutex<Known>,
    scans: Semaphore,
}

#[derive(Debug, Default)]
struct Known {
    by_attempt: HashMap<AttemptId, (u64, Arc<Mutex<LineIndex>>)>,
    /// Counts up with each use.
    uses: u64,
}

impl Default for Indexes {
    fn default() -> Self {
        Self { known: Mutex::default(), scans: Semaphore::new(SCANS_MAX) }
    }
}

impl Indexes {
    fn of(&self, id: AttemptId) -> Arc<Mutex<LineIndex>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.uses += 1;
        let uses = known.uses;
        if known.by_attempt.len() >= INDEXES_MAX && !known.by_attempt.contains_key(&id) {
            let oldest = known.by_attempt.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            oldest.and_then(|oldest| known.by_attempt.remove(&oldest));
        }
        let (used, index) = known.by_attempt.entry(id).or_default();
        *used = uses;
        Arc::clone(index)
    }

    /// Forgets the index of a log that was emptied or removed.
    pub(super) fn forget(&self, id: AttemptId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).by_attempt.remove(&id);
    }
}

impl Logs {
    /// Some lines of a log.
    pub(crate) async fn lines(&self, id: AttemptId, wanted: Wanted) -> Result<Window, LogError> {
        let (file, index) = (self.file(id), self.indexes.of(id));
        let _turn = self.indexes.scans.acquire().await.map_err(|_| LogError::Ended)?;
        blocking(move || {
            let end = file.current_length()?;
            index.lock().unwrap_or_else(PoisonError::into_inner).window(&*file, end, wanted)
        })
        .await
    }

    /// Lines of a log in which `pattern` is found, from the number `from` on.
    pub(crate) async fn search(&self, id: AttemptId, pattern: Regex, from: u64, limit: u32) -> Result<Found, LogError> {
        let (file, index) = (self.file(id), self.indexes.of(id));
        let _turn = self.indexes.scans.acquire().await.map_err(|_| LogError::Ended)?;
        blocking(move || {
            let end = file.current_length()?;
            index.lock().unwrap_or_else(PoisonError::into_inner).search(&*file, end, &pattern, from, limit)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_indexes_that_were_not_used_for_the_longest_go() {
        let indexes = Indexes::default();
        let id = |task: usize| AttemptId { task: task as u64, attempt: 1 };
        let first = indexes.of(id(0));
        for task in 1..INDEXES_MAX {
            indexes.of(id(task));
        }
        assert!(Arc::ptr_eq(&first, &indexes.of(id(0))));
        indexes.of(id(INDEXES_MAX));
        let known = indexes.known.lock().expect("a lock");
        assert_eq!(known.by_attempt.len(), INDEXES_MAX);
        assert!(known.by_attempt.contains_key(&id(0)) && !known.by_attempt.contains_key(&id(1)));
    }
}
