//! News that no step of a task brings, looked for again and again: tasks that wait with no runner there, and runners that come, go and are
//! idle. What was told lies in the store; this compares it with what is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forge_api::{Runner, RunnerStatus};
use forge_config::Name;
use forge_config::meant::{Event, Tree};
use tokio_util::sync::CancellationToken;

use super::{Applied, Core, CoreError, stored};
use crate::scheduler::assign::{self, suits, verdict};
use crate::scheduler::why::Candidate;
use crate::scheduler::{project_facts, tell};
use crate::store::{NewEvent, RunnerNews, RunnerTold, WaitingGroup};

/// How often news are looked for when nothing else says so, in milliseconds.
const LOOK_INTERVAL_MS: u64 = 1_000;

/// How long is waited after what may be news, in milliseconds.
const LOOK_PAUSE_MS: u64 = 50;

impl Core {
    /// Looks for news until the shutdown.
    pub(super) async fn look_for_news(self, shutdown: CancellationToken) {
        let clock = self.inner.clock.clone();
        loop {
            // Counted from before the look: what passes meanwhile is not waited for once more.
            let looked_ms = clock.elapsed_ms();
            let applied = self.inner.scheduler.applied();
            if !applied.tree.webhooks.is_empty() {
                // A daemon that has just started has heard of nobody: who does not speak may be there all the same.
                let may_be_gone = self.inner.scheduler.present_ms() >= forge_api::RUNNER_OFFLINE_AFTER_MS;
                if let Err(error) = self.tell_news(&applied, may_be_gone).await {
                    tracing::error!(%error, "webhook targets could not be told of runners and waiting tasks; it is tried again");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.inner.scheduler.news() => {
                    // What comes in a burst is looked for once, and a look that takes long comes seldom.
                    let took_ms = clock.elapsed_ms().saturating_sub(looked_ms);
                    let pause = Duration::from_millis(took_ms.saturating_mul(10).clamp(LOOK_PAUSE_MS, LOOK_INTERVAL_MS));
                    if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
                }
                () = clock.sleep_until_ms(looked_ms.saturating_add(LOOK_INTERVAL_MS)) => {}
            }
        }
    }

    async fn tell_news(&self, applied: &Arc<Applied>, may_be_gone: bool) -> Result<(), CoreError> {
        let candidates = self.candidates().await?;
        self.tell_of_runners(&applied.tree, &candidates, may_be_gone).await?;
        self.tell_of_waiting(applied, &candidates, may_be_gone).await
    }

    async fn tell_of_runners(&self, tree: &Tree, candidates: &[Candidate], may_be_gone: bool) -> Result<(), CoreError> {
        let now = self.now();
        let mut shown: Option<Vec<Runner>> = None;
        let candidates: BTreeMap<i64, &Candidate> =
            candidates.iter().filter_map(|candidate| Some((candidate.key?, candidate))).collect();
        for told in self.inner.store.runners_told(now).await.map_err(stored)? {
            // One that registered a moment ago is looked at the next time.
            let Some(candidate) = candidates.get(&told.key) else { continue };
            for found in runner_news(&told, candidate.in_contact, may_be_gone) {
                if shown.is_none() {
                    shown = Some(self.runners(None).await?);
                }
                let runner = shown.iter().flatten().find(|runner| runner.name == told.name);
                let event = |event: Event| NewEvent {
                    event: event.as_str(),
                    at: now,
                    body: serde_json::json!({ "runner": runner }),
                    runner: Some(told.name.clone()),
                    targets: Some(runner_targets(tree, &told.name, event)),
                };
                let news = match found {
                    Found::Came => RunnerNews::Contact { online: true, event: Some(event(Event::RunnerOnline)) },
                    Found::Went => RunnerNews::Contact { online: false, event: Some(event(Event::RunnerOffline)) },
                    Found::Left => RunnerNews::Contact { online: false, event: None },
                    Found::Idle => RunnerNews::Idle { event: event(Event::RunnerIdle) },
                    Found::Resumed => RunnerNews::Resumed,
                };
                self.inner.store.tell_runner((told.key, told.name.clone()), news, now).await.map_err(stored)?;
            }
        }
        Ok(())
    }

    async fn tell_of_waiting(
        &self,
        applied: &Applied,
        candidates: &[Candidate],
        may_be_gone: bool,
    ) -> Result<(), CoreError> {
        let takes = |target: &String| {
            let webhook = applied.tree.webhooks.get(target.as_str())?;
            let again_ms = i64::try_from(webhook.waiting_again_ms).unwrap_or(i64::MAX);
            webhook.events.contains(&Event::TaskWaiting).then_some(again_ms)
        };
        let nobody_asks = !applied.tree.webhooks.keys().any(|name| takes(&name.as_str().to_owned()).is_some());
        // Without space nothing is given away, whoever comes.
        if nobody_asks || self.inner.scheduler.is_storage_full() {
            return Ok(());
        }
        let now = self.now();
        let groups = self.inner.store.waiting(now).await.map_err(stored)?;
        if groups.is_empty() {
            return Ok(());
        }
        let (_registrations, live) = self.inner.store.runners().await.map_err(stored)?;
        for group in groups {
            let Some(of_runners) = unserved(applied, candidates, &group, may_be_gone) else { continue };
            let of_group = (group.need.project.as_str(), group.template.as_str());
            if !assign::has_room(group.concurrency, of_group, &project_facts(applied), &live) {
                continue;
            }
            for task in &group.tasks {
                let mut targets: BTreeMap<&String, i64> = BTreeMap::new();
                for target in task.own.iter().chain(&of_runners) {
                    targets.extend(takes(target).map(|again_ms| (target, again_ms)));
                }
                let Some(again_ms) = targets.values().min() else { continue };
                // Together, by the shortest of their times: a task has one moment at which it was told of.
                if task.told_at.is_some_and(|told_at| told_at.plus_millis(*again_ms) > now) {
                    continue;
                }
                let targets = targets.into_keys().cloned().collect();
                self.inner.store.tell_waiting(task.number, targets, now).await.map_err(stored)?;
            }
        }
        Ok(())
    }
}

/// What is new of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Came,
    Went,
    /// As was to be expected of one that is idle: its machine may be starting anew by now, and nobody is to stop that.
    Left,
    Idle,
    Resumed,
}

/// Compares what was told of a runner with how it stands.
///
/// A runner is idle when it is drained and holds nothing, and when the last log has arrived: whoever stops its machine then takes nothing
/// along. Of one that is gone no log can be waited for.
fn runner_news(told: &RunnerTold, in_contact: bool, may_be_gone: bool) -> Vec<Found> {
    let mut found = Vec::new();
    if in_contact && !told.online {
        found.push(Found::Came);
    }
    let is_gone = !in_contact && may_be_gone;
    let is_idle = told.draining && !told.holds && (!told.sends || is_gone);
    if is_idle && !told.idle {
        found.push(Found::Idle);
    }
    if is_gone && told.online {
        found.push(if told.idle || is_idle { Found::Left } else { Found::Went });
    }
    if told.idle && !told.draining {
        found.push(Found::Resumed);
    }
    found
}

/// The targets of a runner's own events.
fn runner_targets(tree: &Tree, name: &str, event: Event) -> Vec<String> {
    let named = tree.runners.get(name).into_iter().flat_map(|rule| rule.webhooks.iter().map(Name::as_str));
    let takes = named.filter(|name| tree.webhooks.get(*name).is_some_and(|webhook| tell::takes(webhook, event, None)));
    takes.map(str::to_owned).collect()
}

/// The targets of the runners that could take a group's tasks, where none of them is there; `None` where one is, or may be.
fn unserved(
    applied: &Applied,
    candidates: &[Candidate],
    group: &WaitingGroup,
    may_be_gone: bool,
) -> Option<Vec<String>> {
    let facts = assign::project_facts(&project_facts(applied), &group.need.project);
    let could = candidates.iter().filter(|candidate| {
        suits(&candidate.facts, &group.need, facts).is_ok() && candidate.facts.status != RunnerStatus::Disabled
    });
    let mut targets = Vec::new();
    for candidate in could {
        match verdict(&candidate.facts, &group.need, facts) {
            // It was there before this daemon was, and has not had the time to say so again.
            Err(assign::Unmet::Offline) if !may_be_gone && !candidate.draining => return None,
            Err(assign::Unmet::Offline | assign::Unmet::NeverConnected | assign::Unmet::Draining) => {}
            // It is there, and of no use to a plan that was approved.
            Err(assign::Unmet::CannotResume) => {}
            // It takes one task and leaves, and has that one.
            _ if candidate.one_off && candidate.facts.running > 0 => {}
            // It is there, and takes the task now or when it has room.
            Ok(()) | Err(_) => return None,
        }
        let rule = applied.tree.runners.get(&*candidate.facts.name);
        targets.extend(rule.into_iter().flat_map(|rule| rule.webhooks.iter().map(|name| name.as_str().to_owned())));
    }
    Some(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> RunnerTold {
        RunnerTold {
            key: 1,
            name: "ny-1".to_owned(),
            online: false,
            idle: false,
            draining: false,
            holds: false,
            sends: false,
        }
    }

    #[test]
    fn a_runner_comes_and_goes_once() {
        assert_eq!(runner_news(&told(), true, false), [Found::Came]);
        let here = RunnerTold { online: true, ..told() };
        assert_eq!(runner_news(&here, true, true), []);
        assert_eq!(runner_news(&here, false, false), [], "the daemon has just started");
        assert_eq!(runner_news(&here, false, true), [Found::Went]);
        assert_eq!(runner_news(&told(), false, true), []);
    }

    #[test]
    fn a_runner_is_idle_when_stopping_its_machine_takes_nothing_along() {
        let drained = RunnerTold { online: true, draining: true, ..told() };
        assert_eq!(runner_news(&drained, true, true), [Found::Idle]);
        let holds = RunnerTold { holds: true, ..drained.clone() };
        assert_eq!(runner_news(&holds, true, true), []);
        let sends = RunnerTold { sends: true, ..drained.clone() };
        assert_eq!(runner_news(&sends, true, true), [], "its last log is on its way");
        assert_eq!(runner_news(&sends, false, true), [Found::Idle, Found::Left], "and never will arrive");
        let was_told = RunnerTold { idle: true, ..drained.clone() };
        assert_eq!(runner_news(&was_told, true, true), []);
        assert_eq!(runner_news(&was_told, false, true), [Found::Left]);
        assert_eq!(runner_news(&RunnerTold { draining: false, ..was_told }, true, true), [Found::Resumed]);
        assert_eq!(runner_news(&RunnerTold { draining: false, ..drained }, true, true), [], "it takes the next task");
    }
}
