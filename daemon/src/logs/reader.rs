//! Reading a log while it may still grow.

use std::sync::Arc;

use bytes::Bytes;
use forge_api::AttemptId;
use tokio::sync::watch;

use super::file::LogFile;
use super::{Logs, blocking};
use crate::clock::Clock;
use crate::core::CoreError;

/// Once an attempt is over, its log is waited for no longer than this without a new byte, in milliseconds.
const QUIET_AFTER_END_MS: u64 = 15_000;

/// A reader looks again this often even when nothing was told: who ends an attempt may be gone before it says so, in
/// milliseconds.
const LOOK_AGAIN_MS: u64 = 5_000;

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// The task has not got an attempt yet, or the attempt is under way.
    More,
    /// The attempt is over, and its runner may still hand in the rest.
    Rest,
    /// All of it is there.
    Nothing,
}

/// What tells a reader how its attempt stands.
pub(crate) trait Attempts: Send + Sync {
    /// The task's newest attempt, or the one asked for, and what is to be expected of its log.
    fn look(
        &self,
        number: u64,
        attempt: Option<u32>,
    ) -> futures_util::future::BoxFuture<'_, Result<(u32, Expectation), CoreError>>;
    /// Hears of everything that ends an attempt of the task or begins one.
    fn changes(&self, number: u64) -> watch::Receiver<()>;
}

/// A log that is read while it may still grow.
pub struct LogReader {
    pub(crate) logs: Arc<Logs>,
    pub(crate) attempts: Arc<dyn Attempts>,
    pub(crate) clock: Clock,
    pub(crate) task: u64,
    /// What was asked for; `None` takes the newest when following begins.
    pub(crate) asked: Option<u32>,
    /// 0 while there is none.
    pub(crate) attempt: u32,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("task", &self.task).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl LogReader {
    /// The attempt's number; 0 while the task has none.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    fn file(&self) -> Option<Arc<LogFile>> {
        let id = AttemptId { task: self.task, attempt: self.attempt };
        (self.attempt > 0).then(|| self.logs.file(id))
    }

    /// How many bytes there are now.
    pub fn length(&self) -> u64 {
        if self.attempt == 0 { 0 } else { self.logs.length(AttemptId { task: self.task, attempt: self.attempt }) }
    }

    /// At most `length_max` bytes from `offset`; empty at the end.
    pub async fn read(&self, offset: u64, length_max: usize) -> Result<Bytes, CoreError> {
        let Some(file) = self.file() else {
            return Ok(Bytes::new());
        };
        let bytes = blocking(move || file.read(offset, length_max)).await;
        bytes.map(Bytes::from).map_err(|error| CoreError::Internal(error.to_string()))
    }

    /// The next bytes from `offset`, waiting for them; `None` once the attempt is over and all of it was read. A task
    /// without an attempt is waited for.
    pub async fn follow(&mut self, offset: u64, length_max: usize) -> Result<Option<Bytes>, CoreError> {
        let mut changes = self.attempts.changes(self.task);
        let mut quiet_at_ms = None;
        loop {
            // Who looks after subscribing misses nothing.
            changes.borrow_and_update();
            let asked = if self.attempt > 0 { Some(self.attempt) } else { self.asked };
            let (attempt, expectation) = self.attempts.look(self.task, asked).await?;
            self.attempt = attempt;
            let Some(file) = self.file() else {
                if expectation == Expectation::Nothing {
                    return Ok(None);
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return Ok(None) },
                    () = self.clock.sleep_ms(LOOK_AGAIN_MS) => {}
                }
                continue;
            };
            let mut length = file.subscribe();
            length.borrow_and_update();
            let bytes = self.read(offset, length_max).await?;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            let now_ms = self.clock.elapsed_ms();
            let quiet_at_ms = match expectation {
                Expectation::Nothing => return Ok(None),
                // Counted from the first look that found nothing new, however many tasks end meanwhile.
                Expectation::Rest => *quiet_at_ms.get_or_insert(now_ms.saturating_add(QUIET_AFTER_END_MS)),
                Expectation::More => u64::MAX,
            };
            if now_ms >= quiet_at_ms {
                return Ok(None);
            }
            tokio::select! {
                changed = length.changed() => if changed.is_err() { return Ok(None) },
                changed = changes.changed() => if changed.is_err() { return Ok(None) },
                () = self.clock.sleep_ms(LOOK_AGAIN_MS.min(quiet_at_ms - now_ms)) => {}
            }
        }
    }
}
