//! `GET /audit`: who did what. An admin whose token reaches every project sees every row; an owner sees those of the projects that the
//! token reaches.

use axum::Json;
use axum::extract::State;
use forge_api::{AuditAction, AuditEntry, Page, Timestamp};
use forge_config::meant::Role;
use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::Access;
use super::limits;
use super::path::QueryOf;
use super::problem::Refusal;
use super::routes::Api;
use crate::core::AuditFilter;
use crate::store::Seen;

/// What `GET /audit` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// Only what is about this project.
    pub(crate) project: Option<String>,
    /// Only what this one did, by its name.
    pub(crate) actor: Option<String>,
    /// Only this action.
    #[schemars(with = "Option<AuditAction>")]
    pub(crate) action: Option<String>,
    /// Only from this moment on.
    #[schemars(with = "Option<Timestamp>")]
    pub(crate) since: Option<String>,
    /// Only before this moment.
    #[schemars(with = "Option<Timestamp>")]
    pub(crate) until: Option<String>,
    /// `next_cursor` of the page before, unchanged.
    pub(crate) cursor: Option<String>,
    /// How many a page has, 500 at most.
    #[schemars(range(min = 1, max = limits::PAGE_ITEMS_MAX))]
    pub(crate) limit: Option<u32>,
}

impl AuditQuery {
    /// The same without filters that are empty, as a form sends them.
    pub(crate) fn without_empty(self) -> Self {
        let set = |value: Option<String>| value.filter(|text| !text.is_empty());
        let Self { project, actor, action, since, until, cursor, limit } = self;
        Self {
            project: set(project),
            actor: set(actor),
            action: set(action),
            since: set(since),
            until: set(until),
            cursor: set(cursor),
            limit,
        }
    }
}

/// `GET /audit`
pub(super) async fn list(
    State(api): State<Api>,
    access: Access,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Refusal> {
    page(&api, &access, query).await.map(Json)
}

/// A page of the rows that somebody may see.
pub(crate) async fn page(api: &Api, access: &Access, query: AuditQuery) -> Result<Page<AuditEntry>, Refusal> {
    let moment = |text: Option<String>| -> Result<Option<Timestamp>, Refusal> {
        let moment = text.map(|text| text.parse::<Timestamp>()).transpose();
        moment.map_err(|error| Refusal::invalid(error.to_string()).hint("write it as 2026-01-31T12:00:00Z"))
    };
    let action = query.action.map(|action| action.parse::<AuditAction>()).transpose();
    let filter = AuditFilter {
        project: query.project,
        actor: query.actor,
        action: action.map_err(|error| Refusal::invalid(error.to_string()))?,
        since: moment(query.since)?,
        until: moment(query.until)?,
        seen: seen(access),
    };
    Ok(api.core.audit(filter, query.cursor, limits::page_items(query.limit)?).await?)
}

fn seen(access: &Access) -> Option<Seen> {
    match (access.visible(), access.role()) {
        (None, Role::Admin) => None,
        (None, Role::Owner | Role::Operator | Role::Viewer) => Some(Seen::Projects),
        (Some(projects), _) => Some(Seen::Only(projects)),
    }
}
