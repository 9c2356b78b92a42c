//! The process that one attempt lives in: it takes the job from its runner, sees it to its end and leaves a result.
//!
//! It is forked from the launcher and outlives it and the runner. It is a session leader (no terminal's signals), a child subreaper (nothing that a job starts
//! escapes it) and not dumpable (its memory, secrets included, is closed to other processes of the same user). The job is
//! read from the runner's socket and never written down; what lies on disk is the masked log and the result.
//!
//! It gets ready while the runner asks for the daemon's word, as far as that changes nothing but the attempt's own folders and the gate
//! of its cache: the plugin is even called, and waits when it asks for its first process. Without the word nothing of that stays.
//!
//! Threads: the main one prepares, executes and concludes; the attendant hears and tells, and knows when the job must end. Others
//! come only where they are needed: the pump copies output when nobody else does, and one ends the job's processes. All but the
//! main one only end with the process.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use forge_api::{AttemptOutcome, AttemptResult, InventorySource, Job};
use forge_plugin_host::Host;
use rustix::process::DumpableBehavior;
use serde::de::DeserializeOwned;

use crate::attendant::Attendant;
use crate::bell::Bell;
use crate::cache::Cache;
use crate::carry::CarryError;
use crate::executor::{self, Ground, Ready, Verdict};
use crate::files;
use crate::fit;
use crate::git::Git;
use crate::guest::Guest;
use crate::kept;
use crate::log::Log;
use crate::orphans;
use crate::process::Processes;
use crate::shelf;
use crate::spool;
use crate::state::{Shared, boottime_ms};
use crate::warden::{Contact, Terms};
use crate::wire::{Brief, LINE_BYTES_MAX, Order};
use crate::workspace::{self, WorkspaceError};

/// Why a supervisor could not even begin. There is no log yet: the runner sees only that no result comes.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("the process cannot be set apart: {0}")]
    Apart(rustix::io::Errno),
    #[error("the runner's connection cannot be used: {0}")]
    Connection(io::Error),
    #[error("the runner's brief cannot be read: {0}")]
    Brief(io::Error),
    #[error("the attempt's folder cannot be used: {0}")]
    Spool(io::Error),
    #[error("the log cannot be opened: {0}")]
    Log(io::Error),
    #[error("a mark for the job's processes cannot be made: {0}")]
    Mark(io::Error),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Takes the job from `connection` and sees it to its end. `host` is what the launcher had loaded, and `plugin_sha256` what the job
/// will most likely run.
pub(crate) fn main(connection: UnixStream, host: Option<Host>, plugin_sha256: &str) -> ExitCode {
    match supervise(connection, host, plugin_sha256) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is a file in the spool: the runner shows it when there is no result. Nobody is left to tell more.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(connection: UnixStream, host: Option<Host>, plugin_sha256: &str) -> Result<(), BeginError> {
    rustix::process::setsid().map_err(BeginError::Apart)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(BeginError::Apart)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(BeginError::Apart)?;
    let mut reader = BufReader::new(connection.try_clone().map_err(BeginError::Connection)?);
    if let Some(host) = &host {
        executor::warm_up(host, plugin_sha256);
    }
    // A runner that hangs up has changed its mind: the daemon took the attempt back. Nothing of the job was done.
    let Some(brief) = read_line::<Brief>(&mut reader)? else { return Ok(()) };
    std::env::set_current_dir(&brief.spool).map_err(BeginError::Spool)?;
    let early = executor::make_ready(&brief, host);
    let bell = Arc::new(Bell::new().map_err(BeginError::Connection)?);
    let shared = Arc::new(Shared::new(Contact::at(boottime_ms()), Arc::clone(&bell)));
    let secrets: Vec<&str> = brief.job.secrets().into_iter().map(forge_api::Secret::reveal).collect();
    let log =
        Arc::new(Log::create(&brief.spool.join(spool::LOG), &secrets, Arc::clone(&shared)).map_err(BeginError::Log)?);
    let ground = Arc::new(Ground {
        log,
        processes: Processes::default(),
        shared,
        bell: Arc::clone(&bell),
        guest: Guest::new(),
        stop_grace_ms: brief.stop_grace_ms,
    });
    let _mark = orphans::mark_children().map_err(BeginError::Mark)?;
    if let Some(user) = &brief.user {
        ground.log.writer().and_then(|writer| user.owns_open(&writer)).map_err(BeginError::Spool)?;
    }
    let terms = Terms {
        timeout_ms: brief.job.timeout_ms,
        runner_grace_ms: brief.job.runner_grace_ms,
        on_runner_lost: brief.job.on_runner_lost,
    };
    let attendant = Attendant { ground: Arc::clone(&ground), bell, terms, control: brief.spool.join(spool::CONTROL) };
    let unread = reader.buffer().to_vec();
    attendant.start(connection, unread).map_err(BeginError::Thread)?;
    let ready = match early {
        Ok(ready) if is_prepared_alone(&brief.job) => Ok(ready),
        early => {
            ground.guest.pauses();
            if !ground.shared.may_begin() {
                return Ok(());
            }
            ground.guest.computes(&ground.bell);
            // The first attempt of a plugin was born before the runner had compiled it, which it has by now.
            early.or_else(|_| executor::make_ready(&brief, None))
        }
    };
    conclude(&brief, ready, &ground);
    // Word for the runner, without waking another thread: the result is there. A runner that came later hears it by the end of
    // this process.
    let _ = reader.get_ref().shutdown(std::net::Shutdown::Both);
    Ok(())
}

/// Whether a job's folders are made ready without a process, a network or what comes with the daemon's word.
fn is_prepared_alone(job: &Job) -> bool {
    let has_far_inventory = matches!(
        job.inventory.as_ref().map(|inventory| &inventory.source),
        Some(InventorySource::RepositoryFile { .. })
    );
    job.repository.is_none() && !has_far_inventory && job.resume.is_none()
}

/// What the runner says next; `None` when it has hung up.
fn read_line<T: DeserializeOwned>(reader: &mut BufReader<UnixStream>) -> Result<Option<T>, BeginError> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(BeginError::Brief)?;
    if !line.ends_with(b"\n") {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| BeginError::Brief(error.into()))
}

/// Prepares and executes the job, ends what it left, and leaves the result in the spool.
fn conclude(brief: &Brief, ready: Result<Ready, String>, ground: &Arc<Ground>) {
    // Held until no process of the job is left.
    let cache = take_cache(brief, &ground.log);
    let (verdict, commit) = carry_out(brief, ready, cache.as_ref(), ground);
    // A plugin that started no process may be done before the word has come.
    ground.guest.pauses();
    if !ground.shared.may_begin() {
        leave_nothing(brief);
        return;
    }
    // From here on the warden has nothing to do but what is done here anyway.
    let verdict = match ground.shared.now().ending {
        Some(Order { outcome, reason }) => {
            Verdict { outcome, reason: Some(reason), no_retry: false, retry_after_ms: None, ..verdict }
        }
        None => verdict,
    };
    let survivors = ground.end_all();
    if !survivors.is_empty() {
        ground.log.forge(&format!("these processes cannot be ended, they hang in the kernel: {survivors:?}"));
    }
    drop(cache);
    ground.log.close_pipe();
    ground.log.drain();
    if let Some(reason) = &verdict.reason {
        ground.log.forge(reason);
    }
    kept::keep_and_say(brief, verdict.outcome, &ground.log);
    let reason = verdict.reason.map(|reason| fit::reason(ground.log.masked(&reason)));
    // A plugin sees what its processes wrote into the workspace, unmasked, and may put it here.
    let summary = verdict.summary.map(|summary| ground.log.masked_json(summary));
    let (summary, left_out) = summary.map_or((None, None), fit::summary);
    if let Some(words) = left_out {
        ground.log.forge(&words);
    }
    let total = ground.log.finish();
    let (log_length, log_sha256) = match total {
        Ok(total) => (total.length, total.sha256),
        Err(error) => {
            tracing::error!(%error, "the log cannot be synced");
            (0, files::sha256_hex(b""))
        }
    };
    let result = AttemptResult {
        outcome: verdict.outcome,
        reason,
        exit_code: verdict.exit_code,
        summary,
        commit,
        log_length,
        log_sha256,
        carry: verdict.carry.filter(|_| verdict.outcome == AttemptOutcome::AwaitsApproval),
        no_retry: verdict.no_retry,
        retry_after_ms: verdict.retry_after_ms,
        nothing_ran: verdict.nothing_ran,
    };
    let written = spool::write_result(&brief.spool, brief.job.attempt, &result).or_else(|_| {
        // The disk is full: what this attempt holds of it is given free first.
        ground.log.release_reserve();
        workspace::remove(&brief.workspace)
            .and_then(|()| kept::give_up(brief.kept_workspaces.as_deref(), brief.job.attempt))
            .and_then(|()| spool::write_result(&brief.spool, brief.job.attempt, &result))
    });
    if let Err(error) = written {
        // The runner shows these words when there is no result.
        let _ = writeln!(io::stderr(), "the result cannot be written: {error}");
    }
    // Secrets go before anyone is told that all is over. A workspace that holds nothing is left for the runner to keep.
    let is_kept = brief.user.is_none() && shelf::tidy(&brief.workspace);
    let workspace = if is_kept { Ok(()) } else { workspace::remove(&brief.workspace) };
    for (what, removed) in [("secret files", files::remove(&brief.private)), ("workspace", workspace)] {
        if let Err(error) = removed {
            tracing::warn!(what, %error, "could not be removed");
        }
    }
    ground.shared.has_ended();
    let _ = files::remove(&brief.spool.join(spool::CONTROL));
}

/// Removes what was made ready for an attempt that does not begin. The spool is the runner's.
fn leave_nothing(brief: &Brief) {
    for (what, removed) in
        [("secret files", files::remove(&brief.private)), ("workspace", workspace::remove(&brief.workspace))]
    {
        if let Err(error) = removed {
            tracing::warn!(what, %error, "could not be removed");
        }
    }
}

/// What stays between attempts. A job works without it, only slower.
fn take_cache(brief: &Brief, log: &Log) -> Option<Cache> {
    let Brief { job, caches, user, .. } = brief;
    Cache::take(caches, &job.project, &job.plugin.name, user.as_ref())
        .map_err(|error| {
            log.forge(&format!("warning: the job does without its folder in {}: {error}", caches.display()));
        })
        .ok()
}

fn carry_out(
    brief: &Brief,
    ready: Result<Ready, String>,
    cache: Option<&Cache>,
    ground: &Arc<Ground>,
) -> (Verdict, Option<String>) {
    let git = Git {
        project: &brief.job.project,
        program: &brief.git_client,
        environment: &brief.git_environment,
        caches: &brief.git_caches,
        scripts: &brief.spool,
        private: &brief.private,
        ssh_config_path: brief.ssh_config_path.as_deref(),
        log: &ground.log,
        processes: &ground.processes,
        shared: &ground.shared,
        is_apart: brief.user.is_some(),
    };
    if brief.job.repository.is_some() {
        // It may take long to fetch.
        ground.guest.pauses();
    }
    let commit_known = |commit: &str| ground.shared.commit_known(commit);
    match workspace::prepare(brief, &git, commit_known) {
        Err(error) => (Verdict::unbegun(error.to_string()), ground.shared.now().commit),
        Ok(_) if ground.shared.is_ending() => {
            (Verdict::unbegun(WorkspaceError::Canceled.to_string()), ground.shared.now().commit)
        }
        Ok(prepared) => match resume(brief, ground) {
            Ok(()) => (executor::execute(brief, ready, &prepared, cache.map(Cache::path), ground), prepared.commit),
            // This runner's disk, say: another one may have room for the plan.
            Err(error @ (CarryError::File { .. } | CarryError::Io(_))) => {
                (Verdict::unbegun(error.to_string()), prepared.commit)
            }
            Err(error @ (CarryError::TooLarge | CarryError::NoKey | CarryError::Sealed)) => {
                (Verdict::failed(error.to_string()), prepared.commit)
            }
        },
    }
}

/// Puts back what an earlier attempt of the task has planned with, where a person has approved that.
fn resume(brief: &Brief, ground: &Ground) -> Result<(), CarryError> {
    let Some(carry) = &brief.job.resume else { return Ok(()) };
    brief.carrier().unpack(carry)?;
    ground.log.forge(&format!("approved: going on with what attempt {} has planned", carry.attempt.attempt));
    Ok(())
}
