//! Firing schedules: what is due since each was looked at last is fired once, the newest of it, and the next is waited for.

use std::collections::HashMap;
use std::sync::Arc;

use forge_api::{Schedule, Timestamp, Trigger, TriggerKind};
use forge_config::Cron;
use forge_config::meant::{self, Overlap};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{Applied, Core, CoreError, internal, stored};
use crate::store::{Fired, NewFiring, ScheduleKey, ScheduleRow, StoreError};

/// Schedules are looked at at least this often, in milliseconds: a wall clock that was set tells nobody.
const LOOK_INTERVAL_MS: u64 = 30_000;

/// What a schedule means that is not in the tree, or not enabled.
const OFF: &str = "off";

/// How many firings are shown ahead.
const NEXT_SHOWN: usize = 3;

/// How far back the newest firing that is due is looked for at first, in seconds, and by how much that grows each time.
const FIRST_WINDOW_S: i64 = 120;
const WINDOW_GROWS: i64 = 8;

/// How many schedules are looked at at a time: those that are due together share the store's transactions.
const AT_A_TIME_MAX: usize = 64;

/// Cron lines that were read, by line and zone.
type Crons = HashMap<(String, String), Arc<Cron>>;

impl Core {
    /// Fires until the shutdown.
    pub(super) async fn fire_schedules(self, shutdown: CancellationToken) {
        let mut config = self.inner.scheduler.config_changes();
        let mut config_open = true;
        let mut crons = Crons::new();
        loop {
            // Counted from before the look: what passes meanwhile is not waited for once more.
            let looked_ms = self.inner.clock.elapsed_ms();
            let wait_ms = match self.fire_due(&mut crons).await {
                Ok(next) => next.map_or(LOOK_INTERVAL_MS, |next| next.millis_since(self.now()).saturating_add(1)),
                Err(error) => {
                    tracing::error!(%error, "schedules could not be looked at; they are again in a moment");
                    LOOK_INTERVAL_MS
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = config.changed(), if config_open => config_open = changed.is_ok(),
                () = self.inner.clock.sleep_until_ms(looked_ms.saturating_add(wait_ms.min(LOOK_INTERVAL_MS))) => {}
            }
        }
    }

    /// Fires what is due; answers when the next is.
    async fn fire_due(&self, crons: &mut Crons) -> Result<Option<Timestamp>, CoreError> {
        let applied = self.inner.scheduler.applied();
        if applied.applied_at.is_none() {
            // The tree that says what is scheduled is still to come.
            return Ok(None);
        }
        let mut known = self.inner.store.schedules().await.map_err(stored)?;
        let mut next: Option<Timestamp> = None;
        let mut is_told = false;
        let mut looks = Vec::new();
        let mut read = Crons::new();
        for (key, schedule) in enabled(&applied) {
            let row = known.remove(&key);
            let line = (schedule.cron.clone(), schedule.timezone.clone());
            let cron = match read.get(&line).or_else(|| crons.get(&line)) {
                Some(cron) => Arc::clone(cron),
                None => Arc::new(Cron::new(&schedule.cron, &schedule.timezone).map_err(internal)?),
            };
            read.insert(line, Arc::clone(&cron));
            let (applied, named) = (&applied, key.clone());
            looks.push(async move { (named, self.look_at(applied, key, schedule, &cron, row).await) });
        }
        // What no schedule means any more is forgotten.
        *crons = read;
        let mut looks = futures_util::stream::iter(looks).buffer_unordered(AT_A_TIME_MAX);
        while let Some(((project, name), looked)) = looks.next().await {
            match looked {
                Ok(after) => next = next.into_iter().chain(after).min(),
                // It stays due, and keeps no other from its time. A full disk is everyone's, and said once.
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::error!(project, schedule = name, %error, "a schedule could not fire; it is tried again");
                    }
                }
            }
        }
        for (key, row) in known {
            if let Err(error) = self.turn_off(&applied, key, &row).await {
                tracing::error!(%error, "a schedule that is off could not be forgotten; it is tried again");
            }
        }
        Ok(next)
    }

    /// What is off by now begins anew when it is on again: nothing that it would have meant meanwhile is due.
    async fn turn_off(&self, applied: &Applied, key: ScheduleKey, row: &ScheduleRow) -> Result<(), StoreError> {
        let project = applied.tree.projects.get(key.0.as_str());
        if !project.is_some_and(|project| project.schedules.contains_key(key.1.as_str())) {
            self.inner.store.forget_schedule(key).await
        } else if row.meaning == OFF {
            Ok(())
        } else {
            self.inner.store.begin_schedule(key, OFF.to_owned(), self.now()).await
        }
    }

    /// Fires a schedule if it is due; answers when it is next.
    async fn look_at(
        &self,
        applied: &Applied,
        key: ScheduleKey,
        schedule: &meant::Schedule,
        cron: &Cron,
        row: Option<ScheduleRow>,
    ) -> Result<Option<Timestamp>, CoreError> {
        let now = self.now();
        let meaning = format!("{} {}", schedule.cron, schedule.timezone);
        let until = match row {
            // The clock was ahead when that was written: it would be silent until then.
            Some(row) if row.meaning == meaning && row.until <= now => row.until,
            Some(_) | None => {
                self.inner.store.begin_schedule(key.clone(), meaning, now).await.map_err(stored)?;
                now
            }
        };
        let (due, after) = due(cron, until, now);
        if let Some(nominal_at) = due {
            self.fire(applied, key, schedule, nominal_at).await?;
        }
        Ok(after)
    }

    async fn fire(
        &self,
        applied: &Applied,
        key: ScheduleKey,
        schedule: &meant::Schedule,
        nominal_at: Timestamp,
    ) -> Result<(), CoreError> {
        let (project, name) = key.clone();
        let request = forge_api::CreateTask { variables: schedule.answers.clone(), arguments: Vec::new() };
        let trigger = Trigger { kind: TriggerKind::Schedule, by: name.clone() };
        let task = self.new_task(applied, &project, schedule.template.as_str(), request, trigger, None)?;
        let new = NewFiring { key, nominal_at, skips: schedule.overlap == Overlap::Skip, task };
        match self.inner.store.fire(new, self.now()).await.map_err(stored)? {
            Fired::Made(task, others) => {
                tracing::info!(project, schedule = name, task, nominal = %nominal_at, "a schedule fired");
                self.inner.scheduler.after(&others);
                self.inner.scheduler.changed().tasks([task]);
            }
            Fired::Skipped(open) => {
                tracing::info!(project, schedule = name, open, nominal = %nominal_at, "a schedule made no task: one of it is open");
            }
            Fired::Before => {}
        }
        Ok(())
    }

    /// Every schedule of the projects that the caller may see.
    pub async fn schedules(&self, visible: Option<Vec<String>>) -> Result<Vec<Schedule>, CoreError> {
        let known = self.inner.store.schedules().await.map_err(stored)?;
        let (applied, now) = (self.inner.scheduler.applied(), self.now());
        let mut schedules = Vec::new();
        for project in applied.tree.projects.values() {
            if visible.as_ref().is_some_and(|visible| !visible.iter().any(|name| name == project.name.as_str())) {
                continue;
            }
            for (name, schedule) in &project.schedules {
                let key = (project.name.as_str().to_owned(), name.as_str().to_owned());
                schedules.push(shown(&key, schedule, known.get(&key), now));
            }
        }
        Ok(schedules)
    }
}

fn enabled(applied: &Applied) -> impl Iterator<Item = (ScheduleKey, &meant::Schedule)> {
    applied.tree.projects.values().flat_map(|project| {
        let enabled = project.schedules.iter().filter(|(_, schedule)| schedule.enabled);
        enabled.map(|(name, schedule)| ((project.name.as_str().to_owned(), name.as_str().to_owned()), schedule))
    })
}

fn seconds(moment: Timestamp) -> i64 {
    moment.unix_micros().div_euclid(1_000_000)
}

fn moment(unix_seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(unix_seconds.saturating_mul(1_000_000))
}

/// The newest firing after `until` that is not after `now`; and the first one that is still to come.
fn due(cron: &Cron, until: Timestamp, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let (until, now) = (seconds(until), seconds(now));
    let mut window = FIRST_WINDOW_S;
    loop {
        // Backwards from now, ever farther: of what was missed in a year only the newest is looked for.
        let from = until.max(now.saturating_sub(window));
        let (mut at, mut found) = (from, None);
        let after = loop {
            match cron.next(at) {
                Some(next) if next <= now => {
                    found = Some(next);
                    at = next;
                }
                after => break after,
            }
        };
        if found.is_some() || from == until {
            return (found.map(moment), after.map(moment));
        }
        window = window.saturating_mul(WINDOW_GROWS);
    }
}

fn shown(
    (project, name): &ScheduleKey,
    schedule: &meant::Schedule,
    row: Option<&ScheduleRow>,
    now: Timestamp,
) -> Schedule {
    let mut next = Vec::new();
    if schedule.enabled
        && let Ok(cron) = Cron::new(&schedule.cron, &schedule.timezone)
    {
        let mut at = seconds(now);
        while next.len() < NEXT_SHOWN
            && let Some(found) = cron.next(at)
        {
            next.push(moment(found));
            at = found;
        }
    }
    Schedule {
        project: project.clone(),
        name: name.clone(),
        template: schedule.template.as_str().to_owned(),
        cron: schedule.cron.clone(),
        timezone: schedule.timezone.clone(),
        enabled: schedule.enabled,
        overlap: match schedule.overlap {
            Overlap::Skip => "skip".to_owned(),
            Overlap::Queue => "queue".to_owned(),
        },
        next,
        looked_at: row.map(|row| row.until),
        last: row.and_then(|row| row.last.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_missed_the_newest_is_due_however_long_it_was() {
        let cron = Cron::new("*/10 * * * *", "UTC").expect("a time");
        let at = |minute: i64| moment(1_700_000_400 + minute * 60);
        assert_eq!(due(&cron, at(1), at(9)), (None, Some(at(10))));
        assert_eq!(due(&cron, at(1), at(10)), (Some(at(10)), Some(at(20))));
        assert_eq!(due(&cron, at(10), at(10)), (None, Some(at(20))), "it came");
        assert_eq!(due(&cron, at(1), at(600_005)), (Some(at(600_000)), Some(at(600_010))), "a year and more");
        let yearly = Cron::new("0 0 1 1 *", "UTC").expect("a time");
        let (found, after) = due(&yearly, at(0), at(300_000));
        assert_eq!(found, Some(moment(1_704_067_200)), "2024-01-01");
        assert_eq!(after, Some(moment(1_735_689_600)), "2025-01-01");
    }
}
