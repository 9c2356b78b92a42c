//! The simulated world: one clock, one network, one daemon, some machines, people, and everything that goes wrong.
//!
//! Events lie in a queue by their time; nothing happens beside it. Randomness comes from the seed alone, so that a seed that
//! finds a fault finds it again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use forge_api::{AttemptId, TaskState};

use crate::Guard;
use crate::daemon::DaemonSide;
use crate::machine::{Effect, Machine};
use crate::message::{Answer, Failed, Request, Sender};
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
    Enable,
    CloneGone,
}

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) tasks: u64,
    pub(crate) attempts: u64,
    pub(crate) troubles: u64,
    pub(crate) events: u64,
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
                self.daemon.time.advance_ms(at_ms - now_ms);
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
                    let effects = machine.hear(ticket, answer, now_ms, now);
                    self.follow(sender.machine, effects)?;
                }
            }
            Event::Reconcile => {
                self.daemon.reconcile().await;
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
            let (Some(number), Some(core)) = (self.random.pick(&numbers).copied(), self.daemon.core()) else { return };
            if core.cancel(number, "ann").await.is_ok() {
                self.note(format!("task {number}: a cancel is accepted"));
                self.canceled.insert(number);
            }
        }
    }

    /// Something goes wrong.
    async fn trouble(&mut self) -> Result<(), Violation> {
        if self.daemon.now_ms() > TROUBLE_MS {
            return Ok(());
        }
        let delay_ms = self.random.between(500, 25_000);
        self.after(delay_ms, Event::Trouble);
        self.tally.troubles += 1;
        let index = usize::try_from(self.random.between(0, RUNNERS as u64 - 1)).unwrap_or_default();
        // Mostly short; sometimes longer than any grace.
        let lasts_ms = if self.chance(70) { self.random.between(500, 15_000) } else { 90_000 };
        // What only a clone shows is looked for among clones.
        let clones = self.guard == Some(Guard::OneSession) && self.chance(50);
        match if clones { u64::MAX } else { self.random.between(0, 10) } {
            0 | 1 => {
                let power = self.chance(50);
                self.note(format!("the daemon is killed{}", if power { ", and its machine loses power" } else { "" }));
                for (sender, ticket) in self.daemon.kill().await {
                    self.answer(sender, ticket, Answer::Claim(Err(Failed::Unreachable)));
                }
                if power {
                    self.daemon.lose_power(&mut self.random);
                }
                self.after(lasts_ms, Event::DaemonUp);
            }
            2 => {
                self.note(format!("machine {index}: the runner is killed"));
                self.gone(index).await;
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.kill();
                }
                self.after(lasts_ms, Event::MachineUp(index));
            }
            3 => {
                self.note(format!("machine {index} loses power"));
                self.gone(index).await;
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.lose_power();
                }
                self.after(lasts_ms, Event::MachineUp(index));
            }
            4 => {
                self.note(format!("machine {index}: the runner is stopped"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.set_stopped(true);
                }
                self.after(lasts_ms, Event::Continue(index));
            }
            5 | 6 => {
                self.note(format!("machine {index} is cut off"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.is_cut = true;
                }
                self.after(lasts_ms, Event::Heal(index));
            }
            7 if self.chance(25) => self.drain(index).await?,
            7 if self.chance(50) => {
                self.note("r0 is disabled".to_owned());
                self.daemon.set_enabled(false);
                self.after(lasts_ms, Event::Enable);
            }
            7 => {
                self.note(format!("machine {index} drains"));
                let (now_ms, now) = (self.daemon.now_ms(), self.daemon.now());
                let effects = self.machines.get_mut(index).map(|machine| machine.drain(now_ms, now));
                // What it sends is sent at its next tick; that it ended is all that can come of this.
                if effects.is_some_and(|effects| !effects.is_empty()) {
                    self.after(lasts_ms, Event::MachineUp(index));
                }
            }
            8 => self.remove(index).await?,
            9 => self.set_calendar().await,
            _ => self.clone_one(lasts_ms),
        }
        Ok(())
    }

    /// The calendar is set, forward or back, by seconds or by days. No time passes.
    async fn set_calendar(&mut self) {
        // What happens to it while no daemon looks nobody can tell from the time that passes.
        if !self.daemon.is_up() {
            return;
        }
        let most_ms = if self.chance(50) { 60_000 } else { 48 * 3_600_000 };
        let by_ms = i64::try_from(self.random.between(1, most_ms)).unwrap_or_default();
        let by_ms = if self.chance(50) { by_ms } else { -by_ms };
        self.note(format!("the calendar is set by {by_ms} ms"));
        self.daemon.time.set_calendar_by_ms(by_ms);
        self.daemon.reconcile().await;
    }

    /// A person removes a runner, whatever it runs, and registers its machine again.
    async fn remove(&mut self, index: usize) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(index).filter(|_| self.daemon.is_up()) else { return Ok(()) };
        self.daemon.remove(&machine.name).await;
        if let Some(held) = self.daemon.held_by(&machine.name).await.first() {
            let words = format!("{held} is {}'s, which is removed", machine.name);
            return Err(self.violation(Broken::GivenAnyway, words));
        }
        let limit = if index == 0 { 0 } else { machine.limit };
        let registered = self.daemon.register(&machine.name, machine.public_key(), limit).await;
        machine.take_token(&registered);
        self.note(format!("machine {index}: its runner is removed and registered again"));
        Ok(())
    }

    /// A person drains a runner for a moment: what it holds is what it held.
    async fn drain(&mut self, index: usize) -> Result<(), Violation> {
        let Some(machine) = self.machines.get(index).filter(|_| self.daemon.is_up()) else { return Ok(()) };
        let name = machine.name.clone();
        let before = self.daemon.held_by(&name).await;
        self.daemon.set_draining(&name, true).await;
        let after = self.daemon.held_by(&name).await;
        if let Some(held) = after.iter().find(|held| !before.contains(held)) {
            return Err(self.violation(Broken::GivenAnyway, format!("{held} was given to {name}, which is drained")));
        }
        self.daemon.set_draining(&name, false).await;
        self.note(format!("machine {index}: its runner is drained and resumed"));
        Ok(())
    }

    /// A copy of the first runner appears, with its token and its key.
    fn clone_one(&mut self, lasts_ms: u64) {
        let seed = self.random.next();
        if let (None, Some(original)) = (self.machines.get(RUNNERS), self.machines.first()) {
            let clone = Machine::cloned(original, Random::new(seed));
            self.note("r0 is cloned".to_owned());
            self.machines.push(clone);
            self.after(0, Event::MachineUp(RUNNERS));
            self.after(1, Event::Tick(RUNNERS));
            self.after(lasts_ms, Event::CloneGone);
        }
    }

    /// The daemon hears that a process is gone: its connections close.
    async fn gone(&mut self, index: usize) {
        let incarnation = self.machines.get(index).map_or(0, |machine| machine.incarnation);
        if self.chance(80) {
            self.daemon.hang_up(Sender { machine: index, incarnation }).await;
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
        if in_trouble && self.chance(3) { self.random.between(1_000, 90_000) } else { self.random.between(1, 80) }
    }

    /// A job's process begins: may it?
    fn begin(&mut self, index: usize, attempt: AttemptId) -> Result<(), Violation> {
        self.note(format!("machine {index}: the process of {attempt} begins"));
        self.tally.attempts += 1;
        if let Some(before) = self.began.insert(attempt, format!("machine {index}")) {
            return Err(self.violation(Broken::BeganTwice, format!("{attempt} began on {before} and on {index}")));
        }
        for (other, machine) in self.machines.iter().enumerate() {
            let beside = machine.running().find(|running| running.task == attempt.task && *running != attempt);
            if let Some(beside) = beside {
                let words = format!("{attempt} begins on machine {index} while {beside} runs on machine {other}");
                return Err(self.violation(Broken::TwoAtATime, words));
            }
        }
        if let Some(machine) = self.machines.get(index) {
            let count = machine.running().count();
            if count > usize::try_from(machine.limit).unwrap_or(usize::MAX) {
                return Err(self.violation(Broken::OverLimit, format!("machine {index} runs {count}")));
            }
            let needs_east = self.tasks.get(&attempt.task) == Some(&"tagged");
            if needs_east && machine.name != "r0" {
                return Err(self.violation(Broken::WrongRunner, format!("{attempt} needs the tag east")));
            }
        }
        Ok(())
    }

    /// A job's process carries out a plan: may it?
    fn resume(&mut self, attempt: AttemptId, plan: Option<AttemptId>) -> Result<(), Violation> {
        let Some(plan) = plan else { return Ok(()) };
        if !self.approved.contains(&plan) {
            return Err(self.violation(Broken::NotApproved, format!("{attempt} carries out what {plan} has planned")));
        }
        match self.resumed.insert(plan, attempt) {
            Some(before) => {
                let words = format!("{before} and {attempt} both began what {plan} has planned");
                Err(self.violation(Broken::DoneTwice, words))
            }
            None => Ok(()),
        }
    }

    /// Looks at what the daemon says of all tasks.
    async fn look_at_tasks(&mut self) -> Result<(), Violation> {
        let Some(core) = self.daemon.core().cloned() else { return Ok(()) };
        let tasks = core.tasks(Default::default(), None, 500).await.expect("listed").items;
        let in_line = tasks
            .iter()
            .filter(|task| task.template == "line" && matches!(task.state, TaskState::Assigned | TaskState::Running));
        if in_line.count() > 1 {
            return Err(self.violation(Broken::OutOfTurn, "two tasks of `line` run"));
        }
        let planned = || tasks.iter().filter(|task| task.template == "planned");
        let asks = planned().filter(|task| task.state == TaskState::AwaitingApproval).count();
        let works = planned().filter(|task| matches!(task.state, TaskState::Assigned | TaskState::Running)).count();
        let plans = planned().any(|task| task.state == TaskState::Running && task.approved.is_none());
        if asks > 1 || works > 1 || (asks == 1 && plans) {
            return Err(self.violation(Broken::OutOfTurn, "a task of `planned` runs while a plan of another waits"));
        }
        for task in tasks {
            let before = self.ended.get(&task.number).copied();
            match before {
                Some(before) if before != task.state => {
                    let words = format!("task {} was {before} and is {}", task.number, task.state);
                    return Err(self.violation(Broken::EndUndone, words));
                }
                _ if task.state.is_final() => {
                    let age_ms = self.daemon.now_ms() - self.made_ms.get(&task.number).copied().unwrap_or_default();
                    let least_ms = match task.state {
                        TaskState::Expired => EXPIRES_MS,
                        TaskState::TimedOut => TIMEOUT_MS,
                        _ => 0,
                    };
                    if before.is_none() && age_ms + LOOKS_MS < least_ms {
                        let words = format!("task {} is {} after {age_ms} ms", task.number, task.state);
                        return Err(self.violation(Broken::TooEarly, words));
                    }
                    if self.canceled.contains(&task.number) && task.state != TaskState::Canceled {
                        let words = format!("task {} was to be canceled and is {}", task.number, task.state);
                        return Err(self.violation(Broken::CancelUndone, words));
                    }
                    if before.is_none() {
                        self.note(format!("task {} ended: {} ({:?})", task.number, task.state, task.reason));
                    }
                    self.ended.insert(task.number, task.state);
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn is_over(&mut self) -> bool {
        let clean = self.machines.iter().enumerate().all(|(index, machine)| index == RUNNERS || machine.is_clean());
        clean && self.daemon.is_up() && self.ended.len() == self.tasks.len()
    }

    async fn stuck(&self) -> Violation {
        let open: Vec<u64> = self.tasks.keys().filter(|number| !self.ended.contains_key(number)).copied().collect();
        let mut words = vec![format!("open tasks {open:?}")];
        if let Some(core) = self.daemon.core() {
            for number in open {
                words.push(core.why(number).await.map_or_else(|error| error.to_string(), |why| why.message));
            }
        }
        for (index, machine) in self.machines.iter().enumerate().filter(|(_, machine)| !machine.is_clean()) {
            words.push(format!("machine {index} has not handed everything in; up: {}", machine.is_up()));
        }
        self.violation(Broken::Stuck, words.join("\n"))
    }

    /// At the end: is every log what its process wrote?
    async fn compare(&self) -> Result<(), Violation> {
        let core = self.daemon.core().expect("it serves");
        // What the clone never handed in before it was gone for good is lost with its disk.
        for machine in self.machines.iter().take(RUNNERS) {
            for (attempt, written) in &machine.written {
                let log = core.log(attempt.task, Some(attempt.attempt)).await.expect("a log");
                let mut held = Vec::new();
                loop {
                    let piece = log.read(held.len() as u64, 1 << 20).await.expect("read");
                    if piece.is_empty() {
                        break;
                    }
                    held.extend_from_slice(&piece);
                }
                // Of what a power cut took here, what the daemon said to have on its disk is still there.
                let left = machine.left.get(attempt).map(Vec::as_slice).unwrap_or_default();
                let synced = self.daemon.synced.get(attempt).copied().unwrap_or_default();
                let is_kept = held.len() as u64 >= synced
                    && std::iter::once(written).chain(left).any(|known| known.starts_with(&held));
                let is_whole = held == *left.last().unwrap_or(written);
                if !is_whole && (left.is_empty() || !is_kept) {
                    let words = format!(
                        "{attempt}: {} bytes written, {} held, {synced} on the daemon's disk, {} power cuts",
                        written.len(),
                        held.len(),
                        left.len()
                    );
                    return Err(self.violation(Broken::LogLost, words));
                }
            }
        }
        Ok(())
    }
}
