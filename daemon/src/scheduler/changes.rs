//! Which tasks and runners changed since somebody looked: told wherever a task's fate is followed, and taken by what tells listeners.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The most tasks that are remembered; with more it is only known that there were too many.
const TASKS_MAX: usize = 10_000;

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Tasks by number, each once however often it changed.
    pub(crate) tasks: BTreeSet<u64>,
    /// Whether there were more of them than are remembered.
    pub(crate) too_many: bool,
    /// Whether runners are to be looked at now.
    pub(crate) runners: bool,
}

/// What changed and was not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pending: Mutex<Changed>,
    bell: Notify,
}

impl Changes {
    /// Tasks changed.
    pub(crate) fn tasks(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let before = pending.tasks.len();
        pending.tasks.extend(numbers);
        if pending.tasks.len() > TASKS_MAX {
            pending.tasks.clear();
            pending.too_many = true;
        }
        if pending.tasks.len() != before || pending.too_many {
            self.bell.notify_one();
        }
    }

    /// What a runner may do, or whether it is there, changed.
    pub(crate) fn runners(&self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).runners = true;
        self.bell.notify_one();
    }

    /// Waits until something changed.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// What changed since this was asked last.
    pub(crate) fn take(&self) -> Changed {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_told_once_and_too_many_are_only_counted_as_such() {
        let changes = Changes::default();
        changes.tasks([3, 1]);
        changes.tasks([3]);
        changes.runners();
        let taken = changes.take();
        assert_eq!((taken.tasks, taken.too_many, taken.runners), ([1, 3].into(), false, true));
        assert_eq!(changes.take(), Changed::default());
        changes.tasks(0..=TASKS_MAX as u64);
        let taken = changes.take();
        assert!(taken.tasks.is_empty() && taken.too_many);
    }
}
