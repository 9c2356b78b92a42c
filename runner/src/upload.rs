//! Hands in one attempt's log and result until the daemon holds both: by offset, again and again, whatever happens between.
//!
//! What goes next and what an answer means decides [`crate::delivery`]; here it is sent. A daemon that is away is waited for.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, CARRY_MISSING, ContentRange, LOG_CHUNK_BYTES_MAX, LOG_DIFFERS,
    LogAccepted, Secret, StartRequest,
};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::client::{CallError, Client};
use crate::delivery::{Again, Delivery, PieceFault, ResultFault, Spool, Step};
use crate::state::boottime_ms;
use crate::{carry, fit, spool};

/// The longest wait at a time: one that is longer is begun again.
const WAIT_MS_MAX: u64 = 3_600_000;

/// How often what an attempt carries is sent again when the daemon says that it misses it.
const CARRY_RESENDS_MAX: u32 = 2;

/// How often a stranger may answer for the daemon to what an attempt carries, or a connection break off that does so at nothing smaller: a
/// proxy that takes no large bodies may hang up where another one says so.
const CARRY_FAILED_MAX: u32 = 3;

/// What is there to hand in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Available {
    /// The log's length.
    pub(crate) log_length: u64,
    /// The repository's commit.
    pub(crate) commit: Option<String>,
    /// The result, once there is one.
    pub(crate) result: Option<Arc<AttemptResult>>,
}

/// What became of the attempt on the daemon's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Acknowledged.
    Acknowledged,
    /// The daemon does not want it.
    Unwanted,
}

/// One attempt's way to the daemon.
pub(crate) struct Upload<'a> {
    pub(crate) client: &'a Client,
    pub(crate) attempt: AttemptId,
    pub(crate) token: &'a Secret,
    pub(crate) folder: &'a Path,
    pub(crate) backoff: Backoff,
    delivery: Delivery,
    commit_told: bool,
    carry_told: bool,
    /// How often the daemon said that it misses what the result carries.
    carry_missed: u32,
    /// How often something that is no daemon answered instead, or nothing did.
    carry_failed: u32,
    /// Why it was not taken, last.
    carry_error: Option<String>,
}

impl<'a> Upload<'a> {
    /// Nothing is handed in yet, as far as is known.
    pub(crate) fn new(
        client: &'a Client,
        (attempt, token): (AttemptId, &'a Secret),
        (folder, spool): (&'a Path, Spool),
        seed: u64,
    ) -> Self {
        Self {
            client,
            attempt,
            token,
            folder,
            backoff: Backoff::new(seed),
            delivery: Delivery::new(spool),
            commit_told: false,
            carry_told: false,
            carry_missed: 0,
            carry_failed: 0,
            carry_error: None,
        }
    }

    /// Hands in everything. `too_much` is called when the daemon refuses the log for good, with its words; `acknowledged`
    /// at the first acknowledgement of the result.
    pub(crate) async fn deliver(
        &mut self,
        mut available: watch::Receiver<Available>,
        too_much: impl Fn(String),
        mut acknowledged: impl FnMut(&AttemptResult),
    ) -> Delivered {
        let mut told = false;
        loop {
            let now = available.borrow_and_update().clone();
            if let Some(commit) = now.commit.clone().filter(|_| !self.commit_told) {
                self.tell_commit(commit).await;
                continue;
            }
            match self.delivery.next(now.log_length, now.result.is_some(), boottime_ms()) {
                Step::Piece { first, length } => self.send_piece((first, length), now.log_length, &too_much).await,
                Step::WaitUntil(until_ms) => {
                    let wait_ms = until_ms.saturating_sub(boottime_ms()).min(WAIT_MS_MAX);
                    // A sender that is gone has said everything; the timeout keeps this from spinning.
                    let _ = tokio::time::timeout(Duration::from_millis(wait_ms), available.changed()).await;
                }
                Step::Result => {
                    let Some(result) = now.result else { continue };
                    match &result.carry {
                        // What the next attempt needs goes before the result that names it.
                        Some(carry) if !self.carry_told => self.send_carry(carry.length).await,
                        Some(_) | None => {
                            let is_taken = self.send_result(&result).await;
                            if is_taken && !std::mem::replace(&mut told, true) {
                                acknowledged(&result);
                            }
                        }
                    }
                }
                Step::Done => {}
            }
            if self.delivery.is_settled() {
                return Delivered::Acknowledged;
            }
            if self.delivery.is_unwanted() {
                return Delivered::Unwanted;
            }
        }
    }

    /// Hands in the result; whether it is acknowledged.
    async fn send_result(&mut self, result: &Arc<AttemptResult>) -> bool {
        let fault = match self.client.finish(self.token, self.attempt, &self.to_hand_in(result)).await {
            Ok(answer) => {
                self.backoff.reset();
                self.delivery.answered(&answer, result.log_length, boottime_ms());
                return true;
            }
            Err(error) if error.is_problem(CARRY_MISSING) && self.carry_missed <= CARRY_RESENDS_MAX => {
                self.carry_missed += 1;
                self.carry_told = false;
                // The daemon is there.
                self.backoff.reset();
                self.wait(&error).await;
                return false;
            }
            Err(error) => error,
        };
        let kind = result_fault(&fault);
        if kind != ResultFault::Passing {
            tracing::warn!(attempt = %self.attempt, error = %fault, "the result is not taken");
        }
        if self.delivery.result_failed(kind) == Again::Later {
            self.wait(&fault).await;
        }
        false
    }

    /// Hands in what the next attempt needs. What is not taken is missed by the daemon when it gets the result, which then is sent as
    /// the failure that it is: a proxy that takes no large bodies must not hold a runner for ever.
    async fn send_carry(&mut self, length: u64) {
        let file = match tokio::fs::File::open(self.folder.join(carry::OUT)).await {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(attempt = %self.attempt, %error, "what the attempt carries cannot be read");
                self.carry_not_taken(format!("the runner's spool: {error}"));
                return;
            }
        };
        match self.client.put_carry(self.token, self.attempt, length, file).await {
            Ok(()) => self.carry_told = true,
            Err(error @ (CallError::Garbled(_) | CallError::Unreachable(_)))
                if self.carry_failed < CARRY_FAILED_MAX =>
            {
                self.carry_failed += 1;
                self.wait(&error).await;
            }
            // A daemon that is away does not take the result either, and is waited for with that. One that is there misses the files,
            // and they are tried again.
            Err(error @ CallError::Unreachable(_)) => self.carry_not_taken(error.to_string()),
            Err(error @ CallError::Problem(_)) if error.is_passing() => self.wait(&error).await,
            Err(error @ CallError::TooLarge(_)) => {
                tracing::warn!(attempt = %self.attempt, %error, "what the attempt carries does not get through");
                // It never will: the result is handed in as the failure that it is.
                self.carry_missed = CARRY_RESENDS_MAX + 1;
                self.carry_not_taken(error.to_string());
            }
            Err(error) => {
                tracing::warn!(attempt = %self.attempt, %error, "the daemon does not take what the attempt carries");
                self.carry_not_taken(error.to_string());
            }
        }
    }

    fn carry_not_taken(&mut self, why: String) {
        self.carry_told = true;
        self.carry_error = Some(why);
    }

    /// What is handed in: a plan whose files the daemon never got is no plan, and what is too long for anyone on the way is shorter.
    fn to_hand_in(&self, result: &Arc<AttemptResult>) -> Arc<AttemptResult> {
        let result = match (self.delivery.reduced(), self.delivery.blocked_by()) {
            (None, None) => Arc::clone(result),
            (Some(why), _) => Arc::new(fit::reduced(result, why)),
            (None, Some(why)) => Arc::new(fit::without_its_log(result, why)),
        };
        if self.carry_missed <= CARRY_RESENDS_MAX {
            return result;
        }
        let why = self.carry_error.as_deref().unwrap_or("the daemon does not have the files of the plan");
        Arc::new(AttemptResult {
            outcome: AttemptOutcome::Failed,
            reason: Some(format!("what it has planned could not be handed in: {why}")),
            carry: None,
            ..AttemptResult::clone(&result)
        })
    }

    async fn wait(&mut self, error: &impl std::fmt::Display) {
        let wait_ms = self.backoff.next_ms();
        tracing::debug!(attempt = %self.attempt, %error, wait_ms, "trying again");
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }

    /// The commit is worth one good try; the result carries it again.
    async fn tell_commit(&mut self, commit: String) {
        let request = StartRequest { commit: Some(commit), session: None };
        match self.client.start(self.token, self.attempt, &request).await {
            Err(error) if error.is_passing() => self.wait(&error).await,
            Ok(_) | Err(_) => self.commit_told = true,
        }
    }

    async fn send_piece(&mut self, (first, length): (u64, u64), log_length: u64, too_much: &impl Fn(String)) {
        let error = match self.patch(first, length).await {
            Ok(accepted) => {
                self.backoff.reset();
                self.delivery.taken(accepted, first + length, log_length, boottime_ms());
                return;
            }
            Err(error) => error,
        };
        let attempt = self.attempt;
        let fault = match &error {
            Refusal::Rewind(held) => {
                tracing::debug!(%attempt, held, first, log_length, "the daemon's log ends elsewhere");
                PieceFault::Rewind(*held)
            }
            Refusal::Call(error) if error.is_problem(LOG_DIFFERS) => {
                tracing::error!(%attempt, first, "the daemon holds other bytes of this log, which it keeps: did this machine lose power?");
                PieceFault::Differs
            }
            Refusal::Call(CallError::TooLarge(words)) => {
                tracing::warn!(%attempt, length, words, "a piece of the log does not get through");
                PieceFault::TooLarge(words.clone())
            }
            Refusal::Call(CallError::Garbled(_)) => PieceFault::Garbled,
            Refusal::Call(error) if error.is_passing() => PieceFault::Passing,
            Refusal::Call(error) => {
                tracing::warn!(%attempt, %error, "the daemon takes no more of the log");
                if matches!(error.status(), Some(413 | 507)) {
                    too_much(error.to_string());
                }
                PieceFault::Refused
            }
            Refusal::Spool(error) => {
                tracing::error!(%attempt, %error, "the spooled log cannot be read");
                PieceFault::Refused
            }
        };
        if self.delivery.piece_failed(fault, first, length, log_length) == Again::Later {
            self.wait(&error).await;
        }
    }

    async fn patch(&self, first: u64, length: u64) -> Result<LogAccepted, Refusal> {
        let bytes = read_range(self.folder, first, length).map_err(Refusal::Spool)?;
        let Some(range) = ContentRange::of(first, bytes.len() as u64) else {
            return Err(Refusal::Spool(io::Error::other("it is shorter than it was")));
        };
        match self.client.append_log(self.token, self.attempt, range, Bytes::from(bytes)).await {
            Ok(accepted) => Ok(accepted),
            Err(CallError::Problem(problem)) if problem.status == 416 => match problem.log_length {
                Some(held) => Err(Refusal::Rewind(held)),
                None => Err(Refusal::Call(CallError::Problem(problem))),
            },
            Err(error) => Err(Refusal::Call(error)),
        }
    }

    /// Waits until the daemon has the whole log on its disk: until then a power cut there could need the spool.
    pub(crate) async fn wait_until_synced(&mut self, log_length: u64) {
        if !self.delivery.is_settled() {
            return;
        }
        loop {
            match self.delivery.next(log_length, true, boottime_ms()) {
                Step::Piece { first, length } => self.send_piece((first, length), log_length, &drop).await,
                Step::WaitUntil(until_ms) => {
                    tokio::time::sleep(Duration::from_millis(until_ms.saturating_sub(boottime_ms()))).await;
                }
                Step::Result | Step::Done => return,
            }
        }
    }
}

/// What to make of a result that was not taken.
fn result_fault(error: &CallError) -> ResultFault {
    match error {
        CallError::TooLarge(words) => ResultFault::Unfit(words.clone()),
        CallError::Problem(problem) if matches!(problem.status, 400 | 413 | 422) => {
            ResultFault::Unfit(problem.detail.clone())
        }
        error if error.is_passing() => ResultFault::Passing,
        CallError::Problem(_) | CallError::Unreachable(_) | CallError::Garbled(_) => ResultFault::Refused,
    }
}

/// Why a piece of the log was not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the daemon's log has {0} bytes")]
    Rewind(u64),
    #[error(transparent)]
    Call(CallError),
    #[error("the spooled log: {0}")]
    Spool(io::Error),
}

/// Reads from the spooled log. A chunk is small and was written a moment ago, so this does not wait for a disk.
fn read_range(folder: &Path, first: u64, length: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(folder.join(spool::LOG))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(LOG_CHUNK_BYTES_MAX)];
    file.read_exact_at(&mut bytes, first)?;
    Ok(bytes)
}
