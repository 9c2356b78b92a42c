//! What goes wrong: processes die or stand still, machines lose power, sleep or have no room, the network is cut, people take runners away,
//! the calendar is set, a clone appears.

use super::{Broken, Event, RUNNERS, TROUBLE_MS, Violation, World};
use crate::Guard;
use crate::daemon::Stands;
use crate::machine::Machine;
use crate::message::{Answer, Failed, Sender};
use crate::random::Random;

impl World {
    /// Something goes wrong.
    pub(super) async fn trouble(&mut self) -> Result<(), Violation> {
        if self.daemon.now_ms() > TROUBLE_MS {
            return Ok(());
        }
        let delay_ms = self.random.between(500, 25_000);
        self.after(delay_ms, Event::Trouble);
        self.tally.troubles += 1;
        let index = usize::try_from(self.random.between(0, RUNNERS as u64 - 1)).unwrap_or_default();
        // Mostly short; sometimes longer than any grace.
        let lasts_ms = if self.chance(70) { self.random.between(500, 15_000) } else { 90_000 };
        // What only a clone shows is looked for where the one that comes finds a job that waits for the daemon's word.
        let seeks_clones = self.guard == Some(Guard::OneSession);
        let clones = seeks_clones && self.machines.first().is_some_and(Machine::is_starting);
        // A guard that is taken out is looked for among what shows it.
        let most = match self.guard {
            Some(_) if seeks_clones => 9,
            Some(_) => 10,
            None => 16,
        };
        let which = if clones { 10 } else { self.random.between(0, most) };
        // Nothing else happens to a machine that sleeps, but that its power ends.
        if matches!(which, 2 | 4..=8 | 11..=14) && self.machines.get(index).is_some_and(Machine::is_asleep) {
            return Ok(());
        }
        match which {
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
            11 | 12 => self.fall_asleep(index, lasts_ms),
            13 | 14 => {
                self.note(format!("machine {index}: its disk is full"));
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.set_disk_full(true);
                }
                self.after(lasts_ms, Event::DiskRoom(index));
            }
            15 if self.daemon.answers() => {
                self.note("the daemon's disk is full".to_owned());
                self.daemon.set_full(true).await;
                self.after(lasts_ms, Event::DaemonHasRoom);
            }
            16 if self.daemon.answers() => {
                let how = if self.chance(50) { Stands::Stopped } else { Stands::Asleep };
                self.note(format!("the daemon stands still: {how:?}"));
                self.daemon.stand_still(how);
                self.after(lasts_ms, Event::DaemonGoesOn);
            }
            15 | 16 => {}
            _ => self.clone_one(lasts_ms),
        }
        Ok(())
    }

    /// A machine sleeps for a while.
    fn fall_asleep(&mut self, index: usize, lasts_ms: u64) {
        let now_ms = self.daemon.now_ms();
        self.note(format!("machine {index} falls asleep for {lasts_ms} ms"));
        if let Some(machine) = self.machines.get_mut(index) {
            machine.fall_asleep(now_ms);
        }
        self.after(lasts_ms, Event::Wake(index));
    }

    /// A machine may fall asleep with a word of the daemon's in its hands.
    pub(super) fn perhaps_fall_asleep(&mut self, index: usize) {
        // What a word shows that is not fresh is looked for among those.
        let percent = if self.guard == Some(Guard::FreshWord) { 20 } else { 2 };
        if self.chance(percent) && self.machines.get(index).is_some_and(|machine| !machine.is_asleep()) {
            let lasts_ms = if self.chance(50) { 90_000 } else { self.random.between(500, 60_000) };
            self.fall_asleep(index, lasts_ms);
        }
    }

    /// The calendar is set, forward or back, by seconds or by days. No time passes.
    async fn set_calendar(&mut self) {
        // What happens to it while no daemon looks nobody can tell from the time that passes.
        if !self.daemon.answers() {
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
        let Some(machine) = self.machines.get_mut(index).filter(|_| self.daemon.answers() && !self.daemon.is_full())
        else {
            return Ok(());
        };
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
        let Some(machine) = self.machines.get(index).filter(|_| self.daemon.answers() && !self.daemon.is_full()) else {
            return Ok(());
        };
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
}
