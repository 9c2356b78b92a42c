//! What outlives a runner's process: the spool on its machine's disk, supervisors and their jobs, and what becomes of them when the disk is
//! full, when the machine sleeps and when it loses power.

use forge_api::{AttemptId, AttemptOutcome, AttemptResult, Secret};
use forge_runner::rules::{Contact, Order, Spool, Terms, Verdict, verdict};

use super::{Effect, Machine, Upload, result_of};
use crate::Guard;
use crate::random::Random;

/// How long a process may take to die once it is told to, in milliseconds.
const DEATH_MS_MAX: u64 = 3_000;

/// The longest nap of a supervisor, whose length is measured by a clock that stands still while the machine sleeps, in milliseconds.
const NAP_MS_MAX: u64 = 2_000;

/// For so long after its machine woke a job may run on that was to end meanwhile, in milliseconds: nobody can end it while it sleeps. Its
/// supervisor looks up, the job dies, and this simulation looks at both in steps.
pub(crate) const WAKE_MS: u64 = NAP_MS_MAX + DEATH_MS_MAX + 2_000;

/// A job's process and its supervisor: they outlive the runner.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) terms: Terms,
    pub(super) contact: Contact,
    /// The attempt whose plan it carries out.
    pub(super) resume: Option<AttemptId>,
    pub(super) outcome: AttemptOutcome,
    pub(super) stage: Stage,
    /// When it ends by itself. Until it begins: how long it will run.
    pub(super) ends_at_ms: u64,
    pub(super) writes_at_ms: u64,
    /// It kept room for its end before the disk was full.
    pub(super) has_reserve: bool,
    /// Its supervisor naps until then.
    pub(super) naps_until_ms: u64,
    /// Told to end, and when it is dead.
    pub(super) order: Option<(Order, u64)>,
}

/// How far a supervisor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was told to begin, and does at this moment.
    BeginsAt(u64),
    /// Its job's process lives.
    Begun,
    /// The log has taken no more.
    Full,
}

/// Where an attempt's end is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// On the disk, as all else of it.
    OnDisk,
    /// The disk was full: its runner's process knows it, and nobody else.
    ResultInMemory,
    /// The disk was full from the beginning: nothing of the attempt is there.
    NothingOnDisk,
}

/// What lies on the machine's disk of an attempt.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) token: Secret,
    pub(super) log: Vec<u8>,
    pub(super) result: Option<AttemptResult>,
    pub(super) running: Option<Running>,
    /// Whether its job's process ever began.
    pub(super) began: bool,
    pub(super) kept: Kept,
    /// Whether a power cut may have taken some of the log.
    pub(super) spool: Spool,
}

impl Running {
    /// Whether its job's process lives.
    fn is_begun(&self) -> bool {
        matches!(self.stage, Stage::Begun | Stage::Full)
    }

    /// As a supervisor does before it begins: nothing begins that would have to end at once.
    fn begin(&mut self, now_ms: u64, guard: Option<Guard>, random: &mut Random) {
        self.contact = Contact { leased_ms: self.contact.leased_ms.min(now_ms), ..Contact::at(now_ms) };
        self.stage = Stage::Begun;
        self.ends_at_ms = self.ends_at_ms.saturating_add(now_ms);
        self.writes_at_ms = now_ms + random.between(0, 2_000);
        if guard == Some(Guard::FreshWord) {
            return;
        }
        if let Verdict::End(order) = verdict(self.terms, self.contact, now_ms) {
            self.order = Some((order, now_ms));
        }
    }

    /// Writes what is due by now; answers it.
    fn write(&mut self, attempt: AttemptId, now_ms: u64, disk_is_full: bool, random: &mut Random) -> Vec<u8> {
        let mut written = Vec::new();
        let dead_at_ms = self.order.as_ref().map_or(u64::MAX, |(_, dead_at_ms)| *dead_at_ms);
        while self.stage == Stage::Begun && self.writes_at_ms <= now_ms.min(self.ends_at_ms).min(dead_at_ms) {
            let mut line = format!("{attempt} at {}\n", self.writes_at_ms).into_bytes();
            if disk_is_full {
                // Some of it finds room, and then nothing does.
                line.truncate(usize::try_from(random.between(0, line.len() as u64 - 1)).expect("small"));
                self.stage = Stage::Full;
                let reason = "the log cannot be written on the runner; is its disk full?".to_owned();
                let order = Order { outcome: AttemptOutcome::Failed, reason };
                self.order.get_or_insert((order, now_ms + random.between(0, DEATH_MS_MAX)));
            }
            written.extend_from_slice(&line);
            self.writes_at_ms += random.between(200, 4_000);
        }
        written
    }
}

impl Machine {
    /// Attempts whose process lives.
    pub(crate) fn running(&self) -> impl Iterator<Item = AttemptId> + '_ {
        let lives = |spooled: &Spooled| spooled.running.as_ref().is_some_and(Running::is_begun);
        self.disk.iter().filter(move |(_, spooled)| lives(spooled)).map(|(id, _)| *id)
    }

    /// Whether nothing of it runs: its processes stand still.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep_since_ms.is_some()
    }

    /// Whether a job that was to end while the machine slept may still run.
    pub(crate) fn is_excused(&self, now_ms: u64) -> bool {
        self.is_asleep() || self.woke_at_ms.is_some_and(|woke_at_ms| now_ms < woke_at_ms + WAKE_MS)
    }

    pub(crate) fn fall_asleep(&mut self, now_ms: u64) {
        self.asleep_since_ms.get_or_insert(now_ms);
    }

    /// Everything goes on as if no time had passed, but for the clock.
    pub(crate) fn wake(&mut self, now_ms: u64) {
        let Some(since_ms) = self.asleep_since_ms.take() else { return };
        self.woke_at_ms = Some(now_ms);
        let slept_ms = now_ms - since_ms;
        for running in self.disk.values_mut().filter_map(|spooled| spooled.running.as_mut()) {
            running.naps_until_ms = now_ms + self.random.between(0, NAP_MS_MAX);
            match &mut running.stage {
                // It had read the word, or has it before it.
                Stage::BeginsAt(at_ms) => *at_ms += slept_ms,
                Stage::Begun | Stage::Full => {
                    running.ends_at_ms += slept_ms;
                    running.writes_at_ms += slept_ms;
                }
            }
            if let Some((_, dead_at_ms)) = &mut running.order {
                *dead_at_ms += slept_ms;
            }
        }
    }

    pub(crate) fn disk_is_full(&self) -> bool {
        self.disk_is_full
    }

    pub(crate) fn set_disk_full(&mut self, is_full: bool) {
        self.disk_is_full = is_full;
    }

    /// What a runner's process alone has known is gone with it.
    pub(super) fn forget_what_was_in_memory(&mut self) {
        self.disk.retain(|_, spooled| spooled.kept != Kept::NothingOnDisk);
        for (attempt, spooled) in &mut self.disk {
            if spooled.kept == Kept::ResultInMemory {
                spooled.kept = Kept::OnDisk;
                spooled.result = None;
                // The daemon may have been told of this end: its successor says another one, of a log with other last words.
                self.left.entry(*attempt).or_default().push(spooled.log.clone());
            }
        }
    }

    /// The machine loses power: what ran is gone, and of each log some of the end that was not on the disk yet.
    pub(crate) fn lose_power(&mut self) {
        self.kill();
        self.asleep_since_ms = None;
        for (attempt, spooled) in &mut self.disk {
            let length = spooled.log.len();
            let left = usize::try_from(self.random.between(0, length as u64)).expect("small");
            let ran = spooled.running.take().is_some();
            spooled.spool = Spool::MayBeShorter;
            if left == length && !ran {
                continue;
            }
            spooled.log.truncate(left);
            append_own_line(&mut spooled.log, &format!("{attempt} lost its machine"));
            let outcome = spooled.result.as_ref().map_or(AttemptOutcome::Lost, |result| result.outcome);
            let order = Order { outcome, reason: "the machine started anew".to_owned() };
            spooled.result = Some(result_of(&order, &spooled.log));
            self.left.entry(*attempt).or_default().push(spooled.log.clone());
        }
    }

    /// Supervisors judge, jobs begin, write and end.
    pub(super) fn supervise(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let alive = self.process.as_ref().filter(|process| !process.stopped).map(|process| process.leased_ms);
        for (attempt, spooled) in &mut self.disk {
            let Some(running) = &mut spooled.running else { continue };
            if let Some(leased_ms) = alive {
                running.contact.heard_ms = now_ms;
                running.contact.leased_ms = running.contact.leased_ms.max(leased_ms);
            }
            if let Stage::BeginsAt(at_ms) = running.stage {
                if now_ms < at_ms {
                    continue;
                }
                if running.order.is_none() {
                    running.begin(now_ms, self.guard, &mut self.random);
                }
                if let Some((order, _)) = &running.order {
                    spooled.result = Some(AttemptResult { nothing_ran: true, ..result_of(order, b"") });
                    spooled.running = None;
                    continue;
                }
                spooled.began = true;
                effects.push(Effect::Began { attempt: *attempt, resume: running.resume });
                continue;
            }
            if running.order.is_none()
                && now_ms >= running.naps_until_ms
                && let Verdict::End(order) = verdict(running.terms, running.contact, now_ms)
            {
                running.order = Some((order, now_ms + self.random.between(0, DEATH_MS_MAX)));
            }
            let written = running.write(*attempt, now_ms, self.disk_is_full, &mut self.random);
            self.torn_logs += u64::from(running.stage == Stage::Full && !written.is_empty());
            spooled.log.extend_from_slice(&written);
            self.written.entry(*attempt).or_default().extend_from_slice(&written);
            let dead_at_ms = running.order.as_ref().map_or(u64::MAX, |(_, dead_at_ms)| *dead_at_ms);
            if now_ms >= running.ends_at_ms.min(dead_at_ms) {
                let order = match &running.order {
                    Some((order, _)) => order.clone(),
                    None => Order { outcome: running.outcome, reason: "it ended".to_owned() },
                };
                // Without room the supervisor dies over the result, and its runner has to say what is known.
                if !self.disk_is_full || running.has_reserve {
                    spooled.result = Some(result_of(&order, &spooled.log));
                }
                spooled.running = None;
            }
        }
    }

    /// The runner says how an attempt ended whose supervisor is dead and left no result.
    pub(super) fn bury(&mut self) {
        for (attempt, spooled) in &mut self.disk {
            if spooled.running.is_some() || spooled.result.is_some() {
                continue;
            }
            if !spooled.began {
                let reason = "its runner was restarted before the job began".to_owned();
                let order = Order { outcome: AttemptOutcome::Lost, reason };
                spooled.result = Some(AttemptResult { nothing_ran: true, ..result_of(&order, b"") });
                continue;
            }
            let reason = "its supervisor died without a result".to_owned();
            if self.disk_is_full {
                spooled.kept = Kept::ResultInMemory;
            } else {
                let length = spooled.log.len();
                append_own_line(&mut spooled.log, &reason);
                let added = spooled.log.get(length..).unwrap_or_default();
                self.written.entry(*attempt).or_default().extend_from_slice(added);
                if let Some(left) = self.left.get_mut(attempt) {
                    left.push(spooled.log.clone());
                }
            }
            let order = Order { outcome: AttemptOutcome::Failed, reason };
            spooled.result = Some(result_of(&order, &spooled.log));
        }
    }

    /// Puts an attempt into the spool of which nothing ran, with its end.
    pub(super) fn hand_in_unbegun(&mut self, attempt: AttemptId, token: Secret, order: &Order, kept: Kept) {
        let result = Some(AttemptResult { nothing_ran: true, ..result_of(order, b"") });
        let spooled =
            Spooled { token, log: Vec::new(), result, running: None, began: false, kept, spool: Spool::Whole };
        self.spool(attempt, spooled);
    }

    /// Puts an attempt into the spool, from where it is handed in.
    pub(super) fn spool(&mut self, attempt: AttemptId, spooled: Spooled) {
        let Some(process) = &mut self.process else { return };
        self.disk.insert(attempt, spooled);
        process.uploads.insert(attempt, Upload::new(Spool::Whole));
    }

    /// An order reaches a supervisor.
    pub(super) fn order(&mut self, attempt: AttemptId, order: Order, now_ms: u64) {
        let dies_at_ms = now_ms + self.random.between(0, DEATH_MS_MAX);
        let running = self.disk.get_mut(&attempt).and_then(|spooled| spooled.running.as_mut());
        if let Some(running) = running {
            running.order.get_or_insert((order, dies_at_ms));
        }
    }
}

/// As a runner does to a log that nobody writes any more.
fn append_own_line(log: &mut Vec<u8>, words: &str) {
    let end = if log.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    log.extend_from_slice(format!("{end}[forge] {words}\n").as_bytes());
}
