//! Webhooks: what is to be delivered, what became of it, and what people ask of both.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use forge_api::{
    AuditAction, DeliveryState, Page, Task, TaskState, Trigger, TriggerKind, WebhookDelivery, WebhookTarget,
};
use forge_config::Name;
use forge_config::meant::Event;

use super::{Actor, Applied, Core, CoreError, TryOutcome, internal, refused, stored};
use crate::scheduler::words;
use crate::store::{About, Came, DeliveryListing, Due, DueOfTarget, Kept, NewEvent, Note, StoreError};

/// The most deliveries of a page.
const PAGE_DELIVERIES_MAX: u32 = 500;

/// Which deliveries a listing shows.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only this target's.
    pub target: Option<String>,
    /// Only this state's.
    pub state: Option<DeliveryState>,
}

impl Core {
    /// Every target of the tree, and those that have left it and still have deliveries.
    pub async fn webhook_targets(&self) -> Result<Vec<WebhookTarget>, CoreError> {
        let mut counts = self.inner.store.delivery_counts().await.map_err(stored)?;
        let applied = self.inner.scheduler.applied();
        let mut targets: BTreeMap<String, WebhookTarget> = BTreeMap::new();
        for (name, webhook) in &applied.tree.webhooks {
            let counts = counts.remove(name.as_str()).unwrap_or_default();
            let events = webhook.events.iter().map(|event| event.as_str().to_owned()).collect();
            let target = target(name.as_str(), Some(webhook.plugin.as_str()), events, &counts);
            targets.insert(name.as_str().to_owned(), target);
        }
        for (name, counts) in counts {
            targets.insert(name.clone(), target(&name, None, Vec::new(), &counts));
        }
        Ok(targets.into_values().collect())
    }

    /// A page of deliveries, newest first.
    pub async fn deliveries(
        &self,
        filter: DeliveryFilter,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<WebhookDelivery>, CoreError> {
        let before = match cursor {
            None => None,
            Some(cursor) => Some(cursor.parse::<i64>().map_err(|_| CoreError::Invalid {
                detail: format!("{cursor:?} is no cursor"),
                hint: Some("hand back `next_cursor` of the page before, unchanged".to_owned()),
            })?),
        };
        let limit = limit.clamp(1, PAGE_DELIVERIES_MAX);
        let DeliveryFilter { target, state } = filter;
        // One more than asked for says whether there is another page.
        let listing = DeliveryListing { target, state, before, limit: limit + 1 };
        let mut found = self.inner.store.deliveries(listing).await.map_err(stored)?;
        let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next_cursor = found.last().filter(|_| more).map(|(number, _)| number.to_string());
        Ok(Page { items: found.into_iter().map(|(_, delivery)| delivery).collect(), next_cursor })
    }

    /// One delivery, with what it says.
    pub async fn delivery(&self, id: &str) -> Result<WebhookDelivery, CoreError> {
        let found = self.inner.store.delivery(id.to_owned()).await.map_err(stored)?;
        found.ok_or_else(|| CoreError::NotFound { what: "delivery", name: id.to_owned(), nearest: None })
    }

    /// Has a delivery sent once more, with the same id.
    pub async fn redeliver(&self, id: &str, by: impl Into<Actor>) -> Result<WebhookDelivery, CoreError> {
        let note = Note {
            actor: by.into(),
            action: AuditAction::WebhookRedeliver,
            about: About::Nothing,
            object: format!("delivery {id}"),
            detail: None,
        };
        let sent = self.inner.store.redeliver(id.to_owned(), note, self.now()).await;
        sent.map_err(|error| refused(error, "delivery", id, None))?;
        self.inner.scheduler.look_for_deliveries();
        self.delivery(id).await
    }

    /// Has a target told of an event that was made up; answers with the delivery.
    pub async fn test_webhook(
        &self,
        name: &str,
        event: Option<&str>,
        by: impl Into<Actor>,
    ) -> Result<WebhookDelivery, CoreError> {
        let applied = self.inner.scheduler.applied();
        let webhook = applied.tree.webhooks.get(name).ok_or_else(|| CoreError::NotFound {
            what: "webhook target",
            name: name.to_owned(),
            nearest: words::nearest(name, applied.tree.webhooks.keys().map(Name::as_str)),
        })?;
        let event = match event {
            Some(event) => Event::ALL.iter().copied().find(|known| known.as_str() == event).ok_or_else(|| {
                let known: Vec<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
                CoreError::Invalid {
                    detail: format!("{event:?} is no event"),
                    hint: Some(format!("the events are {}", known.join(", "))),
                }
            })?,
            None => webhook.events.first().copied().unwrap_or(Event::TaskFinished),
        };
        let body = self.made_up(&applied, event);
        let new = NewEvent {
            event: event.as_str(),
            at: self.now(),
            body,
            runner: None,
            targets: Some(vec![name.to_owned()]),
        };
        let note = Note {
            actor: by.into(),
            action: AuditAction::WebhookTest,
            about: About::Nothing,
            object: format!("webhook target {name}"),
            detail: Some(serde_json::json!({ "event": event.as_str() })),
        };
        let made = self.inner.store.record_one(new, note).await.map_err(stored)?;
        let made = made.ok_or_else(|| internal("the delivery of a test was not made"))?;
        self.delivery(&made).await
    }

    /// What an event that did not happen is about; `test` says that.
    fn made_up(&self, applied: &Applied, event: Event) -> serde_json::Value {
        let now = self.now();
        let state = match event {
            Event::TaskQueued | Event::TaskWaiting => TaskState::Queued,
            Event::TaskStarted => TaskState::Running,
            Event::TaskAwaitingApproval => TaskState::AwaitingApproval,
            _ => TaskState::Succeeded,
        };
        let is_over = state == TaskState::Succeeded;
        let begins = state != TaskState::Queued;
        match event {
            Event::TaskQueued
            | Event::TaskWaiting
            | Event::TaskStarted
            | Event::TaskAwaitingApproval
            | Event::TaskFinished => {
                let task = Task {
                    number: 0,
                    project: "example".to_owned(),
                    template: "example".to_owned(),
                    template_removed: false,
                    state,
                    reason: None,
                    attempt: u32::from(begins),
                    runner: begins.then(|| "example".to_owned()),
                    required_tag: None,
                    revision: applied.revision.clone(),
                    revision_author: None,
                    revision_subject: None,
                    commit: None,
                    exit_code: is_over.then_some(0),
                    trigger: Trigger { kind: TriggerKind::User, by: "forge webhook test".to_owned() },
                    variables: serde_json::Map::new(),
                    created_at: now,
                    assigned_at: begins.then_some(now),
                    started_at: begins.then_some(now),
                    finished_at: is_over.then_some(now),
                    log_bytes: 0,
                    log_damaged: false,
                    summary: None,
                    approved: None,
                };
                serde_json::json!({ "test": true, "task": task })
            }
            Event::RunnerOnline | Event::RunnerOffline | Event::RunnerIdle => {
                serde_json::json!({ "test": true, "runner": { "name": "example" } })
            }
            Event::ConfigApplied | Event::ConfigFailed => {
                serde_json::json!({ "test": true, "config": { "revision": applied.revision } })
            }
        }
    }
}

/// What the dispatcher asks.
impl Core {
    /// The revision that serves.
    pub(crate) fn applied(&self) -> Arc<Applied> {
        self.inner.scheduler.applied()
    }

    /// Waits until deliveries were put out.
    pub(crate) async fn told(&self) {
        self.inner.scheduler.told().await;
    }

    /// Deliveries that are due for targets other than those `supplied`, at most `limit` of each; and when the next is, that is not due yet.
    pub(crate) async fn due(
        &self,
        supplied: HashSet<String>,
        limit: u32,
    ) -> Result<(Vec<DueOfTarget>, Option<forge_api::Timestamp>), StoreError> {
        self.inner.store.due(self.now(), supplied, limit).await
    }

    /// A delivery with what it says, if it is still to be sent.
    pub(crate) async fn still_due(&self, number: i64) -> Result<Option<Due>, StoreError> {
        self.inner.store.still_due(number, self.now()).await
    }

    /// Writes down what a try came to, if the delivery was tried so often before.
    pub(crate) async fn tried(
        &self,
        number: i64,
        tries: u32,
        came: Came,
        exchanges: String,
    ) -> Result<Kept, StoreError> {
        self.inner.store.tried(number, Some(tries), came, exchanges, self.now()).await
    }

    /// Counts a try, for metrics.
    pub(crate) fn count_try(&self, outcome: TryOutcome) {
        self.inner.scheduler.count_try(outcome);
    }

    /// The value of a secret of [`forge_config::WEBHOOK_SECRETS`] or [`forge_config::PLUGIN_SECRETS`]; it blocks for as long as a small
    /// file takes.
    pub(crate) fn shared_secret(
        &self,
        owner: &str,
        value: &forge_config::SecretValue,
    ) -> Result<forge_api::Secret, crate::secrets::SecretError> {
        let value = crate::scheduler::spec::secret_ref(value.clone());
        self.inner.resolver.resolve(owner, &value)
    }
}

fn target(
    name: &str,
    plugin: Option<&str>,
    events: Vec<String>,
    counts: &BTreeMap<DeliveryState, u64>,
) -> WebhookTarget {
    let count = |state| counts.get(&state).copied().unwrap_or_default();
    WebhookTarget {
        name: name.to_owned(),
        plugin: plugin.map(str::to_owned),
        events,
        waiting: count(DeliveryState::Waiting),
        delivered: count(DeliveryState::Delivered),
        skipped: count(DeliveryState::Skipped),
        dead: count(DeliveryState::Dead),
    }
}
