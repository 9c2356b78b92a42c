//! The daemon's side: the shipped core on a real store, driven step by step, that can be killed and lose power.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use forge_api::{
    AttemptId, AttemptOutcome, Carry, ClaimRequest, ContentRange, CreateTask, Decision, HeartbeatRequest,
    RegisterRequest, RetryTask, Secret, StartRequest, StartResponse, TaskState, Timestamp, Trigger, TriggerKind,
};
use forge_config::meant::{PluginKind, Tree};
use forge_config::{CheckOptions, Digest, Files, PluginCatalog, PluginFacts, check_tree};
use forge_daemon::clock::{Clock, TestClock};
use forge_daemon::core::{
    Applied, AttemptAccess, Core, CoreError, CoreOptions, CoreTasks, FreeSpace, LogLimits, RunnerIdentity, Stepper,
    TaskFilter,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Guard;
use crate::message::{Answer, Bearer, Failed, Identity, Request, Sender};
use crate::random::Random;

/// When the simulation's clock begins.
const START: Timestamp = Timestamp::from_unix_micros(1_700_000_000_000_000);

/// The token that registers any name.
const REGISTRATION_TOKEN: &str = "the-single-token";

/// How long a claim may be parked, in milliseconds.
const CLAIM_WAIT_MS: u64 = 30_000;

/// How often something is written at most until a store that may not grow has no room for more of it.
const WRITES_TO_FILL_MAX: usize = 200;

/// A claim that the daemon has not answered yet.
struct Waiting {
    sender: Sender,
    ticket: u64,
    answer: JoinHandle<Result<forge_api::ClaimResponse, CoreError>>,
}

/// Whether its process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It does.
    No,
    /// SIGSTOP.
    Stopped,
    /// Its whole machine sleeps.
    Asleep,
}

struct Serving {
    core: Core,
    tasks: CoreTasks,
    stepper: Stepper,
}

/// The daemon's machine.
pub(crate) struct DaemonSide {
    folder: tempfile::TempDir,
    clock: Clock,
    pub(crate) time: Arc<TestClock>,
    config: watch::Sender<Arc<Applied>>,
    serving: Option<Serving>,
    waiting: Vec<Waiting>,
    /// How much space it is told that there is.
    free_bytes: Arc<AtomicU64>,
    is_full: bool,
    stands: Stands,
    /// What came while it stood still: who sent it, and under which ticket.
    inbox: Vec<(Sender, u64, Request)>,
    /// How often it has refused something for want of space.
    pub(crate) refused_full: u64,
    /// What it said to be on disk for good.
    pub(crate) synced: BTreeMap<AttemptId, u64>,
    guard: Option<Guard>,
}

/// Knows the one plugin that the tree names, which nothing here runs.
struct Catalog;

impl PluginCatalog for Catalog {
    fn builtin_names(&self) -> Vec<String> {
        vec!["shell".to_owned()]
    }

    fn builtin(&self, _name: &str) -> Option<Result<PluginFacts, String>> {
        let sha256 = Digest([7; 32]);
        let wants = forge_config::Wants::default();
        Some(Ok(PluginFacts { sha256, kind: PluginKind::Executor, params_schema: None, config_schema: None, wants }))
    }

    fn digest(&self, _bytes: &[u8]) -> Digest {
        Digest([1; 32])
    }

    fn inspect(&self, _bytes: &[u8]) -> Result<PluginFacts, String> {
        Err("there is none".to_owned())
    }
}

/// The tree of the simulation; `enabled` says whether the tagged runner takes work.
fn tree(enabled: bool) -> Tree {
    let template = |rest: &str| {
        format!("executor = \"shell\"\ntimeout = \"100s\"\nqueue_timeout = \"10m\"\nrunner_grace = \"40s\"\n{rest}")
    };
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    files.insert("plugins/shell.toml", "source = \"builtin:shell\"\n".to_owned());
    files.insert("projects/shop/project.toml", "max_parallel_tasks = 6\n".to_owned());
    files.insert("projects/shop/templates/once.toml", template("concurrency = \"parallel\"\n"));
    files.insert(
        "projects/shop/templates/again.toml",
        template("concurrency = \"parallel\"\non_runner_lost = \"retry\"\n"),
    );
    files.insert("projects/shop/templates/line.toml", template("on_runner_lost = \"retry\"\n"));
    files.insert(
        "projects/shop/templates/flaky.toml",
        template("concurrency = \"parallel\"\nretry = { attempts = 2, delay = \"5s\" }\n"),
    );
    files
        .insert("projects/shop/templates/tagged.toml", template("concurrency = \"parallel\"\nrunner_tag = \"east\"\n"));
    files.insert(
        "projects/shop/templates/planned.toml",
        template("on_runner_lost = \"retry\"\napproval_timeout = \"10m\"\n"),
    );
    let tagged = format!("tags = [\"east\"]\nrun_untagged = true\nmax_parallel_tasks = 2\nenabled = {enabled}\n");
    files.insert("runners/r0.toml", tagged);
    let files: Files = files.into_iter().map(|(path, text)| (path.to_owned(), text.into_bytes())).collect();
    let checked = check_tree(&files, &Catalog, &CheckOptions::default());
    checked.tree.unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
}

fn applied(enabled: bool) -> Arc<Applied> {
    let revision = format!("enabled-{enabled}");
    Arc::new(Applied { revision, tree: Arc::new(tree(enabled)), applied_at: Some(START), commit: None })
}

impl DaemonSide {
    pub(crate) async fn start(guard: Option<Guard>) -> Self {
        // In memory: a seed takes thousands of commits, and what a power cut takes is simulated.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let (clock, time) = Clock::test(START);
        let config = watch::Sender::new(applied(true));
        let mut daemon = Self {
            folder: folder.expect("a folder"),
            clock,
            time,
            config,
            serving: None,
            waiting: Vec::new(),
            free_bytes: Arc::new(AtomicU64::new(u64::MAX)),
            is_full: false,
            stands: Stands::No,
            inbox: Vec::new(),
            refused_full: 0,
            synced: BTreeMap::new(),
            guard,
        };
        daemon.boot().await;
        daemon
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.elapsed_ms()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.serving.is_some()
    }

    /// Whether it answers at this moment.
    pub(crate) fn answers(&self) -> bool {
        self.is_up() && self.stands == Stands::No
    }

    pub(crate) fn core(&self) -> Option<&Core> {
        self.serving.as_ref().filter(|_| self.stands == Stands::No).map(|serving| &serving.core)
    }

    /// Time passes; its machine may sleep meanwhile. That its process was stopped it does not notice here, which is the worse case: then all
    /// whose grace is over is given up at once.
    pub(crate) fn pass_ms(&self, duration_ms: u64) {
        match self.stands {
            Stands::No | Stands::Stopped => self.time.advance_ms(duration_ms),
            Stands::Asleep => self.time.sleep_machine_ms(duration_ms),
        }
    }

    /// Its process stands still: what comes waits.
    pub(crate) fn stand_still(&mut self, how: Stands) {
        self.stands = how;
    }

    /// Whether it stands still; a request then waits until it goes on.
    pub(crate) fn keeps_waiting(&mut self, sender: Sender, ticket: u64, request: &Request) -> bool {
        let waits = self.is_up() && self.stands != Stands::No;
        if waits {
            self.inbox.push((sender, ticket, request.clone()));
        }
        waits
    }

    /// It goes on; answers what has come meanwhile.
    pub(crate) fn go_on(&mut self) -> Vec<(Sender, u64, Request)> {
        self.stands = Stands::No;
        std::mem::take(&mut self.inbox)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Its disk fills up, or has room again.
    pub(crate) async fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        self.free_bytes.store(if is_full { 0 } else { u64::MAX }, Ordering::Relaxed);
        self.limit_store().await;
    }

    /// Leaves its store no more than it has where its disk is full, and fills up what its audit log has begun.
    async fn limit_store(&self) {
        let Some(serving) = &self.serving else { return };
        let pages_max = if self.is_full { 1 } else { u32::MAX };
        serving.stepper.limit_store(pages_max).await.expect("it is told");
        for round in 0..WRITES_TO_FILL_MAX {
            if !self.is_full || serving.core.set_draining("r1", round % 2 == 0, "ann").await.is_err() {
                break;
            }
        }
    }

    pub(crate) async fn boot(&mut self) {
        let options = CoreOptions {
            data_dir: self.folder.path().to_owned(),
            plugin_dir: self.folder.path().join("plugins"),
            config: self.config.subscribe(),
            registration_token: Some(Secret::new(REGISTRATION_TOKEN)),
            identity_file: None,
            secrets_allow: BTreeMap::new(),
            clock: self.clock.clone(),
            log_limits: LogLimits { attempt_bytes_max: 1 << 20, disk_reserve_bytes: 1 },
            audit_retention_ms: 0,
            free_space: FreeSpace::Told(Arc::clone(&self.free_bytes)),
        };
        let (core, tasks, stepper) = Core::start_stepwise(options).await.expect("it starts");
        self.serving = Some(Serving { core, tasks, stepper });
        self.limit_store().await;
    }

    /// Ends it between two transactions, without a word to anyone; answers whose claims were cut off.
    pub(crate) async fn kill(&mut self) -> Vec<(Sender, u64)> {
        let mut cut_off = Vec::new();
        self.go_on();
        for waiting in std::mem::take(&mut self.waiting) {
            waiting.answer.abort();
            cut_off.push((waiting.sender, waiting.ticket));
            // It was cut off, or had ended: nobody hears it either way.
            let _ = waiting.answer.await;
        }
        if let Some(Serving { core, tasks, stepper }) = self.serving.take() {
            drop((core, stepper));
            tasks.join().await;
        }
        cut_off
    }

    /// Takes from its logs what was never said to be on disk for good. What was committed stays: that is `synchronous=FULL`.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        let Ok(folders) = std::fs::read_dir(self.folder.path().join("logs")) else { return };
        let files = folders.flatten().filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten().flatten();
        // A file system has an order of its own.
        let logs: BTreeMap<AttemptId, PathBuf> = files
            .filter_map(|file| Some((file.file_name().to_str()?.strip_suffix(".log")?.parse().ok()?, file.path())))
            .collect();
        for (id, path) in logs {
            let Ok(metadata) = path.metadata() else { continue };
            let safe = self.synced.get(&id).copied().unwrap_or_default().min(metadata.len());
            let left = random.between(safe, metadata.len());
            let opened = std::fs::File::options().write(true).open(path).expect("opens");
            opened.set_len(left).expect("cut");
        }
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.config.send_replace(applied(enabled));
    }

    pub(crate) async fn register(&self, name: &str, public_key: String, limit: u32) -> forge_api::RegisterResponse {
        let request = RegisterRequest {
            name: name.to_owned(),
            public_key,
            version: "1".to_owned(),
            max_parallel_tasks: limit,
            one_off: false,
            ..RegisterRequest::default()
        };
        let core = self.core().expect("it serves");
        core.register(&Secret::new(REGISTRATION_TOKEN), request).await.expect("registered")
    }

    pub(crate) async fn remove(&self, name: &str) {
        self.core().expect("it serves").remove_runner(name, "ann").await.expect("removed");
    }

    /// Has a runner take nothing new, or again.
    pub(crate) async fn set_draining(&self, name: &str, draining: bool) {
        self.core().expect("it serves").set_draining(name, draining, "ann").await.expect("set");
    }

    /// The attempts that are a runner's at this moment.
    pub(crate) async fn held_by(&self, name: &str) -> Vec<AttemptId> {
        let mut held = Vec::new();
        for state in [TaskState::Assigned, TaskState::Running] {
            let filter = TaskFilter { state: Some(state), ..TaskFilter::default() };
            let tasks = self.core().expect("it serves").tasks(filter, None, 500).await.expect("listed").items;
            let of_runner = tasks.iter().filter(|task| task.runner.as_deref() == Some(name));
            held.extend(of_runner.map(|task| AttemptId { task: task.number, attempt: task.attempt }));
        }
        held
    }

    pub(crate) async fn create(&mut self, template: &str) -> Option<u64> {
        let trigger = Trigger { kind: TriggerKind::User, by: "ann".to_owned() };
        let made = self.core()?.create_task("shop", template, CreateTask::default(), trigger, None).await;
        Some(self.unless_full(made)?.task.number)
    }

    /// What came of it; nothing where there was no room for it.
    fn unless_full<T>(&mut self, done: Result<T, CoreError>) -> Option<T> {
        let error = match done {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        assert!(self.is_full && error.problem().status == 507, "{error}");
        self.refused_full += 1;
        None
    }

    /// A person cancels a task; whether that was taken.
    pub(crate) async fn cancel(&mut self, number: u64) -> bool {
        let Some(core) = self.core() else { return false };
        match core.cancel(number, "ann").await {
            Ok(_) => true,
            Err(CoreError::Conflict { .. }) => false,
            Err(error) => self.unless_full::<()>(Err(error)).is_some(),
        }
    }

    /// A person has a task that ended tried again; whether that was taken.
    pub(crate) async fn retry(&self, number: u64) -> bool {
        // The guard taken out: nothing is waited for.
        let request = RetryTask { now: self.guard == Some(Guard::RetryWaits) };
        match self.core() {
            Some(core) => core.retry(number, "ann", &request).await.is_ok(),
            None => false,
        }
    }

    /// A person decides about a plan that waits; answers with what was planned, where it was approved.
    pub(crate) async fn decide(&mut self, random: &mut Random) -> Option<AttemptId> {
        let core = self.core()?.clone();
        let filter = TaskFilter { state: Some(TaskState::AwaitingApproval), ..TaskFilter::default() };
        let waiting = core.tasks(filter, None, 100).await.expect("listed").items;
        let task = random.pick(&waiting)?;
        let decision = Decision { attempt: Some(task.attempt), reason: None };
        if random.between(0, 99) < 30 {
            let rejected = core.reject(task.number, "ann", &decision).await;
            self.unless_full(rejected)?;
            return None;
        }
        let approved = core.approve(task.number, "ann", &decision).await;
        self.unless_full(approved)?;
        Some(AttemptId { task: task.number, attempt: task.attempt })
    }

    pub(crate) async fn reconcile(&mut self) {
        if let Some(serving) = self.serving.as_ref().filter(|_| self.stands == Stands::No) {
            let looked = serving.stepper.reconcile().await;
            self.unless_full(looked);
        }
    }

    pub(crate) async fn sync_logs(&self) {
        if let Some(serving) = self.serving.as_ref().filter(|_| self.stands == Stands::No) {
            serving.stepper.sync_logs().await.expect("syncs");
        }
    }

    /// Takes a request; a claim is answered later, by [`Self::settle`].
    pub(crate) async fn take(
        &mut self,
        sender: Sender,
        ticket: u64,
        token: &Secret,
        request: Request,
    ) -> Option<Answer> {
        let Some(core) = self.core().cloned() else { return Some(request.unanswered()) };
        let answer = self.answer(core, (sender, ticket), token, request).await?;
        self.refused_full += u64::from(answer.is_refused_full());
        Some(answer)
    }

    async fn answer(
        &mut self,
        core: Core,
        (sender, ticket): (Sender, u64),
        token: &Secret,
        request: Request,
    ) -> Option<Answer> {
        Some(match request {
            Request::Claim(identity, ask) => {
                let runner = match self.runner(&core, token).await {
                    Ok(runner) => runner,
                    Err(error) => return Some(Answer::Claim(Err(error))),
                };
                let request = ClaimRequest {
                    session: identity.session,
                    previous_sessions: identity.previous_sessions,
                    wait_ms: CLAIM_WAIT_MS,
                    slots: ask.slots,
                    max_parallel_tasks: 0,
                    held: ask.held,
                    version: "1".to_owned(),
                    resumes: true,
                    ..ClaimRequest::default()
                };
                let answer = tokio::spawn(async move { core.claim(&runner, request).await });
                self.waiting.push(Waiting { sender, ticket, answer });
                return None;
            }
            Request::Beat(identity, held) => {
                let runner = match self.runner(&core, token).await {
                    Ok(runner) => runner,
                    Err(error) => return Some(Answer::Beat(Err(error))),
                };
                let Identity { session, previous_sessions } = identity;
                let request = HeartbeatRequest { session, previous_sessions, held, ..HeartbeatRequest::default() };
                Answer::Beat(core.heartbeat(&runner, request).await.map_err(problem))
            }
            Request::Start(bearer, session) => {
                let started = self.start_attempt(&core, &bearer, session).await;
                // The fence taken out: an attempt that is closed starts all the same.
                let unfenced = self.guard == Some(Guard::Fence);
                let started = match started {
                    Err(_refused) if unfenced => Ok(StartResponse { cancel: false }),
                    other => other,
                };
                Answer::Start(bearer.attempt, started)
            }
            // A file finds no room where the store may find some; the runner sends it again.
            Request::Log(bearer, ..) if self.is_full && ticket % 2 == 0 => {
                let full = CoreError::StorageFull { free_bytes: 0, reserve_bytes: 1 };
                Answer::Log(bearer.attempt, Err(problem(full)))
            }
            Request::Log(bearer, first, bytes) => {
                let appended = self.append(&core, &bearer, first, bytes).await;
                if let Ok(accepted) = &appended {
                    self.keep_synced(bearer.attempt, accepted.synced);
                }
                Answer::Log(bearer.attempt, appended)
            }
            Request::Finish(bearer, mut result) => {
                let finished = match self.attempt(&core, &bearer).await {
                    Ok(access) if result.outcome == AttemptOutcome::AwaitsApproval => {
                        match hand_in(&core, &access).await {
                            Ok(carry) => {
                                result.carry = carry;
                                core.finish_attempt(&access, *result).await.map_err(problem)
                            }
                            // It is asked again before there is a result that names it.
                            Err(full) => Err(full),
                        }
                    }
                    Ok(access) => core.finish_attempt(&access, *result).await.map_err(problem),
                    Err(error) => Err(error),
                };
                if let Ok(answer) = &finished
                    && answer.log_whole
                {
                    self.keep_synced(bearer.attempt, answer.log_length);
                }
                Answer::Finish(bearer.attempt, finished)
            }
        })
    }

    fn keep_synced(&mut self, attempt: AttemptId, synced: u64) {
        let known = self.synced.entry(attempt).or_default();
        *known = synced.max(*known);
    }

    async fn runner(&self, core: &Core, token: &Secret) -> Result<RunnerIdentity, Failed> {
        core.authenticate_runner(token).await.map_err(problem)
    }

    async fn attempt(&self, core: &Core, bearer: &Bearer) -> Result<AttemptAccess, Failed> {
        core.authenticate_attempt(bearer.attempt, &bearer.token).await.map_err(problem)
    }

    async fn start_attempt(
        &self,
        core: &Core,
        bearer: &Bearer,
        session: Option<String>,
    ) -> Result<StartResponse, Failed> {
        let access = self.attempt(core, bearer).await?;
        core.start_attempt(&access, StartRequest { commit: None, session }).await.map_err(problem)
    }

    async fn append(
        &self,
        core: &Core,
        bearer: &Bearer,
        first: u64,
        bytes: Vec<u8>,
    ) -> Result<forge_api::LogAccepted, Failed> {
        let access = self.attempt(core, bearer).await?;
        let range = ContentRange::of(first, bytes.len() as u64).expect("never empty");
        core.append_log(&access, range, Bytes::from(bytes)).await.map_err(problem)
    }

    /// Gives up what a process that is gone was waiting for.
    pub(crate) async fn hang_up(&mut self, sender: Sender) {
        let (gone, kept) = std::mem::take(&mut self.waiting).into_iter().partition(|claim| claim.sender == sender);
        self.waiting = kept;
        let gone: Vec<Waiting> = gone;
        for claim in gone {
            claim.answer.abort();
            // As above.
            let _ = claim.answer.await;
        }
    }

    /// Waits until every claim is answered or parked; answers what was answered.
    pub(crate) async fn settle(&mut self) -> Vec<(Sender, u64, Answer)> {
        let mut answers = Vec::new();
        if self.stands != Stands::No {
            return answers;
        }
        loop {
            // Whoever was woken has its turn before this goes on.
            tokio::task::yield_now().await;
            let (ended, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.waiting).into_iter().partition(|claim| claim.answer.is_finished());
            self.waiting = waiting;
            for claim in ended {
                let answer = Answer::Claim(claim.answer.await.expect("it does not panic").map_err(problem));
                self.refused_full += u64::from(answer.is_refused_full());
                answers.push((claim.sender, claim.ticket, answer));
            }
            let parked = self.serving.as_ref().map_or(0, |serving| serving.stepper.parked_claims());
            if parked == self.waiting.len() as u64 {
                // Those of one event come in no order of their own.
                answers.sort_by_key(|(sender, ticket, _)| (sender.machine, *ticket));
                return answers;
            }
        }
    }
}

/// Hands in what a plan needs: the name of the attempt that made it. Nothing where the attempt is closed; an error where there is no room.
async fn hand_in(core: &Core, access: &AttemptAccess) -> Result<Option<Carry>, Failed> {
    let bytes = access.attempt().to_string().into_bytes();
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let sha256 = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let carry = Carry { attempt: access.attempt(), length: bytes.len() as u64, sha256 };
    let mut incoming = match core.carry_in(access).await {
        Ok(incoming) => incoming,
        Err(error @ (CoreError::StorageFull { .. } | CoreError::StoreFull)) => return Err(problem(error)),
        Err(_closed) => return Ok(None),
    };
    incoming.write(&bytes.into()).await.expect("written");
    incoming.keep().await.expect("kept");
    Ok(Some(carry))
}

fn problem(error: CoreError) -> Failed {
    assert!(!matches!(error, CoreError::Internal(_)), "{error}");
    Failed::Problem(Box::new(error.problem()))
}
