//! The routes of webhook targets: how they stand, what was delivered, and sending once more. Targets belong to no project, so only an
//! admin's token that reaches all of them is taken.

use axum::Json;
use axum::extract::State;
use forge_api::{DeliveryState, Page, TestWebhook, WebhookDelivery, WebhookTarget};
use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::Access;
use super::body::JsonBody;
use super::limits;
use super::listing::{self, ListingQuery};
use super::path::{PathOf, QueryOf};
use super::problem::Refusal;
use super::routes::Api;
use crate::core::DeliveryFilter;

/// What `GET /webhooks/deliveries` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveryQuery {
    /// Only this target's.
    target: Option<String>,
    /// Only those in this state.
    #[schemars(with = "Option<DeliveryState>")]
    state: Option<String>,
    /// `next_cursor` of the page before, unchanged.
    cursor: Option<String>,
    /// How many a page has, 500 at most.
    #[schemars(range(min = 1, max = limits::PAGE_ITEMS_MAX))]
    limit: Option<u32>,
}

/// `GET /webhooks`
pub(super) async fn targets(
    State(api): State<Api>,
    QueryOf(query): QueryOf<ListingQuery>,
) -> Result<Json<Page<WebhookTarget>>, Refusal> {
    listing::page(api.core.webhook_targets().await?, query, |target| [&target.name]).map(Json)
}

/// `GET /webhooks/deliveries`
pub(super) async fn deliveries(
    State(api): State<Api>,
    QueryOf(query): QueryOf<DeliveryQuery>,
) -> Result<Json<Page<WebhookDelivery>>, Refusal> {
    let state = query.state.map(|state| state.parse::<DeliveryState>()).transpose();
    let state = state.map_err(|error| Refusal::invalid(error.to_string()))?;
    let limit = limits::page_items(query.limit)?;
    let filter = DeliveryFilter { target: query.target, state };
    Ok(Json(api.core.deliveries(filter, query.cursor, limit).await?))
}

/// `GET /webhooks/deliveries/{id}`
pub(super) async fn delivery(
    State(api): State<Api>,
    PathOf(id): PathOf<String>,
) -> Result<Json<WebhookDelivery>, Refusal> {
    Ok(Json(api.core.delivery(&id).await?))
}

/// `POST /webhooks/deliveries/{id}/redeliver`
pub(super) async fn redeliver(
    State(api): State<Api>,
    access: Access,
    PathOf(id): PathOf<String>,
) -> Result<Json<WebhookDelivery>, Refusal> {
    tracing::info!(delivery = id, by = access.name(), "a webhook delivery is sent once more");
    Ok(Json(api.core.redeliver(&id, access.actor()).await?))
}

/// `POST /webhooks/{name}/test`
pub(super) async fn test(
    State(api): State<Api>,
    access: Access,
    PathOf(name): PathOf<String>,
    JsonBody(request): JsonBody<TestWebhook>,
) -> Result<Json<WebhookDelivery>, Refusal> {
    tracing::info!(target = name, by = access.name(), "a webhook target is tested");
    Ok(Json(api.core.test_webhook(&name, request.event.as_deref(), access.actor()).await?))
}
