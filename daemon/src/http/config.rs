//! The configuration's routes: what serves, and an admin's word that something may pass a guard.

use axum::Json;
use axum::extract::State;
use forge_api::{ApplyConfig, AuditAction, ConfigRevision, ConfigStatus, Page};
use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::Access;
use super::body::JsonBody;
use super::limits;
use super::path::QueryOf;
use super::problem::Refusal;
use super::routes::Api;
use crate::core::CoreError;
use crate::gitops::{Acceptance, is_of_projects};
use crate::store::{About, Note};

/// `GET /config`
pub(super) async fn status(State(api): State<Api>, access: Access) -> Json<ConfigStatus> {
    Json(seen_status(&api, &access))
}

/// The status as a token may see it: one of some projects only the mistakes in their folders, since a mistake shows the line that it is in.
pub(crate) fn seen_status(api: &Api, access: &Access) -> ConfigStatus {
    let mut status = api.view.status();
    if let (Some(projects), Some(failure)) = (access.visible(), status.last_error.as_mut()) {
        failure.diagnostics.retain(|found| is_of_projects(&found.file, &projects));
    }
    status
}

/// What `GET /config/revisions` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionsQuery {
    /// `next_cursor` of the page before, unchanged.
    cursor: Option<String>,
    /// How many a page has, 100 at most.
    #[schemars(range(min = 1, max = limits::REVISIONS_MAX))]
    limit: Option<u32>,
}

/// `GET /config/revisions`: of each only what concerns the token's projects.
pub(super) async fn revisions(
    State(api): State<Api>,
    access: Access,
    QueryOf(query): QueryOf<RevisionsQuery>,
) -> Result<Json<Page<ConfigRevision>>, Refusal> {
    let limit = limits::bounded("limit", query.limit, limits::REVISIONS_MAX, limits::REVISIONS_MAX)?;
    Ok(Json(api.core.config_revisions(access.visible(), query.cursor, limit).await?))
}

/// `POST /config/apply`: looks at the source now, and lets one revision pass where the request names it.
pub(super) async fn apply(
    State(api): State<Api>,
    access: Access,
    JsonBody(request): JsonBody<ApplyConfig>,
) -> Result<Json<ConfigStatus>, Refusal> {
    let ApplyConfig { prune, accept_rewrite } = request;
    if accept_rewrite.is_some() && !api.gitops.has_history() {
        return Err(Refusal::invalid("the tree is a folder, which has no history that could be rewritten")
            .hint("leave `--accept-rewrite` out; what a folder holds is applied by itself"));
    }
    tracing::info!(by = access.name(), ?prune, ?accept_rewrite, "an admin has the configuration looked at");
    let accepted = serde_json::json!({ "prune": prune, "accept_rewrite": accept_rewrite });
    let asked: Vec<String> = prune.iter().chain(&accept_rewrite).cloned().collect();
    let looking = api.gitops.apply(Acceptance { prune, rewrite: accept_rewrite });
    let newest = match tokio::time::timeout(limits::APPLY_WAIT_MAX, looking).await {
        Ok(Some(newest)) => newest,
        Ok(None) => return Err(CoreError::ShuttingDown.into()),
        Err(_) => {
            let detail = format!("the source did not answer within {} s", limits::APPLY_WAIT_MAX.as_secs());
            return Err(Refusal::new(504, "slow", "Too slow", detail)
                .hint("it is still waited for: `forge config status` shows what becomes of it"));
        }
    };
    // Where the source gives no revision the status says why.
    if let Some(newest) = newest
        && let Some(other) = asked.iter().find(|asked| **asked != newest)
    {
        let detail = format!("{other} is not the source's newest revision, which is {newest}");
        return Err(Refusal::new(409, "not-newest", "Not the newest revision", detail)
            .hint("look at the newest one first, then name it in full"));
    }
    let note = Note {
        actor: access.actor(),
        action: AuditAction::ConfigApply,
        about: About::Nothing,
        object: "configuration".to_owned(),
        detail: Some(accepted),
    };
    api.core.note(note).await?;
    Ok(Json(api.view.status()))
}
