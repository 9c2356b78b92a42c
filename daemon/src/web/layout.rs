//! The frame of every page: the header with the ways to go and who is signed in, what must be seen on each page, and the main part.

use axum::extract::FromRequestParts;
use forge_api::Timestamp;
use forge_config::meant::Role;
use http::request::Parts;
use maud::{DOCTYPE, Markup, html};

use super::assets::{self, Asset};
use super::parts;
use crate::http::auth::{Access, role_name};
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// Who looks at a page, and what every page says.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    /// Whose token, and what it reaches.
    pub(super) access: Access,
    /// When the page is made; the beginning of time on one that tells of none.
    pub(super) now: Timestamp,
    /// Whether the newest revision of the configuration is refused.
    pub(super) config_refused: bool,
}

impl FromRequestParts<Api> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let access = Access::from_request_parts(parts, api).await?;
        let config_refused = api.view.counters().broken;
        Ok(Self { access, now: api.clock.now(), config_refused })
    }
}

impl Visitor {
    /// Who is refused: of the rest nothing was asked.
    pub(super) fn refused(access: Access) -> Self {
        Self { access, now: Timestamp::from_unix_micros(0), config_refused: false }
    }

    /// Whether its role is enough.
    pub(super) fn may(&self, role: Role) -> bool {
        self.access.role() >= role
    }

    /// Whether it reaches every project with that role.
    pub(super) fn may_everywhere(&self, role: Role) -> bool {
        self.access.visible().is_none() && self.may(role)
    }
}

/// Which way of the header a page stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Tasks,
    Templates,
    Runners,
    Schedules,
    Integrations,
    Config,
    Webhooks,
    Plugins,
    Audit,
    Nowhere,
}

/// What scripts a page has beside the common one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scripts {
    Common,
    Log,
}

/// A page.
pub(super) struct Page<'a> {
    /// What the window is called.
    pub(super) title: &'a str,
    /// Where it stands.
    pub(super) place: Place,
    /// What it runs.
    pub(super) scripts: Scripts,
    /// Its main part, which begins with an `h1`.
    pub(super) content: Markup,
}

impl<'a> Page<'a> {
    /// A page with the common script.
    pub(super) fn new(title: &'a str, place: Place, content: Markup) -> Self {
        Self { title, place, scripts: Scripts::Common, content }
    }

    /// The page for whoever looks at it.
    pub(super) fn draw(self, visitor: &Visitor) -> Markup {
        let Self { title, place, scripts, content } = self;
        html! {
            (DOCTYPE)
            html lang="en" {
                (head(title, scripts))
                body data-now=[(visitor.now.unix_micros() > 0).then_some(visitor.now)] {
                    a.skip href="#main" { "Skip to the content" }
                    header.top { div.top-in {
                        (brand())
                        nav.nav aria-label="Main" { ul { (ways(visitor, place)) } }
                        div.who {
                            span { b { bdi { (visitor.access.name()) } } " · " (role_name(visitor.access.role())) }
                            (parts::action(visitor, "/logout", "plain slim", "Sign out"))
                        }
                    } }
                    main id="main" tabindex="-1" {
                        div id="alerts" data-live data-on="config" {
                            @if visitor.config_refused && place != Place::Config {
                                div.note.bad data-announce {
                                    p { strong { "The newest configuration is not applied." } " The last good one serves. "
                                        a href="/config" { "See what is wrong" } }
                                }
                            }
                        }
                        (content)
                    }
                    p id="announce" class="hidden-text" role="status" {}
                }
            }
        }
    }
}

/// A page for somebody who is not signed in, or of whom nothing is known.
pub(super) fn bare(title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, Scripts::Common))
            body { main.door id="main" { (brand()) (content) } }
        }
    }
}

fn head(title: &str, scripts: Scripts) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Forge" }
            link rel="icon" href=(assets::path(Asset::Icon)) type="image/svg+xml";
            link rel="stylesheet" href=(assets::path(Asset::Style));
            script src=(assets::path(Asset::Script)) defer {}
            @if scripts == Scripts::Log { script src=(assets::path(Asset::LogScript)) defer {} }
        }
    }
}

fn brand() -> Markup {
    html! {
        a.brand href="/" {
            svg viewBox="0 0 20 20" aria-hidden="true" { path d="M2 3h16v3.5h-4.2c-1.6 0-2.6.9-2.6 2.5h5.3v3.2h-5.3V14l3 3H5.3l2.4-3V6.5H2z" {} }
            "Forge"
        }
    }
}

fn ways(visitor: &Visitor, place: Place) -> Markup {
    let all = visitor.access.visible().is_none();
    let ways = [
        (Place::Overview, "/", "Overview", "o", true),
        (Place::Tasks, "/tasks", "Tasks", "t", true),
        (Place::Templates, "/templates", "Templates", "e", true),
        (Place::Runners, "/runners", "Runners", "r", true),
        (Place::Schedules, "/schedules", "Schedules", "s", true),
        (Place::Integrations, "/integrations", "Integrations", "i", true),
        (Place::Config, "/config", "Configuration", "c", true),
        (Place::Webhooks, "/webhooks", "Webhooks", "w", visitor.may_everywhere(Role::Admin)),
        (Place::Plugins, "/plugins", "Plugins", "p", all),
        (Place::Audit, "/audit", "Audit", "a", visitor.may(Role::Owner)),
    ];
    html! {
        @for (way, path, name, key, shown) in ways {
            @if shown {
                li { a href=(path) data-key=(key) aria-current=[(way == place).then_some("page")] { (name) } }
            }
        }
    }
}
