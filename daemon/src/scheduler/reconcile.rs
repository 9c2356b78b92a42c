//! The one loop that acts by itself: deadlines, leases, retries whose delay is over, and the housekeeping that is due.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use forge_api::Timestamp;
use forge_config::meant::ONE_OFF_WAIT_MS;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use super::task::Happening;
use crate::carries::Carries;
use crate::clock::{Look, Since};
use crate::components;
use crate::logs::Logs;
use crate::store::{CalendarSet, Keep, Store, StoreError};

/// The loop looks at least this often, since a new task's deadline may be nearer than any it knew, in milliseconds.
const LOOK_INTERVAL_MS_MAX: u64 = 1_000;

/// When a lease that could not be acted on is tried again, in milliseconds.
pub(super) const LEASE_AGAIN_MS: u64 = 60_000;

/// How often contacts are stored, in milliseconds.
const CONTACTS_INTERVAL_MS: u64 = 10_000;

/// How often history is looked through, in milliseconds.
const RETENTION_INTERVAL_MS: u64 = 60_000;

/// A one-off runner whose task ended is forgotten when it has been silent for this long, in milliseconds.
const ONE_OFF_SILENT_MS: i64 = 30_000;

/// A one-off runner that got no task yet and has been silent for this long has died, in milliseconds.
const UNUSED_SILENT_MS: i64 = 60_000;

/// A runner without a file that stays away for this long is forgotten, in milliseconds.
const AWAY_MS: i64 = 24 * 3_600_000;

/// How long runners get to come back after the daemon's own start, or after its machine slept, before any is forgotten for having stayed away, in
/// milliseconds: a daemon that was down for a weekend must not take that for theirs. Nothing is forgotten for its age for as long after the
/// calendar was set: whoever set it may be about to mend it.
const RETURN_WITHIN_MS: u64 = 3_600_000;

/// Nothing is older.
const BEFORE_EVERYTHING: Timestamp = Timestamp::from_unix_micros(i64::MIN);

/// How long an idempotency key is remembered, in milliseconds.
const IDEMPOTENCY_MS: i64 = 24 * 3_600_000;

/// What the loop hears.
#[derive(Debug)]
enum Event {
    /// A moment has come.
    TimerDue,
    /// Something changed that may have brought a moment nearer.
    Nudged,
    /// Another revision serves: runners and limits may be others.
    ConfigChanged,
    /// The daemon is about to stop.
    Shutdown,
}

/// How far the housekeeping came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tidied {
    /// There is nothing more to forget.
    Whole,
    /// There may be more.
    Partly,
}

/// What the loop works with.
pub(crate) struct Reconciler {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) store: Store,
    pub(crate) logs: Arc<Logs>,
    pub(crate) carries: Arc<Carries>,
    pub(crate) plugin_dir: PathBuf,
    pub(crate) disk_reserve_bytes: u64,
    /// What was last seen of the clock.
    pub(crate) minded: Mutex<Minded>,
    /// 0 is for ever.
    pub(crate) audit_retention_ms: u64,
}

/// What was last seen of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Minded {
    /// The last look.
    pub(crate) look: Look,
    /// When the calendar was last found to be set, by the clock that never goes back.
    pub(crate) set_ms: Option<u64>,
}

impl Reconciler {
    /// Runs until the shutdown; then stores what was heard last.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let clock = self.scheduler.clock.clone();
        let mut config = self.scheduler.config.clone();
        let (mut contacts_at_ms, mut retention_at_ms) = (clock.elapsed_ms(), clock.elapsed_ms());
        let mut due_ms = clock.elapsed_ms();
        let mut config_open = true;
        loop {
            let began = clock.look();
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => Event::Shutdown,
                changed = config.changed(), if config_open => {
                    config_open = changed.is_ok();
                    Event::ConfigChanged
                }
                () = self.scheduler.nudge.notified() => Event::Nudged,
                () = clock.sleep_until_ms(due_ms) => Event::TimerDue,
            };
            match event {
                Event::Shutdown => break,
                Event::TimerDue | Event::Nudged | Event::ConfigChanged => {}
            }
            clock.has_waited(began, due_ms);
            self.check_space();
            // Counted from before the look: what passes meanwhile is not waited for once more.
            let looked_ms = clock.elapsed_ms();
            let wait_ms = match self.reconcile().await {
                Ok(next_ms) => next_ms,
                Err(error) => {
                    tracing::error!(%error, "deadlines could not be looked at; they are again in a moment");
                    LOOK_INTERVAL_MS_MAX
                }
            };
            due_ms = looked_ms.saturating_add(wait_ms);
            let now_ms = clock.elapsed_ms();
            if now_ms >= contacts_at_ms {
                contacts_at_ms = now_ms.saturating_add(CONTACTS_INTERVAL_MS);
                self.store_contacts().await;
                // A daemon that has just started has heard of nobody: who does not speak may be there all the same.
                if self.scheduler.present_ms() >= forge_api::RUNNER_OFFLINE_AFTER_MS {
                    self.end_unused(clock.now()).await;
                }
            }
            if now_ms >= retention_at_ms {
                retention_at_ms = now_ms.saturating_add(RETENTION_INTERVAL_MS);
                match self.tidy(clock.now()).await {
                    Ok(Tidied::Whole) => {}
                    // Deadlines come between, so that a long history delays none.
                    Ok(Tidied::Partly) => (retention_at_ms, due_ms) = (now_ms, now_ms),
                    Err(error) => {
                        tracing::error!(%error, "old tasks and runners could not be removed; it is tried again");
                    }
                }
            }
            self.scheduler.turns.send_modify(|turns| *turns = turns.wrapping_add(1));
        }
        self.store_contacts().await;
        if let Err(error) = self.logs.sync().await {
            tracing::error!(%error, "logs could not be brought to disk");
        }
    }

    /// Whether there is room for new work.
    pub(crate) fn check_space(&self) {
        match self.logs.free_bytes() {
            Ok(free_bytes) => {
                let full = free_bytes < self.disk_reserve_bytes;
                if self.scheduler.storage_full.swap(full, Ordering::Relaxed) != full {
                    tracing::warn!(free_bytes, full, "the space for logs and the store crossed disk_reserve");
                }
            }
            Err(error) => tracing::warn!(%error, "the free space could not be measured"),
        }
    }

    /// Acts on what is due; answers how long there is nothing more to do.
    pub(crate) async fn reconcile(&self) -> Result<u64, StoreError> {
        let now = self.mind_the_clock().await?;
        for (attempt, reason) in self.scheduler.lost_leases() {
            // Its lease is over, by the runner's own clock too.
            let lost = Happening::RunnerLost { reason, runs_on_ms: 0 };
            match self.store.happen_to_attempt(attempt, lost, now).await {
                Ok(fate) => {
                    tracing::warn!(%attempt, state = %fate.state, "an attempt's runner is lost");
                    self.scheduler.lease_expiries.fetch_add(1, Ordering::Relaxed);
                    self.scheduler.after(&[fate]);
                }
                // It ended on its own meanwhile: only its lease was left.
                Err(StoreError::Refused(_)) => {
                    self.scheduler.lock().leases.remove(&attempt);
                }
                Err(error) if error.is_everyones() => return Err(error),
                Err(error) => {
                    tracing::error!(%attempt, %error, "a lost attempt could not be closed; it is tried again");
                    self.scheduler.put_off_lease(attempt);
                }
            }
        }
        let (fates, next) = self.store.reconcile(now).await?;
        if !fates.is_empty() {
            for fate in &fates {
                tracing::info!(task = fate.task, state = %fate.state, "a deadline passed");
            }
            self.scheduler.after(&fates);
        }
        let by_deadline = next.map(|next| next.millis_since(now));
        let nearest = by_deadline.into_iter().chain(self.scheduler.next_lease_ms()).min();
        // One more millisecond: a moment is rounded down when it is measured.
        Ok(nearest.map_or(LOOK_INTERVAL_MS_MAX, |wait_ms| wait_ms.saturating_add(1).min(LOOK_INTERVAL_MS_MAX)))
    }

    /// Has nothing grow older or younger where the calendar was set, and gives what is with runners time where nobody could be heard; answers the
    /// calendar's moment.
    async fn mind_the_clock(&self) -> Result<Timestamp, StoreError> {
        let minded = || self.minded.lock().unwrap_or_else(PoisonError::into_inner);
        let look = self.scheduler.clock.look();
        let Minded { look: last, set_ms } = *minded();
        let Since { jump_ms, slept_ms } = look.since(last);
        if jump_ms != 0 {
            tracing::warn!(jump_ms, "this machine's clock was set: what waits and what runs is as old as before");
            let looked_ms = look.elapsed_ms.saturating_sub(last.elapsed_ms).saturating_sub(slept_ms);
            self.store.calendar_was_set(CalendarSet { jump_ms, now: look.calendar, looked_ms }).await?;
        }
        let set_ms = if jump_ms == 0 { set_ms } else { Some(look.elapsed_ms) };
        // Only now, and before anything else that can fail: a jump that could not be minded is minded with the next look, and none twice.
        *minded() = Minded { look: Look { slept_ms: last.slept_ms, ..look }, set_ms };
        if slept_ms != 0 {
            tracing::warn!(
                slept_ms,
                "this machine slept or this daemon stood still: runners have that much longer to be heard of"
            );
            self.store.machine_slept(slept_ms).await?;
            self.scheduler.machine_slept(slept_ms);
        }
        minded().look = look;
        Ok(look.calendar)
    }

    /// Whether what is old may be forgotten for its age.
    fn ages_are_right(&self) -> bool {
        let set_ms = self.minded.lock().unwrap_or_else(PoisonError::into_inner).set_ms;
        set_ms.is_none_or(|set_ms| self.scheduler.clock.elapsed_ms().saturating_sub(set_ms) >= RETURN_WITHIN_MS)
    }

    async fn store_contacts(&self) {
        let contacts = self.scheduler.take_dirty_contacts();
        if contacts.is_empty() {
            return;
        }
        if let Err(error) = self.store.store_contacts(contacts).await {
            tracing::error!(%error, "the last contacts of runners could not be stored");
        }
    }

    /// Ends the turn of one-off runners that got no task: their machines cost something.
    async fn end_unused(&self, now: Timestamp) {
        let tree = Arc::clone(&self.scheduler.applied().tree);
        let wait_ms = move |name: &str| tree.runners.get(name).map_or(ONE_OFF_WAIT_MS, |rule| rule.one_off_wait_ms);
        let scheduler = Arc::clone(&self.scheduler);
        let is_away = move |name: &str| scheduler.is_away(name);
        let silent_before = now.plus_millis(-UNUSED_SILENT_MS);
        match self.store.end_unused_runners(silent_before, wait_ms, is_away, now).await {
            Ok(ended) => {
                for name in &ended {
                    tracing::info!(runner = name, "a one-off runner got no task: it is told to leave");
                    self.scheduler.wake(name);
                }
                if !ended.is_empty() {
                    self.scheduler.look_for_news();
                }
            }
            Err(error) => {
                tracing::error!(%error, "one-off runners without a task could not be looked at; it is tried again");
            }
        }
    }

    /// Forgets what attempts carried for tasks that have ended or planned anew.
    async fn forget_carries(&self) -> Result<(), StoreError> {
        let carries = Arc::clone(&self.carries);
        let here = tokio::task::spawn_blocking(move || carries.all()).await;
        let here = match here {
            Ok(Ok(here)) => here,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what attempts carry could not be looked through");
                return Ok(());
            }
            Err(_ended) => return Ok(()),
        };
        if here.is_empty() {
            return Ok(());
        }
        let unwanted = self.store.unwanted_carries(here).await?;
        let carries = Arc::clone(&self.carries);
        let remove = move || unwanted.into_iter().try_for_each(|attempt| carries.remove(attempt));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(remove).await {
            tracing::warn!(%error, "what an attempt carried could not be removed");
        }
        Ok(())
    }

    /// Removes components of plugins that nothing has named for long.
    async fn forget_components(&self, now: Timestamp) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| {
            tracing::warn!(folder = %self.plugin_dir.display(), %error, "old components of plugins cannot be removed");
        };
        let in_tree: BTreeSet<String> =
            self.scheduler.applied().tree.plugins.values().map(|plugin| plugin.sha256.hex()).collect();
        let folder = self.plugin_dir.clone();
        let looked = tokio::task::spawn_blocking(move || components::look(&folder, &in_tree, now)).await;
        let unneeded = match looked {
            Ok(Ok(unneeded)) => unneeded,
            Ok(Err(error)) => {
                failed(error);
                return Ok(());
            }
            Err(_ended) => return Ok(()),
        };
        for sha256 in unneeded {
            let is_needed = self.store.open_task_uses_plugin(sha256.clone()).await?;
            let folder = self.plugin_dir.clone();
            let done = tokio::task::spawn_blocking(move || {
                if is_needed {
                    components::need(&folder, &sha256, now).map(drop)
                } else {
                    components::remove_unneeded(&folder, &sha256, now)
                }
            });
            if let Ok(Err(error)) = done.await {
                failed(error);
            }
        }
        Ok(())
    }

    /// Forgets what is beyond retention, and runners that are gone for good.
    async fn tidy(&self, now: Timestamp) -> Result<Tidied, StoreError> {
        let mut tidied = Tidied::Whole;
        let ages_are_right = self.ages_are_right();
        self.logs.close_idle(|id| self.scheduler.live_attempt(id).is_none());
        let applied = self.scheduler.applied();
        for (project, template) in self.store.templates_with_history().await? {
            // A project or a template that left the tree keeps its history.
            let declared = applied.tree.projects.get(project.as_str());
            let declared = declared.filter(|project| project.templates.contains_key(template.as_str()));
            let Some(retention) = declared.map(|project| project.retention) else { continue };
            let age_ms = i64::try_from(retention.age_ms).unwrap_or(i64::MAX);
            let since = (retention.age_ms > 0 && ages_are_right).then(|| now.plus_millis(age_ms.saturating_neg()));
            let forgotten = self.store.forget_tasks(Keep { project, template, tasks: retention.tasks, since }).await?;
            if forgotten.tasks > 0 {
                tidied = Tidied::Partly;
            }
            if let Err(error) = self.logs.remove(forgotten.attempts).await {
                tracing::warn!(%error, "a log of a forgotten task could not be removed");
            }
        }
        self.forget_carries().await?;
        if ages_are_right {
            self.forget_components(now).await?;
        }
        let keys_before = if ages_are_right { now.plus_millis(-IDEMPOTENCY_MS) } else { BEFORE_EVERYTHING };
        self.store.sweep(keys_before, now).await?;
        let kept_ms = i64::try_from(self.audit_retention_ms).unwrap_or(i64::MAX);
        if kept_ms > 0 && ages_are_right && self.store.forget_audit(now.plus_millis(kept_ms.saturating_neg())).await? {
            tidied = Tidied::Partly;
        }
        if ages_are_right && self.store.forget_told(now).await? {
            tidied = Tidied::Partly;
        }
        self.forget_runners(now, ages_are_right).await?;
        Ok(tidied)
    }

    /// Forgets runners that are gone for good.
    async fn forget_runners(&self, now: Timestamp, ages_are_right: bool) -> Result<(), StoreError> {
        // Who was heard of a moment ago must not look silent.
        self.store_contacts().await;
        let declared = self.scheduler.applied().tree.runners.keys().map(|name| name.as_str().to_owned()).collect();
        let one_off = now.plus_millis(-ONE_OFF_SILENT_MS);
        let all_could_return = ages_are_right && self.scheduler.present_ms() >= RETURN_WITHIN_MS;
        let away = if all_could_return { now.plus_millis(-AWAY_MS) } else { BEFORE_EVERYTHING };
        let scheduler = Arc::clone(&self.scheduler);
        let is_away = move |name: &str| scheduler.is_away(name);
        for name in self.store.expire_runners(one_off, away, declared, is_away).await? {
            tracing::info!(runner = name, "a runner's registration ended");
            self.scheduler.forget_runner(&name);
        }
        Ok(())
    }
}
