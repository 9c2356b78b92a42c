//! Hands in one attempt's log and result until the daemon holds both: by offset, again and again, whatever happens between.
//!
//! The log goes first while it is nearly whole; a result never waits long for it. A daemon that is away is waited for.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, CARRY_MISSING, ContentRange, LOG_CHUNK_BYTES_MAX, LogAccepted, Secret,
    StartRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::client::{CallError, Client};
use crate::{carry, spool};

/// How long a known result waits for the rest of its log.
const RESULT_WAIT: Duration = Duration::from_secs(2);

/// How long to wait before asking again whether the whole log is on the daemon's disk.
const SYNC_WAIT: Duration = Duration::from_millis(1_100);

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
    /// How much the daemon holds.
    accepted: LogAccepted,
    /// The daemon takes no more of this log.
    log_refused: bool,
    commit_told: bool,
    carry_told: bool,
    /// How often the daemon said that it misses what the result carries.
    carry_missed: u32,
    /// How often something that is no daemon answered instead, or nothing did.
    carry_failed: u32,
    /// Why it was not taken, last.
    carry_error: Option<String>,
}

/// What a step calls for.
enum Next {
    Commit(String),
    Chunk(u64),
    Carry(u64),
    Result(Arc<AttemptResult>),
    Wait(Option<Instant>),
}

impl<'a> Upload<'a> {
    /// Nothing is handed in yet, as far as is known.
    pub(crate) fn new(client: &'a Client, attempt: AttemptId, token: &'a Secret, folder: &'a Path, seed: u64) -> Self {
        Self {
            client,
            attempt,
            token,
            folder,
            backoff: Backoff::new(seed),
            accepted: LogAccepted { length: 0, synced: 0 },
            log_refused: false,
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
        let mut sent_again = false;
        let mut result_at: Option<Instant> = None;
        let mut result_sent_early = false;
        loop {
            let now = available.borrow_and_update().clone();
            if now.result.is_some() && result_at.is_none() {
                result_at = Some(Instant::now() + RESULT_WAIT);
            }
            match self.next(&now, result_at, result_sent_early) {
                Next::Commit(commit) => self.tell_commit(commit).await,
                Next::Chunk(length) => self.send_chunk(length, &too_much).await,
                Next::Carry(length) => self.send_carry(length).await,
                Next::Wait(until) => {
                    let until = until.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
                    // A sender that is gone has said everything; the timeout keeps this from spinning.
                    let _ = tokio::time::timeout_at(until, available.changed()).await;
                }
                Next::Result(result) => {
                    match self.client.finish(self.token, self.attempt, &self.to_hand_in(&result)).await {
                        Ok(answer) => {
                            self.backoff.reset();
                            if !std::mem::replace(&mut told, true) {
                                acknowledged(&result);
                            }
                            if answer.log_whole || self.log_refused {
                                return Delivered::Acknowledged;
                            }
                            if self.accepted.length < result.log_length {
                                result_sent_early = true;
                            } else if answer.log_length < result.log_length {
                                self.accepted = LogAccepted { length: answer.log_length, synced: 0 };
                            } else if !std::mem::replace(&mut sent_again, true) {
                                tracing::warn!(attempt = %self.attempt, "the daemon's copy of the log is damaged: sending it again");
                                self.accepted = LogAccepted { length: 0, synced: 0 };
                            } else {
                                tracing::error!(attempt = %self.attempt, "the daemon's copy of the log stays damaged");
                                return Delivered::Acknowledged;
                            }
                        }
                        Err(error) if error.is_passing() => self.wait(&error).await,
                        Err(error) if error.is_problem(CARRY_MISSING) && self.carry_missed <= CARRY_RESENDS_MAX => {
                            self.carry_missed += 1;
                            self.carry_told = false;
                            // The daemon is there.
                            self.backoff.reset();
                            self.wait(&error).await;
                        }
                        Err(error) => {
                            tracing::warn!(attempt = %self.attempt, %error, "the daemon does not take the result");
                            return if told { Delivered::Acknowledged } else { Delivered::Unwanted };
                        }
                    }
                }
            }
        }
    }

    fn next(&self, now: &Available, result_at: Option<Instant>, result_sent_early: bool) -> Next {
        if let Some(commit) = now.commit.clone().filter(|_| !self.commit_told) {
            return Next::Commit(commit);
        }
        let is_behind = !self.log_refused && self.accepted.length < now.log_length;
        let hand_in = |result: &Arc<AttemptResult>| match &result.carry {
            // What the next attempt needs goes before the result that names it.
            Some(carry) if !self.carry_told => Next::Carry(carry.length),
            Some(_) | None => Next::Result(Arc::clone(result)),
        };
        match (&now.result, result_at) {
            (Some(result), _) if !is_behind => hand_in(result),
            (Some(result), Some(at)) if !result_sent_early && Instant::now() >= at => hand_in(result),
            _ if is_behind => Next::Chunk(now.log_length),
            (_, at) => Next::Wait(at),
        }
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

    /// What is handed in: a plan whose files the daemon never got is no plan.
    fn to_hand_in(&self, result: &Arc<AttemptResult>) -> Arc<AttemptResult> {
        if self.carry_missed <= CARRY_RESENDS_MAX {
            return Arc::clone(result);
        }
        let why = self.carry_error.as_deref().unwrap_or("the daemon does not have the files of the plan");
        Arc::new(AttemptResult {
            outcome: AttemptOutcome::Failed,
            reason: Some(format!("what it has planned could not be handed in: {why}")),
            carry: None,
            ..AttemptResult::clone(result)
        })
    }

    async fn wait(&mut self, error: &CallError) {
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

    async fn send_chunk(&mut self, available: u64, too_much: &impl Fn(String)) {
        let first = self.accepted.length;
        let length = (available - first).min(LOG_CHUNK_BYTES_MAX as u64);
        match self.patch(first, length).await {
            Ok(accepted) => {
                self.backoff.reset();
                self.accepted = LogAccepted { length: accepted.length.min(available), synced: accepted.synced };
            }
            Err(Refusal::Rewind(held)) if held != first && held <= available => self.accepted.length = held,
            Err(Refusal::Rewind(held)) => {
                tracing::error!(attempt = %self.attempt, held, first, available, "the daemon's log does not fit this one");
                self.log_refused = held != first;
                self.wait(&CallError::Garbled("the log's offset makes no sense".to_owned())).await;
            }
            Err(Refusal::Call(error)) if error.is_passing() => self.wait(&error).await,
            Err(Refusal::Call(error)) => {
                tracing::warn!(attempt = %self.attempt, %error, "the daemon takes no more of the log");
                self.log_refused = true;
                if matches!(error.status(), Some(413 | 507)) {
                    too_much(error.to_string());
                }
            }
            Err(Refusal::Spool(error)) => {
                tracing::error!(attempt = %self.attempt, %error, "the spooled log cannot be read");
                self.log_refused = true;
            }
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
    pub(crate) async fn wait_until_synced(&mut self) {
        let whole = self.accepted.length;
        while !self.log_refused && self.accepted.synced < whole {
            if self.accepted.length == whole {
                tokio::time::sleep(SYNC_WAIT).await;
            }
            // Handing in the last byte again changes nothing and brings news; what was lost goes from where it is missing.
            let first = self.accepted.length.min(whole - 1);
            match self.patch(first, (whole - first).min(LOG_CHUNK_BYTES_MAX as u64)).await {
                Ok(accepted) => {
                    self.accepted = LogAccepted { length: accepted.length.min(whole), synced: accepted.synced };
                }
                Err(Refusal::Rewind(held)) if held < first => self.accepted.length = held,
                Err(Refusal::Call(error)) if error.is_passing() => self.wait(&error).await,
                Err(Refusal::Call(_) | Refusal::Rewind(_) | Refusal::Spool(_)) => return,
            }
        }
    }
}

enum Refusal {
    Rewind(u64),
    Call(CallError),
    Spool(io::Error),
}

/// Reads from the spooled log. A chunk is small and was written a moment ago, so this does not wait for a disk.
fn read_range(folder: &Path, first: u64, length: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(folder.join(spool::LOG))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(LOG_CHUNK_BYTES_MAX)];
    file.read_exact_at(&mut bytes, first)?;
    Ok(bytes)
}
