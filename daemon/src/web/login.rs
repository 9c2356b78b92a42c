//! Signing in: an access token is exchanged for a session, whose cookie no script reads. Signing out ends it.
//!
//! A form that signs in has no session yet whose field could prove it, and one sent by another site would sign people in as somebody else:
//! what the browser says of where it comes from is asked instead.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use forge_api::{AuditAction, AuditActor};
use http::header::{HeaderMap, SET_COOKIE};
use http::{StatusCode, Uri};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout;
use crate::core::{Actor, session_note};
use crate::http::auth::{self, Access};
use crate::http::body::{self, Form};
use crate::http::path::QueryOf;
use crate::http::problem::Refusal;
use crate::http::routes::Api;
use crate::http::session;
use crate::store::Ended;

/// Where one signs in.
pub(crate) const PATH: &str = "/login";

/// What a browser is told that dropped the cookie.
const NOT_KEPT: &str = "Your browser did not keep the session: it came over plain HTTP. Open the dashboard over HTTPS, through the proxy \
                        that stands before this daemon, and sign in there.";

/// The longest path that is gone back to.
const NEXT_BYTES_MAX: usize = 2048;

/// Where who is not signed in is sent, to come back to `asked`.
pub(crate) fn path_for(asked: &Uri) -> String {
    let next = asked.path_and_query().map_or("/", |next| next.as_str());
    if next == "/" {
        return PATH.to_owned();
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("next", next);
    format!("{PATH}?{}", query.finish())
}

/// Where a person goes on to: a path of this daemon, or its first page. What a browser would read as another host's address is none: `//host`,
/// `/\host`, and either with blanks or line ends between.
fn local(next: &str) -> &str {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let goes_round = next.starts_with(PATH) || next.starts_with("/logout");
    if is_plain && is_path && !goes_round && next.len() <= NEXT_BYTES_MAX { next } else { "/" }
}

/// What `GET /login` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginQuery {
    #[serde(default)]
    next: String,
    /// Set where somebody has just signed in over plain HTTP.
    #[serde(default)]
    kept: Option<Asked>,
}

/// That it is asked whether the browser kept the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Asked {
    Asked,
}

/// `GET /login`
pub(crate) async fn show(QueryOf(query): QueryOf<LoginQuery>, headers: HeaderMap) -> Response {
    let next = local(&query.next);
    match query.kept {
        None => page(next, None).into_response(),
        Some(Asked::Asked) if session::has_cookie(&headers) => Redirect::to(next).into_response(),
        Some(Asked::Asked) => (StatusCode::UNAUTHORIZED, page(next, Some(NOT_KEPT))).into_response(),
    }
}

/// Where somebody goes on to who has signed in. Browsers keep the session's cookie over HTTPS only, and say nothing where they drop it:
/// where the daemon itself does not speak it, whether they have is looked at on the way.
fn onwards(next: &str, speaks_tls: bool) -> String {
    if speaks_tls {
        return next.to_owned();
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("kept", "asked").append_pair("next", next);
    format!("{PATH}?{}", query.finish())
}

/// The form, and why the last token was refused.
fn page(next: &str, refused: Option<&str>) -> Markup {
    let content = html! {
        section.panel {
            header { h1 { "Sign in" } }
            form.body method="post" action=(PATH) {
                @if let Some(refused) = refused { p.note.bad role="alert" { (refused) } }
                input type="hidden" name="next" value=(next);
                div.field {
                    label for="token" { "Access token" }
                    input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                        aria-describedby="token-hint" aria-invalid=[refused.map(|_| "true")];
                    span.hint id="token-hint" { "Its hash stands in a file under " code { "access/" } " of the tree; " code { "forge token new" } " makes one." }
                }
                div.buttons { button.main type="submit" { "Sign in" } }
            }
        }
    };
    layout::bare("Sign in", content)
}

/// The fields of the form.
#[derive(Deserialize)]
struct Login {
    token: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`
pub(crate) async fn sign_in(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    session::check_origin(&parts, &api)?;
    let login: Login = body::strangers_form(Request::from_parts(parts.clone(), body)).await?;
    let next = local(&login.next);
    match auth::sign_in(&parts, &api, &login.token).await {
        Ok((access, id)) => {
            tracing::info!(access = access.name(), "somebody signed in");
            let cookie = session::begin_cookie(&id)?;
            Ok(([(SET_COOKIE, cookie)], Redirect::to(&onwards(next, api.speaks_tls))).into_response())
        }
        Err(refusal) if refusal.status() == 401 => {
            let stranger = Actor { kind: AuditActor::Session, name: String::new(), remote: auth::remote(&parts) };
            let note = session_note(AuditAction::SessionBegin, stranger);
            api.core.note_refusal(note, Ended::Refused("unauthorized".to_owned())).await;
            let said =
                "This token is not valid here: it is mistyped, has expired, was revoked, or its file left the tree.";
            Ok((StatusCode::UNAUTHORIZED, page(next, Some(said))).into_response())
        }
        Err(refusal) => Err(refusal),
    }
}

/// `POST /logout`
pub(crate) async fn sign_out(State(api): State<Api>, access: Access, Form(()): Form<()>) -> Result<Response, Refusal> {
    if let Some(session) = access.session() {
        api.core.end_session(session.id(), Some(access.actor())).await?;
        tracing::info!(access = access.name(), "somebody signed out");
    }
    Ok(([(SET_COOKIE, session::end_cookie()?)], Redirect::to(PATH)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_daemon_are_gone_on_to() {
        for fine in ["/", "/tasks", "/tasks/7?attempt=2&from=1", "/tasks?project=a%2Fb"] {
            assert_eq!(local(fine), fine);
        }
        let long = format!("/{}", "a".repeat(NEXT_BYTES_MAX));
        for foreign in [
            "",
            "tasks",
            "//evil.example.com",
            "/\\evil.example.com",
            "https://evil.example.com",
            "/\t/evil.example.com",
            "/\n/evil.example.com",
            " /tasks",
            "javascript:alert(1)",
            "/login?next=/tasks",
            "/logout",
            "/ü",
            &long,
        ] {
            assert_eq!(local(foreign), "/", "{foreign:?}");
        }
    }

    #[test]
    fn whether_a_browser_keeps_the_session_is_looked_at_where_it_may_not() {
        assert_eq!(onwards("/tasks?state=failed", true), "/tasks?state=failed");
        assert_eq!(onwards("/tasks", false), "/login?kept=asked&next=%2Ftasks");
    }

    #[test]
    fn who_is_sent_to_sign_in_comes_back() {
        let path = |asked: &str| path_for(&asked.parse().expect("a path"));
        assert_eq!(path("/"), "/login");
        assert_eq!(path("/tasks?project=shop&state=failed"), "/login?next=%2Ftasks%3Fproject%3Dshop%26state%3Dfailed");
    }
}
