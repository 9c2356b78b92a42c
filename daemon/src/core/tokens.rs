//! Revoking tokens of the tree: at once, whatever the tree's state, and for good.

use std::path::Path;

use forge_config::Digest;

use super::{Actor, Core, CoreError, stored};
use crate::clock::Clock;
use crate::store::{StoreError, revocations};

impl Core {
    /// Refuses the token with this hash from now on; `by` is who asked.
    pub async fn revoke_token(&self, hash: &Digest, by: impl Into<Actor>) -> Result<(), CoreError> {
        let actor = by.into();
        let by = actor.name.clone();
        self.inner.store.revoke_token(hash.0, actor, self.now()).await.map_err(stored)?;
        tracing::warn!(%hash, by, "a token was revoked");
        Ok(())
    }

    /// Whether a token is revoked.
    pub async fn is_token_revoked(&self, hash: &Digest) -> Result<bool, CoreError> {
        self.inner.store.is_token_revoked(hash.0).await.map_err(stored)
    }
}

/// Revokes on the daemon's own host, without a token and whether the daemon runs or not; it blocks.
///
/// # Errors
/// The data folder holds no database of this version, or it cannot be written.
pub fn revoke_token_on_host(data_dir: &Path, hash: &Digest) -> Result<(), StoreError> {
    revocations::revoke_on_host(data_dir, &hash.0, "the daemon's host", Clock::system().now())
}
