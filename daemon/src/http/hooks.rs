//! `POST /hooks/config`: a git server says that somebody pushed, and the repository is fetched at once.
//!
//! What it says is not believed, only that it knows the secret of `source.hook_secret_file`: three ways to prove that are taken. GitHub, Gitea
//! and Forgejo sign the body (`X-Hub-Signature-256`), GitLab sends the secret itself (`X-Gitlab-Token`), and Forge's own
//! webhooks sign the moment with the body (`Forge-Signature`). A body is hashed as it comes and not kept. Doing it again is harmless.

use std::path::Path;

use axum::body::Body;
use axum::extract::{Request, State};
use forge_api::Secret;
use forge_config::Digest;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use ring::hmac;

use super::answer::Peer;
use super::auth;
use super::limits;
use super::problem::Refusal;
use super::routes::Api;
use crate::hex;
use crate::secrets::{digest_of, same_digest};

/// The most bytes of the file with the secret.
const SECRET_FILE_BYTES_MAX: usize = 4 * 1024;

/// What to do about a hook that is refused.
const HINT: &str =
    "give the git server the secret that stands in the file that `source.hook_secret_file` of forge.toml names";

/// How a request proves that it knows the secret.
#[derive(Debug)]
enum Proof {
    /// By an HMAC-SHA256 over the body, with this before it.
    Signature { before: String, mac: Digest },
    /// By the secret itself.
    Token(Secret),
}

/// Answers 202 when the request knows the secret.
pub(super) async fn config(State(api): State<Api>, request: Request) -> Result<StatusCode, Refusal> {
    let Some(path) = &api.hook_secret_file else {
        return Err(Refusal::not_found("route", "/hooks/config")
            .hint("set `hook_secret_file` under [source] of forge.toml to take webhooks here"));
    };
    let peer = request.extensions().get::<Peer>().copied();
    let now_s = api.clock.now().unix_micros() / 1_000_000;
    let (parts, body) = request.into_parts();
    let proof = proof(&parts.headers, now_s);
    // Nobody guesses a signature, and others behind the sender's address must not shut it out.
    if let Some(peer) = peer
        && !matches!(proof, Some(Proof::Signature { .. }))
        && let Some(seconds) = api.failures.blocked_for_s(peer.remote.ip(), api.clock.elapsed_ms())
    {
        return Err(auth::too_many(seconds));
    }
    let secret = read_secret(path).await?;
    let is_right = match proof {
        None => false,
        Some(Proof::Token(token)) => {
            let is_right = same_digest(&digest_of(&token), &digest_of(&secret));
            if is_right {
                // Nothing in it matters, but a body that is left unread ends the connection under the next request.
                read(body, limits::HOOK_BODY_BYTES_MAX, |_| {}).await?;
            }
            is_right
        }
        Some(Proof::Signature { before, mac }) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
            let mut context = hmac::Context::with_key(&key);
            context.update(before.as_bytes());
            read(body, limits::HOOK_BODY_BYTES_MAX, |data| context.update(data)).await?;
            digest(context.sign().as_ref()).is_some_and(|ours| same_digest(&ours, &mac))
        }
    };
    if !is_right {
        return Err(match peer {
            Some(peer) => auth::wrong_from(peer, &api, HINT),
            None => Refusal::unauthorized(HINT),
        });
    }
    tracing::info!("a webhook says that the configuration was pushed");
    api.gitops.ring();
    Ok(StatusCode::ACCEPTED)
}

/// Reads the body to its end, within its limits.
pub(super) async fn read(body: Body, bytes_max: u64, take: impl FnMut(&[u8])) -> Result<(), Refusal> {
    tokio::time::timeout(limits::HOOK_BODY_READ_MAX, read_slowly(body, bytes_max, take)).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} s", limits::HOOK_BODY_READ_MAX.as_secs());
        Err(Refusal::new(408, "body-timeout", "Body too slow", detail).hint("send it again"))
    })
}

async fn read_slowly(mut body: Body, bytes_max: u64, mut take: impl FnMut(&[u8])) -> Result<(), Refusal> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::invalid(format!("the body could not be read: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len() as u64;
        if bytes > bytes_max {
            let detail = format!("the body is larger than {bytes_max} bytes");
            return Err(Refusal::new(413, "body-too-large", "Body too large", detail).hint("send less at a time"));
        }
        take(data);
    }
    Ok(())
}

/// What the headers say; `None` when nothing there could prove anything.
fn proof(headers: &HeaderMap, now_s: i64) -> Option<Proof> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(written) = text("forge-signature") {
        let (before, digits) = forge_signature(written, now_s)?;
        return mac(&digits).map(|mac| Proof::Signature { before, mac });
    }
    if let Some(written) = text("x-hub-signature-256") {
        let mac = mac(written.strip_prefix("sha256=")?)?;
        return Some(Proof::Signature { before: String::new(), mac });
    }
    text("x-gitlab-token").map(|token| Proof::Token(Secret::new(token)))
}

/// What `Forge-Signature` says is signed before the body, and the digits, when it is fresh.
pub(super) fn forge_signature(written: &str, now_s: i64) -> Option<(String, String)> {
    let part = |name: &str| written.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let moment = part("t")?;
    let is_fresh = now_s.abs_diff(moment.parse().ok()?) <= limits::HOOK_AGE_MAX.as_secs();
    part("v1").filter(|_| is_fresh).map(|digits| (format!("{moment}."), digits.to_owned()))
}

/// A SHA-256 or HMAC in hex.
pub(super) fn mac(text: &str) -> Option<Digest> {
    format!("sha256:{}", text.to_ascii_lowercase()).parse().ok()
}

pub(super) fn digest(bytes: &[u8]) -> Option<Digest> {
    mac(&hex::encode(bytes))
}

/// Read anew each time: a new secret counts at once.
async fn read_secret(path: &Path) -> Result<Secret, Refusal> {
    let unusable = |cause: String| {
        tracing::error!(path = %path.display(), cause, "the secret of webhooks cannot be used");
        Refusal::new(503, "no-secret", "Not ready", "the daemon has no secret to compare with; its log says why")
            .retry_after(60)
    };
    let text = tokio::fs::read_to_string(path).await.map_err(|error| unusable(error.to_string()))?;
    match text.trim() {
        "" => Err(unusable("it is empty".to_owned())),
        _ if text.len() > SECRET_FILE_BYTES_MAX => Err(unusable("it is too long".to_owned())),
        secret => Ok(Secret::new(secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";

    fn of(name: &'static str, value: &str) -> Option<Proof> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        proof(&headers, 1_000)
    }

    #[test]
    fn each_git_servers_header_is_read() {
        let signed = |proof| match proof {
            Some(Proof::Signature { before, mac }) => Some((before, hex::encode(&mac.0))),
            Some(Proof::Token(_)) | None => None,
        };
        assert_eq!(signed(of("x-hub-signature-256", &format!("sha256={MAC}"))), Some((String::new(), MAC.to_owned())));
        let upper = format!("sha256={}", MAC.to_uppercase());
        assert!(signed(of("x-hub-signature-256", &upper)).is_some());
        for wrong in [MAC, "sha256=", "sha1=abc", "sha256=zz"] {
            assert!(of("x-hub-signature-256", wrong).is_none(), "{wrong}");
        }
        assert!(matches!(of("x-gitlab-token", "s3cret"), Some(Proof::Token(token)) if token.reveal() == "s3cret"));
        assert!(proof(&HeaderMap::new(), 1_000).is_none());
    }

    #[test]
    fn forges_own_signature_grows_old() {
        let at = |moment: i64| of("forge-signature", &format!("t={moment},v1={MAC}"));
        assert!(matches!(at(1_000), Some(Proof::Signature { before, .. }) if before == "1000."));
        assert!(at(1_300).is_some() && at(700).is_some());
        assert!(at(1_301).is_none() && at(699).is_none());
        assert!(of("forge-signature", &format!("v1={MAC}")).is_none());
    }
}
