//! `POST /tokens/revoke`: an admin ends a token at once, also one whose file the tree still holds.

use axum::Json;
use axum::extract::State;
use forge_api::{RevokeToken, RevokedToken};
use forge_config::Digest;

use super::auth::Access;
use super::body::JsonBody;
use super::problem::Refusal;
use super::routes::Api;

/// Revokes; a hash that no file names is taken too, since the file may come back with a revision.
pub(super) async fn revoke(
    State(api): State<Api>,
    access: Access,
    JsonBody(request): JsonBody<RevokeToken>,
) -> Result<Json<RevokedToken>, Refusal> {
    let hash: Digest = request.hash.parse().map_err(|_| {
        Refusal::invalid(format!("{:?} is no hash of a token", request.hash))
            .hint("write \"sha256:\" and 64 hex digits, as in access/NAME.toml; the token itself is not needed")
    })?;
    api.core.revoke_token(&hash, access.actor()).await?;
    let tree = &api.config.borrow().clone().tree;
    let access_files = tree.access.iter().filter(|(_, access)| access.hash == hash);
    let access_files = access_files.map(|(name, _)| format!("access/{name}.toml"));
    let registration_files = tree.registration_tokens.iter().filter(|(_, token)| token.hash == hash);
    let registration_files = registration_files.map(|(name, _)| format!("registration-tokens/{name}.toml"));
    Ok(Json(RevokedToken { hash: hash.to_string(), files: access_files.chain(registration_files).collect() }))
}
