//! `POST /hooks/<project>/<integration>`: a program elsewhere starts a template's task. Who it is it proves by the integration's `auth`.

use std::net::{IpAddr, Ipv4Addr};

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use forge_api::{IntegrationRequest, Page, Secret};
use forge_config::meant::IntegrationAuth;
use http::{HeaderMap, StatusCode};
use ring::hmac;

use super::answer::Peer;
use super::auth::{self, Access};
use super::gate;
use super::hooks;
use super::limits;
use super::path::PathOf;
use super::problem::Refusal;
use super::routes::Api;
use crate::core::Proved;
use crate::secrets::{digest_of, same_digest};

/// Where senders say how they call a request; the first that is there.
const DELIVERY_HEADERS: [&str; 6] = [
    "idempotency-key",
    "x-github-delivery",
    "x-gitlab-event-uuid",
    "x-gitea-delivery",
    "forge-delivery",
    "x-request-id",
];

/// Where an HMAC-SHA256 of the body may stand, in hex and with `sha256=` before it or not.
const SIGNATURE_HEADERS: [&str; 4] = ["x-hub-signature-256", "x-signature-256", "x-gitea-signature", "x-signature"];

/// Where the secret itself may stand, beside `Authorization: Bearer`.
const TOKEN_HEADERS: [&str; 2] = ["x-gitlab-token", "x-forge-token"];

/// When a request for which there was no place is to be sent again, in seconds.
const RETRY_AFTER_S: u64 = 10;

/// Takes a request.
pub(super) async fn receive(
    State(api): State<Api>,
    PathOf((project, name)): PathOf<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let peer = request.extensions().get::<Peer>().copied();
    let blocked_for_s = peer.and_then(|peer| api.failures.blocked_for_s(peer.remote.ip(), api.clock.elapsed_ms()));
    let Some(integration) = api.core.integration(&project, &name) else {
        return Err(unknown(&api, peer, blocked_for_s, &project, &name));
    };
    // Many senders share an address, and one of them may be wrong: who signs is heard. A token could be guessed.
    if let (IntegrationAuth::Token(_), Some(seconds)) = (&integration.auth, blocked_for_s) {
        return Err(auth::too_many(seconds));
    }
    let (parts, body) = request.into_parts();
    let wrong = || {
        let hint =
            format!("send what `auth` of projects/{project}/integrations/{name}.toml asks for, made with its `secret`");
        match peer {
            Some(peer) => auth::wrong_from(peer, &api, &hint),
            None => Refusal::unauthorized(&hint),
        }
    };
    let secret = secret_of(&api, peer, &project, &integration.auth).await?;
    // Who sends nothing that could prove anything has no body read.
    if !may_be_proved(&integration.auth, secret.as_ref(), &parts.headers) {
        return Err(wrong());
    }
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.remote.ip());
    let Some(_place) = api.integration_bodies.take(address, limits::INTEGRATION_WAIT_MAX).await else {
        let detail = "as many requests are being read as there is room for";
        return Err(Refusal::new(503, "busy", "Busy", detail).hint("send it again").retry_after(RETRY_AFTER_S));
    };
    let mut bytes = Vec::new();
    let read = hooks::read(body, limits::INTEGRATION_BODY_BYTES_MAX, |data| bytes.extend_from_slice(data)).await;
    if let Err(refusal) = read {
        return Err(match peer {
            // Whoever knew the secret would have sent it whole: a stranger must not take places again and again.
            Some(peer) if is_proved_by_body(&integration.auth) => auth::unread_from(peer, &api, refusal),
            Some(_) | None => refusal,
        });
    }
    let now_s = api.clock.now().unix_micros() / 1_000_000;
    if !is_proved(&integration.auth, secret.as_ref(), &parts.headers, &bytes, now_s) {
        return Err(wrong());
    }
    let headers = parts.headers.iter();
    let headers =
        headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect();
    let delivery = DELIVERY_HEADERS.iter().filter_map(|name| parts.headers.get(*name)?.to_str().ok());
    let delivery = delivery.map(str::trim).find(|delivery| !delivery.is_empty());
    let proved = Proved { headers, body: bytes, delivery: delivery.map(str::to_owned) };
    let answer = api.core.integrate(&project, &name, &integration, proved).await?;
    let status = if answer.task.is_some() && !answer.repeated { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(answer)).into_response())
}

/// `GET /projects/{p}/integrations/{i}/log`
pub(super) async fn log(
    State(api): State<Api>,
    access: Access,
    PathOf((project, name)): PathOf<(String, String)>,
) -> Result<Json<Page<IntegrationRequest>>, Refusal> {
    let project = gate::project(&api, &access, &project)?;
    if !project.integrations.contains_key(name.as_str()) {
        return Err(Refusal::not_found("integration", &format!("{}/{name}", project.name.as_str())));
    }
    let items = api.core.integration_log(project.name.as_str(), &name).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The refusal of a name that no integration has. Names are tried as tokens are, and counted as those.
fn unknown(api: &Api, peer: Option<Peer>, blocked_for_s: Option<u64>, project: &str, name: &str) -> Refusal {
    let failed = || peer.and_then(|peer| api.failures.failed(peer.remote.ip(), api.clock.elapsed_ms()));
    match blocked_for_s.or_else(failed) {
        Some(seconds) => auth::too_many(seconds),
        None => Refusal::not_found("integration", &format!("{project}/{name}")),
    }
}

/// Whether nothing is proved before the body is there.
fn is_proved_by_body(auth: &IntegrationAuth) -> bool {
    match auth {
        IntegrationAuth::Github(_) | IntegrationAuth::Hmac(_) => true,
        IntegrationAuth::Token(_) | IntegrationAuth::None => false,
    }
}

/// Whether the headers of a request may prove that it knows the integration's secret; a token proves it by itself.
fn may_be_proved(auth: &IntegrationAuth, secret: Option<&Secret>, headers: &HeaderMap) -> bool {
    match auth {
        IntegrationAuth::None => true,
        IntegrationAuth::Github(_) => text(headers, SIGNATURE_HEADERS[0]).is_some(),
        IntegrationAuth::Hmac(_) => {
            text(headers, "forge-signature").is_some()
                || SIGNATURE_HEADERS.iter().any(|name| text(headers, name).is_some())
        }
        IntegrationAuth::Token(_) => {
            let bearer = text(headers, "authorization").and_then(|written| written.strip_prefix("Bearer "));
            let mut sent = TOKEN_HEADERS.iter().filter_map(|name| text(headers, name)).chain(bearer);
            secret.is_some_and(|secret| {
                sent.any(|sent| same_digest(&digest_of(&Secret::new(sent.trim())), &digest_of(secret)))
            })
        }
    }
}

/// Whether a request proves that it knows the integration's secret.
fn is_proved(auth: &IntegrationAuth, secret: Option<&Secret>, headers: &HeaderMap, body: &[u8], now_s: i64) -> bool {
    let signed = |before: &[u8], written: &str| secret.is_some_and(|secret| is_signed(secret, before, body, written));
    match auth {
        // A token was looked at already.
        IntegrationAuth::None | IntegrationAuth::Token(_) => true,
        IntegrationAuth::Github(_) => text(headers, SIGNATURE_HEADERS[0]).is_some_and(|written| signed(b"", written)),
        IntegrationAuth::Hmac(_) => match text(headers, "forge-signature") {
            Some(written) => {
                hooks::forge_signature(written, now_s).is_some_and(|(before, mac)| signed(before.as_bytes(), &mac))
            }
            // What a Forge has signed with its moment must not pass as a plain body when that has grown old.
            None if begins_with_a_moment(body) => false,
            None => {
                let mut written = SIGNATURE_HEADERS.iter().filter_map(|name| text(headers, name));
                written.any(|written| signed(b"", written))
            }
        },
    }
}

/// Whether a body begins as what `Forge-Signature` signs: digits and a dot.
fn begins_with_a_moment(body: &[u8]) -> bool {
    let digits = body.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && body.get(digits) == Some(&b'.')
}

/// Whether `written` is the hex HMAC-SHA256 of `before` and the body.
fn is_signed(secret: &Secret, before: &[u8], body: &[u8], written: &str) -> bool {
    let Some(mac) = hooks::mac(written.strip_prefix("sha256=").unwrap_or(written)) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(before);
    context.update(body);
    hooks::digest(context.sign().as_ref()).is_some_and(|ours| same_digest(&ours, &mac))
}

/// The secret as it is now: a file that was written anew counts at once. An empty one would be everyone's.
async fn secret_of(
    api: &Api,
    peer: Option<Peer>,
    project: &str,
    auth: &IntegrationAuth,
) -> Result<Option<Secret>, Refusal> {
    let value = match auth {
        IntegrationAuth::None => return Ok(None),
        IntegrationAuth::Github(value) | IntegrationAuth::Hmac(value) | IntegrationAuth::Token(value) => value.clone(),
    };
    let (core, owner) = (api.core.clone(), project.to_owned());
    let resolved = tokio::task::spawn_blocking(move || core.integration_secret(&owner, &value)).await;
    let cause = match resolved {
        Ok(Ok(secret)) if !secret.reveal().trim().is_empty() => return Ok(Some(secret)),
        Ok(Ok(_empty)) => "it is empty".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(project, cause, "the secret of an integration cannot be used");
    if let Some(peer) = peer {
        // Who asks on and on must not fill the log.
        let _blocked = api.failures.failed(peer.remote.ip(), api.clock.elapsed_ms());
    }
    let detail = "the daemon has no secret to compare with; its log says why";
    Err(Refusal::new(503, "no-secret", "Not ready", detail).retry_after(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_forge_has_signed_is_no_plain_body() {
        assert!(begins_with_a_moment(b"1700000000.{}"));
        for body in [&b"{\"a\":1.5}"[..], b"1700000000", b".5", b""] {
            assert!(!begins_with_a_moment(body));
        }
    }

    /// The example of GitHub's documentation.
    #[test]
    fn a_signature_is_of_the_secret_and_the_body() {
        let secret = Secret::new("It's a Secret to Everybody");
        let mac = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(is_signed(&secret, b"", b"Hello, World!", &format!("sha256={mac}")));
        assert!(is_signed(&secret, b"", b"Hello, World!", mac));
        assert!(!is_signed(&secret, b"", b"Hello, World?", mac));
        assert!(!is_signed(&secret, b"1.", b"Hello, World!", mac));
        assert!(!is_signed(&secret, b"", b"Hello, World!", "sha1=abc"));
    }
}
