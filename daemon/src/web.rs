//! The dashboard: pages made here, shown by browsers. Every text in one is escaped where it is written (`maud`); there is no script and no
//! style in a page, since its policy runs none.
//!
//! | module | what it does |
//! |---|---|
//! | `layout` | the frame of every page, and who looks at it |
//! | `parts`, `chart` | what pages are put together from: states, times, tables, forms; numbers to SVG |
//! | `assets` | the stylesheet and the scripts, which are part of the binary |
//! | `login` | signing in and out |
//! | the others | a page each, with what its forms do |
//!
//! What a page may show, and to whom, its row in the table of routes says; who is signed in is [`Access`]. A page asks the core and never
//! the store; what changes something is a form that works without a script, which only adds: fresh contents, the live log, copying.

pub(crate) mod assets;
pub(crate) mod audit;
mod chart;
pub(crate) mod config;
pub(crate) mod integrations;
mod layout;
mod log_view;
pub(crate) mod login;
pub(crate) mod overview;
mod parts;
pub(crate) mod plugins;
pub(crate) mod run;
pub(crate) mod runners;
pub(crate) mod schedules;
mod summary;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod templates;
pub(crate) mod webhooks;

use forge_api::Problem;
use maud::{Markup, html};

use self::layout::{Page, Place, Visitor};
use crate::http::auth::Access;

/// What is shown instead of a page that is refused.
pub(crate) fn refusal(problem: &Problem, access: Option<&Access>) -> Markup {
    let content = html! {
        section.panel {
            header { h1 { (problem.title) } span.tag { (problem.status) " " (problem.slug()) } }
            div.body {
                p { (parts::prose(&problem.detail)) }
                @if let Some(hint) = &problem.hint { p.soft { (parts::prose(hint)) } }
                div.buttons { a.button href="/" { "To the overview" } }
            }
        }
    };
    match access {
        Some(access) => Page::new(&problem.title, Place::Nowhere, content).draw(&Visitor::refused(access.clone())),
        None => layout::bare(&problem.title, content),
    }
}
