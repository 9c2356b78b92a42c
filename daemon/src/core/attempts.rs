//! The attempt's own side: it starts, it sends its log, it ends. State is fenced; log bytes are not.

use bytes::Bytes;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, ContentRange, LogAccepted, LogState, PLUGIN_BYTES_MAX,
    RESULT_REASON_BYTES_MAX, RESULT_SUMMARY_BYTES_MAX, ResultAccepted, Secret, StartRequest, StartResponse,
};

use super::runners::check_said;
use super::{AttemptAccess, Core, CoreError, internal, log_error, refused, stored};
use crate::components;
use crate::logs::{LogError, Verdict};
use crate::secrets::{digest_of, same_digest};
use crate::store::{Finished, StoreError};

/// How often a log that is not what its runner says is asked for again.
const LOG_RESENDS_MAX: u32 = 1;

/// The most bytes of a commit's name.
const COMMIT_BYTES_MAX: usize = 128;

impl Core {
    /// Whether a token is the attempt's own. An attempt that is closed still authenticates: it hands in the rest of its log.
    pub async fn authenticate_attempt(&self, attempt: AttemptId, token: &Secret) -> Result<AttemptAccess, CoreError> {
        if let Some((runner, stored)) = self.inner.scheduler.live_attempt(attempt) {
            let is_its_own = same_digest(&forge_config::Digest(stored), &digest_of(token));
            let access = AttemptAccess { attempt, runner, log_whole: false };
            return if is_its_own { Ok(access) } else { Err(CoreError::Unauthorized) };
        }
        let view = self.inner.store.attempt(attempt).await.map_err(stored)?;
        let view = view.ok_or(CoreError::Unauthorized)?;
        let stored = <[u8; 32]>::try_from(view.token_sha256.as_slice()).map_err(|_| CoreError::Unauthorized)?;
        if !same_digest(&forge_config::Digest(stored), &digest_of(token)) {
            return Err(CoreError::Unauthorized);
        }
        let log_whole = view.log_state == LogState::Whole;
        Ok(AttemptAccess { attempt, runner: view.runner, log_whole })
    }

    /// The attempt's process is about to run, or its commit has become known.
    pub async fn start_attempt(
        &self,
        access: &AttemptAccess,
        request: StartRequest,
    ) -> Result<StartResponse, CoreError> {
        check_commit(request.commit.as_deref())?;
        check_said(request.session.as_deref().as_slice(), 0)?;
        let started = self.inner.store.start(access.attempt, request, self.now()).await;
        let cancel = started.map_err(|error| self.fenced(error, access))?;
        self.inner.scheduler.heard_of_attempt(access.attempt);
        self.inner.scheduler.changed().tasks([access.attempt.task]);
        Ok(StartResponse { cancel })
    }

    fn fenced(&self, error: StoreError, access: &AttemptAccess) -> CoreError {
        if matches!(error, StoreError::Refused(_)) {
            self.inner.scheduler.count_fenced();
        }
        refused(error, "attempt", &access.attempt.to_string(), Some(access.attempt))
    }

    /// Takes bytes of an attempt's log.
    pub async fn append_log(
        &self,
        access: &AttemptAccess,
        range: ContentRange,
        bytes: Bytes,
    ) -> Result<LogAccepted, CoreError> {
        self.inner.scheduler.heard_of_attempt(access.attempt);
        // A log that was found whole stays what it is; the same bytes once more are no harm.
        if access.log_whole && range.last >= self.inner.logs.length(access.attempt) {
            return Err(CoreError::Conflict {
                detail: format!("the log of attempt {} was handed in whole and takes no more", access.attempt),
                hint: None,
            });
        }
        let appended = self.inner.logs.append(access.attempt, range, bytes).await;
        match appended.map_err(|error| self.append_error(error, access.attempt)) {
            Err(CoreError::LogLimit { attempt, bytes_max }) => {
                let reason = format!(
                    "its log is longer than `max_bytes` under [logs] of forge.toml ({bytes_max} bytes): let it print less, or raise that"
                );
                self.fail_attempt(attempt, reason).await?;
                self.inner.store.set_log_state(attempt, LogState::Damaged, 0).await.map_err(stored)?;
                Err(CoreError::LogLimit { attempt, bytes_max })
            }
            other => other,
        }
    }

    /// A disk that is full is nobody's mistake: the runner keeps what it has and sends it again.
    fn append_error(&self, error: LogError, attempt: AttemptId) -> CoreError {
        if !error.is_full() {
            return log_error(error, attempt);
        }
        tracing::error!(%attempt, %error, "there is no room for a log; its runner keeps it and sends it again");
        let free_bytes = self.inner.logs.free_bytes().unwrap_or_default();
        CoreError::StorageFull { free_bytes, reserve_bytes: self.inner.log_limits.disk_reserve_bytes }
    }

    /// Takes an attempt's end. The same report again changes nothing, and says how much of the log is there by now.
    pub async fn finish_attempt(
        &self,
        access: &AttemptAccess,
        result: AttemptResult,
    ) -> Result<ResultAccepted, CoreError> {
        check_result(&result)?;
        self.inner.scheduler.heard_of_attempt(access.attempt);
        if result.outcome == AttemptOutcome::AwaitsApproval {
            self.check_carry(access.attempt, result.carry.as_ref()).await?;
        }
        let (length, sha256) = (result.log_length, result.log_sha256.clone());
        // A log that is known to be whole by now is written down with the end itself.
        let is_whole = self.inner.logs.is_whole_now(access.attempt, length, &sha256);
        let log = if is_whole { LogState::Whole } else { LogState::Open };
        let finished = self.inner.store.finish(access.attempt, result, log, self.now()).await;
        let Finished { fate, counted, is_first, one_off } = finished.map_err(|error| self.fenced(error, access))?;
        if !counted {
            self.inner.scheduler.count_fenced();
        }
        let state = fate.state;
        // At once: what follows may take as long as the log is, and a runner that hangs up meanwhile must not hide the end.
        self.inner.scheduler.after(&[fate]);
        let (log_length, log_whole) = if is_whole && is_first && counted {
            self.inner.logs.close(access.attempt);
            (length, true)
        } else {
            self.judge_log(access.attempt, length, sha256).await?
        };
        if log_whole {
            self.inner.scheduler.tell_readers(access.attempt.task);
        }
        if log_whole && one_off {
            self.inner.scheduler.leaves(&access.runner);
        }
        Ok(ResultAccepted { state, counted, log_length, log_whole })
    }

    /// Whether the log is whole. One that is not what it should be is asked for once more, then kept as damaged.
    async fn judge_log(&self, attempt: AttemptId, length: u64, sha256: String) -> Result<(u64, bool), CoreError> {
        let view = self.inner.store.attempt(attempt).await.map_err(stored)?;
        let view = view.ok_or(CoreError::Unauthorized)?;
        // The report that was kept is the one that counts: a later one with another log changes nothing.
        let (length, sha256) = view.result.map_or((length, sha256), |kept| (kept.log_length, kept.log_sha256));
        match view.log_state {
            LogState::Whole => return Ok((length, true)),
            // What is there, and not what the report that was kept says: nothing more of it is asked for.
            LogState::Damaged => return Ok((self.inner.logs.length(attempt), false)),
            LogState::Open => {}
        }
        let verified = self.inner.logs.verify(attempt, length, sha256).await;
        let (verdict, held) = verified.map_err(|error| log_error(error, attempt))?;
        let keep = |state, resends| self.inner.store.set_log_state(attempt, state, resends);
        match verdict {
            Verdict::Short => Ok((held, false)),
            Verdict::Whole => {
                self.inner.logs.sync_one(attempt).await.map_err(|error| log_error(error, attempt))?;
                keep(LogState::Whole, view.resends).await.map_err(stored)?;
                self.inner.logs.close(attempt);
                Ok((held, true))
            }
            // The runner's copy is what a power cut has left of it: what was acknowledged stays.
            Verdict::Forked => {
                tracing::error!(%attempt, held, length, "a log has other bytes than its runner has left; it is kept as damaged");
                keep(LogState::Damaged, view.resends).await.map_err(stored)?;
                Ok((held, false))
            }
            Verdict::Wrong if view.resends < LOG_RESENDS_MAX => {
                tracing::warn!(%attempt, "a log is not what its runner sent; it is asked for again");
                self.inner.logs.restart(attempt).await.map_err(|error| log_error(error, attempt))?;
                keep(LogState::Open, view.resends + 1).await.map_err(stored)?;
                Ok((0, false))
            }
            Verdict::Wrong => {
                tracing::error!(%attempt, "a log is not what its runner sent, twice; it is kept as damaged");
                keep(LogState::Damaged, view.resends).await.map_err(stored)?;
                Ok((length, false))
            }
        }
    }

    /// The component of a digest that the tree or an open task names, and its length.
    pub async fn plugin_file(&self, sha256: &str) -> Result<(tokio::fs::File, u64), CoreError> {
        let unknown = || CoreError::NotFound { what: "plugin", name: sha256.to_owned(), nearest: None };
        let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_digest {
            return Err(unknown());
        }
        let applied = self.inner.scheduler.applied();
        let in_tree = applied.tree.plugins.values().any(|plugin| plugin.sha256.hex() == sha256);
        if !in_tree && !self.inner.store.open_task_uses_plugin(sha256.to_owned()).await.map_err(stored)? {
            return Err(unknown());
        }
        let failed = |error: std::io::Error| internal(format!("plugin {sha256}: {error}"));
        let file = tokio::fs::File::open(components::path_of(&self.inner.plugin_dir, sha256)).await.map_err(failed)?;
        let length = file.metadata().await.map_err(failed)?.len();
        if length > u64::try_from(PLUGIN_BYTES_MAX).unwrap_or(u64::MAX) {
            return Err(internal(format!("plugin {sha256}: its file is longer than a plugin may be")));
        }
        Ok((file, length))
    }
}

fn check_commit(commit: Option<&str>) -> Result<(), CoreError> {
    let wrong = |commit: &&str| {
        commit.is_empty() || commit.len() > COMMIT_BYTES_MAX || !commit.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match commit.filter(wrong) {
        Some(commit) => Err(CoreError::Invalid {
            detail: format!("{commit:?} is no commit"),
            hint: Some("send the whole object name in hex".to_owned()),
        }),
        None => Ok(()),
    }
}

fn check_result(result: &AttemptResult) -> Result<(), CoreError> {
    check_commit(result.commit.as_deref())?;
    let summary_bytes = match &result.summary {
        Some(summary) => serde_json::to_vec(summary).map_err(internal)?.len(),
        None => 0,
    };
    let reason_bytes = result.reason.as_ref().map_or(0, String::len);
    if summary_bytes > RESULT_SUMMARY_BYTES_MAX || reason_bytes > RESULT_REASON_BYTES_MAX {
        return Err(CoreError::Invalid {
            detail: format!(
                "a reason has {RESULT_REASON_BYTES_MAX} bytes and a summary {RESULT_SUMMARY_BYTES_MAX} at most; these have \
                 {reason_bytes} and {summary_bytes}"
            ),
            hint: Some("put what is long into the log".to_owned()),
        });
    }
    Ok(())
}
