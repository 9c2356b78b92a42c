//! What pages show beside a task: its attempts, how its template's tasks went, and what ended badly lately.

use std::collections::BTreeMap;

use forge_api::{Attempt, AttemptId, Task, TemplateStats};

use super::{Core, CoreError, internal, stored};

/// The most finished tasks that a template's numbers are made from.
pub const STATS_TASKS_MAX: u32 = 100;

/// How long a bad end is told of, in milliseconds.
const BAD_ENDS_MS: i64 = 7 * 86_400_000;

impl Core {
    /// What ended badly within the last week, the last end first; of every project, or of those that are visible.
    pub(crate) async fn bad_ends(&self, visible: Option<Vec<String>>, limit: u32) -> Result<Vec<Task>, CoreError> {
        let since = self.inner.clock.now().plus_millis(-BAD_ENDS_MS);
        self.inner.store.bad_ends(visible, since, limit).await.map_err(stored)
    }

    /// Every attempt of a task, the oldest first.
    pub async fn attempts(&self, number: u64) -> Result<Vec<Attempt>, CoreError> {
        let mut attempts = self.inner.store.attempts(number).await.map_err(stored)?;
        let logs = std::sync::Arc::clone(&self.inner.logs);
        let work = move || {
            for attempt in &mut attempts {
                attempt.log_bytes = logs.length(AttemptId { task: number, attempt: attempt.number });
            }
            attempts
        };
        tokio::task::spawn_blocking(work).await.map_err(internal)
    }

    /// How the newest `limit` finished tasks of a template went; one that left the tree has its history still.
    pub async fn template_stats(&self, project: &str, template: &str, limit: u32) -> Result<TemplateStats, CoreError> {
        let limit = limit.clamp(1, STATS_TASKS_MAX);
        let items = self.inner.store.outcomes(project.to_owned(), template.to_owned(), limit).await.map_err(stored)?;
        let mut outcomes = BTreeMap::new();
        for item in &items {
            *outcomes.entry(item.state).or_default() += 1;
        }
        Ok(TemplateStats { items, outcomes })
    }
}
