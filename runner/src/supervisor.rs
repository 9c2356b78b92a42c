//! The process that one attempt lives in: it takes the job from its runner, sees it to its end and leaves a result.
//!
//! It is forked from the launcher and outlives it and the runner. It is a session leader (no terminal's signals), a child subreaper (nothing that a job starts
//! escapes it) and not dumpable (its memory, secrets included, is closed to other processes of the same user). The job is
//! read from the runner's socket and never written down; what lies on disk is the masked log and the result.
//!
//! Threads: the main one prepares, executes and concludes; the pump copies output; the warden ends the job when it must;
//! one pair for each connection of a runner; one that hears signals. All but the main one only end with the process.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use forge_api::{AttemptOutcome, AttemptResult};
use forge_plugin_host::Host;
use rustix::process::DumpableBehavior;

use crate::executor::{self, Ground, Verdict};
use crate::files;
use crate::git::Git;
use crate::log::Log;
use crate::process::{Processes, Scope};
use crate::spool;
use crate::state::{Shared, boottime_ms};
use crate::warden::{self, Contact, Terms};
use crate::wire::{self, Brief, FromSupervisor, LINE_BYTES_MAX, Order, ToSupervisor};
use crate::workspace::{self, WorkspaceError};

/// The longest that the warden sleeps: its condition variable's clock stands still while the machine sleeps.
/// After each nap it lets go of dead orphans, of which a long job may leave thousands.
const WARDEN_NAP: Duration = Duration::from_secs(2);

/// The longest that a message to a runner that does not read may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection's writer waits for news before it looks whether the connection still stands.
const NEWS_NAP: Duration = Duration::from_secs(60);

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
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Takes the job from `connection` and sees it to its end. `host` is what the launcher had loaded.
pub(crate) fn main(connection: UnixStream, host: Option<Host>) -> ExitCode {
    match supervise(connection, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is a file in the spool: the runner shows it when there is no result. Nobody is left to tell more.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(connection: UnixStream, host: Option<Host>) -> Result<(), BeginError> {
    rustix::process::setsid().map_err(BeginError::Apart)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(BeginError::Apart)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(BeginError::Apart)?;
    let mut reader = BufReader::new(connection.try_clone().map_err(BeginError::Connection)?);
    let Some(brief) = read_brief(&mut reader)? else {
        // The runner changed its mind (the daemon took the attempt back) before it handed anything over.
        return Ok(());
    };
    let now_ms = boottime_ms();
    let contact =
        Contact { started_ms: now_ms, heard_ms: now_ms, leased_ms: now_ms.saturating_sub(brief.leased_ago_ms) };
    let shared = Arc::new(Shared::new(contact));
    let secrets: Vec<&str> = brief.job.secrets().into_iter().map(forge_api::Secret::reveal).collect();
    let log = Arc::new(Log::create(&brief.spool.join(spool::LOG), &secrets, Arc::clone(&shared))?);
    if let Some(user) = &brief.user {
        log.writer().and_then(|writer| user.owns_open(&writer)).map_err(BeginError::Spool)?;
    }
    let ground =
        Arc::new(Ground { log, processes: Arc::new(Processes::default()), shared, stop_grace_ms: brief.stop_grace_ms });
    start_threads(&brief, &ground, reader, connection)?;
    conclude(&brief, host, &ground);
    Ok(())
}

fn read_brief(reader: &mut BufReader<UnixStream>) -> Result<Option<Brief>, BeginError> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(BeginError::Brief)?;
    if !line.ends_with(b"\n") {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| BeginError::Brief(error.into()))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

fn start_threads(
    brief: &Brief,
    ground: &Arc<Ground>,
    reader: BufReader<UnixStream>,
    connection: UnixStream,
) -> Result<(), BeginError> {
    let listener = UnixListener::bind(brief.spool.join(spool::CONTROL)).map_err(BeginError::Spool)?;
    let terms = Terms {
        timeout_ms: brief.job.timeout_ms,
        runner_grace_ms: brief.job.runner_grace_ms,
        on_runner_lost: brief.job.on_runner_lost,
    };
    let start = || -> io::Result<()> {
        let shared = Arc::clone(&ground.shared);
        spawn("signals", move || hear_signals(&shared))?;
        let pump = Arc::clone(&ground.log);
        spawn("pump", move || pump.pump())?;
        let guarded = Arc::clone(ground);
        spawn("warden", move || guard(&guarded, terms))?;
        converse(Arc::clone(&ground.shared), reader, connection)?;
        let shared = Arc::clone(&ground.shared);
        spawn("control", move || accept(&shared, &listener))
    };
    start().map_err(BeginError::Thread)
}

/// Takes the connections of restarted runners. The folder is private, so only this user's processes reach the socket.
fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for connection in listener.incoming() {
        let conversation = connection.and_then(|connection| {
            let reader = BufReader::new(connection.try_clone()?);
            converse(Arc::clone(shared), reader, connection)
        });
        if let Err(error) = conversation {
            tracing::warn!(%error, "a runner could not attach");
        }
    }
}

/// Serves one connection of a runner: a thread that hears and one that tells.
fn converse(shared: Arc<Shared>, reader: BufReader<UnixStream>, connection: UnixStream) -> io::Result<()> {
    connection.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let heard = Arc::clone(&shared);
    spawn("hear", move || hear(&heard, reader))?;
    spawn("tell", move || tell(&shared, connection))
}

fn hear(shared: &Shared, mut reader: BufReader<UnixStream>) {
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let now_ms = boottime_ms();
        shared.heard(now_ms);
        match serde_json::from_slice(&line) {
            Ok(ToSupervisor::Alive) => {}
            Ok(ToSupervisor::LeaseMs(ago_ms)) => shared.leased(now_ms.saturating_sub(ago_ms)),
            Ok(ToSupervisor::Cancel(order)) => shared.end(order),
            Err(error) => tracing::warn!(%error, "a runner said what this supervisor does not understand"),
        }
    }
}

fn tell(shared: &Shared, mut connection: UnixStream) {
    let mut told_length = 0;
    let mut told_commit = false;
    loop {
        let news = shared.wait_for(NEWS_NAP, |state| {
            let commit = state.commit.clone().filter(|_| !told_commit);
            let is_news = state.log_length > told_length || commit.is_some() || state.ended;
            is_news.then_some((state.log_length, commit, state.ended))
        });
        let messages = match news {
            None => vec![FromSupervisor::Log(told_length)],
            Some((length, commit, ended)) => {
                told_length = length;
                told_commit |= commit.is_some();
                let commit = commit.map(FromSupervisor::Commit);
                commit
                    .into_iter()
                    .chain(std::iter::once(FromSupervisor::Log(length)))
                    .chain(ended.then_some(FromSupervisor::Ended))
                    .collect()
            }
        };
        let is_last = messages.contains(&FromSupervisor::Ended);
        let lines: io::Result<Vec<Vec<u8>>> = messages.iter().map(wire::line).collect();
        if lines.and_then(|lines| connection.write_all(&lines.concat())).is_err() {
            // A runner that stood still for long: it attaches anew when it goes on. Closed for the thread that hears, too, or
            // the runner would wait on this connection for news that nobody tells.
            let _ = connection.shutdown(std::net::Shutdown::Both);
            return;
        }
        if is_last {
            return;
        }
    }
}

/// Ends the job when it must end: the warden's thread.
fn guard(ground: &Ground, terms: Terms) {
    loop {
        let state = ground.shared.now();
        if state.ending.is_some() || state.ended {
            break;
        }
        let now_ms = boottime_ms();
        match warden::verdict(terms, state.contact, now_ms) {
            warden::Verdict::End(order) => ground.shared.end(order),
            warden::Verdict::WaitUntil(until_ms) => {
                let nap = Duration::from_millis(until_ms.saturating_sub(now_ms)).min(WARDEN_NAP);
                // Contact that is renewed only moves the moment away, so only an end needs to wake this thread.
                ground.shared.wait_for(nap, |state| (state.ending.is_some() || state.ended).then_some(()));
                ground.processes.reap_orphans();
            }
        }
    }
    ground.processes.end(Scope::All, ground.stop_grace_ms);
}

/// Turns a signal to the supervisor (the machine shuts down, say) into an orderly end of the job.
fn hear_signals(shared: &Shared) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    runtime.block_on(async {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
        else {
            return;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {}
            }
        }
    });
    let reason = "its supervisor was told to stop: the runner's machine shuts down, or someone ended it".to_owned();
    shared.end(Order { outcome: AttemptOutcome::Lost, reason });
    // The handlers stay for the life of the process: a second signal changes nothing either.
}

/// Prepares and executes the job, ends what it left, and leaves the result in the spool.
fn conclude(brief: &Brief, host: Option<Host>, ground: &Arc<Ground>) {
    let (verdict, commit) = carry_out(brief, host, ground);
    // From here on the warden has nothing to do but what is done here anyway.
    let verdict = match ground.shared.now().ending {
        Some(Order { outcome, reason }) => {
            Verdict { outcome, reason: Some(reason), exit_code: verdict.exit_code, summary: verdict.summary }
        }
        None => verdict,
    };
    let survivors = ground.processes.end(Scope::All, ground.stop_grace_ms);
    if !survivors.is_empty() {
        ground.log.forge(&format!("these processes cannot be ended, they hang in the kernel: {survivors:?}"));
    }
    ground.log.close_pipe();
    ground.log.drain();
    if let Some(reason) = &verdict.reason {
        ground.log.forge(reason);
    }
    let reason = verdict.reason.map(|reason| ground.log.masked(&reason));
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
        summary: verdict.summary,
        commit,
        log_length,
        log_sha256,
    };
    let written = spool::write_result(&brief.spool, &result).or_else(|_| {
        // The disk is full: what this attempt holds of it is given free first.
        ground.log.release_reserve();
        workspace::remove(&brief.workspace).and_then(|()| spool::write_result(&brief.spool, &result))
    });
    if let Err(error) = written {
        // The runner shows these words when there is no result.
        let _ = writeln!(io::stderr(), "the result cannot be written: {error}");
    }
    // Secrets go before anyone is told that all is over.
    for (what, removed) in
        [("secret files", files::remove(&brief.private)), ("workspace", workspace::remove(&brief.workspace))]
    {
        if let Err(error) = removed {
            tracing::warn!(what, %error, "could not be removed");
        }
    }
    let _ = files::remove(&brief.spool.join(spool::CONTROL));
    ground.shared.has_ended();
}

fn carry_out(brief: &Brief, host: Option<Host>, ground: &Arc<Ground>) -> (Verdict, Option<String>) {
    let git = Git {
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
    let commit_known = |commit: &str| ground.shared.commit_known(commit);
    match workspace::prepare(brief, &git, commit_known) {
        Err(error) => (Verdict::failed(error.to_string()), ground.shared.now().commit),
        Ok(_) if ground.shared.is_ending() => {
            (Verdict::failed(WorkspaceError::Canceled.to_string()), ground.shared.now().commit)
        }
        Ok(prepared) => (executor::execute(brief, host, &prepared, ground), prepared.commit),
    }
}
