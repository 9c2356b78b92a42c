//! The dashboard: pages made here, shown by browsers. Every text in one is escaped where it is written (`maud`); there is no script and no
//! style in a page, since its policy runs none.
//!
//! | module | what it does |
//! |---|---|
//! | `login` | signing in and out |
//!
//! What a page may show, and to whom, its row in the table of routes says; who is signed in is [`Access`].

pub(crate) mod login;

use forge_api::Problem;
use maud::{DOCTYPE, Markup, html};

use crate::http::auth::{Access, role_name};

/// `GET /`
pub(crate) async fn overview(access: Access) -> Markup {
    frame("Overview", Some(&access), &html! { p { "The daemon serves." } })
}

/// A page: what stands around `main` on each.
pub(crate) fn frame(title: &str, access: Option<&Access>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let Some(access) = access {
                    // What a script sends in the header Forge-CSRF.
                    meta name="forge-csrf" content=(access.csrf());
                }
                title { (title) " · Forge" }
            }
            body {
                header {
                    a href="/" { "Forge" }
                    @if let Some(access) = access {
                        form method="post" action="/logout" {
                            (csrf(access))
                            span { (access.name()) " (" (role_name(access.role())) ")" }
                            button type="submit" { "Sign out" }
                        }
                    }
                }
                main {
                    h1 { (title) }
                    (main)
                }
            }
        }
    }
}

/// The field that every form has which changes something.
pub(crate) fn csrf(access: &Access) -> Markup {
    html! { input type="hidden" name="csrf" value=(access.csrf()); }
}

/// What is shown instead of a page that is refused.
pub(crate) fn refusal(problem: &Problem, access: Option<&Access>) -> Markup {
    let main = html! {
        p { (problem.detail) }
        @if let Some(hint) = &problem.hint {
            p { (hint) }
        }
        p { "Status " (problem.status) " · " code { (problem.slug()) } }
    };
    frame(&problem.title, access, &main)
}
