//! Decides what runs where and when: pure rules in the files beside, and here what they are asked about.
//!
//! What is durable lies in the store. What is not, lives here: who is asking for work right now, when each runner was last
//! heard of, and the leases of attempts, which a boot begins anew. A lock here is never held across an await.

pub(crate) mod assign;
pub(crate) mod changes;
pub(crate) mod claims;
pub(crate) mod deadline;
pub(crate) mod facts;
pub(crate) mod reconcile;
pub(crate) mod spec;
pub(crate) mod task;
pub(crate) mod tell;
pub(crate) mod why;
pub(crate) mod words;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forge_api::{AttemptId, Timestamp};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::{Clock, Look, NOTICED_MS_MIN};
use crate::core::{Applied, RunnerIdentity, TryOutcome};
use crate::secrets::{Keys, random_bytes};
use crate::store::{
    Assigned, Choice, ContactRow, Delivery, Fate, LiveAttempt, Plan, Planner, QueueFacts, Registration,
    ToldWhenCommitted,
};
use assign::{ProjectFacts, RunnerFacts, Situation};
use changes::Changes;
use claims::{Foretold, Parked, Wake};

/// What the scheduler knows beside the store.
pub(crate) struct Scheduler {
    config: watch::Receiver<Arc<Applied>>,
    clock: Clock,
    keys: Arc<Keys>,
    live: Mutex<Live>,
    /// The loop looks again.
    nudge: Notify,
    /// Deliveries were put out.
    told: Notify,
    /// There may be news beside them: a task that was made may find nobody there.
    news: Notify,
    /// What listeners are told of.
    changes: Changes,
    /// Counts the loop's turns.
    turns: watch::Sender<u64>,
    /// By task, who follows its log: told of everything that begins or ends an attempt of it.
    readers: Mutex<Readers>,
    /// Since when runners could be heard of, by the clock that never goes back: since the start, or since the machine woke up.
    present_since_ms: AtomicU64,
    draining: AtomicBool,
    storage_full: AtomicBool,
    fenced_writes: AtomicU64,
    assignments: AtomicU64,
    lease_expiries: AtomicU64,
    jobs_refused: AtomicU64,
    tries: [AtomicU64; TryOutcome::ALL.len()],
}

/// Those who follow logs, by task.
#[derive(Default)]
struct Readers {
    by_task: HashMap<u64, watch::Sender<()>>,
    /// With so many entries those that nobody listens to any more are taken out.
    sweep_at: usize,
}

/// With fewer followed tasks than this nothing is swept.
const READERS_SWEEP_MIN: usize = 64;

/// What is true only while this process lives.
#[derive(Default)]
struct Live {
    /// Claims that wait, by runner.
    parked: BTreeMap<String, Parked>,
    /// When each runner was last heard of.
    contacts: HashMap<String, Contact>,
    leases: HashMap<AttemptId, Lease>,
    /// Runners by the hash of their token, as far as they have shown it.
    tokens: HashMap<[u8; 32], RunnerIdentity>,
    /// Counts up with everything that makes a token worth less than it was.
    token_epoch: u64,
    /// When each project was last served.
    turns: BTreeMap<String, u64>,
    /// The number of the newest parked claim.
    ticket: u64,
}

/// What a runner said last.
#[derive(Clone, Debug)]
struct Contact {
    /// Its moment is the calendar's of then; [`Contact::row`] has today's.
    said: ContactRow,
    /// When, by the clock that never goes back; negative for one from before this process.
    seen_ms: i64,
    /// Not stored yet.
    dirty: bool,
    /// A one-off runner that was told that everything of its task is there: it goes.
    leaves: bool,
    /// Cancels and losses that a claim of this session has been answered with: a heartbeat repeats them, a claim does not.
    told: std::collections::BTreeSet<AttemptId>,
}

impl Contact {
    /// What is stored and shown of it. Where the calendar was set since, its moment is reckoned back from now.
    fn row(&self, look: Look) -> ContactRow {
        let at = look.calendar.plus_millis(self.seen_ms.saturating_sub(millis(look.elapsed_ms)));
        let was_set = at.millis_after(self.said.at).unsigned_abs() > NOTICED_MS_MIN;
        ContactRow { at: if was_set { at } else { self.said.at }, ..self.said.clone() }
    }

    /// Whether its runner was heard of a moment ago.
    fn is_fresh(&self, elapsed_ms: u64) -> bool {
        millis(elapsed_ms).saturating_sub(self.seen_ms) < millis(forge_api::RUNNER_OFFLINE_AFTER_MS)
    }
}

#[derive(Clone, Debug)]
struct Lease {
    runner: String,
    /// Since when nothing is heard of the attempt; later by what the machine slept, and for one from before the start the start.
    seen_ms: u64,
    grace_ms: u64,
    /// Not acted on before, since that failed.
    not_before_ms: u64,
    /// The hash of the attempt's own token.
    token_sha256: [u8; 32],
}

impl Lease {
    /// When it ends, or when that is tried again.
    fn due_ms(&self) -> u64 {
        self.seen_ms.saturating_add(self.grace_ms).max(self.not_before_ms)
    }
}

fn millis(elapsed_ms: u64) -> i64 {
    i64::try_from(elapsed_ms).unwrap_or(i64::MAX)
}

impl Scheduler {
    pub(crate) fn new(config: watch::Receiver<Arc<Applied>>, clock: Clock, keys: Arc<Keys>) -> Self {
        Self {
            config,
            clock,
            keys,
            live: Mutex::default(),
            nudge: Notify::new(),
            told: Notify::new(),
            news: Notify::new(),
            changes: Changes::default(),
            turns: watch::Sender::new(0),
            readers: Mutex::default(),
            present_since_ms: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            storage_full: AtomicBool::new(false),
            fenced_writes: AtomicU64::new(0),
            assignments: AtomicU64::new(0),
            lease_expiries: AtomicU64::new(0),
            jobs_refused: AtomicU64::new(0),
            tries: Default::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        // A thread that panicked here left maps that are each whole; what they miss, leases and claims bring back.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of each revision that serves from now on.
    pub(crate) fn config_changes(&self) -> watch::Receiver<Arc<Applied>> {
        self.config.clone()
    }

    /// The revision that serves.
    pub(crate) fn applied(&self) -> Arc<Applied> {
        Arc::clone(&self.config.borrow())
    }

    /// Takes over what the store knows of runners and live attempts. A boot begins every lease anew.
    pub(crate) fn boot(&self, registrations: Vec<Registration>, attempts: Vec<LiveAttempt>) {
        let look = self.clock.look();
        let (now, seen_ms) = (look.calendar, look.elapsed_ms);
        self.present_since_ms.store(seen_ms, Ordering::Relaxed);
        let mut live = self.lock();
        for LiveAttempt { attempt, runner, grace_ms, token_sha256 } in attempts {
            live.leases.insert(attempt, Lease { runner, seen_ms, grace_ms, not_before_ms: 0, token_sha256 });
        }
        for registration in registrations {
            let (Some(at), Some(session)) = (registration.last_contact_at, registration.session) else {
                continue;
            };
            let said = ContactRow {
                key: registration.key,
                at,
                session,
                version: registration.version,
                own_max: registration.own_max,
                health: registration.health,
            };
            let seen_ms = millis(seen_ms).saturating_sub(millis(now.millis_since(at)));
            let contact = Contact { said, seen_ms, dirty: false, leaves: false, told: Default::default() };
            live.contacts.insert(registration.name, contact);
        }
    }

    /// For how long runners could be heard of.
    pub(crate) fn present_ms(&self) -> u64 {
        self.clock.elapsed_ms().saturating_sub(self.present_since_ms.load(Ordering::Relaxed))
    }

    /// The machine slept or this process stood still for so long, and heard of nobody: no lease counts that, and runners have the time to
    /// come back that they have after a start.
    fn machine_slept(&self, slept_ms: u64) {
        let now_ms = self.clock.elapsed_ms();
        self.present_since_ms.store(now_ms, Ordering::Relaxed);
        for lease in self.lock().leases.values_mut() {
            // One that was heard of since it woke up is as it should be.
            lease.seen_ms = lease.seen_ms.saturating_add(slept_ms).min(now_ms);
        }
    }

    /// Something was heard of an attempt. Its runner's contact stays as it is: an attempt does not say which session speaks, and one of
    /// long ago, which is all that a daemon may know after its start, must not look as if it were still there.
    pub(crate) fn heard_of_attempt(&self, id: AttemptId) {
        let elapsed_ms = self.clock.elapsed_ms();
        if let Some(lease) = self.lock().leases.get_mut(&id) {
            lease.seen_ms = elapsed_ms;
        }
    }

    /// The runner of an attempt that is live, and the hash of the attempt's token; what this does not know, the store does.
    pub(crate) fn live_attempt(&self, id: AttemptId) -> Option<(String, [u8; 32])> {
        self.lock().leases.get(&id).map(|lease| (lease.runner.clone(), lease.token_sha256))
    }

    /// The runner that has shown this token before, or the epoch to remember it with.
    pub(crate) fn runner_of_token(&self, token_sha256: &[u8; 32]) -> Result<RunnerIdentity, TokenEpoch> {
        let live = self.lock();
        live.tokens.get(token_sha256).cloned().ok_or(TokenEpoch(live.token_epoch))
    }

    /// Remembers whose token it is, unless tokens lost their worth since the store was asked.
    pub(crate) fn remember_token(&self, token_sha256: [u8; 32], runner: RunnerIdentity, asked: TokenEpoch) {
        let mut live = self.lock();
        if live.token_epoch == asked.0 {
            live.tokens.insert(token_sha256, runner);
        }
    }

    /// Attempts whose runner was not heard of for longer than their grace, with the reason in words.
    fn lost_leases(&self) -> Vec<(AttemptId, String)> {
        let look = self.clock.look();
        let live = self.lock();
        let lost = live.leases.iter().filter(|(_, lease)| lease.due_ms() <= look.elapsed_ms);
        let lost: BTreeMap<AttemptId, &Lease> = lost.map(|(id, lease)| (*id, lease)).collect();
        lost.into_iter().map(|(id, lease)| {
            let (runner, grace) = (&lease.runner, words::duration(lease.grace_ms));
            let contact = live.contacts.get(runner);
            if contact.is_some_and(|contact| contact.seen_ms > millis(lease.seen_ms)) {
                let words = format!(
                    "runner {runner} is there and does not hold this attempt: it said nothing of it for longer than runner_grace ({grace})"
                );
                return (id, words);
            }
            let since = contact.map(|contact| contact.row(look).at);
            let since = since.map_or_else(|| "since the daemon started".to_owned(), |at| format!("since {at}"));
            (id, format!("runner {runner} was unreachable {since}, longer than runner_grace ({grace})"))
        })
        .collect()
    }

    /// How long until the next lease may be lost, in milliseconds.
    fn next_lease_ms(&self) -> Option<u64> {
        let now_ms = self.clock.elapsed_ms();
        let live = self.lock();
        live.leases.values().map(|lease| lease.due_ms().saturating_sub(now_ms)).min()
    }

    /// How an attempt's lease stands, for `why`.
    pub(crate) fn lease_facts(&self, id: AttemptId) -> Option<why::LeaseFacts> {
        let now_ms = self.clock.elapsed_ms();
        let live = self.lock();
        let lease = live.leases.get(&id)?;
        let contact = live.contacts.get(&lease.runner);
        Some(why::LeaseFacts {
            is_held: contact.is_none_or(|contact| contact.seen_ms <= millis(lease.seen_ms)),
            quiet_ms: now_ms.saturating_sub(lease.seen_ms),
            left_ms: lease.due_ms().saturating_sub(now_ms),
        })
    }

    /// Leaves a lease that could not be acted on for a while.
    fn put_off_lease(&self, id: AttemptId) {
        let not_before_ms = self.clock.elapsed_ms().saturating_add(reconcile::LEASE_AGAIN_MS);
        if let Some(lease) = self.lock().leases.get_mut(&id) {
            lease.not_before_ms = not_before_ms;
        }
    }

    /// Follows what became of tasks: closed attempts give their leases back, and runners hear of cancels and losses.
    pub(crate) fn after(&self, fates: &[Fate]) {
        let mut live = self.lock();
        for fate in fates {
            if fate.closed {
                live.leases.remove(&fate.attempt);
            }
            if let Some(runner) = &fate.runner
                && let Some(parked) = live.parked.remove(runner)
            {
                parked.wake(Wake::Look);
            }
        }
        drop(live);
        self.changes.tasks(fates.iter().map(|fate| fate.task));
        for fate in fates.iter().filter(|fate| fate.closed || fate.state.is_final()) {
            self.tell_readers(fate.task);
        }
        // A task that ended brings no moment nearer; one that waits again, or is to be canceled, does.
        if fates.iter().any(|fate| !fate.state.is_final()) {
            self.nudge.notify_one();
        }
    }

    /// What listeners are told of.
    pub(crate) fn changed(&self) -> &Changes {
        &self.changes
    }

    /// A runner's claim looks again, as after a change of what it may do; which tokens are its is asked again, too.
    pub(crate) fn wake(&self, runner: &str) {
        self.changes.runners();
        let mut live = self.lock();
        live.forget_tokens(runner);
        if let Some(parked) = live.parked.remove(runner) {
            parked.wake(Wake::Look);
        }
    }

    /// Forgets a runner that is registered no more.
    pub(crate) fn forget_runner(&self, name: &str) {
        self.changes.runners();
        let mut live = self.lock();
        live.forget_tokens(name);
        live.contacts.remove(name);
        if let Some(parked) = live.parked.remove(name) {
            parked.wake(Wake::Look);
        }
    }

    /// Answers every parked claim; no new one waits.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for (_, parked) in std::mem::take(&mut self.lock().parked) {
            parked.wake(Wake::Drain);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether nothing is given away for want of space.
    pub(crate) fn is_storage_full(&self) -> bool {
        self.storage_full.load(Ordering::Relaxed)
    }

    /// Who follows a log of this task looks again.
    pub(crate) fn tell_readers(&self, task: u64) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = readers.by_task.get(&task)
            && sender.send(()).is_err()
        {
            readers.by_task.remove(&task);
        }
    }

    /// Has the loop look again and waits until it has.
    pub(crate) async fn turn(&self) {
        let mut turns = self.turns.subscribe();
        self.nudge.notify_one();
        // The sender lives as long as this does.
        let _ = turns.changed().await;
    }

    /// Hears of everything that begins or ends an attempt of this task.
    pub(crate) fn changes(&self, task: u64) -> watch::Receiver<()> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.by_task.len() >= readers.sweep_at.max(READERS_SWEEP_MIN) {
            readers.by_task.retain(|_, sender| !sender.is_closed());
            readers.sweep_at = readers.by_task.len().saturating_mul(2);
        }
        readers.by_task.entry(task).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Counts a write of a closed attempt.
    pub(crate) fn count_fenced(&self) {
        self.fenced_writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fenced_writes(&self) -> u64 {
        self.fenced_writes.load(Ordering::Relaxed)
    }

    /// Attempts given to runners since the start.
    pub(crate) fn assignments(&self) -> u64 {
        self.assignments.load(Ordering::Relaxed)
    }

    /// Attempts lost since the start since their runner stayed away.
    pub(crate) fn lease_expiries(&self) -> u64 {
        self.lease_expiries.load(Ordering::Relaxed)
    }

    /// Counts jobs that a runner did not begin.
    pub(crate) fn count_refused(&self, jobs: usize) {
        self.jobs_refused.fetch_add(u64::try_from(jobs).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Jobs that runners refused since the start.
    pub(crate) fn jobs_refused(&self) -> u64 {
        self.jobs_refused.load(Ordering::Relaxed)
    }

    /// How far the clock of the runner that is farthest off is from ours, either way; 0 without runners that are there.
    pub(crate) fn clock_skew_ms_max(&self) -> u64 {
        let healths = self.healths_of_those_here();
        healths.into_iter().filter_map(|health| health.clock_skew_ms).map(i64::unsigned_abs).max().unwrap_or(0)
    }

    /// What the runner that is there has left on its disk that has the least; nothing without runners that are there.
    pub(crate) fn runner_disk_free_bytes_min(&self) -> Option<u64> {
        self.healths_of_those_here().into_iter().map(|health| health.disk_bytes_free).min()
    }

    /// What those runners last measured that are there.
    fn healths_of_those_here(&self) -> Vec<forge_api::Health> {
        let now_ms = self.clock.elapsed_ms();
        let live = self.lock();
        let here =
            live.contacts.iter().filter(|(name, contact)| live.parked.contains_key(*name) || contact.is_fresh(now_ms));
        here.filter_map(|(_, contact)| contact.said.health).collect()
    }

    pub(crate) fn parked_claims(&self) -> u64 {
        u64::try_from(self.lock().parked.len()).unwrap_or(u64::MAX)
    }

    /// What was heard and is not stored yet.
    fn take_dirty_contacts(&self) -> Vec<ContactRow> {
        let look = self.clock.look();
        let mut live = self.lock();
        let dirty = live.contacts.values_mut().filter(|contact| contact.dirty);
        dirty
            .map(|contact| {
                contact.dirty = false;
                contact.row(look)
            })
            .collect()
    }

    /// What was last heard of a runner, and whether it counts as being in contact.
    pub(crate) fn contact(&self, name: &str) -> Option<(ContactRow, bool)> {
        let look = self.clock.look();
        let live = self.lock();
        let contact = live.contacts.get(name)?;
        let in_contact = live.parked.contains_key(name) || contact.is_fresh(look.elapsed_ms);
        Some((contact.row(look), in_contact))
    }

    /// A one-off runner hears that everything of its task is there, and goes.
    pub(crate) fn leaves(&self, name: &str) {
        if let Some(contact) = self.lock().contacts.get_mut(name) {
            contact.leaves = true;
        }
    }

    /// Whether nobody is heard of under a name: its runner said goodbye, is out of contact, or never was in contact.
    pub(crate) fn is_away(&self, name: &str) -> bool {
        if self.lock().contacts.get(name).is_some_and(|contact| contact.leaves) {
            return true;
        }
        !self.contact(name).is_some_and(|(_, in_contact)| in_contact)
    }

    /// How many tasks a runner asks for right now, and whether it does approved plans; `None` between two claims.
    pub(crate) fn asking(&self, name: &str) -> Option<(u32, bool)> {
        self.lock().parked.get(name).map(|parked| (parked.slots, parked.resumes))
    }
}

/// A moment between two changes of what tokens are worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenEpoch(u64);

impl Live {
    /// Has the store asked for a runner's tokens again.
    fn forget_tokens(&mut self, runner: &str) {
        self.token_epoch += 1;
        self.tokens.retain(|_, known| known.name() != runner);
    }
}

/// What projects allow, as the assignment reads it.
pub(crate) fn project_facts(applied: &Applied) -> BTreeMap<String, ProjectFacts> {
    let facts = applied.tree.projects.values().map(|project| {
        let facts =
            ProjectFacts { global_runners: project.global_runners, max_parallel_tasks: project.max_parallel_tasks };
        (project.name.as_str().to_owned(), facts)
    });
    facts.collect()
}

/// Free slots are counted up to this: one pass gives no more away to one group.
pub(crate) const FREE_SLOTS_COUNTED_MAX: u32 = 256;

impl Planner for Scheduler {
    fn free_slots(&self) -> u32 {
        // Without a revision nothing is known of what runners may do.
        let has_rules = self.config.borrow().applied_at.is_some();
        if self.is_draining() || self.is_storage_full() || !has_rules {
            return 0;
        }
        let live = self.lock();
        let mut slots: u32 = 0;
        for parked in live.parked.values() {
            slots = slots.saturating_add(parked.slots);
            if slots >= FREE_SLOTS_COUNTED_MAX {
                break;
            }
        }
        slots
    }

    fn declares(&self, project: &str) -> bool {
        self.config.borrow().tree.projects.contains_key(project)
    }

    fn plan(&self, facts: QueueFacts) -> Plan {
        let applied = self.applied();
        let mut live = self.lock();
        let mut held: HashMap<&str, u32> = HashMap::new();
        for live in &facts.live {
            *held.entry(&live.runner).or_default() += live.attempts;
        }
        let runners = live.parked.iter_mut().filter(|(_, parked)| parked.slots > 0).map(|(name, parked)| {
            let running = held.get(name.as_str()).copied().unwrap_or_default();
            RunnerFacts { running, ..parked.facts(name, &applied) }
        });
        let runners = runners.collect();
        let mut projects = project_facts(&applied);
        for (name, takes_global) in facts.removed {
            projects.entry(name).or_insert(assign::removed_project(takes_global));
        }
        let situation =
            Situation { runners, projects, groups: facts.groups, live: facts.live, turns: live.turns.clone() };
        let (assignments, turns) = assign::assign(situation);
        live.turns = turns;
        let asked = assignments.into_iter().filter_map(|assignment| {
            let key = live.parked.get(&assignment.runner)?.registration.key;
            Some((assignment, key))
        });
        let asked: Vec<_> = asked.collect();
        drop(live);
        let choices = asked.into_iter().filter_map(|(assignment, key)| {
            // Without randomness nothing is given away: the tasks wait, and the log says why.
            let nonce = random_bytes()
                .inspect_err(|error| tracing::error!(task = assignment.task, %error, "a task could not be assigned"))
                .ok()?;
            Some(Choice { task: assignment.task, runner: assignment.runner, key, nonce })
        });
        let choices = choices.collect();
        let keys = Arc::clone(&self.keys);
        Plan { choices, token_hash: Box::new(move |id, nonce| keys.attempt_token(id, nonce).1.0) }
    }

    fn outdated(&self, runner: &str) {
        // It finds out by itself what it is by now; where the transaction is taken back it parks again.
        if let Some(parked) = self.lock().parked.remove(runner) {
            parked.wake(Wake::Look);
        }
    }

    fn foretell(&self, runner: &str, deliveries: Vec<(AttemptId, Delivery)>) -> Option<oneshot::Sender<()>> {
        let parked = self.lock().parked.remove(runner)?;
        let (told, committed) = oneshot::channel();
        parked.wake(Wake::Foretold(Foretold { deliveries, committed })).then_some(told)
    }

    fn committed(&self, assigned: Vec<Assigned>, mut foretold: ToldWhenCommitted) {
        self.assignments.fetch_add(u64::try_from(assigned.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let seen_ms = self.clock.elapsed_ms();
        let mut by_runner: BTreeMap<String, Vec<AttemptId>> = BTreeMap::new();
        let mut live = self.lock();
        let tasks: Vec<u64> = assigned.iter().map(|assigned| assigned.attempt.task).collect();
        for Assigned { attempt, runner, grace_ms, token_sha256 } in assigned {
            let lease = Lease { runner: runner.clone(), seen_ms, grace_ms, not_before_ms: 0, token_sha256 };
            live.leases.insert(attempt, lease);
            by_runner.entry(runner).or_default().push(attempt);
        }
        for (runner, attempts) in by_runner {
            if let Some(told) = foretold.remove(&runner) {
                let _given_up_or_told = told.send(());
                continue;
            }
            // A claim that was given up meanwhile leaves its attempts to the runner's next one.
            if let Some(parked) = live.parked.remove(&runner) {
                parked.wake(Wake::Jobs(attempts));
            }
        }
        drop(live);
        self.changes.tasks(tasks.iter().copied());
        for task in tasks {
            self.tell_readers(task);
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
