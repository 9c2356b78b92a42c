//! Whether what was promised is kept: looked at whenever a process begins, all the time, and at the end.

use std::collections::BTreeMap;

use forge_api::{AttemptId, TaskState};

use super::{Broken, EXPIRES_MS, LOOKS_MS, RUNNERS, TIMEOUT_MS, Violation, World};
use crate::machine::Machine;

impl World {
    /// A job's process begins: may it?
    pub(super) fn begin(&mut self, index: usize, attempt: AttemptId) -> Result<(), Violation> {
        self.note(format!("machine {index}: the process of {attempt} begins"));
        self.tally.attempts += 1;
        if let Some(before) = self.began.insert(attempt, format!("machine {index}")) {
            return Err(self.violation(Broken::BeganTwice, format!("{attempt} began on {before} and on {index}")));
        }
        let now_ms = self.daemon.now_ms();
        for (other, machine) in self.machines.iter().enumerate().filter(|(_, machine)| !machine.is_excused(now_ms)) {
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

    /// Whether a task has two processes at this moment, as one might that has slept too long.
    pub(super) fn look_at_processes(&self) -> Result<(), Violation> {
        let now_ms = self.daemon.now_ms();
        let mut seen: BTreeMap<u64, AttemptId> = BTreeMap::new();
        for attempt in self.machines.iter().filter(|machine| !machine.is_excused(now_ms)).flat_map(Machine::running) {
            if let Some(other) = seen.insert(attempt.task, attempt) {
                return Err(self.violation(Broken::TwoAtATime, format!("{attempt} and {other} run")));
            }
        }
        Ok(())
    }

    /// A job's process carries out a plan: may it?
    pub(super) fn resume(&mut self, attempt: AttemptId, plan: Option<AttemptId>) -> Result<(), Violation> {
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
    pub(super) async fn look_at_tasks(&mut self) -> Result<(), Violation> {
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

    pub(super) async fn is_over(&mut self) -> bool {
        let clean = self.machines.iter().enumerate().all(|(index, machine)| index == RUNNERS || machine.is_clean());
        clean && self.daemon.answers() && self.ended.len() == self.tasks.len()
    }

    pub(super) async fn stuck(&self) -> Violation {
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
    pub(super) async fn compare(&self) -> Result<(), Violation> {
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
