//! What happened to the configuration: recorded for whoever is to be told of it, and listed.

use forge_api::{AuditAction, AuditActor, ConfigNews, ConfigRevision, Page};

use super::{Actor, Core, CoreError, cursor_number, stored};
use crate::gitops::{ConfigEvent, Happened, is_of_projects};
use crate::store::{About, Ended, NewEvent, Note, REVISIONS_KEPT};

impl Core {
    /// Records events of the configuration, in their order, also in the audit log.
    pub(crate) async fn record_config_events(&self, events: Vec<ConfigEvent>) -> Result<(), CoreError> {
        let news: Vec<ConfigNews> = events
            .iter()
            .map(|ConfigEvent { revision, .. }| ConfigNews {
                revision: revision.revision.clone(),
                state: revision.state,
                at: revision.at,
            })
            .collect();
        let new = |event: ConfigEvent| {
            let (action, ended) = match event.happened {
                Happened::Applied => (AuditAction::ConfigApplied, Ended::Ok),
                Happened::Failed => (AuditAction::ConfigFailed, Ended::Failed("config".to_owned())),
            };
            let note = Note {
                actor: Actor::new(AuditActor::Forge, "gitops"),
                action,
                about: About::Nothing,
                object: format!("revision {}", event.config.revision()),
                detail: event
                    .config
                    .commit()
                    .map(|commit| serde_json::json!({ "author": commit.author, "subject": commit.subject })),
            };
            let body = serde_json::json!({ "config": event.config });
            let new = NewEvent { event: event.happened.as_str(), at: event.at, body, runner: None, targets: None };
            (new, event.revision, (note, ended))
        };
        let recorded = self.inner.store.record_config_events(events.into_iter().map(new).collect()).await;
        // Whether or not it could be recorded: it happened.
        news.iter().for_each(|news| self.tell_of_config(news));
        recorded.map_err(stored)
    }

    /// The newest revisions that were applied or refused; of each only what concerns `visible`, where that is some projects.
    pub async fn config_revisions(
        &self,
        visible: Option<Vec<String>>,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<ConfigRevision>, CoreError> {
        let before = cursor_number(cursor)?;
        let limit = limit.clamp(1, REVISIONS_KEPT);
        // One more than asked for says whether there is another page.
        let mut found = self.inner.store.config_revisions(before, limit + 1).await.map_err(stored)?;
        let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next_cursor = found.last().filter(|_| more).map(|(number, _)| number.to_string());
        let items = found.into_iter().map(|(_, mut revision)| {
            if let Some(projects) = &visible {
                revision.changes.retain(|change| is_of_projects(&change.object, projects));
                revision.diagnostics.retain(|found| is_of_projects(&found.file, projects));
            }
            revision
        });
        Ok(Page { items: items.collect(), next_cursor })
    }
}
