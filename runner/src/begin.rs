//! The beginning of an attempt: its folder, its supervisor's process, the daemon's word and the plugin.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forge_api::{AttemptId, Job, StartRequest, StartResponse};
use forge_plugin_host::{Host, HostOptions, KEPT_AT_LEAST};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::backoff::Backoff;
use crate::client::CallError;
use crate::job::Context;
use crate::launch::{LastWords, Newborn};
use crate::settings::RunAs;
use crate::spool::{self, Record, Stage};
use crate::state::boottime_ms;
use crate::user::JobUser;
use crate::warden::is_fresh;
use crate::wire::{self, Brief};
use crate::{carry, files};

/// How long a daemon that went away after it gave its word is waited for, to have the plugin and the approved plan.
const DAEMON_WAIT_MAX: Duration = Duration::from_secs(120);

/// How often a plugin is asked for that comes as what it is not, before the attempt fails.
const WRONG_DOWNLOADS_MAX: u32 = 5;

/// How many supervisors one attempt may have that die before they begin it: nothing of the job ran, so that another one takes it.
pub(crate) const SUPERVISORS_MAX: u32 = 3;

/// Where secret files go when the machine has it: memory that is never written to a disk.
const MEMORY_FOLDER: &str = "/dev/shm";

/// Variables of the runner's own environment that every job sees.
const PASSED_ALWAYS: [&str; 3] = ["PATH", "LANG", "TZ"];

/// Variables of the runner's own environment that git sees too: which CAs it trusts and how it leaves the network.
const PASSED_TO_GIT: [&str; 6] =
    ["GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// What Forge's own variables begin with. The runner's tokens are among them, so no job sees one, whatever is granted.
const FORGE_PREFIX: &str = "FORGE_";

/// Where programs are looked for on a machine that sets no PATH.
pub(crate) const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Work of the plugin host that may take a while.
type HostWork = Box<dyn FnOnce(&Host) -> Result<bool, String> + Send>;

/// Why an attempt failed before its supervisor had it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// The plugin.
    #[error("the plugin {name} cannot be had: {reason}")]
    Plugin {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// What an approved attempt is to go on with.
    #[error("what attempt {left_by} has planned cannot be had: {reason}")]
    Carry {
        /// The attempt that planned.
        left_by: AttemptId,
        /// Why.
        reason: String,
    },
    /// The supervisor.
    #[error("the runner cannot start a supervisor ({program}): {error}")]
    Supervisor {
        /// Its program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// The supervisor died at once.
    #[error("the job cannot be handed to its supervisor: {error}{words}")]
    Brief {
        /// Why.
        error: io::Error,
        /// What it said at its end.
        words: String,
    },
    /// The attempt's folder.
    #[error("the runner's folder for the attempt cannot be made: {0}")]
    Spool(io::Error),
}

/// A started supervisor that knows its job and waits for word to begin it.
pub(crate) struct Supervisor {
    pub(crate) stream: UnixStream,
    pub(crate) record: Record,
    pub(crate) words: LastWords,
}

/// The daemon's word on an attempt that starts.
enum Started {
    /// It is this runner's, and its lease was renewed by a request that was sent at this moment.
    Live(u64),
    /// It was canceled meanwhile.
    Canceled,
    /// It is not this runner's any more.
    Gone,
}

/// What came of beginning an attempt.
pub(crate) enum Begun {
    /// It may run: its lease was renewed by a request that was sent at this moment.
    Live(u64, Box<Supervisor>),
    /// It was canceled meanwhile.
    Canceled,
    /// It is not this runner's any more.
    Gone,
}

/// Which supervisor was told the job last. It gets ready in the attempt's folders, which are its own until it is dead: see
/// [`crate::job::let_go`].
pub(crate) type Briefed = Mutex<Option<Record>>;

/// Begins an attempt. What can be done at once is done at once: the daemon's word, the plugin and the supervisor do not need each other. The
/// daemon is asked first, since its answer takes longest.
pub(crate) async fn begin(
    context: &Context,
    job: &Job,
    user: Option<&JobUser>,
    folder: &Path,
    briefed: &Briefed,
) -> Result<Begun, BeginError> {
    let told = Record { stage: Stage::Told, ..record_of(context, job, user, 0, 0) };
    make_folder(context, &told, folder).map_err(BeginError::Spool)?;
    // A successor of this runner knows by it that the daemon waits for word, and that nothing ran.
    spool::write_record(folder, &told).map_err(BeginError::Spool)?;
    // The plan comes after the daemon's word: while it cannot be asked it cannot be had, and an attempt that never began is given away
    // again with its plan.
    let started = async {
        let started = start(context, job).await;
        let carry = match started {
            Started::Live(_) => fetch_carry(context, job, folder).await,
            Started::Canceled | Started::Gone => Ok(()),
        };
        (started, carry)
    };
    let prepared = async {
        // The question leaves before anything else takes this thread.
        tokio::task::yield_now().await;
        if user.is_none() {
            context.shelf.take_workspace(&told.workspace);
        }
        tokio::join!(ensure_plugin(context, job), start_supervisor(context, job, user, folder, briefed))
    };
    tokio::pin!(started, prepared);
    // A plugin may take long to come: an attempt that is not to run does not wait for it.
    let (word, ready) = tokio::select! {
        biased;
        word = &mut started => (word, None),
        ready = &mut prepared => (started.await, Some(ready)),
    };
    match word {
        (Started::Gone, _) => Ok(Begun::Gone),
        (Started::Canceled, _) => Ok(Begun::Canceled),
        (Started::Live(asked_ms), carry) => {
            let (plugin, supervisor) = match ready {
                Some(ready) => ready,
                None => prepared.await,
            };
            plugin.and(carry)?;
            Ok(Begun::Live(asked_ms, Box::new(supervisor?)))
        }
    }
}

/// Makes the attempt's folder. A supervisor that was killed before it began may have left one, and the attempt's other places.
fn make_folder(context: &Context, record: &Record, folder: &Path) -> io::Result<()> {
    spool::remove_places(record, None)?;
    files::remove(folder)?;
    if !context.shelf.take_spool(folder) {
        files::make_private_folder(folder)?;
    }
    Ok(())
}

/// Says that the attempt starts, until the daemon answers.
async fn start(context: &Context, job: &Job) -> Started {
    let mut backoff = Backoff::new(job.attempt.task);
    let request = StartRequest { commit: None, session: Some(context.session.clone()) };
    loop {
        let sent_ms = boottime_ms();
        match context.client.start(&job.token, job.attempt, &request).await {
            Ok(StartResponse { cancel: false }) if is_fresh(sent_ms, job.runner_grace_ms, boottime_ms()) => {
                return Started::Live(sent_ms);
            }
            // This process stood still meanwhile: the daemon may have given the task away since.
            Ok(StartResponse { cancel: false }) => {}
            Ok(StartResponse { cancel: true }) => return Started::Canceled,
            Err(error) if error.is_passing() => {
                tracing::debug!(attempt = %job.attempt, %error, "the start could not be told");
                tokio::time::sleep(Duration::from_millis(backoff.next_ms())).await;
            }
            Err(error) => {
                tracing::info!(attempt = %job.attempt, %error, "the attempt is not this runner's any more");
                return Started::Gone;
            }
        }
    }
}

/// Makes sure that the job's plugin lies compiled in the cache, where the supervisor takes it from.
async fn ensure_plugin(context: &Context, job: &Job) -> Result<(), BeginError> {
    let sha256 = job.plugin.sha256.clone();
    if is_known(context, &sha256) {
        return Ok(());
    }
    // Attempts that begin together want the same plugin: the first one fetches and compiles it, the others find it.
    let _alone = context.preparing.alone(&sha256).await;
    if is_known(context, &sha256) {
        return Ok(());
    }
    let failed = |reason: String| BeginError::Plugin { name: job.plugin.name.clone(), reason };
    // Made for this and dropped again: a plugin is new seldom, and an engine that has compiled holds memory.
    let blocking = |work: HostWork| {
        let options = HostOptions { cache_dir: Some(context.settings.plugin_cache()), ..HostOptions::default() };
        let work = move || work(&Host::new(options).map_err(|error| error.to_string())?);
        async move { tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())? }
    };
    let digest = sha256.clone();
    let lookup = Box::new(move |host: &Host| {
        host.load_cached(&digest).map(|found| found.is_some()).map_err(|error| error.to_string())
    });
    if !blocking(lookup).await.map_err(failed)? {
        let bytes = download(context, job).await?;
        let digest = sha256.clone();
        let compile = Box::new(move |host: &Host| {
            host.load(&bytes).map_err(|error| error.to_string())?;
            host.load_cached(&digest).map(|found| found.is_some()).map_err(|error| error.to_string())
        });
        if !blocking(compile).await.map_err(failed)? {
            return Err(failed(format!(
                "it cannot be kept in {}: is the disk full?",
                context.settings.plugin_cache().display()
            )));
        }
    }
    lock(&context.compiled).insert(sha256, Instant::now());
    Ok(())
}

/// Puts what an approved attempt is to go on with into the spool.
async fn fetch_carry(context: &Context, job: &Job, folder: &Path) -> Result<(), BeginError> {
    let Some(carry) = &job.resume else { return Ok(()) };
    let failed = |reason: String| BeginError::Carry { left_by: carry.attempt, reason };
    let mut backoff = Backoff::new(job.attempt.task);
    let until = tokio::time::Instant::now() + DAEMON_WAIT_MAX;
    let bytes = loop {
        match context.client.carry(&job.token, job.attempt, carry.length).await {
            Ok(bytes) => break bytes,
            Err(error) if error.is_passing() && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(backoff.next_ms())).await;
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    if files::sha256_hex(&bytes) != carry.sha256 {
        return Err(failed("what the daemon sent is not what was approved".to_owned()));
    }
    let path = folder.join(carry::IN);
    let written = tokio::task::spawn_blocking(move || files::write_new_private(&path, &bytes, 0o600)).await;
    written.map_err(|error| failed(error.to_string()))?.map_err(BeginError::Spool)
}

/// Whether the plugin was seen in the cache so lately that it is there still. To look anew is what keeps it there.
fn is_known(context: &Context, sha256: &str) -> bool {
    lock(&context.compiled).get(sha256).is_some_and(|seen| seen.elapsed() < KEPT_AT_LEAST / 2)
}

async fn download(context: &Context, job: &Job) -> Result<Vec<u8>, BeginError> {
    let mut backoff = Backoff::new(job.attempt.task);
    let mut wrong = 0;
    let until = tokio::time::Instant::now() + DAEMON_WAIT_MAX;
    loop {
        let answer = context.client.plugin(&context.runner_token, &job.plugin.sha256).await;
        let checked = answer.and_then(|bytes| check_digest(bytes, &job.plugin.sha256));
        let error = match checked {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        // A daemon that is away comes back; what is changed on its way is seldom anything else the next time.
        let is_worth_a_try = match &error {
            CallError::Unreachable(_) | CallError::Problem(_) => {
                error.is_passing() && tokio::time::Instant::now() < until
            }
            CallError::Garbled(_) | CallError::TooLarge(_) => {
                wrong += 1;
                wrong < WRONG_DOWNLOADS_MAX
            }
        };
        if !is_worth_a_try {
            return Err(BeginError::Plugin { name: job.plugin.name.clone(), reason: error.to_string() });
        }
        tokio::time::sleep(Duration::from_millis(backoff.next_ms())).await;
    }
}

/// What has another digest is another plugin, or none: the name that the signed job gives it is what is believed.
fn check_digest(bytes: Vec<u8>, sha256: &str) -> Result<Vec<u8>, CallError> {
    let found = files::sha256_hex(&bytes);
    if found == sha256 {
        return Ok(bytes);
    }
    Err(CallError::Garbled(format!(
        "what the daemon sent ({} bytes) has the SHA-256 {found} and not {sha256}: its file {sha256}.wasm in plugins of \
         data_dir is damaged, or something between daemon and runner changes what it passes on",
        bytes.len()
    )))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the launcher start the supervisor's process and tells it the job, for which it gets ready meanwhile. One that dies of something else
/// before it has heard of the job is replaced, and so is a launcher.
async fn start_supervisor(
    context: &Context,
    job: &Job,
    user: Option<&JobUser>,
    folder: &Path,
    briefed: &Briefed,
) -> Result<Supervisor, BeginError> {
    let mut tries = 1;
    loop {
        match brief_supervisor(context, job, user, folder, briefed).await {
            Err(error) if tries < SUPERVISORS_MAX => {
                tracing::warn!(attempt = %job.attempt, %error, "another supervisor is started");
                tries += 1;
            }
            done => return done,
        }
    }
}

async fn brief_supervisor(
    context: &Context,
    job: &Job,
    user: Option<&JobUser>,
    folder: &Path,
    briefed: &Briefed,
) -> Result<Supervisor, BeginError> {
    let launcher = &context.launcher;
    let Newborn { mut stream, pid, start_ticks, words } = launcher
        .launch(&job.plugin.sha256)
        .await
        .map_err(|error| BeginError::Supervisor { program: launcher.program(), error })?;
    let record = record_of(context, job, user, pid, start_ticks);
    *lock(briefed) = Some(record.clone());
    let brief = brief_of(context, job, folder, &record);
    let told = async { stream.write_all(&wire::line(&brief)?).await };
    told.await.map_err(|error| BeginError::Brief { error, words: words.read() })?;
    Ok(Supervisor { stream, record, words })
}

pub(crate) fn record_of(context: &Context, job: &Job, user: Option<&JobUser>, pid: i32, start_ticks: u64) -> Record {
    let settings = &context.settings;
    let folder = settings.attempts().join(job.attempt.to_string());
    let workspaces = settings.workspaces();
    let private = private_folder(context, job.attempt).unwrap_or_else(|| match user {
        None => folder.join("private"),
        // The spool is closed to it.
        Some(_) => workspaces.join(format!("{}{}", job.attempt, spool::PRIVATE_END)),
    });
    Record {
        attempt: job.attempt,
        token: job.token.clone(),
        supervisor_pid: pid,
        supervisor_start_ticks: start_ticks,
        boot_id: spool::boot_id(),
        session: context.session.clone(),
        runner_grace_ms: job.runner_grace_ms,
        workspace: workspaces.join(job.attempt.to_string()),
        private,
        user: user.cloned(),
        alone_uid: user.filter(|_| matches!(settings.run_as, Some(RunAs::Range { .. }))).map(|user| user.uid),
        stage: Stage::Begins,
    }
}

/// A folder in memory for this runner's attempt; the session in its name keeps two runners of one machine apart.
fn private_folder(context: &Context, attempt: AttemptId) -> Option<PathBuf> {
    let memory = Path::new(MEMORY_FOLDER);
    let is_writable = rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok() && memory.is_dir();
    is_writable.then(|| memory.join(format!("forge-{}-{attempt}", context.session)))
}

fn brief_of(context: &Context, job: &Job, folder: &Path, record: &Record) -> Brief {
    let settings = &context.settings;
    let names = PASSED_ALWAYS.iter().map(|name| (*name).to_owned());
    let names = names.chain(settings.pass_env.iter().cloned()).chain(job.plugin.grants.env.iter().cloned());
    let mut environment = passed(names, |name| std::env::var(name).ok());
    environment.entry("PATH".to_owned()).or_insert_with(|| PATH_DEFAULT.to_owned());
    let mut git_environment = environment.clone();
    git_environment.extend(
        PASSED_TO_GIT.iter().filter_map(|name| std::env::var(name).ok().map(|value| ((*name).to_owned(), value))),
    );
    Brief {
        job: job.clone(),
        spool: folder.to_owned(),
        workspace: record.workspace.clone(),
        private: record.private.clone(),
        kept_workspaces: settings.kept_workspaces(),
        git_caches: settings.git_caches(),
        caches: settings.caches(),
        plugin_cache: settings.plugin_cache(),
        git_client: settings.git_client.clone(),
        ssh_config_path: settings.ssh_config_path.clone(),
        user: record.user.clone(),
        stop_grace_ms: settings.stop_grace_ms,
        environment,
        git_environment,
    }
}

/// What of the runner's own environment a job sees, of all that is named for it.
fn passed(names: impl Iterator<Item = String>, value_of: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    names
        .filter(|name| !name.starts_with(FORGE_PREFIX))
        .filter_map(|name| value_of(&name).map(|value| (name, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_never_sees_what_is_the_runners_own() {
        let names = ["LANG", "FORGE_RUNNER_TOKEN", "FORGE_RUNNER_REGISTRATION_TOKEN", "UNSET"].map(str::to_owned);
        let seen = passed(names.into_iter(), |name| (name != "UNSET").then(|| format!("value of {name}")));
        assert_eq!(seen, BTreeMap::from([("LANG".to_owned(), "value of LANG".to_owned())]));
    }
}
