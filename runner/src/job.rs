//! One attempt seen from the runner: from the opened job to the acknowledged result, or from what a predecessor left.
//!
//! The runner holds no part of the work: it starts the supervisor, passes orders on, and hands in what the supervisor
//! leaves in the spool. So a runner that is killed loses nothing, and its successor does from here what it would have done.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forge_api::{AttemptId, AttemptOutcome, AttemptResult, Job};
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::attend::{self, Inboxes, Line};
use crate::begin::{BeginError, Begun, Briefed, SUPERVISORS_MAX, Supervisor, begin, lock, record_of};
use crate::client::Client;
use crate::launch::Launcher;
use crate::preparing::Preparing;
use crate::procfs::{self, Seen};
use crate::session::EndWhy;
use crate::settings::Settings;
use crate::shelf::Shelf;
use crate::spool::{self, Record, Stage};
use crate::state::boottime_ms;
use crate::upload::{Available, Delivered, Upload};
use crate::user::{JobUser, Users};
use crate::warden::is_fresh;
use crate::wire::{self, Go, Order};
use crate::{cgroup, delivery, files, orphans, process};

/// How long a dying supervisor's last steps (the removal of a large workspace) are waited for.
const DEATH_WAIT: Duration = Duration::from_secs(60);

/// How long a supervisor that is not to begin has to leave by itself.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

/// How long a result may lie in the spool before it is made to survive a power cut.
const UNSAFE_MAX: Duration = Duration::from_millis(500);

/// How long after an attempt's begin the next one is provided for: what that takes of the processor this one has until then.
const PROVISION_AFTER: Duration = Duration::from_millis(5);

/// How soon a supervisor that is about to die is looked at again, at first.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);

/// How soon at most.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);

/// What all attempts of a runner share.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) client: Client,
    pub(crate) runner_token: forge_api::Secret,
    pub(crate) launcher: Launcher,
    pub(crate) users: Users,
    pub(crate) shelf: Shelf,
    /// The folder is this process's for as long as anything of it works there.
    pub(crate) _lock: File,
    pub(crate) session: String,
    /// The sessions of earlier starts on this machine, newest first.
    pub(crate) previous_sessions: Vec<String>,
    /// When this process began, in milliseconds since boot.
    pub(crate) started_ms: u64,
    /// Digests that are known to be compiled, and when they were last seen to be.
    pub(crate) compiled: Mutex<HashMap<String, Instant>>,
    /// Who fetches and compiles which plugin.
    pub(crate) preparing: Preparing,
    /// When the last acknowledged heartbeat was sent, in milliseconds since boot.
    pub(crate) leased_ms: watch::Receiver<u64>,
    pub(crate) news: mpsc::Sender<News>,
    /// How often leases are renewed, in milliseconds: the shortest that any attempt so far has needed.
    pub(crate) beat_interval_ms: AtomicU64,
}

/// What an attempt tells the loop.
#[derive(Debug)]
pub(crate) enum News {
    /// It begins.
    Started { attempt: AttemptId, project: String, template: String },
    /// Its result is acknowledged.
    Acknowledged { attempt: AttemptId, outcome: AttemptOutcome, reason: Option<String> },
    /// Its log is on the daemon's disk, too.
    Delivered(AttemptId),
    /// It is not this runner's any more.
    Gone(AttemptId),
}

impl EndWhy {
    /// What a supervisor is told.
    pub fn order(self) -> Order {
        let (outcome, reason) = match self {
            Self::Canceled => (AttemptOutcome::Canceled, "canceled"),
            Self::Lost => (AttemptOutcome::Lost, "the daemon gave this attempt up: its runner had been out of reach"),
            Self::Stopped => (AttemptOutcome::Lost, "the runner was stopped"),
            Self::Removed => (AttemptOutcome::Lost, "the runner was removed, or its name registered again"),
        };
        Order { outcome, reason: reason.to_owned() }
    }
}

/// Runs a new attempt to its acknowledged end.
pub(crate) async fn run_new(context: Arc<Context>, job: Job, leased_ms: u64, mut orders: mpsc::Receiver<EndWhy>) {
    let folder = context.settings.attempts().join(job.attempt.to_string());
    tokio::select! {
        user = context.users.take() => {
            run_as(&context, job, user.as_ref(), leased_ms, &folder, &mut orders).await;
            context.users.release(user.as_ref());
        }
        Some(why) = orders.recv() => {
            let record = record_of(&context, &job, None, 0, 0);
            fail_early(&context, &folder, record, why.order(), &mut orders).await;
        }
    }
}

async fn run_as(
    context: &Arc<Context>,
    job: Job,
    user: Option<&JobUser>,
    leased_ms: u64,
    folder: &Path,
    orders: &mut mpsc::Receiver<EndWhy>,
) {
    let attempt = job.attempt;
    let briefed = Briefed::default();
    let mut tries = 1;
    let (leased_ms, Supervisor { stream, record, words }) = loop {
        // The daemon may be out of reach and a plugin large: whoever cancels does not wait for either.
        let begun = tokio::select! {
            begun = begin_in_time(context, &job, user, folder, leased_ms, &briefed) => begun.map_err(|error| {
                tracing::error!(%attempt, %error, "the attempt cannot begin");
                Order { outcome: unbegun(&job), reason: error.to_string() }
            }),
            Some(why) = orders.recv() => Err(why.order()),
        };
        let failed = match begun {
            Ok(Begun::Live(leased_ms, supervisor)) => match tell_to_begin(folder, leased_ms, *supervisor).await {
                Ok(supervisor) => break (leased_ms, supervisor),
                Err(reason) if tries < SUPERVISORS_MAX => {
                    tracing::warn!(%attempt, reason, "nothing of the job ran: another supervisor is started for it");
                    Ok(())
                }
                Err(reason) => Err(Order { outcome: unbegun(&job), reason }),
            },
            // Given to another runner, or closed, before it began here.
            Ok(Begun::Gone) => {
                let_go(&briefed).await;
                let record = record_of(context, &job, user, 0, 0);
                remove_places(&record, None);
                remove_folder(folder, &record, None);
                tell(context, News::Gone(attempt)).await;
                return;
            }
            Ok(Begun::Canceled) => Err(EndWhy::Canceled.order()),
            Err(order) => Err(order),
        };
        // One that got ready leaves, since its connection is closed.
        let_go(&briefed).await;
        if let Err(order) = failed {
            fail_early(context, folder, record_of(context, &job, user, 0, 0), order, orders).await;
            return;
        }
        tries += 1;
    };
    let started = News::Started { attempt, project: job.project.clone(), template: job.template.clone() };
    let plugin_sha256 = job.plugin.sha256.clone();
    // The job's secrets have no business here any more.
    drop(job);
    tell(context, started).await;
    let line = Line { stream: Some(stream), words: Some(words), told_ms: leased_ms };
    let spare = async {
        // A one-off runner has no next attempt.
        if !context.settings.one_off {
            tokio::time::sleep(PROVISION_AFTER).await;
            let stocking = Arc::clone(context);
            // A file system may take milliseconds for each: nobody else waits for that. What cannot be made, the next attempt makes itself.
            let stocked = tokio::task::spawn_blocking(move || stocking.shelf.stock());
            let (_kept, _made) = tokio::join!(context.launcher.keep_spare(&plugin_sha256), stocked);
        }
    };
    tokio::join!(see_through(context, folder, record, line, None, orders), spare);
}

/// Tells a supervisor to begin; the error is why it cannot be told. It begins at the line's end, which it did not get then.
async fn tell_to_begin(folder: &Path, leased_ms: u64, supervisor: Supervisor) -> Result<Supervisor, String> {
    let Supervisor { mut stream, record, words } = supervisor;
    let told = async {
        // Before anything of the job runs: a restarted runner must find whoever runs it.
        spool::write_record(folder, &record)?;
        stream.write_all(&wire::line(&Go { leased_ms })?).await
    };
    match told.await {
        Ok(()) => Ok(Supervisor { stream, record, words }),
        Err(error) => Err(format!("its supervisor cannot be told to begin: {error}{}", words.read())),
    }
}

/// Begins an attempt. What it takes may last: where the daemon's word is older than a lease by then, it is asked anew.
async fn begin_in_time(
    context: &Context,
    job: &Job,
    user: Option<&JobUser>,
    folder: &Path,
    claimed_ms: u64,
    briefed: &Briefed,
) -> Result<Begun, BeginError> {
    loop {
        let (renewed_ms, supervisor) = match begin(context, job, user, folder, briefed).await? {
            Begun::Live(renewed_ms, supervisor) => (renewed_ms, supervisor),
            other => return Ok(other),
        };
        // The claim that brought it may have waited for long before there was something to bring; heartbeats renewed it since.
        let leased_ms = claimed_ms.max(renewed_ms).max(*context.leased_ms.borrow());
        if is_fresh(leased_ms, job.runner_grace_ms, boottime_ms()) {
            return Ok(Begun::Live(leased_ms, supervisor));
        }
        tracing::info!(attempt = %job.attempt, "the attempt took long to begin: asking the daemon again");
        drop(supervisor);
        let_go(briefed).await;
    }
}

/// Waits until a supervisor that was not told to begin has left, and what it made ready with it. Its connection is closed; one that stands
/// still is killed, and nothing of the job ran.
pub(crate) async fn let_go(briefed: &Briefed) {
    let Some(record) = lock(briefed).take() else { return };
    if tokio::time::timeout(LEAVE_WAIT, death(&record)).await.is_ok() {
        return;
    }
    if let Some(handle) = procfs::open_same(record.supervisor_pid, record.supervisor_start_ticks) {
        process::signal(&handle, Signal::KILL);
    }
    if tokio::time::timeout(DEATH_WAIT, death(&record)).await.is_err() {
        tracing::warn!(attempt = %record.attempt, "the supervisor still lives");
    }
}

/// How an attempt ended that could not begin. Of what was approved nothing was done: a failure would say that nobody knows how much.
fn unbegun(job: &Job) -> AttemptOutcome {
    if job.resume.is_some() { AttemptOutcome::Retry } else { AttemptOutcome::Failed }
}

/// Goes on with an attempt of a predecessor.
pub(crate) async fn run_found(
    context: Arc<Context>,
    folder: PathBuf,
    record: Record,
    mut orders: mpsc::Receiver<EndWhy>,
) {
    orphans::know_supervisor(record.supervisor_pid, record.supervisor_start_ticks);
    let user = record.user.clone();
    if let Err(error) = spool::mend_after_power_cut(&folder, &record) {
        tracing::warn!(attempt = %record.attempt, %error, "what a power cut left cannot be mended");
    }
    let stream = if record.is_alive() { UnixStream::connect(folder.join(spool::CONTROL)).await.ok() } else { None };
    let early = record.unbegun();
    see_through(&context, &folder, record, Line { stream, ..Line::default() }, early, &mut orders).await;
    context.users.release(user.as_ref());
}

/// Ends an attempt that no supervisor began: nothing of its job ran.
async fn fail_early(
    context: &Context,
    folder: &Path,
    record: Record,
    order: Order,
    orders: &mut mpsc::Receiver<EndWhy>,
) {
    let record = Record { stage: Stage::Ended(order.clone()), ..record };
    let written = files::make_private_folder(folder).and_then(|()| spool::write_record(folder, &record));
    if let Err(error) = written {
        tracing::error!(attempt = %record.attempt, %error, "the spool cannot be written");
    }
    see_through(context, folder, record, Line::default(), Some(order), orders).await;
}

/// Passes orders on and hands in what comes, until everything is acknowledged; then removes the attempt's traces.
async fn see_through(
    context: &Context,
    folder: &Path,
    record: Record,
    mut line: Line,
    early: Option<Order>,
    orders: &mut mpsc::Receiver<EndWhy>,
) {
    let attempt = record.attempt;
    let (available, receiver) = watch::channel(Available::default());
    let (too_much, refusals) = mpsc::channel(1);
    let (first_ack, acknowledged) = mpsc::channel::<Arc<AttemptResult>>(1);
    // What a power cut left of the log is compared with what the daemon holds.
    let is_whole = record.boot_id == spool::boot_id();
    let left = if is_whole { delivery::Spool::Whole } else { delivery::Spool::MayBeShorter };
    let seed = boottime_ms() ^ attempt.task;
    let mut upload = Upload::new(&context.client, (attempt, &record.token), (folder, left), seed);
    let is_wanted = {
        let inboxes = Inboxes { orders, refusals };
        let work = attend::attend(context, folder, &record, &mut line, early, inboxes, &available);
        let refuse = |words: String| drop(too_much.try_send(words));
        let delivery = upload.deliver(receiver, refuse, |result| drop(first_ack.try_send(Arc::new(result.clone()))));
        let announce = announce(context, attempt, acknowledged);
        let both = async { tokio::join!(work, delivery).1 };
        let outlast = outlast_power_cut(attempt, folder, available.subscribe());
        tokio::pin!(announce, both, outlast);
        let mut is_outlasting = false;
        let mut is_announced = false;
        let delivered = loop {
            tokio::select! {
                delivered = &mut both => break delivered,
                () = &mut announce, if !is_announced => is_announced = true,
                () = &mut outlast, if !is_outlasting => is_outlasting = true,
            }
        };
        match delivered {
            Delivered::Unwanted => tell(context, News::Gone(attempt)).await,
            // The acknowledgement was queued before the delivery ended.
            Delivered::Acknowledged if !is_announced => announce.await,
            Delivered::Acknowledged => {}
        }
        delivered == Delivered::Acknowledged
    };
    let log_length = available.borrow().log_length;
    let settled = async {
        upload.wait_until_synced(log_length).await;
        if is_wanted {
            tell(context, News::Delivered(attempt)).await;
        }
    };
    // The daemon's disk may take a second: the next attempt gets the workspace meanwhile.
    let vacated = async {
        let is_dead = tokio::time::timeout(DEATH_WAIT, death(&record)).await.is_ok();
        if !is_dead {
            tracing::warn!(%attempt, "the supervisor still lives");
        }
        let shelf = is_dead.then_some(&context.shelf);
        remove_places(&record, shelf);
        shelf
    };
    let (shelf, ()) = tokio::join!(vacated, settled);
    remove_folder(folder, &record, shelf);
}

/// Waits until the supervisor is dead, which it usually is at once.
async fn death(record: &Record) {
    let mut nap = LOOK_AGAIN_MIN;
    while !is_gone(record) {
        tokio::time::sleep(nap).await;
        nap = LOOK_AGAIN_MAX.min(nap * 2);
    }
}

/// Whether the supervisor is dead. One that is this process's child, which it is when its launcher died before it, is let go of;
/// until its last thread has ended, that must be tried again.
fn is_gone(record: &Record) -> bool {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    match procfs::read_stat(record.supervisor_pid) {
        Some(Seen { start_ticks, .. }) if start_ticks != record.supervisor_start_ticks => true,
        Some(Seen { zombie: true, parent, .. }) if parent == me => {
            let pid = Pid::from_raw(record.supervisor_pid);
            !matches!(rustix::process::waitpid(pid, WaitOptions::NOHANG), Ok(None))
        }
        Some(Seen { zombie, .. }) => zombie || record.boot_id != spool::boot_id(),
        None => true,
    }
}

/// Has a result that the daemon does not take at once survive a power cut.
async fn outlast_power_cut(attempt: AttemptId, folder: &Path, mut available: watch::Receiver<Available>) {
    if available.wait_for(|now| now.result.is_some()).await.is_err() {
        return;
    }
    tokio::time::sleep(UNSAFE_MAX).await;
    let path = folder.to_owned();
    match tokio::task::spawn_blocking(move || spool::sync(&path)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%attempt, %error, "the result may not survive a power cut"),
        Err(error) => tracing::error!(%attempt, %error, "the spool's sync ended badly"),
    }
}

/// Tells of the first acknowledgement as soon as it comes: the rest of a long log may still be on its way.
async fn announce(context: &Context, attempt: AttemptId, mut acknowledged: mpsc::Receiver<Arc<AttemptResult>>) {
    if let Some(result) = acknowledged.recv().await {
        let news = News::Acknowledged { attempt, outcome: result.outcome, reason: result.reason.clone() };
        tell(context, news).await;
    }
}

fn remove_places(record: &Record, shelf: Option<&Shelf>) {
    if record.supervisor_pid != 0 && record.boot_id == spool::boot_id() {
        cgroup::remove(record.supervisor_pid, record.supervisor_start_ticks);
    }
    if let Err(error) = spool::remove_places(record, shelf) {
        tracing::warn!(attempt = %record.attempt, %error, "an attempt's workspace or secret files cannot be removed");
    }
}

fn remove_folder(folder: &Path, record: &Record, shelf: Option<&Shelf>) {
    if let Err(error) = spool::remove(folder, shelf) {
        tracing::warn!(attempt = %record.attempt, %error, "an attempt's folder cannot be removed");
    }
}

async fn tell(context: &Context, news: News) {
    if context.news.send(news).await.is_err() {
        tracing::debug!("the runner is leaving: nobody hears of this attempt");
    }
}
