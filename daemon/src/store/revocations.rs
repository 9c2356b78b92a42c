//! Tokens that are refused whatever the tree says: asked for at each request that carries one, so that a revocation acts at once, also
//! one that another process of the host wrote.

use std::path::Path;

use forge_api::{AuditAction, AuditActor, Timestamp};
use forge_config::Digest;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::audit::{self, About, Actor, Ended, Note};
use super::{Store, StoreError, open};

impl Store {
    /// Refuses a token from now on; doing it again changes nothing.
    pub(crate) async fn revoke_token(&self, sha256: [u8; 32], by: Actor, now: Timestamp) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| revoke(connection, &sha256, by, now)).await
    }

    /// Whether a token is revoked.
    pub(crate) async fn is_token_revoked(&self, sha256: [u8; 32]) -> Result<bool, StoreError> {
        self.readers.read_row(move |connection| is_revoked(connection, &sha256)).await
    }
}

/// Revokes on the daemon's own host, whether it runs or not; it blocks.
pub(crate) fn revoke_on_host(data_dir: &Path, sha256: &[u8; 32], by: &str, now: Timestamp) -> Result<(), StoreError> {
    let path = open::database_path(data_dir);
    let mut connection = open::open_checkpointer(&path)?;
    open::check_kind(&connection, &path)?;
    let transaction = connection.transaction()?;
    revoke(&transaction, sha256, Actor::new(AuditActor::Host, by), now)?;
    Ok(transaction.commit()?)
}

fn revoke(connection: &Connection, sha256: &[u8; 32], by: Actor, now: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT INTO revoked_tokens (sha256, revoked_by, revoked_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute(params![sha256, by.name, now.unix_micros()])?;
    let note = Note {
        actor: by,
        action: AuditAction::TokenRevoke,
        about: About::Nothing,
        object: format!("token {}", Digest(*sha256)),
        detail: None,
    };
    audit::record(connection, &note, &Ended::Ok, now)
}

fn is_revoked(connection: &Connection, sha256: &[u8; 32]) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM revoked_tokens WHERE sha256 = ?1")?;
    Ok(statement.query_row([sha256], |_row| Ok(())).optional()?.is_some())
}
