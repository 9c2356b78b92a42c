//! The simulated world: one clock, one network, one daemon, some machines, people, and everything that goes wrong.
//!
//! Events lie in a queue by their time; nothing happens beside it. Randomness comes from the seed alone, so that a seed that
//! finds a fault finds it again.

mod checks;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use forge_api::{AttemptId, TaskState};

use crate::Guard;
use crate::daemon::DaemonSide;
use crate::machine::{Effect, Machine};
use crate::message::{Answer, Request, Sender};
use crate::random::Random;

/// How long things go wrong, in milliseconds.
const TROUBLE_MS: u64 = 300_000;

/// By then every task must have ended, in milliseconds: later than any deadline of a task made at the end of the trouble.
const END_MS: u64 = 3_600_000;

/// What the tree of the simulation says, in milliseconds: how long a task waits before it expires, or before a plan of it does, and how long an
/// attempt may take.
const EXPIRES_MS: u64 = 600_000;
const TIMEOUT_MS: u64 = 100_000;

/// What the daemon may be off by where its calendar is set, in milliseconds: what was written since its last look may be by either.
const LOOKS_MS: u64 = 5_000;

/// The runners beside their clone.
const RUNNERS: usize = 3;

/// The templates of the tree.
const TEMPLATES: [&str; 6] = ["once", "again", "line", "flaky", "tagged", "planned"];

/// How many of the latest events a report shows.
const TRACE_EVENTS_MAX: usize = 60;

/// What was promised and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Two processes of one task at a time.
    TwoAtATime,
    /// One attempt's process began twice.
    BeganTwice,
    /// A runner ran more than it may.
    OverLimit,
    /// A runner ran what it must not.
    WrongRunner,
    /// A runner that is removed or drained was given something.
    GivenAnyway,
    /// Two tasks of a template that takes turns.
    OutOfTurn,
    /// A task expired or timed out before its time, by the time that passes.
    TooEarly,
    /// A task did not end, or a runner did not get rid of what it had.
    Stuck,
    /// A log is not what the process wrote.
    LogLost,
    /// A plan was carried out that nobody had approved.
    NotApproved,
    /// A plan was begun to be carried out twice.
    DoneTwice,
    /// A task whose cancel was accepted ended otherwise.
    CancelUndone,
    /// An ended task stood up again by itself.
    EndUndone,
}

/// A promise that was not kept, and how it came to that.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    pub(crate) words: String,
}

#[derive(Debug)]
enum Event {
    Arrive(Sender, u64, Request),
    Answered(Sender, u64, Answer),
    Tick(usize),
    Reconcile,
    SyncLogs,
    People,
    Trouble,
    DaemonUp,
    MachineUp(usize),
    Continue(usize),
    Heal(usize),
    Wake(usize),
    DiskRoom(usize),
    DaemonGoesOn,
    DaemonHasRoom,
    Enable,
    CloneGone,
}

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) tasks: u64,
    pub(crate) attempts: u64,
    pub(crate) troubles: u64,
    pub(crate) events: u64,
    /// How often the daemon had no room for what it was asked.
    pub(crate) refused_full: u64,
    /// How many logs found no room on a runner's disk.
    pub(crate) torn_logs: u64,
    /// How often a word of the daemon was too old to begin anything.
    pub(crate) stale_words: u64,
    /// How many requests waited for a daemon that stood still.
    pub(crate) waited: u64,
}

/// The world.
pub(crate) struct World {
    /// Which guard is taken out.
    guard: Option<Guard>,
    daemon: DaemonSide,
    machines: Vec<Machine>,
    random: Random,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    payloads: BTreeMap<u64, Event>,
    sequence: u64,
    tasks: BTreeMap<u64, &'static str>,
    /// When each task was made, or tried again by a person.
    made_ms: BTreeMap<u64, u64>,
    canceled: BTreeSet<u64>,
    approved: BTreeSet<AttemptId>,
    /// Which attempt began to carry out a plan.
    resumed: BTreeMap<AttemptId, AttemptId>,
    ended: BTreeMap<u64, TaskState>,
    began: BTreeMap<AttemptId, String>,
    trace: VecDeque<String>,
    tally: Tally,
}

/// Runs one seed to its end.
pub(crate) async fn run(seed: u64, guard: Option<Guard>) -> Result<Tally, Violation> {
    let mut random = Random::new(seed);
    let daemon = DaemonSide::start(guard).await;
    let mut machines = Vec::new();
    for index in 0..RUNNERS {
        let name = format!("r{index}");
        let key = age::x25519::Identity::generate();
        let limit = if index == 0 { 0 } else { 2 };
        let registered = daemon.register(&name, key.to_public().to_string(), limit).await;
        let limit = if index == 0 { 2 } else { limit };
        machines.push(Machine::new(&name, limit, key, &registered, Random::new(random.next()), guard));
    }
    let mut world = World {
        guard,
        daemon,
        machines,
        random,
        events: BinaryHeap::new(),
        payloads: BTreeMap::new(),
        sequence: 0,
        tasks: BTreeMap::new(),
        made_ms: BTreeMap::new(),
        canceled: BTreeSet::new(),
        approved: BTreeSet::new(),
        resumed: BTreeMap::new(),
        ended: BTreeMap::new(),
        began: BTreeMap::new(),
        trace: VecDeque::new(),
        tally: Tally::default(),
    };
    let outcome = world.live().await;
    world.daemon.kill().await;
    world.tally.refused_full = world.daemon.refused_full;
    world.tally.torn_logs = world.machines.iter().map(|machine| machine.torn_logs).sum();
    world.tally.stale_words = world.machines.iter().map(|machine| machine.stale_words).sum();
    outcome.map(|()| world.tally)
}

impl World {
    fn after(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.payloads.insert(self.sequence, event);
        self.events.push(Reverse((self.daemon.now_ms() + delay_ms, self.sequence)));
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.random.between(0, 99) < percent
    }

    fn note(&mut self, words: String) {
        let now_ms = self.daemon.now_ms();
        if self.trace.len() >= TRACE_EVENTS_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>8.3} s  {words}", std::time::Duration::from_millis(now_ms).as_secs_f64()));
    }

    fn violation(&self, broken: Broken, words: impl Into<String>) -> Violation {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        Violation { broken, words: format!("{}\n{}", words.into(), trace.join("\n")) }
    }

    async fn live(&mut self) -> Result<(), Violation> {
        for index in 0..RUNNERS {
            self.after(0, Event::MachineUp(index));
            self.after(1, Event::Tick(index));
        }
        for event in [Event::Reconcile, Event::SyncLogs, Event::People, Event::Trouble] {
            self.after(10, event);
        }
        while let Some(Reverse((at_ms, number))) = self.events.pop() {
            let event = self.payloads.remove(&number).expect("each number once");
            let now_ms = self.daemon.now_ms();
            if at_ms > now_ms {
                self.daemon.pass_ms(at_ms - now_ms);
            }
            if at_ms > END_MS {
                return Err(self.stuck().await);
            }
            self.tally.events += 1;
            self.happen(event).await?;
            for (sender, ticket, answer) in self.daemon.settle().await {
                self.answer(sender, ticket, answer);
            }
            if at_ms > TROUBLE_MS && number % 16 == 0 && self.is_over().await {
                return self.compare().await;
            }
        }
        Err(self.violation(Broken::Stuck, "nothing happens any more"))
    }

    async fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Tick(index) => {
                let (now_ms, now) = (self.daemon.now_ms(), self.daemon.now());
                if let Some(machine) = self.machines.get_mut(index) {
                    let effects = machine.tick(now_ms, now);
                    let delay_ms = self.random.between(100, 900);
                    self.after(delay_ms, Event::Tick(index));
                    self.follow(index, effects)?;
                }
            }
            Event::Arrive(sender, ticket, request) if self.daemon.keeps_waiting(sender, ticket, &request) => {
                self.tally.waited += 1;
                // Its sender does not wait for ever.
                let wait_ms = self.random.between(5_000, 40_000);
                self.after(wait_ms, Event::Answered(sender, ticket, request.unanswered()));
            }
            Event::Arrive(sender, ticket, request) => {
                let Some(machine) = self.machines.get(sender.machine) else { return Ok(()) };
                let token = machine.token.clone();
                let is_start = matches!(request, Request::Start(..));
                if let Some(answer) = self.daemon.take(sender, ticket, &token, request).await {
                    if is_start {
                        self.note(format!("machine {}: {answer:?}", sender.machine));
                    }
                    self.answer(sender, ticket, answer);
                }
            }
            Event::Answered(sender, ticket, answer) => {
                let (now_ms, now) = (self.daemon.now_ms(), self.daemon.now());
                let Some(machine) = self.machines.get_mut(sender.machine) else { return Ok(()) };
                if machine.is_cut && !answer.is_local() {
                    let wait_ms = self.random.between(1_000, 20_000);
                    self.after(wait_ms, Event::Answered(sender, ticket, answer.lost()));
                } else if machine.incarnation == sender.incarnation {
                    // Between the daemon's answer and its reading.
                    let is_word = matches!(&answer, Answer::Start(_, Ok(_)) | Answer::Claim(Ok(_)));
                    if is_word && now_ms <= TROUBLE_MS {
                        self.perhaps_fall_asleep(sender.machine);
                    }
                    let Some(machine) = self.machines.get_mut(sender.machine) else { return Ok(()) };
                    let effects = machine.hear(ticket, answer, now_ms, now);
                    self.follow(sender.machine, effects)?;
                }
            }
            Event::Reconcile => {
                self.daemon.reconcile().await;
                self.look_at_processes()?;
                self.look_at_tasks().await?;
                let delay_ms = self.random.between(500, 2_500);
                self.after(delay_ms, Event::Reconcile);
            }
            Event::SyncLogs => {
                self.daemon.sync_logs().await;
                let delay_ms = self.random.between(250, 4_000);
                self.after(delay_ms, Event::SyncLogs);
            }
            Event::People => self.people().await,
            Event::Trouble => self.trouble().await?,
            Event::DaemonUp => {
                if !self.daemon.is_up() {
                    self.note("the daemon starts".to_owned());
                    self.daemon.boot().await;
                }
            }
            Event::MachineUp(index) => {
                let now_ms = self.daemon.now_ms();
                if let Some(machine) = self.machines.get_mut(index).filter(|machine| !machine.is_up()) {
                    // Nobody starts it while all sleeps, and it cannot keep its session where there is no room.
                    if machine.is_asleep() || machine.disk_is_full() {
                        self.after(1_000, Event::MachineUp(index));
                        return Ok(());
                    }
                    machine.boot(now_ms);
                    let words = format!("machine {index} starts runner process {}", machine.incarnation);
                    self.note(words);
                }
            }
            Event::Continue(index) => {
                self.note(format!("machine {index}: the runner goes on"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.set_stopped(false);
                }
            }
            Event::Heal(index) => {
                self.note(format!("machine {index}: the network is back"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.is_cut = false;
                }
            }
            Event::Wake(index) => {
                let now_ms = self.daemon.now_ms();
                self.note(format!("machine {index} wakes"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.wake(now_ms);
                }
            }
            Event::DiskRoom(index) => {
                self.note(format!("machine {index}: there is room on its disk"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.set_disk_full(false);
                }
            }
            Event::DaemonGoesOn => {
                self.note("the daemon goes on".to_owned());
                for (sender, ticket, request) in self.daemon.go_on() {
                    let delay_ms = self.random.between(0, 3_000);
                    self.after(delay_ms, Event::Arrive(sender, ticket, request));
                }
            }
            Event::DaemonHasRoom => {
                self.note("the daemon's disk has room".to_owned());
                // Where it stands still or is away it finds that when it looks.
                if self.daemon.answers() || !self.daemon.is_up() {
                    self.daemon.set_full(false).await;
                } else {
                    self.after(1_000, Event::DaemonHasRoom);
                }
            }
            Event::Enable => self.daemon.set_enabled(true),
            Event::CloneGone => {
                self.note("the clone loses its network and its power for good".to_owned());
                if let Some(clone) = self.machines.get_mut(RUNNERS) {
                    clone.lose_power();
                    clone.is_cut = true;
                }
            }
        }
        Ok(())
    }

    /// People trigger, cancel and try again.
    async fn people(&mut self) {
        if self.daemon.now_ms() > TROUBLE_MS {
            return;
        }
        let delay_ms = self.random.between(1_000, 20_000);
        self.after(delay_ms, Event::People);
        // What a retry shows that does not wait is looked for among retries of what was lost.
        let lost_alone = self.guard == Some(Guard::RetryWaits);
        if self.chance(if lost_alone { 40 } else { 15 }) {
            let ended = self.ended.iter().filter(|(_, state)| !lost_alone || **state == TaskState::Lost);
            let ended: Vec<u64> = ended.map(|(number, _)| *number).collect();
            let Some(number) = self.random.pick(&ended).copied() else { return };
            if self.daemon.retry(number).await {
                self.note(format!("task {number} is tried again"));
                self.ended.remove(&number);
                self.canceled.remove(&number);
                self.made_ms.insert(number, self.daemon.now_ms());
            }
        } else if self.chance(25) {
            if let Some(plan) = self.daemon.decide(&mut self.random).await {
                self.note(format!("what {plan} has planned is approved"));
                self.approved.insert(plan);
            }
        } else if self.chance(75) {
            let template = self.random.pick(&TEMPLATES).copied().unwrap_or("once");
            if let Some(number) = self.daemon.create(template).await {
                self.note(format!("task {number} of {template} is made"));
                self.tasks.insert(number, template);
                self.made_ms.insert(number, self.daemon.now_ms());
                self.tally.tasks += 1;
            }
        } else {
            let numbers: Vec<u64> = self.tasks.keys().copied().collect();
            let Some(number) = self.random.pick(&numbers).copied() else { return };
            if self.daemon.cancel(number).await {
                self.note(format!("task {number}: a cancel is accepted"));
                self.canceled.insert(number);
            }
        }
    }

    /// What a machine's step leads to.
    fn follow(&mut self, index: usize, effects: Vec<Effect>) -> Result<(), Violation> {
        for effect in effects {
            match effect {
                Effect::Send(ticket, request) => self.send(index, ticket, request),
                Effect::Began { attempt, resume } => {
                    self.begin(index, attempt)?;
                    self.resume(attempt, resume)?;
                }
                Effect::Exited => {
                    self.note(format!("machine {index}: the runner left"));
                    // The clone stays away once it was told off.
                    if index < RUNNERS {
                        let delay_ms = self.random.between(500, 5_000);
                        self.after(delay_ms, Event::MachineUp(index));
                    }
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize, ticket: u64, request: Request) {
        let Some(machine) = self.machines.get(index) else { return };
        let sender = Sender { machine: index, incarnation: machine.incarnation };
        let (is_cut, in_trouble) = (machine.is_cut, self.daemon.now_ms() <= TROUBLE_MS);
        let lost = is_cut || (in_trouble && self.chance(5));
        if lost {
            let wait_ms = self.random.between(1_000, 20_000);
            self.after(wait_ms, Event::Answered(sender, ticket, request.unanswered()));
            return;
        }
        let delay_ms = self.delay(in_trouble);
        if in_trouble && self.chance(3) {
            let again_ms = self.delay(in_trouble);
            self.after(again_ms, Event::Arrive(sender, ticket, request.clone()));
        }
        self.after(delay_ms, Event::Arrive(sender, ticket, request));
    }

    fn answer(&mut self, sender: Sender, ticket: u64, answer: Answer) {
        let in_trouble = self.daemon.now_ms() <= TROUBLE_MS;
        let delay_ms = self.delay(in_trouble);
        if in_trouble && self.chance(3) {
            // Lost on its way back: its runner hears nothing and gives up.
            let wait_ms = self.random.between(1_000, 60_000);
            let nothing = answer.lost();
            self.after(wait_ms, Event::Answered(sender, ticket, nothing));
            return;
        }
        self.after(delay_ms, Event::Answered(sender, ticket, answer));
    }

    fn delay(&mut self, in_trouble: bool) -> u64 {
        // What shows where a word comes late is looked for among those.
        let percent = if matches!(self.guard, Some(Guard::Fence | Guard::OneSession)) { 12 } else { 3 };
        if in_trouble && self.chance(percent) { self.random.between(1_000, 90_000) } else { self.random.between(1, 80) }
    }
}
