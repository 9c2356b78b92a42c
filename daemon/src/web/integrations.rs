//! The integrations: programs elsewhere that start templates, and what was remembered of their requests.

use axum::extract::State;
use forge_api::{IntegrationOutcome, IntegrationRequest};
use forge_config::meant::IntegrationAuth;
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::parts;
use crate::http::gate;
use crate::http::path::PathOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// How a sender proves itself, in words.
const fn auth(auth: &IntegrationAuth) -> &'static str {
    match auth {
        IntegrationAuth::Github(_) => "GitHub's signature",
        IntegrationAuth::Hmac(_) => "HMAC",
        IntegrationAuth::Token(_) => "token",
        IntegrationAuth::None => "none: anyone may send",
    }
}

/// `GET /integrations`
pub(crate) async fn list(State(api): State<Api>, visitor: Visitor) -> Markup {
    let applied = api.config.borrow().clone();
    let seen = applied.tree.projects.values().filter(|project| visitor.access.sees(project.name.as_str()));
    let found: Vec<_> = seen
        .flat_map(|project| {
            project.integrations.iter().map(|(name, found)| (project.name.as_str(), name.as_str(), found))
        })
        .collect();
    let content = html! {
        div.head { div { h1 { "Integrations" } p { "Programs elsewhere that start templates." } } }
        section.panel id="integrations" data-live data-on="task config poll" aria-label="Integrations" {
            @if found.is_empty() {
                p.empty { "There is none. A file under " code { "projects/NAME/integrations/" } " makes one." }
            } @else {
                (parts::table("Integrations", html! {
                    thead { tr { th scope="col" { "Integration" } th scope="col" { "Starts" } th scope="col" { "Address" } th scope="col" { "Proof" } } }
                    tbody { @for (project, name, integration) in &found {
                        tr {
                            th scope="row" { a href={ "/projects/" (parts::segment(project)) "/integrations/" (parts::segment(name)) } { (name) } }
                            td { (parts::template_link(project, integration.template.as_str())) }
                            td { code { "POST /hooks/" (project) "/" (name) } }
                            td { (auth(&integration.auth)) }
                        }
                    } }
                }))
            }
        }
    };
    Page::new("Integrations", Place::Integrations, content).draw(&visitor)
}

/// `GET /projects/{p}/integrations/{i}`
pub(crate) async fn show(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf((project, name)): PathOf<(String, String)>,
) -> Result<Markup, Refusal> {
    let project = gate::project(&api, &visitor.access, &project)?;
    let project_name = project.name.as_str();
    if !project.integrations.contains_key(name.as_str()) {
        return Err(Refusal::not_found("integration", &format!("{project_name}/{name}")));
    }
    let requests = api.core.integration_log(project_name, &name).await?;
    let content = html! {
        p.crumbs { a href="/integrations" { "Integrations" } span aria-hidden="true" { "/" } (project_name) }
        div.head { div { h1 { (name) } p { "Its newest requests. Nothing of what they hold is kept." } } }
        section.panel id="requests" data-live data-on="task config poll" aria-label="Requests" {
            @if requests.is_empty() { (parts::empty("None came yet.")) } @else { (table(&visitor, &requests)) }
        }
    };
    Ok(Page::new(&name, Place::Integrations, content).draw(&visitor))
}

fn table(visitor: &Visitor, requests: &[IntegrationRequest]) -> Markup {
    parts::table(
        "Requests, newest first",
        html! {
            thead { tr { th scope="col" { "Came" } th scope="col" { "What came of it" } th scope="col" { "Why" } th scope="col" { "Task" } th scope="col" { "Its sender's name for it" } } }
            tbody { @for request in requests {
                tr {
                    td.nowrap { (parts::ago(visitor.now, request.at)) }
                    td { @match request.outcome {
                        IntegrationOutcome::Started => (parts::badge("is-good", "started")),
                        IntegrationOutcome::Repeated => (parts::badge("", "repeated")),
                        IntegrationOutcome::NotMatched => (parts::badge("", "not matched")),
                        IntegrationOutcome::Refused => (parts::badge("is-bad", "refused")),
                    } }
                    td { bdi { (request.message) } }
                    td { @if let Some(task) = request.task { a href={ "/tasks/" (task) } { "#" (task) } } }
                    td { @if let Some(delivery) = &request.delivery { bdi { code { (delivery) } } } }
                }
            } }
        },
    )
}
