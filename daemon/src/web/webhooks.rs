//! Webhook targets, what was delivered to them, and one delivery with its requests.

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use forge_api::{DeliveryState, WebhookDelivery, WebhookTarget};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Page, Place, Visitor};
use super::{parts, summary};
use crate::core::DeliveryFilter;
use crate::http::body::Form;
use crate::http::limits;
use crate::http::path::{PathOf, QueryOf};
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// What `GET /webhooks` takes. A filter that is empty, as a form sends it, is none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookQuery {
    target: Option<String>,
    state: Option<String>,
    cursor: Option<String>,
}

/// `GET /webhooks`
pub(crate) async fn list(
    State(api): State<Api>,
    visitor: Visitor,
    QueryOf(query): QueryOf<WebhookQuery>,
) -> Result<Markup, Refusal> {
    let set = |value: Option<String>| value.filter(|text| !text.is_empty());
    let (target, state, cursor) = (set(query.target), set(query.state), set(query.cursor));
    let parsed = state.as_deref().map(str::parse::<DeliveryState>).transpose();
    let parsed = parsed.map_err(|error| Refusal::invalid(error.to_string()))?;
    let targets = api.core.webhook_targets().await?;
    let filter = DeliveryFilter { target: target.clone(), state: parsed };
    let page = api.core.deliveries(filter, cursor.clone(), limits::PAGE_ITEMS_DEFAULT).await?;
    let filters = [("target", target.as_deref()), ("state", state.as_deref())];
    let content = html! {
        div.head { div { h1 { "Webhooks" } p { "Who is told of what happens, and whether it arrived." } } }
        section.panel id="targets" data-live data-on="task runner config poll" aria-label="Targets" { (target_table(&visitor, &targets)) }
        form.filters method="get" action="/webhooks" role="search" aria-label="Filter deliveries" {
            (parts::choice("target", "Target", "every target", target.as_deref(), targets.iter().map(|target| target.name.as_str())))
            (parts::choice("state", "State", "every state", state.as_deref(), DeliveryState::ALL.map(DeliveryState::as_str)))
            button type="submit" { "Filter" }
            @if filters.iter().any(|(_, value)| value.is_some()) { a.button href="/webhooks" { "Clear" } }
        }
        section.panel id="deliveries" data-live data-on="task runner config poll" aria-labelledby="deliveries-title" {
            header { h2 id="deliveries-title" { "Deliveries" } }
            @if page.items.is_empty() { (parts::empty("No delivery is like this.")) } @else { (delivery_table(&visitor, &page.items)) }
            (parts::pager("/webhooks", &filters, cursor.as_deref(), page.next_cursor.as_deref()))
        }
    };
    Ok(Page::new("Webhooks", Place::Webhooks, content).draw(&visitor))
}

fn target_table(visitor: &Visitor, targets: &[WebhookTarget]) -> Markup {
    if targets.is_empty() {
        return html! { p.empty { "The tree has no target. A file under " code { "webhooks/" } " makes one." } };
    }
    parts::table(
        "Targets",
        html! {
            thead { tr {
                th scope="col" { "Target" } th scope="col" { "Plugin" } th scope="col" { "Told of" }
                th.num scope="col" { "Waiting" } th.num scope="col" { "Delivered" } th.num scope="col" { "Skipped" } th.num scope="col" { "Dead" }
                th scope="col" { span.hidden-text { "Test" } }
            } }
            tbody { @for target in targets {
                tr {
                    th scope="row" { a href={ "/webhooks" (parts::query(&[("target", Some(&target.name))])) } { (target.name) } }
                    td { @if let Some(plugin) = &target.plugin { (plugin) } @else { (parts::badge("is-warn", "left the tree")) } }
                    td { (parts::tags(&target.events)) }
                    td.num { (target.waiting) } td.num { (target.delivered) } td.num { (target.skipped) }
                    td.num { @if target.dead > 0 { strong { (target.dead) } } @else { "0" } }
                    td.actions { @if target.plugin.is_some() {
                        form method="post" action={ "/webhooks/" (parts::segment(&target.name)) "/test" } {
                            (parts::csrf(visitor))
                            button.slim type="submit" { "Test" span.hidden-text { " " (target.name) } }
                        }
                    } }
                }
            } }
        },
    )
}

fn delivery_table(visitor: &Visitor, deliveries: &[WebhookDelivery]) -> Markup {
    parts::table(
        "Deliveries, newest first",
        html! {
            thead { tr {
                th scope="col" { "Event" } th scope="col" { "About" } th scope="col" { "Target" } th scope="col" { "State" }
                th.num scope="col" { "Tries" } th scope="col" { "What came of it" } th.num scope="col" { "Made" }
            } }
            tbody { @for delivery in deliveries {
                tr {
                    th scope="row" { a href=(path(&delivery.id)) { (delivery.event) } }
                    td { (subject(&delivery.subject)) }
                    td { (delivery.target) }
                    td { (parts::delivery_state(delivery.state)) }
                    td.num { (delivery.tries) }
                    td { @if let Some(message) = &delivery.message { (parts::prose(message)) }
                        @if let Some(next) = delivery.next_at { div.soft.small { "next try " (parts::ago(visitor.now, next)) } } }
                    td.num.nowrap { (parts::ago(visitor.now, delivery.created_at)) }
                }
            } }
        },
    )
}

fn path(id: &str) -> String {
    format!("/webhooks/deliveries/{}", parts::segment(id))
}

/// What a delivery is about; a task as a link to it.
fn subject(subject: &str) -> Markup {
    let task = subject.strip_prefix("task ").and_then(|number| number.parse::<u64>().ok()).filter(|number| *number > 0);
    html! { @if let Some(number) = task { a href={ "/tasks/" (number) } { (subject) } } @else { (subject) } }
}

/// `GET /webhooks/deliveries/{id}`
pub(crate) async fn delivery(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf(id): PathOf<String>,
) -> Result<Markup, Refusal> {
    let delivery = api.core.delivery(&id).await?;
    let now = visitor.now;
    let facts = [
        ("Delivery", Some(html! { code { (delivery.id) } })),
        ("Target", Some(parts::text(&delivery.target))),
        ("About", Some(subject(&delivery.subject))),
        ("Tries", Some(html! { (delivery.tries) })),
        ("Made", Some(parts::ago(now, delivery.created_at))),
        ("Tried last", delivery.tried_at.map(|at| parts::ago(now, at))),
        ("Next try", delivery.next_at.map(|at| parts::ago(now, at))),
        ("Ended", delivery.ended_at.map(|at| parts::ago(now, at))),
        ("What came of it", delivery.message.as_ref().map(|message| parts::prose(message))),
    ];
    let content = html! {
        p.crumbs { a href="/webhooks" { "Webhooks" } }
        div id="delivery" data-live data-on=(if delivery.state == DeliveryState::Waiting { "poll" } else { "" }) {
            div.head {
                div.titled { h1 { (delivery.event) } span data-announce { (parts::delivery_state(delivery.state)) } }
                div.buttons { (parts::action(&visitor, &format!("{}/redeliver", path(&delivery.id)), "", "Deliver again")) }
            }
            (parts::panel("About", html! {}, html! { div.body { (parts::facts(&facts)) } }))
            (exchanges(&delivery))
        }
        @if let Some(payload) = &delivery.payload {
            (parts::panel("What is told", html! {}, html! { div.body {
                pre.code tabindex="0" role="group" aria-label="What is told" { (summary::pretty(payload)) }
            } }))
        }
    };
    Ok(Page::new("Delivery", Place::Webhooks, content).draw(&visitor))
}

fn exchanges(delivery: &WebhookDelivery) -> Markup {
    parts::panel(
        "Requests of the last try",
        html! {},
        html! {
            @if delivery.exchanges.is_empty() { (parts::empty("None was sent.")) } @else {
                (parts::table("Requests of the last try", html! {
                    thead { tr { th scope="col" { "Request" } th scope="col" { "Answer" } th.num scope="col" { "Took" } } }
                    tbody { @for exchange in &delivery.exchanges {
                        tr {
                            td { code { (exchange.method) " " (exchange.url) } }
                            td { @if let Some(status) = exchange.status { (status) } @if let Some(error) = &exchange.error { bdi { (error) } } }
                            td.num.nowrap { (exchange.took_ms) " ms" }
                        }
                    } }
                }))
            }
        },
    )
}

/// `POST /webhooks/deliveries/{id}/redeliver`
pub(crate) async fn redeliver(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf(id): PathOf<String>,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    tracing::info!(delivery = id, by = visitor.access.name(), "a webhook delivery is sent once more");
    api.core.redeliver(&id, visitor.access.actor()).await?;
    Ok(Redirect::to(&path(&id)).into_response())
}

/// `POST /webhooks/{name}/test`
pub(crate) async fn test(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf(name): PathOf<String>,
    Form(()): Form<()>,
) -> Result<Response, Refusal> {
    tracing::info!(target = name, by = visitor.access.name(), "a webhook target is tested");
    let delivery = api.core.test_webhook(&name, None, visitor.access.actor()).await?;
    Ok(Redirect::to(&path(&delivery.id)).into_response())
}
