//! Who did what: notes for the store's operations, refusals, and what people ask of the log.
//!
//! What was done is written in the transaction that does it. What was refused is written by itself, and folded: the same actor's same refusal
//! is one row a project, and what follows within a minute is one more, which says how often. There are [`REFUSALS_MAX`] kinds a minute at most, and what is
//! beyond is counted together. So a flood of requests writes some dozens of rows a minute, whatever it tries.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use forge_api::{AuditAction, AuditActor, AuditEntry, Page, Timestamp, Trigger, TriggerKind};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Core, CoreError, cursor_number, stored};
use crate::store::{About, Actor, AuditListing, Ended, Note, Seen};

/// The most rows of a page.
const PAGE_ENTRIES_MAX: u32 = 500;

/// How long what follows a refusal is folded into one row, in milliseconds.
const FOLD_MS: u64 = 60_000;

/// How many of the other objects a folded row names.
const OBJECTS_NAMED_MAX: usize = 5;

/// The most kinds of refusals that are told apart within that time.
const REFUSALS_MAX: usize = 64;

/// Which rows of the audit log a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    pub(crate) project: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<AuditAction>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// Only rows of projects, and which; `None` is every row.
    pub(crate) seen: Option<Seen>,
}

/// What starts a task, and who is written down for it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(crate) trigger: Trigger,
    pub(crate) actor: Actor,
}

impl Origin {
    /// A person or a program, by a request.
    pub(crate) fn of_user(actor: Actor) -> Self {
        Self { trigger: Trigger { kind: TriggerKind::User, by: actor.name.clone() }, actor }
    }
}

impl From<Trigger> for Origin {
    fn from(trigger: Trigger) -> Self {
        let kind = match trigger.kind {
            TriggerKind::User => AuditActor::Access,
            TriggerKind::Schedule => AuditActor::Schedule,
            TriggerKind::Integration => AuditActor::Integration,
            TriggerKind::Retry => AuditActor::Forge,
        };
        let actor = Actor::new(kind, trigger.by.clone());
        Self { trigger, actor }
    }
}

/// A refusal, as far as two are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    actor: Actor,
    action: AuditAction,
    /// Of which project, where it is one's: its owners look for what was tried there.
    about: About,
    problem: String,
}

/// The first refusal of a kind, which is written, and what followed it.
#[derive(Debug)]
struct Repeated {
    note: Note,
    ended: Ended,
    followed: u64,
    /// Some of the other objects.
    objects: Vec<String>,
}

/// What is folded at the moment.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Folded>);

#[derive(Debug, Default)]
struct Folded {
    kinds: HashMap<Kind, Repeated>,
    /// How many of each action were of no kind that is told apart.
    beyond: BTreeMap<AuditAction, u64>,
}

impl Refusals {
    /// Whether a refusal is the first of its kind, and to be written.
    fn is_first(&self, note: &Note, ended: &Ended) -> bool {
        let mut folded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = match ended {
            Ended::Ok => String::new(),
            Ended::Refused(problem) | Ended::Failed(problem) => problem.clone(),
        };
        let kind = Kind { actor: note.actor.clone(), action: note.action, about: note.about.clone(), problem };
        if let Some(Repeated { note: first, followed, objects, .. }) = folded.kinds.get_mut(&kind) {
            *followed += 1;
            if objects.len() < OBJECTS_NAMED_MAX && first.object != note.object && !objects.contains(&note.object) {
                objects.push(note.object.clone());
            }
            return false;
        }
        if folded.kinds.len() >= REFUSALS_MAX {
            *folded.beyond.entry(note.action).or_default() += 1;
            return false;
        }
        let first = Repeated { note: note.clone(), ended: ended.clone(), followed: 0, objects: Vec::new() };
        folded.kinds.insert(kind, first);
        true
    }

    /// What followed the first of each kind, since this was asked last.
    fn take(&self) -> Vec<(Note, Ended)> {
        let Folded { kinds, beyond } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let followed = kinds.into_values().filter(|kind| kind.followed > 0);
        let mut rows: Vec<_> = followed
            .map(|Repeated { note, ended, followed, objects }| {
                let mut detail = json!({ "repeated": followed, "first_object": note.object });
                if !objects.is_empty() {
                    detail["other_objects"] = json!(objects);
                }
                (Note { object: String::new(), detail: Some(detail), ..note }, ended)
            })
            .collect();
        rows.extend(beyond.into_iter().map(|(action, repeated)| {
            let detail = Some(json!({ "repeated": repeated, "by": "many" }));
            let actor = Actor::new(AuditActor::Forge, "");
            let note = Note { actor, action, about: About::Nothing, object: String::new(), detail };
            (note, Ended::Refused("too-many-refusals".to_owned()))
        }));
        rows
    }
}

impl Core {
    /// Writes down what was done where no operation of the store does it.
    pub(crate) async fn note(&self, note: Note) -> Result<(), CoreError> {
        self.inner.store.note(note, Ended::Ok, self.now()).await.map_err(stored)
    }

    /// Writes down what was refused, or that it is refused again and again. Whoever is refused is told so whether this works or not.
    pub(crate) async fn note_refusal(&self, mut note: Note, ended: Ended) {
        if let About::Task(number) = note.about {
            // Of many tasks of a project it is the same refusal.
            note.about = match self.task(number).await {
                Ok(task) => About::Project(task.project),
                Err(_unknown) => About::Nothing,
            };
        }
        if self.inner.refusals.is_first(&note, &ended) {
            self.write_refusal(note, ended).await;
        }
    }

    async fn write_refusal(&self, note: Note, ended: Ended) {
        if let Err(error) = self.inner.store.note(note, ended, self.now()).await {
            tracing::error!(%error, "a refusal could not be written into the audit log");
        }
    }

    /// Writes down once a minute how often what was refused was tried again.
    pub(super) async fn fold_refusals(self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.inner.clock.sleep_ms(FOLD_MS)).await.is_some() {
            self.write_folded().await;
        }
        self.write_folded().await;
    }

    async fn write_folded(&self) {
        for (note, ended) in self.inner.refusals.take() {
            self.write_refusal(note, ended).await;
        }
    }

    /// A page of the audit log, newest first.
    pub(crate) async fn audit(
        &self,
        filter: AuditFilter,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<AuditEntry>, CoreError> {
        let before = cursor_number(cursor)?;
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let AuditFilter { project, actor, action, since, until, seen: projects } = filter;
        // One more than asked for says whether there is another page.
        let listing = AuditListing { project, actor, action, since, until, projects, before, limit: limit + 1 };
        let mut items = self.inner.store.audit(listing).await.map_err(stored)?;
        let more = items.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next_cursor = items.last().filter(|_| more).map(|entry| entry.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// A note about a task.
    pub(super) fn task_note(&self, action: AuditAction, number: u64, actor: Actor) -> Note {
        Note { actor, action, about: About::Task(number), object: format!("task {number}"), detail: None }
    }

    /// A note about a runner, which is of the project that its file or its registration gives it.
    pub(crate) async fn runner_note(&self, action: AuditAction, name: &str, actor: Actor) -> Note {
        let applied = self.inner.scheduler.applied();
        let project = match applied.tree.runners.get(name) {
            Some(rule) => rule.project.as_ref().map(|project| project.as_str().to_owned()),
            // A runner that cannot be looked up is written down without its project.
            None => {
                self.inner.store.runner_by_name(name.to_owned()).await.ok().flatten().and_then(|known| known.project)
            }
        };
        let about = project.map_or(About::Nothing, About::Project);
        Note { actor, action, about, object: format!("runner {name}"), detail: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> (Note, Ended) {
        let note = Note {
            actor: Actor::from(name),
            action: AuditAction::TaskCancel,
            about: About::Nothing,
            object: "task 7".to_owned(),
            detail: None,
        };
        (note, Ended::Refused("forbidden".to_owned()))
    }

    #[test]
    fn a_flood_of_refusals_is_a_few_rows() {
        let refusals = Refusals::default();
        let (note, ended) = refusal("ann");
        assert!(refusals.is_first(&note, &ended));
        for _ in 0..1_000 {
            assert!(!refusals.is_first(&note, &ended));
        }
        for number in 0..10_000 {
            let (note, ended) = refusal(&format!("stranger-{number}"));
            let _ = refusals.is_first(&note, &ended);
        }
        let rows = refusals.take();
        assert_eq!(rows.len(), 2, "what ann repeated, and what is beyond all kinds");
        assert_eq!(rows[0].0.detail.as_ref().map(|detail| &detail["repeated"]), Some(&json!(1_000)));
        let beyond = 10_001 - REFUSALS_MAX;
        assert_eq!(rows[1].0.detail.as_ref().map(|detail| &detail["repeated"]), Some(&json!(beyond)));
        assert!(refusals.take().is_empty());
        assert!(refusals.is_first(&note, &ended), "the next minute begins anew");
    }
}
