//! Whom an event is told to: the targets of the task's template and project, and those of its runner, as far as they take the event.
//!
//! Which targets a task has is part of its spec; what a target takes, and a runner's targets, are those of the tree that serves.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use forge_api::{Task, TaskState};
use forge_config::Name;
use forge_config::meant::{Event, On, Tree, Webhook};

use super::Scheduler;
use crate::core::TryOutcome;
use crate::store::{Teller, Tidings};

impl Teller for Scheduler {
    fn tells(&self) -> Option<bool> {
        let applied = self.applied();
        applied.applied_at.map(|_| !applied.tree.webhooks.is_empty())
    }

    fn targets(&self, tidings: &Tidings<'_>) -> Vec<String> {
        targets(&self.applied().tree, tidings)
    }

    fn put_out(&self) {
        self.told.notify_one();
        self.news.notify_one();
    }
}

impl Scheduler {
    /// Waits until deliveries were put out.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }

    /// Has deliveries looked for.
    pub(crate) fn look_for_deliveries(&self) {
        self.told.notify_one();
    }

    /// Has news looked for.
    pub(crate) fn look_for_news(&self) {
        self.news.notify_one();
    }

    /// Counts a try of a delivery.
    pub(crate) fn count_try(&self, outcome: TryOutcome) {
        for (known, count) in TryOutcome::ALL.iter().zip(&self.tries) {
            count.fetch_add(u64::from(*known == outcome), Ordering::Relaxed);
        }
    }

    /// Tries since the start.
    pub(crate) fn tries(&self) -> BTreeMap<TryOutcome, u64> {
        TryOutcome::ALL.iter().copied().zip(self.tries.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }

    /// Waits until there may be news of waiting tasks and of runners.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}

/// The targets of an event, each once.
fn targets(tree: &Tree, tidings: &Tidings<'_>) -> Vec<String> {
    let Some(event) = Event::ALL.iter().copied().find(|event| event.as_str() == tidings.event) else {
        return Vec::new();
    };
    let of_runner = |name: Option<&str>| {
        let rule = name.and_then(|name| tree.runners.get(name));
        rule.into_iter().flat_map(|rule| rule.webhooks.iter().map(Name::as_str))
    };
    let named: Vec<&str> = match (tidings.task, tidings.runner) {
        (Some(task), _) => tidings.own.iter().map(String::as_str).chain(of_runner(task.runner.as_deref())).collect(),
        (None, Some(runner)) => of_runner(Some(runner)).collect(),
        // What happens to the configuration is everyone's business who asks for it.
        (None, None) => tree.webhooks.keys().map(Name::as_str).collect(),
    };
    let mut targets: Vec<String> = Vec::new();
    for name in named {
        let takes = tree.webhooks.get(name).is_some_and(|webhook| takes(webhook, event, tidings.task));
        if takes && !targets.iter().any(|known| known == name) {
            targets.push(name.to_owned());
        }
    }
    targets
}

/// Whether a target takes an event.
pub(crate) fn takes(webhook: &Webhook, event: Event, task: Option<&Task>) -> bool {
    let is_asked_for = webhook.events.contains(&event);
    match (webhook.on, event, task) {
        (On::Failure, Event::TaskFinished, Some(task)) => is_asked_for && is_failure(task.state),
        _ => is_asked_for,
    }
}

/// Whether an end is one that somebody has to look at: not what a person or a rule has wanted.
fn is_failure(state: TaskState) -> bool {
    match state {
        TaskState::Failed | TaskState::TimedOut | TaskState::Lost | TaskState::Expired => true,
        TaskState::Succeeded
        | TaskState::Canceled
        | TaskState::Skipped
        | TaskState::Queued
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::AwaitingApproval => false,
    }
}
