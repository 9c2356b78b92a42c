//! Who reads an answer: a program, or a browser that shows it. A browser gets refusals as pages, and is told what a page may do.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_FRAME_OPTIONS,
};

use super::auth::Access;
use super::problem::Told;

/// Who reads the answers of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// A program: refusals are problems in JSON.
    Api,
    /// A browser that shows a page. Who is not signed in is sent to sign in.
    Page,
    /// A browser that sends a form. Its handler takes a checked [`Form`](super::body::Form).
    Form,
    /// A browser that loads what a page needs.
    Asset,
}

/// Whether browsers are told to insist on TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insistence {
    /// They are: an operator's own certificate is shown.
    Tls,
    /// They are not. With the daemon's own CA, which a browser may not know yet, it would take away the way past the warning; a daemon that
    /// speaks plain HTTP cannot know what stands in front of it.
    Nothing,
}

/// What a page may do: load what this daemon serves, and nothing written into the page itself.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What a page never needs.
const PERMISSIONS: &str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";

/// What an answer says beside its content wherever a browser shows it.
const PAGE_HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (REFERRER_POLICY, "same-origin"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), PERMISSIONS),
];

/// A year: what browsers insist for.
const INSIST: &str = "max-age=31536000";

/// Whether a request that met no route comes from a browser that shows what it gets.
pub(super) fn of_stranger(path: &str, headers: &HeaderMap) -> Surface {
    let accepts_pages = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepts_pages = accepts_pages.into_iter().any(|value| value.contains("text/html"));
    if accepts_pages && !path.starts_with("/api/") { Surface::Page } else { Surface::Api }
}

/// Gives an answer the form that its reader takes; `stranger` says who that is where no route did.
pub(super) fn dress(mut response: Response, stranger: Surface, insistence: Insistence) -> Response {
    let surface = response.extensions_mut().remove::<Surface>().unwrap_or(stranger);
    if surface == Surface::Api {
        return response;
    }
    let access = response.extensions_mut().remove::<Access>();
    let mut response = match response.extensions_mut().remove::<Told>() {
        Some(Told(problem)) => {
            let (mut parts, _json) = response.into_parts();
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            let page = crate::web::refusal(&problem, access.as_ref());
            Response::from_parts(parts, Body::from(page.into_string()))
        }
        None => response,
    };
    let headers = response.headers_mut();
    for (name, value) in PAGE_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if insistence == Insistence::Tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(INSIST));
    }
    response
}
