//! The dashboard's cookie, and what proves that it is a page of ours that asks with it.
//!
//! The cookie is `SameSite=Lax` and not `Strict`: a link to a task from a chat or a mail must find people signed in, and what a link can
//! reach (GET) changes nothing. Everything that changes something has to prove itself: a token that only a page of ours knows, and the
//! browser's own word about where the request comes from.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forge_api::Secret;
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use http::uri::{Authority, Uri};
use ring::hmac;

use super::problem::Refusal;
use super::routes::Api;
use crate::core::SESSION_AGE_MS;
use crate::secrets::{digest_of, same_digest};

/// The cookie's name: the prefix has browsers refuse one that another host, a path of ours or plain HTTP would set.
pub(crate) const SESSION_COOKIE: &str = "__Host-forge-session";

/// The header that proves a request of a script of ours.
pub(crate) const CSRF_HEADER: &str = "forge-csrf";

/// The field that proves a form of ours.
pub(crate) const CSRF_FIELD: &str = "csrf";

/// The longest value of a cookie that is looked at.
const COOKIE_BYTES_MAX: usize = 256;

/// A session that a request came with.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    id: Secret,
    csrf: String,
}

impl Session {
    /// The session whose own secret is `id`.
    pub(super) fn new(id: Secret) -> Self {
        // One cannot be computed back: a page that shows its token gives no session away.
        let key = hmac::Key::new(hmac::HMAC_SHA256, id.reveal().as_bytes());
        let csrf = URL_SAFE_NO_PAD.encode(hmac::sign(&key, b"forge-csrf"));
        Self { id, csrf }
    }

    /// The session's own secret.
    pub(crate) fn id(&self) -> &Secret {
        &self.id
    }

    /// What the forms and the script of a page prove themselves with.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whether `said` is this session's token, in a time that does not depend on where they differ.
    pub(super) fn is_proved_by(&self, said: &str) -> bool {
        let digest = |text: &str| digest_of(&Secret::new(text));
        same_digest(&digest(said), &digest(&self.csrf))
    }
}

/// The secret in the request's cookie.
pub(super) fn cookie(headers: &HeaderMap) -> Option<Secret> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == SESSION_COOKIE)?;
    (1..=COOKIE_BYTES_MAX).contains(&value.len()).then(|| Secret::new(value))
}

/// Whether the browser has kept a session, whatever that is worth by now.
pub(crate) fn has_cookie(headers: &HeaderMap) -> bool {
    cookie(headers).is_some()
}

/// Has the browser keep a session.
pub(crate) fn begin_cookie(id: &Secret) -> Result<HeaderValue, Refusal> {
    set_cookie(id.reveal(), SESSION_AGE_MS / 1000)
}

/// Has the browser forget it.
pub(crate) fn end_cookie() -> Result<HeaderValue, Refusal> {
    set_cookie("", 0)
}

fn set_cookie(value: &str, age_s: i64) -> Result<HeaderValue, Refusal> {
    let text = format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={age_s}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).map_err(|_| Refusal::invalid("the session fits into no cookie"))
}

/// Refuses what a browser says comes from a page of somebody else. Who is no browser says nothing, and has to hold the rest of the proof.
pub(crate) fn check_origin(parts: &Parts, api: &Api) -> Result<(), Refusal> {
    let hosts = [asked(parts), api.web_host.as_deref().and_then(authority_of)];
    if is_ours(&parts.headers, &hosts) { Ok(()) } else { Err(foreign()) }
}

/// The refusal of a write that nothing proves.
pub(super) fn unproved() -> Refusal {
    Refusal::new(403, "csrf", "Forbidden", "this request does not prove that it comes from a page of this daemon")
        .hint("load the page again and repeat it; a program sends no cookie, but `Authorization: Bearer` and its token")
}

fn foreign() -> Refusal {
    Refusal::new(403, "foreign-origin", "Forbidden", "the browser says that this request comes from another site").hint(
        "open the dashboard itself and repeat it there; behind a proxy, set `web_host` in forge.toml to the URL that people use",
    )
}

fn is_ours(headers: &HeaderMap, hosts: &[Option<String>]) -> bool {
    // "none" is the person's own doing, such as loading a page again.
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let origin = headers.get(ORIGIN).is_none_or(|origin| {
        let origin = origin.to_str().ok().and_then(authority_of);
        origin.is_some() && hosts.contains(&origin)
    });
    site && origin
}

/// The host that the request is addressed to.
fn asked(parts: &Parts) -> Option<String> {
    let header = || parts.headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    parts.uri.authority().cloned().or_else(header).map(|authority| plain(&authority))
}

/// The host and the port of an origin.
fn authority_of(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.authority().map(plain)
}

/// Some write the port that goes without saying, others do not.
fn plain(authority: &Authority) -> String {
    let text = authority.as_str().to_ascii_lowercase();
    let short = text.strip_suffix(":443").or_else(|| text.strip_suffix(":80"));
    short.map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")));
        pairs.collect()
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = |text: &str| cookie(&headers(&[("cookie", text)])).map(|secret| secret.reveal().to_owned());
        assert_eq!(found("a=b; __Host-forge-session=abc; c"), Some("abc".to_owned()));
        for none in ["", "forge-session=abc", "__Host-forge-session=", "x__Host-forge-session=abc"] {
            assert_eq!(found(none), None, "{none}");
        }
        assert_eq!(found(&format!("{SESSION_COOKIE}={}", "a".repeat(COOKIE_BYTES_MAX + 1))), None);
    }

    #[test]
    fn each_session_has_a_token_of_its_own() {
        let (one, other) = (Session::new(Secret::new("one")), Session::new(Secret::new("other")));
        assert!(one.is_proved_by(one.csrf()) && !one.is_proved_by(other.csrf()) && !one.is_proved_by(""));
    }

    #[test]
    fn only_pages_of_ours_ask() {
        let hosts = [Some("forge.example.com:8443".to_owned()), Some("forge.example.com".to_owned())];
        let ours = |pairs: &[(&'static str, &str)]| is_ours(&headers(pairs), &hosts);
        for fine in [
            &[][..],
            &[("origin", "https://forge.example.com:8443")],
            &[("origin", "https://Forge.example.com:443"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(ours(fine), "{fine:?}");
        }
        for foreign in [
            &[("origin", "https://evil.example.com")][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://forge.example.com.evil.example.com")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://forge.example.com")],
        ] {
            assert!(!ours(foreign), "{foreign:?}");
        }
    }
}
