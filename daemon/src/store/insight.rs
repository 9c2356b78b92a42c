//! What pages ask of tasks beyond the tasks themselves: their attempts, and how a template's went.

use forge_api::{Attempt, TaskOutcome};

use super::{Store, StoreError, queries};

impl Store {
    /// Every attempt of a task, the oldest first.
    pub(crate) async fn attempts(&self, task: u64) -> Result<Vec<Attempt>, StoreError> {
        self.readers.read(move |connection| queries::attempts(connection, task)).await
    }

    /// How a template's newest finished tasks went.
    pub(crate) async fn outcomes(
        &self,
        project: String,
        template: String,
        limit: u32,
    ) -> Result<Vec<TaskOutcome>, StoreError> {
        self.readers.read(move |connection| queries::outcomes(connection, &project, &template, limit)).await
    }
}
