//! The schedules: what each starts, when next, and what its last firing came to.

use axum::extract::State;
use forge_api::Schedule;
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::parts;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// `GET /schedules`
pub(crate) async fn list(State(api): State<Api>, visitor: Visitor) -> Result<Markup, Refusal> {
    let schedules = api.core.schedules(visitor.access.visible()).await?;
    let content = html! {
        div.head { div { h1 { "Schedules" } p { "Templates that start by the clock." } } }
        section.panel id="schedules" data-live data-on="task config" aria-label="Schedules" {
            @if schedules.is_empty() {
                p.empty { "There is none. A file under " code { "projects/NAME/schedules/" } " makes one." }
            } @else { (table(&visitor, &schedules)) }
        }
    };
    Ok(Page::new("Schedules", Place::Schedules, content).draw(&visitor))
}

fn table(visitor: &Visitor, schedules: &[Schedule]) -> Markup {
    parts::table(
        "Schedules",
        html! {
            thead { tr {
                th scope="col" { "Schedule" } th scope="col" { "Starts" } th scope="col" { "When" } th scope="col" { "Next" }
                th scope="col" { "Last firing" } th scope="col" { "Meanwhile" }
            } }
            tbody { @for schedule in schedules {
                tr {
                    th scope="row" { (schedule.name) }
                    td { (parts::template_link(&schedule.project, &schedule.template)) }
                    td { code { (schedule.cron) } div.soft.small { (schedule.timezone) } }
                    td {
                        @if !schedule.enabled { (parts::badge("", "off")) } @else if schedule.next.is_empty() { span.soft { "never" } }
                        @for (index, next) in schedule.next.iter().enumerate() {
                            @if index == 0 { div.nowrap { (parts::ago(visitor.now, *next)) } }
                            @else { div.soft.small.nowrap { (parts::moment(*next)) } }
                        }
                    }
                    td {
                        @if let Some(last) = &schedule.last {
                            div { (parts::ago(visitor.now, last.fired_at)) }
                            @if let Some(task) = last.task { div { a href={ "/tasks/" (task) } { "#" (task) } } }
                            @if let Some(message) = &last.message { div.soft.small { bdi { (message) } } }
                        } @else { span.soft { "none yet" } }
                    }
                    td { (schedule.overlap) }
                }
            } }
        },
    )
}
