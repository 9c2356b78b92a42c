//! How busy the runners are: a sample a minute, kept for a chart that survives a restart.

use forge_api::{Load, LoadSample, RunnerStatus, TaskState};
use tokio_util::sync::CancellationToken;

use super::{Core, CoreError, stored};

/// How often a sample is taken, in milliseconds.
const SAMPLE_INTERVAL_MS: u64 = 60_000;

/// The most hours that an answer reaches back: so long samples are kept.
pub const LOAD_HOURS_MAX: u32 = 7 * 24;

impl Core {
    /// Takes samples until the shutdown.
    pub(super) async fn sample_load(self, shutdown: CancellationToken) {
        let clock = self.inner.clock.clone();
        let mut due_ms = clock.elapsed_ms();
        loop {
            due_ms = due_ms.saturating_add(SAMPLE_INTERVAL_MS).max(clock.elapsed_ms());
            if shutdown.run_until_cancelled(clock.sleep_until_ms(due_ms)).await.is_none() {
                return;
            }
            let kept = match self.load_now().await {
                Ok(sample) => self.inner.store.record_load(sample).await.map_err(stored),
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
                tracing::warn!(%error, "how busy the runners are could not be kept for its chart");
            }
        }
    }

    /// How busy the runners are.
    pub async fn load_now(&self) -> Result<LoadSample, CoreError> {
        let tasks = self.inner.store.counts().await.map_err(stored)?;
        let count = |state| tasks.get(&state).copied().unwrap_or_default();
        let candidates = self.candidates().await?;
        let online = candidates.iter().filter(|candidate| candidate.facts.status == RunnerStatus::Online);
        let (mut slots, mut runners_online) = (Some(0_u64), 0);
        for candidate in online {
            runners_online += 1;
            // 0 is no limit.
            let own = Some(u64::from(candidate.facts.max_parallel_tasks)).filter(|own| *own > 0);
            slots = slots.zip(own).map(|(slots, own)| slots.saturating_add(own));
        }
        Ok(LoadSample {
            at: self.now(),
            queued: count(TaskState::Queued),
            running: count(TaskState::Assigned) + count(TaskState::Running),
            slots,
            runners_online,
        })
    }

    /// How busy the runners were in the last `hours`.
    pub async fn load(&self, hours: u32) -> Result<Load, CoreError> {
        let now = self.now();
        let since = now.plus_millis(-i64::from(hours.clamp(1, LOAD_HOURS_MAX)).saturating_mul(3_600_000));
        Ok(Load { items: self.inner.store.load(since, now).await.map_err(stored)? })
    }
}
