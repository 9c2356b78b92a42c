//! What pages show of the whole daemon: how busy its runners were, and which plugins its tree has.

use axum::Json;
use axum::extract::State;
use forge_api::{Load, Page, PluginSummary};
use schemars::JsonSchema;
use serde::Deserialize;

use super::limits;
use super::path::QueryOf;
use super::problem::Refusal;
use super::routes::Api;
use crate::core::LOAD_HOURS_MAX;
use crate::plugins;

/// What `GET /stats/load` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadQuery {
    /// How far back, 168 hours at most.
    #[schemars(range(min = 1, max = LOAD_HOURS_MAX))]
    hours: Option<u32>,
}

/// `GET /stats/load`
pub(super) async fn load(State(api): State<Api>, QueryOf(query): QueryOf<LoadQuery>) -> Result<Json<Load>, Refusal> {
    let hours = limits::bounded("hours", query.hours, limits::LOAD_HOURS_DEFAULT, LOAD_HOURS_MAX)?;
    Ok(Json(api.core.load(hours).await?))
}

/// `GET /plugins`
pub(super) async fn plugins(State(api): State<Api>) -> Json<Page<PluginSummary>> {
    let applied = api.config.borrow().clone();
    Json(Page { items: plugins::summaries(&applied.tree, &api.catalog), next_cursor: None })
}
