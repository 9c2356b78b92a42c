//! The loop of a runner: it does what [`crate::session`] says, and tells it what happened.
//!
//! One claim is always parked with the daemon, also when the runner is full, so that a cancel is heard at once. One that asks for
//! what does not hold any more is followed by another, which the daemon answers it for: hanging up would cost a connection, whose
//! making costs more than a task. Heartbeats have a task of their own: nothing that a job does makes them late.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{
    AttemptId, CLAIM_WAIT_MS_MAX, ClaimRequest, ClaimResponse, HEARTBEAT_INTERVAL_MS, HeartbeatRequest, KeyChange,
    Problem, SESSION_CLASH, SealedJob, Secret, Timestamp,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::{CallError, Client, ClientError};
use crate::files;
use crate::health;
use crate::job::{self, Context, News};
use crate::launch::Launcher;
use crate::open::Opener;
use crate::pin;
use crate::preparing::Preparing;
use crate::registration::{parse_identity, read_secret_file};
use crate::session::{Action, Ask, EndWhy, Failure, Input, Session};
use crate::shelf::Shelf;
use crate::spool;
use crate::state::boottime_ms;
use crate::upkeep;
use crate::user::Users;
use crate::warden::alive_interval_ms;
use crate::{Ended, Event, RunError, Settings, Shutdown};

/// How long a leaving runner waits for the last clean-up; what is left is found by its successor.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How long an aborted runner tries to hand its results in; what is left is found by its successor.
const ABORT_WAIT: Duration = Duration::from_secs(60);

/// How many pieces of news or orders may wait.
const QUEUE_MAX: usize = 64;

/// How long to wait before asking again after a refused job came again, so that it is not delivered in circles.
const REFUSED_WAIT: Duration = Duration::from_secs(2);

type Observer = Arc<dyn Fn(Event) + Send + Sync>;
type Claim = Pin<Box<dyn Future<Output = Claimed> + Send>>;
/// When a claim was sent, and its answer.
type Claimed = (u64, Result<ClaimResponse, CallError>);

impl From<ClientError> for RunError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Settings(error) => Self::Settings(error),
            ClientError::Trust(error) => Self::Trust(error),
        }
    }
}

/// How many sessions of earlier starts are kept: the daemon knows one of them, unless as many starts in a row never reached it.
const PREVIOUS_SESSIONS_MAX: usize = 8;

/// For so long after its start a session that is still at work may be this machine's last, whose claim the daemon still holds, in
/// milliseconds: as long as a claim may wait, and some more.
const PREDECESSOR_MS_MAX: u64 = 45_000;

/// Whether a runner has been here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No session of an earlier start is known.
    First,
    /// One is.
    Again,
}

/// Everything that the loop holds.
struct Runner {
    context: Arc<Context>,
    opener: Opener,
    session: Session,
    observer: Observer,
    jobs: JoinSet<()>,
    orders: HashMap<AttemptId, mpsc::Sender<EndWhy>>,
    held: watch::Sender<Vec<AttemptId>>,
    backoff: Backoff,
    /// A change of the daemon's key that is not to be believed was told.
    is_key_doubted: bool,
    /// The daemon knows this runner no more: what it held is being ended.
    is_removed: bool,
}

pub(crate) async fn run(settings: Settings, shutdown: Shutdown, observer: Observer) -> Result<Ended, RunError> {
    settings.check()?;
    let users = Users::new(settings.run_as.as_ref())?;
    let client = Client::new(&settings)?;
    let lock = lock_folder(&settings)?;
    users.open_way(&settings.tmp_path, &settings.workspaces(), &settings.caches())?;
    if let Some(warning) = users.warning(settings.max_parallel_tasks) {
        observer(Event::Warning(warning));
    }
    crate::orphans::adopt();
    let (token, opener) = load_keys(&settings)?;
    let (session, previous_sessions) = renew_session(&settings)?;
    let shelf_folder = settings.tmp_path.join("spares");
    let shelf = Shelf::new(shelf_folder.clone()).map_err(|error| file_error("tmp_path", &shelf_folder, &error))?;
    let launcher = Launcher::new(settings.supervisor_command.clone(), settings.plugin_cache());
    let (held, held_seen) = watch::channel(Vec::new());
    let (leased, leased_ms) = watch::channel(0);
    let (news, news_inbox) = mpsc::channel(QUEUE_MAX);
    let (beats, beats_inbox) = mpsc::channel(QUEUE_MAX);
    let machine = Session::new(client.shown(), users.slots(settings.max_parallel_tasks), settings.one_off)
        .with_version(&settings.version);
    let seed = u64::from(std::process::id()) ^ boottime_ms();
    let context = Arc::new(Context {
        settings,
        client,
        runner_token: token,
        launcher,
        users,
        shelf,
        _lock: lock,
        session,
        previous_sessions,
        started_ms: boottime_ms(),
        compiled: std::sync::Mutex::default(),
        preparing: Preparing::default(),
        leased_ms,
        news,
        beat_interval_ms: AtomicU64::new(HEARTBEAT_INTERVAL_MS),
    });
    let mut runner = Runner {
        context: Arc::clone(&context),
        opener,
        session: machine,
        observer,
        jobs: JoinSet::new(),
        orders: HashMap::new(),
        held,
        backoff: Backoff::new(seed),
        is_key_doubted: false,
        is_removed: false,
    };
    runner.attach()?;
    let mut beating = JoinSet::new();
    let leaving = CancellationToken::new();
    let _leaving = leaving.clone().drop_guard();
    beating.spawn(beat(Arc::clone(&context), held_seen, leased, beats));
    beating.spawn(upkeep::keep(context, leaving.clone()));
    // Among the threads that read what the daemon says: the one that called would have to be woken for each of its answers.
    let mut working = JoinSet::new();
    working.spawn(async move {
        let ended = runner.work(shutdown, news_inbox, beats_inbox).await;
        runner.leave().await;
        ended
    });
    match working.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only who drops this future cancels it.
            Err(_canceled) => Ok(Ended::Aborted),
        },
        None => Ok(Ended::Aborted),
    }
}

impl Runner {
    async fn work(
        &mut self,
        shutdown: Shutdown,
        mut news: mpsc::Receiver<News>,
        mut beats: mpsc::Receiver<Input>,
    ) -> Result<Ended, RunError> {
        self.look_at_disk()?;
        let mut ask = self.session.ask();
        let mut claim = self.claim(&ask, Duration::ZERO);
        let mut is_sent = true;
        let mut followed = JoinSet::new();
        let (mut is_draining, mut is_aborting) = (false, false);
        let mut alive = self.context.settings.alive_interval.map(tokio::time::interval);
        (self.observer)(Event::Ready);
        let abort_over = tokio::time::sleep(Duration::MAX);
        tokio::pin!(abort_over);
        loop {
            let input = tokio::select! {
                biased;
                () = next_turn(&mut alive) => {
                    (self.observer)(Event::Alive);
                    continue;
                }
                () = shutdown.abort.cancelled(), if !is_aborting => {
                    is_aborting = true;
                    abort_over.as_mut().reset(tokio::time::Instant::now() + ABORT_WAIT);
                    Input::Abort
                }
                () = shutdown.drain.cancelled(), if !is_draining => {
                    is_draining = true;
                    Input::Drain
                }
                () = &mut abort_over, if is_aborting => return Ok(Ended::Aborted),
                Some(news) = news.recv() => match self.hear(news) {
                    Some(input) => input,
                    None => continue,
                },
                Some(input) = beats.recv() => {
                    self.look_at_disk()?;
                    input
                }
                Some(_) = self.jobs.join_next(), if !self.jobs.is_empty() => continue,
                Some(answered) = followed.join_next(), if !followed.is_empty() => match answered {
                    // The claim that followed it says the same of a daemon that is away.
                    Ok((sent_ms, Ok(response))) => self.answered(sent_ms, Ok(response)),
                    Ok((_, Err(_))) | Err(_) => continue,
                },
                (sent_ms, answer) = &mut claim => {
                    let input = self.answered(sent_ms, answer);
                    let ended = self.act(input)?;
                    if let Some(ended) = ended {
                        return Ok(ended);
                    }
                    // What came begins before more is asked for.
                    tokio::task::yield_now().await;
                    self.look_at_disk()?;
                    let wait = self.wait_before_claim();
                    ask = self.session.ask();
                    claim = self.claim(&ask, wait);
                    is_sent = wait.is_zero();
                    continue;
                }
            };
            if let Some(ended) = self.act(input)? {
                return Ok(ended);
            }
            // One that takes nothing new any more must not be given anything.
            let now = self.session.ask();
            if (now.slots > 0) != (ask.slots > 0) {
                ask = now;
                let outdated = std::mem::replace(&mut claim, self.claim(&ask, Duration::ZERO));
                if std::mem::replace(&mut is_sent, true) {
                    followed.spawn(outdated);
                }
            }
        }
    }

    fn hear(&mut self, news: News) -> Option<Input> {
        match news {
            News::Started { attempt, project, template } => {
                (self.observer)(Event::AttemptStarted { attempt, project, template });
                None
            }
            News::Acknowledged { attempt, outcome, reason } => {
                self.orders.remove(&attempt);
                (self.observer)(Event::AttemptEnded { attempt, outcome, reason });
                Some(Input::Acknowledged(attempt))
            }
            News::Delivered(attempt) => Some(Input::Delivered(attempt)),
            News::Gone(attempt) => {
                self.orders.remove(&attempt);
                Some(Input::Gone(attempt))
            }
        }
    }

    fn answered(&mut self, sent_ms: u64, answer: Result<ClaimResponse, CallError>) -> Input {
        match answer {
            Ok(response) => {
                self.backoff.reset();
                self.follow(&response.key_changes);
                Input::Claimed { sent_ms, now_ms: boottime_ms(), response }
            }
            Err(error) => Input::Failed(failure_of(error, &self.context)),
        }
    }

    /// Goes over to the daemon's next signing key, when the present one says so.
    fn follow(&mut self, changes: &[KeyChange]) {
        let told = match pin::follow(&self.opener.signing_key, changes) {
            Ok(None) => return,
            Ok(Some(key)) => {
                let path = self.context.settings.signing_key_file();
                let written = pin::write(&path, &key);
                self.opener.signing_key = key;
                match written {
                    Ok(()) => Event::KeyFollowed,
                    // The next start follows it again.
                    Err(error) => {
                        Event::Warning(format!("the daemon's new signing key cannot be kept in {path:?}: {error}"))
                    }
                }
            }
            // Jobs are refused meanwhile, each with the reason.
            Err(_) if std::mem::replace(&mut self.is_key_doubted, true) => return,
            Err(error) => Event::Warning(error.to_string()),
        };
        (self.observer)(told);
    }

    /// Looks whether there is room for new work: before each claim and after each heartbeat.
    fn look_at_disk(&mut self) -> Result<(), RunError> {
        let settings = &self.context.settings;
        // What cannot be measured is no reason to stop.
        if let Some(free) = health::disk_bytes_free(&settings.tmp_path) {
            let is_full = free < settings.disk_reserve_bytes;
            self.act(Input::DiskFull(is_full))?;
        }
        Ok(())
    }

    /// The pause that the last claim calls for.
    fn wait_before_claim(&mut self) -> Duration {
        if self.session.is_down() {
            return Duration::from_millis(self.backoff.next_ms());
        }
        if self.session.take_refused_again() { REFUSED_WAIT } else { Duration::ZERO }
    }

    /// Does what the session says; what comes of it goes back into the session.
    fn act(&mut self, input: Input) -> Result<Option<Ended>, RunError> {
        let lease_ms = match &input {
            Input::Claimed { sent_ms, .. } => *sent_ms,
            Input::Beaten(_)
            | Input::Failed(_)
            | Input::Found(_)
            | Input::JobRefused { .. }
            | Input::Acknowledged(_)
            | Input::Delivered(_)
            | Input::Gone(_)
            | Input::DiskFull(_)
            | Input::Drain
            | Input::Abort => 0,
        };
        let mut inputs = vec![input];
        let mut returned = None;
        while let Some(input) = inputs.pop() {
            for action in self.session.step(input) {
                match action {
                    Action::Start(sealed) => inputs.extend(self.start(&sealed, lease_ms)),
                    Action::End(attempt, why) => self.order(attempt, why),
                    Action::Announce(event) => (self.observer)(event),
                    Action::Return(ended) => returned = Some(ended),
                    Action::GiveUp(failure) => {
                        self.is_removed = matches!(failure, Failure::Unauthorized(_));
                        return Err(error_of(failure));
                    }
                }
            }
        }
        self.held.send_if_modified(|held| {
            let now = self.session.ask().held;
            let is_new = *held != now;
            *held = now;
            is_new
        });
        Ok(returned)
    }

    fn start(&mut self, sealed: &SealedJob, lease_ms: u64) -> Option<Input> {
        let job = match self.opener.open(sealed, now()) {
            Ok(job) => job,
            Err(error) => return Some(Input::JobRefused { attempt: sealed.attempt, reason: error.to_string() }),
        };
        let (orders, inbox) = mpsc::channel(QUEUE_MAX);
        self.orders.insert(job.attempt, orders);
        // Several heartbeats must fit into the shortest lease, or one lost packet would end a job.
        self.context.beat_interval_ms.fetch_min(alive_interval_ms(job.runner_grace_ms), Ordering::Relaxed);
        self.jobs.spawn(job::run_new(Arc::clone(&self.context), job, lease_ms, inbox));
        None
    }

    fn order(&mut self, attempt: AttemptId, why: EndWhy) {
        if let Some(orders) = self.orders.get(&attempt) {
            // A full queue holds orders enough: each of them ends the attempt.
            let _ = orders.try_send(why);
        }
    }

    /// Finds what a predecessor left, and goes on with it.
    fn attach(&mut self) -> Result<(), RunError> {
        let attempts = self.context.settings.attempts();
        let found = spool::scan(&attempts, &self.context.settings.workspaces())
            .map_err(|error| file_error("the spool", &attempts, &error))?;
        for (folder, record) in found {
            self.context.users.occupy(record.user.as_ref());
            let (attempt, alive) = (record.attempt, record.is_alive());
            (self.observer)(Event::AttemptFound { attempt, alive });
            let (orders, inbox) = mpsc::channel(QUEUE_MAX);
            self.orders.insert(attempt, orders);
            self.act(Input::Found(attempt))?;
            self.jobs.spawn(job::run_found(Arc::clone(&self.context), folder, record, inbox));
        }
        Ok(())
    }

    fn claim(&self, ask: &Ask, wait: Duration) -> Claim {
        let context = Arc::clone(&self.context);
        let mut request = ClaimRequest {
            session: context.session.clone(),
            previous_sessions: context.previous_sessions.clone(),
            wait_ms: CLAIM_WAIT_MS_MAX,
            slots: ask.slots,
            max_parallel_tasks: context.users.slots(context.settings.max_parallel_tasks),
            held: ask.held.clone(),
            version: context.settings.version.clone(),
            health: health::measure(&context.settings.tmp_path),
            sent_at: None,
            signing_key: pin::shown(&self.opener.signing_key),
            refused: ask.refused.clone(),
            resumes: true,
        };
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            request.sent_at = Some(now());
            let sent_ms = boottime_ms();
            (sent_ms, context.client.claim(&context.runner_token, &request).await)
        })
    }

    /// Gives the attempts that are acknowledged a moment to clear up, and those of a removed runner the time to end; supervisors of
    /// others live on by themselves.
    async fn leave(&mut self) {
        let wait = match (self.is_removed, self.orders.is_empty()) {
            (true, _) => ABORT_WAIT,
            (false, true) => LAST_WAIT,
            (false, false) => Duration::ZERO,
        };
        if !wait.is_zero() {
            let all = async { while self.jobs.join_next().await.is_some() {} };
            if tokio::time::timeout(wait, all).await.is_err() {
                tracing::info!("leaving clean-up to the next start");
            }
        }
        self.jobs.shutdown().await;
    }
}

/// When the next sign of life is due, where anyone waits for one.
async fn next_turn(alive: &mut Option<tokio::time::Interval>) {
    match alive {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Renews the leases of all attempts held, every few seconds while there are any.
async fn beat(
    context: Arc<Context>,
    mut held: watch::Receiver<Vec<AttemptId>>,
    leased: watch::Sender<u64>,
    inputs: mpsc::Sender<Input>,
) {
    // What a predecessor left is renewed at once; a new attempt was renewed when it started.
    let mut due = tokio::time::Instant::now();
    loop {
        let attempts = held.borrow_and_update().clone();
        if attempts.is_empty() {
            if held.changed().await.is_err() {
                return;
            }
            due = tokio::time::Instant::now() + interval(&context);
            continue;
        }
        // An attempt that came meanwhile may have a shorter lease.
        due = due.min(tokio::time::Instant::now() + interval(&context));
        if let Ok(changed) = tokio::time::timeout_at(due, held.changed()).await {
            if changed.is_err() {
                return;
            }
            continue;
        }
        let sent_ms = boottime_ms();
        let health = health::measure(&context.settings.tmp_path);
        let request = HeartbeatRequest {
            session: context.session.clone(),
            previous_sessions: context.previous_sessions.clone(),
            held: attempts,
            version: context.settings.version.clone(),
            health,
            sent_at: Some(now()),
        };
        let input = match context.client.heartbeat(&context.runner_token, &request).await {
            Ok(answer) => {
                leased.send_replace(sent_ms);
                Input::Beaten(answer)
            }
            Err(error) => Input::Failed(failure_of(error, &context)),
        };
        if inputs.send(input).await.is_err() {
            return;
        }
        due = tokio::time::Instant::now() + interval(&context);
    }
}

/// How often leases are renewed.
fn interval(context: &Context) -> Duration {
    Duration::from_millis(context.beat_interval_ms.load(Ordering::Relaxed))
}

fn failure_of(error: CallError, context: &Context) -> Failure {
    match error {
        CallError::Problem(problem) => {
            let start = if context.previous_sessions.is_empty() { Start::First } else { Start::Again };
            failure(*problem, start, boottime_ms().saturating_sub(context.started_ms))
        }
        passing => Failure::Passing(passing.to_string()),
    }
}

/// What a refusal of the daemon means to a runner that started so long ago, with or without a predecessor on its machine. Pure.
pub fn failure(problem: Problem, start: Start, up_ms: u64) -> Failure {
    let is_clash = problem.slug() == SESSION_CLASH;
    match problem.status {
        401 => Failure::Unauthorized(problem.detail),
        409 if is_clash && start == Start::Again && up_ms < PREDECESSOR_MS_MAX => Failure::Passing(problem.detail),
        403 | 409 | 410 => Failure::Refused { detail: problem.detail, hint: problem.hint },
        // Upgrade Required: this runner is too old for the daemon.
        426 => Failure::Outdated { detail: problem.detail, hint: problem.hint },
        _ => Failure::Passing(problem.to_string()),
    }
}

fn error_of(failure: Failure) -> RunError {
    match failure {
        Failure::Unauthorized(detail) => RunError::Unauthorized { detail },
        Failure::Refused { detail, hint } | Failure::Outdated { detail, hint } => RunError::Refused { detail, hint },
        Failure::Passing(detail) => RunError::Refused { detail, hint: None },
    }
}

/// The wall clock, for the expiry of jobs and for the daemon to compare with its own.
fn now() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp::from_unix_micros(now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000))
}

fn file_error(what: &'static str, path: &Path, error: &dyn std::fmt::Display) -> RunError {
    RunError::File { what, path: path.to_owned(), reason: error.to_string() }
}

/// Makes the runner's folders and takes the first for this process alone.
fn lock_folder(settings: &Settings) -> Result<File, RunError> {
    let tmp_path = settings.tmp_path.clone();
    for folder in [tmp_path, settings.attempts(), settings.workspaces(), settings.caches(), settings.git_caches()] {
        files::make_private_folder(&folder).map_err(|error| {
            file_error(
                "tmp_path",
                &folder,
                &format!("cannot be made or entered: {error}; give this user a folder of its own"),
            )
        })?;
    }
    let path = settings.tmp_path.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| file_error("the lock", &path, &error))?;
    match files::lock_alone(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(RunError::InUse { path: settings.tmp_path.clone() }),
        Err(error) => Err(file_error("the lock", &path, &error)),
    }
}

/// The runner's token, and what opens its jobs.
fn load_keys(settings: &Settings) -> Result<(Secret, Opener), RunError> {
    let read = |what, path: &Path| read_secret_file(path).map_err(|error| file_error(what, path, &error));
    let token = match &settings.token {
        Some(token) => token.clone(),
        None => read("token_file", &settings.token_file)?
            .ok_or_else(|| RunError::NotRegistered { path: settings.token_file.clone() })?,
    };
    let key_file = &settings.private_key_file;
    let missing = "is not there: it was made when this runner registered; restore it, or register again";
    let text = read("private_key_file", key_file)?.ok_or_else(|| file_error("private_key_file", key_file, &missing))?;
    let identity = parse_identity(text.reveal()).map_err(|error| file_error("private_key_file", key_file, &error))?;
    let pinned = settings.signing_key_file();
    let pin = read("the daemon's pinned key", &pinned)?.ok_or_else(|| {
        file_error(
            "the daemon's pinned key",
            &pinned,
            &"is not there: register this runner again with `forge runner register --config ...`",
        )
    })?;
    let signing_key = STANDARD
        .decode(pin.reveal())
        .map_err(|_| file_error("the daemon's pinned key", &pinned, &"is damaged: register this runner again"))?;
    Ok((token, Opener { runner: settings.name.clone(), identity, signing_key }))
}

/// A session of its own for this process, and its predecessor's, which proves that this is no clone.
fn renew_session(settings: &Settings) -> Result<(String, Vec<String>), RunError> {
    let path = settings.tmp_path.join("session");
    let wrong = |error: &dyn std::fmt::Display| file_error("the session", &path, error);
    let known = read_secret_file(&path).ok().flatten();
    let mut previous: Vec<String> =
        known.iter().flat_map(|text| text.reveal().split_ascii_whitespace()).map(str::to_owned).collect();
    previous.truncate(PREVIOUS_SESSIONS_MAX);
    let session = files::random_hex::<16>().map_err(|error| wrong(&error))?;
    let mut lines = format!("{session}\n");
    lines.extend(previous.iter().map(|session| format!("{session}\n")));
    files::replace_private(&path, lines.as_bytes()).map_err(|error| wrong(&error))?;
    Ok((session, previous))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_at_work_may_be_this_machines_last_for_a_moment() {
        let clash = || Problem::new(409, SESSION_CLASH, "Session clash", "another is at work");
        let is_passing = |start, up_ms| matches!(failure(clash(), start, up_ms), Failure::Passing(_));
        assert!(is_passing(Start::Again, 0) && is_passing(Start::Again, 44_999));
        assert!(!is_passing(Start::Again, 45_000) && !is_passing(Start::First, 0));
        let taken = Problem::new(409, "name-taken", "Name taken", "taken");
        assert!(matches!(failure(taken, Start::Again, 0), Failure::Refused { .. }));
    }
}
