//! Who asks: access tokens of the tree or sessions that stand for one, runners' and attempts' own tokens, and how often an address may be
//! wrong.
//!
//! Tokens hold 256 random bits, so that a right one is let through whatever its neighbours behind the same address do: a
//! misconfigured runner must not cut a fleet off. Wrong ones are counted, and an address with too many is answered 429. Those of
//! registrations, whose token a person may have chosen, are counted apart, and after too many every one is refused unseen.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use axum::extract::FromRequestParts;
use forge_api::{AttemptId, AuditActor, Secret, Timestamp};
use forge_config::Digest;
use forge_config::meant::Role;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::answer::Peer;
use super::limits;
use super::problem::Refusal;
use super::routes::Api;
use super::session::{self, Session};
use super::surface::Surface;
use crate::core::{Actor, AttemptAccess, CoreError, Origin, RunnerIdentity};
use crate::secrets::{digest_of, same_digest};

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 512;

/// What to do about an access token that is refused.
const ACCESS_HINT: &str =
    "set FORGE_TOKEN to a token whose hash stands in access/NAME.toml of the tree; `forge token new` makes one";

/// What to do about one that was revoked.
const REVOKED_HINT: &str =
    "this token was revoked: `forge token new` makes another, whose hash goes into access/NAME.toml";

/// What to do about a runner's token that is refused.
const RUNNER_HINT: &str = "register the runner again with `forge runner register`";

/// A holder of an access token.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    name: String,
    /// The hash of its token.
    token: Digest,
    role: Role,
    projects: Option<Vec<String>>,
    session: Option<Session>,
    /// Where the request comes from.
    remote: Option<IpAddr>,
}

impl Access {
    /// Refuses who may do less than `needed`.
    pub(crate) fn require(&self, needed: Role) -> Result<(), Refusal> {
        if self.role >= needed { Ok(()) } else { Err(Refusal::role(role_name(needed), role_name(self.role))) }
    }

    /// Refuses a lesser role, and a token that reaches only some projects: for what belongs to no project.
    pub(crate) fn require_everywhere(&self, needed: Role) -> Result<(), Refusal> {
        self.require(needed)?;
        if self.projects.is_none() {
            return Ok(());
        }
        let detail = "this is about every project, and this token reaches only some".to_owned();
        Err(Refusal::new(403, "forbidden", "Forbidden", detail)
            .hint("use a token without `projects` in its file under access/ of the tree"))
    }

    /// Whether it reaches a project.
    pub(crate) fn sees(&self, project: &str) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.iter().any(|name| name == project))
    }

    /// The projects that it reaches; `None` is all.
    pub(crate) fn visible(&self) -> Option<Vec<String>> {
        self.projects.clone()
    }

    /// The token's name in the tree.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its role.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The hash of its token.
    pub(crate) fn token(&self) -> &Digest {
        &self.token
    }

    /// The session that stands for the token, where a browser asks.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// What the forms of a page shown to it prove themselves with; empty for who came with a token, and needs no proof.
    pub(crate) fn csrf(&self) -> &str {
        self.session.as_ref().map(Session::csrf).unwrap_or_default()
    }

    /// Who is written down for what it does.
    pub(crate) fn actor(&self) -> Actor {
        let kind = if self.session.is_some() { AuditActor::Session } else { AuditActor::Access };
        Actor { kind, name: self.name.clone(), remote: self.remote }
    }

    /// What a task that it starts was made by.
    pub(crate) fn origin(&self) -> Origin {
        Origin::of_user(self.actor())
    }
}

pub(crate) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Owner => "owner",
        Role::Admin => "admin",
    }
}

/// Who asks, by the access token that the request carries, or else by its session's cookie.
pub(super) async fn access(parts: &Parts, api: &Api, surface: Surface) -> Result<Access, Refusal> {
    let remote = remote(parts);
    if parts.headers.contains_key(AUTHORIZATION) {
        return token_access(parts, api, bearer(parts)).await.map(|(access, _hash)| access);
    }
    match session::cookie(&parts.headers) {
        Some(id) => session_access(api, id).await.map(|access| Access { remote, ..access }),
        // Who opens a page without being signed in guesses nothing.
        None if surface != Surface::Api => Err(Refusal::signed_out()),
        None => Err(wrong(parts, api, ACCESS_HINT)),
    }
}

/// Who holds an access token; a wrong one is counted.
async fn token_access(parts: &Parts, api: &Api, token: Option<Secret>) -> Result<(Access, Digest), Refusal> {
    let hash = token.map(|token| digest_of(&token));
    let Some((access, hash)) = hash.and_then(|hash| Some((find_access(api, &hash)?, hash))) else {
        return Err(wrong(parts, api, ACCESS_HINT));
    };
    if api.core.is_token_revoked(&hash).await? {
        tracing::warn!(access = access.name(), "a revoked access token was refused");
        return Err(wrong(parts, api, REVOKED_HINT));
    }
    Ok((Access { remote: remote(parts), ..access }, hash))
}

/// The address that a request comes from.
pub(crate) fn remote(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|peer| peer.remote.ip().to_canonical())
}

/// Who is signed in: the token's file is looked at each time, so that a session may never more than its token. A cookie that is over is no
/// guess, and not counted.
async fn session_access(api: &Api, id: Secret) -> Result<Access, Refusal> {
    let Some(hash) = api.core.session_token(&id).await? else { return Err(Refusal::signed_out()) };
    match find_access(api, &hash) {
        Some(access) => Ok(Access { session: Some(Session::new(id)), ..access }),
        None => {
            // Bringing the file back brings no session back.
            api.core.end_session(&id, None).await?;
            Err(Refusal::signed_out())
        }
    }
}

/// Who asked, as it stands now; `None` once the token that it came with counts no more, or the session.
pub(super) async fn still(api: &Api, before: &Access) -> Result<Option<Access>, Refusal> {
    let Some(access) = find_access(api, &before.token) else { return Ok(None) };
    if api.core.is_token_revoked(&before.token).await? {
        return Ok(None);
    }
    if let Some(session) = &before.session
        && !api.core.session_stands(session.id()).await?
    {
        return Ok(None);
    }
    Ok(Some(Access { session: before.session.clone(), remote: before.remote, ..access }))
}

/// Begins a session with an access token, for a browser that gave it; one that it had before ends.
pub(crate) async fn sign_in(parts: &Parts, api: &Api, token: &str) -> Result<(Access, Secret), Refusal> {
    let token = token.trim();
    let token = (1..=TOKEN_BYTES_MAX).contains(&token.len()).then(|| Secret::new(token));
    let (access, hash) = token_access(parts, api, token).await?;
    if let Some(before) = session::cookie(&parts.headers) {
        api.core.end_session(&before, None).await?;
    }
    let ends = find_expiry(api, access.name()).map(Timestamp::from_unix_micros);
    let by = Actor { kind: AuditActor::Session, ..access.actor() };
    let id = api.core.begin_session(&hash, ends, by).await?;
    Ok((Access { session: Some(Session::new(id.clone())), ..access }, id))
}

/// When the token of a file ends, where it does.
fn find_expiry(api: &Api, name: &str) -> Option<i64> {
    api.config.borrow().tree.access.get(name)?.expires_unix_micros
}

/// Every token is compared, so that the time says nothing of which one was near.
fn find_access(api: &Api, digest: &Digest) -> Option<Access> {
    let applied = api.config.borrow().clone();
    let mut found = None;
    for (name, access) in &applied.tree.access {
        if same_digest(&access.hash, digest) {
            found = Some((name, access));
        }
    }
    let (name, access) = found?;
    if access.expires_unix_micros.is_some_and(|expires| expires <= api.clock.now().unix_micros()) {
        tracing::info!(access = name.as_str(), "an expired access token was refused");
        return None;
    }
    let projects = access.projects.as_ref().map(|names| names.iter().map(|name| name.as_str().to_owned()).collect());
    Some(Access {
        name: name.as_str().to_owned(),
        token: *digest,
        role: access.role,
        projects,
        session: None,
        remote: None,
    })
}

/// A registered runner.
pub(crate) struct RunnerBearer(pub(crate) RunnerIdentity);

impl FromRequestParts<Api> for RunnerBearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let Some(token) = bearer(parts) else { return Err(wrong(parts, api, RUNNER_HINT)) };
        match api.core.authenticate_runner(&token).await {
            Ok(runner) => Ok(Self(runner)),
            Err(CoreError::Unauthorized) => Err(wrong(parts, api, RUNNER_HINT)),
            Err(error) => Err(error.into()),
        }
    }
}

/// An attempt's own token, for the attempt that the path names.
pub(crate) struct AttemptBearer(pub(crate) AttemptAccess);

impl FromRequestParts<Api> for AttemptBearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let super::path::PathOf(attempt) = super::path::PathOf::<String>::from_request_parts(parts, api).await?;
        let attempt: AttemptId = attempt.parse().map_err(|_| Refusal::not_found("attempt", &attempt))?;
        let hint = "an attempt's requests carry the token of its own job";
        let Some(token) = bearer(parts) else { return Err(wrong(parts, api, hint)) };
        match api.core.authenticate_attempt(attempt, &token).await {
            Ok(access) => Ok(Self(access)),
            Err(CoreError::Unauthorized) => Err(wrong(parts, api, hint)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A token that may register runners; whether it does is the core's to say.
pub(crate) struct RegistrationBearer(pub(crate) Secret);

/// What to do about a registration token that is refused.
const REGISTRATION_HINT: &str =
    "use the registration token of forge.toml, or one whose hash stands in registration-tokens/NAME.toml of the tree";

impl FromRequestParts<Api> for RegistrationBearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        if let Some(peer) = parts.extensions.get::<Peer>()
            && let Some(seconds) = api.failed_registrations.blocked_for_s(peer.remote.ip(), api.clock.elapsed_ms())
        {
            return Err(too_many(seconds));
        }
        bearer(parts).map(Self).ok_or_else(|| match parts.extensions.get::<Peer>() {
            Some(peer) => wrong_registration(*peer, api),
            None => Refusal::unauthorized(REGISTRATION_HINT),
        })
    }
}

/// A registration's outcome, counted when its token was wrong.
pub(crate) fn count_registration<T>(outcome: Result<T, CoreError>, peer: Peer, api: &Api) -> Result<T, Refusal> {
    outcome.map_err(|error| match error {
        CoreError::Unauthorized => wrong_registration(peer, api),
        error => error.into(),
    })
}

/// Counts a wrong registration token, apart from all others: a runner whose token is worth nothing any more asks for ever, and must not
/// keep its neighbours, or itself, from registering.
fn wrong_registration(peer: Peer, api: &Api) -> Refusal {
    tracing::info!(remote = %peer.remote, "a registration without a valid token was refused");
    match api.failed_registrations.failed(peer.remote.ip(), api.clock.elapsed_ms()) {
        Some(seconds) => too_many(seconds),
        None => Refusal::unauthorized(REGISTRATION_HINT),
    }
}

fn bearer(parts: &Parts) -> Option<Secret> {
    let text = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    let fine = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    fine.then(|| Secret::new(token))
}

fn wrong(parts: &Parts, api: &Api, hint: &str) -> Refusal {
    match parts.extensions.get::<Peer>() {
        Some(peer) => wrong_from(*peer, api, hint),
        None => Refusal::unauthorized(hint),
    }
}

/// Counts what was wrong, and says so.
pub(super) fn wrong_from(peer: Peer, api: &Api, hint: &str) -> Refusal {
    tracing::info!(remote = %peer.remote, "a request without a valid token was refused");
    match api.failures.failed(peer.remote.ip(), api.clock.elapsed_ms()) {
        Some(seconds) => too_many(seconds),
        None => Refusal::unauthorized(hint),
    }
}

/// Counts a body that did not arrive before it could prove anything.
pub(super) fn unread_from(peer: Peer, api: &Api, refusal: Refusal) -> Refusal {
    tracing::info!(remote = %peer.remote, "a request whose body did not arrive was refused");
    match api.failures.failed(peer.remote.ip(), api.clock.elapsed_ms()) {
        Some(seconds) => too_many(seconds),
        None => refusal,
    }
}

/// The refusal of an address that was wrong too often.
pub(super) fn too_many(seconds: u64) -> Refusal {
    Refusal::new(429, "too-many-failures", "Too many failed authentications", "this address sent too many wrong tokens")
        .hint("correct the token, then try again after the time in Retry-After")
        .retry_after(seconds)
}

/// Wrong tokens by address. IPv6 counts by /64, which is what one host is given.
#[derive(Debug, Default)]
pub(crate) struct FailedAuthentications(Mutex<HashMap<IpAddr, Window>>);

#[derive(Clone, Copy, Debug)]
struct Window {
    began_ms: u64,
    failures: u32,
}

impl Window {
    fn ends_in_ms(self, now_ms: u64) -> u64 {
        (self.began_ms + limits::FAILED_WINDOW.as_millis() as u64).saturating_sub(now_ms)
    }

    fn blocks_for_s(self, now_ms: u64) -> Option<u64> {
        let left_ms = self.ends_in_ms(now_ms);
        (self.failures > limits::FAILED_AUTHENTICATIONS_MAX && left_ms > 0).then(|| left_ms.div_ceil(1000))
    }
}

impl FailedAuthentications {
    /// Counts a wrong token; for how many seconds the address is refused, when it now is.
    pub(crate) fn failed(&self, address: IpAddr, now_ms: u64) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= limits::FAILED_ADDRESSES_MAX {
            windows.retain(|_, window| window.ends_in_ms(now_ms) > 0);
            // A flood from more addresses than we count: forgetting all is better than growing without bound.
            if windows.len() >= limits::FAILED_ADDRESSES_MAX {
                windows.clear();
            }
        }
        let window = windows.entry(network(address)).or_insert(Window { began_ms: now_ms, failures: 0 });
        if window.ends_in_ms(now_ms) == 0 {
            *window = Window { began_ms: now_ms, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
        window.blocks_for_s(now_ms)
    }

    /// For how many seconds an address is refused; `None` when it is not.
    pub(crate) fn blocked_for_s(&self, address: IpAddr, now_ms: u64) -> Option<u64> {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.get(&network(address))?.blocks_for_s(now_ms)
    }
}

pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_wrong_tokens_block_an_address_until_the_window_ends() {
        let failures = FailedAuthentications::default();
        let (one, neighbour): (IpAddr, IpAddr) =
            ("2001:db8::1".parse().expect("an address"), "2001:db8::2".parse().expect("an address"));
        for _ in 0..limits::FAILED_AUTHENTICATIONS_MAX {
            assert_eq!(failures.failed(one, 1_000), None);
        }
        assert_eq!(failures.failed(one, 1_000), Some(60));
        assert_eq!(failures.blocked_for_s(neighbour, 31_000), Some(30), "one /64 is one host");
        assert_eq!(failures.blocked_for_s("192.0.2.1".parse().expect("an address"), 1_000), None);
        assert_eq!(failures.blocked_for_s(one, 61_000), None);
        assert_eq!(failures.failed(one, 61_000), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let failures = FailedAuthentications::default();
        for number in 0..(limits::FAILED_ADDRESSES_MAX as u32 + 10) {
            let _ = failures.failed(IpAddr::V4(std::net::Ipv4Addr::from_bits(number)), 0);
        }
        assert!(failures.0.lock().expect("a lock").len() <= limits::FAILED_ADDRESSES_MAX);
    }
}
