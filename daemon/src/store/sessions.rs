//! Who is signed in to the dashboard: rows of hashes and times. What a session may is its token's to say, at each request.

use forge_api::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::audit::{self, Ended, Note};
use super::{Store, StoreError};

/// A session that nobody used for so long has ended.
pub(crate) const SESSION_IDLE_MS: i64 = 12 * 60 * 60 * 1000;

/// The most sessions of one token; the oldest goes when another begins.
const SESSIONS_PER_TOKEN_MAX: u32 = 64;

/// A session that begins.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    /// The hash of its own secret.
    pub(crate) sha256: [u8; 32],
    /// The hash of the access token that it was begun with.
    pub(crate) token_sha256: [u8; 32],
    /// When it ends, however much it is used.
    pub(crate) expires_at: Timestamp,
}

/// A session as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRow {
    /// The hash of its access token.
    pub(crate) token_sha256: [u8; 32],
    /// When it was used last, to the minute.
    pub(crate) last_seen_at: Timestamp,
    /// When it ends, however much it is used.
    pub(crate) expires_at: Timestamp,
    /// Whether its token is revoked.
    pub(crate) revoked: bool,
}

impl Store {
    /// Begins a session.
    pub(crate) async fn begin_session(&self, new: NewSession, note: Note, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                begin(connection, &new, now)?;
                audit::record(connection, &note, &Ended::Ok, now)
            })
            .await
    }

    /// The session with this hash.
    pub(crate) async fn session(&self, sha256: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        self.readers.read(move |connection| find(connection, &sha256)).await
    }

    /// The session was used.
    pub(crate) async fn touch_session(&self, sha256: [u8; 32], now: Timestamp) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| touch(connection, &sha256, now)).await
    }

    /// Ends a session; one that has ended already stays so. `note` is what is written down, where somebody ends it.
    pub(crate) async fn end_session(
        &self,
        sha256: [u8; 32],
        note: Option<Note>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                end(connection, &sha256)?;
                note.map_or(Ok(()), |note| audit::record(connection, &note, &Ended::Ok, now))
            })
            .await
    }
}

fn begin(connection: &Connection, new: &NewSession, now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO sessions (sha256, token_sha256, created_at, last_seen_at, expires_at)
             VALUES (?1, ?2, ?3, ?3, ?4)",
        )?
        .execute(params![new.sha256, new.token_sha256, now.unix_micros(), new.expires_at.unix_micros()])?;
    connection
        .prepare_cached(
            "DELETE FROM sessions WHERE token_sha256 = ?1 AND sha256 NOT IN
                 (SELECT sha256 FROM sessions WHERE token_sha256 = ?1 ORDER BY created_at DESC LIMIT ?2)",
        )?
        .execute(params![new.token_sha256, SESSIONS_PER_TOKEN_MAX])?;
    Ok(())
}

fn find(connection: &Connection, sha256: &[u8; 32]) -> Result<Option<SessionRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT token_sha256, last_seen_at, expires_at,
                EXISTS (SELECT 1 FROM revoked_tokens r WHERE r.sha256 = s.token_sha256)
         FROM sessions s WHERE s.sha256 = ?1",
    )?;
    let row = statement.query_row([sha256], |row| {
        Ok(SessionRow {
            token_sha256: row.get(0)?,
            last_seen_at: Timestamp::from_unix_micros(row.get(1)?),
            expires_at: Timestamp::from_unix_micros(row.get(2)?),
            revoked: row.get(3)?,
        })
    });
    Ok(row.optional()?)
}

fn touch(connection: &Connection, sha256: &[u8; 32], now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE sessions SET last_seen_at = max(last_seen_at, ?2) WHERE sha256 = ?1")?
        .execute(params![sha256, now.unix_micros()])?;
    Ok(())
}

fn end(connection: &Connection, sha256: &[u8; 32]) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM sessions WHERE sha256 = ?1")?.execute([sha256])?;
    Ok(())
}

/// Forgets the sessions that ended by themselves: by their age, or unused.
pub(super) fn sweep(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM sessions WHERE expires_at <= ?1 OR last_seen_at <= ?2")?
        .execute(params![now.unix_micros(), now.plus_millis(-SESSION_IDLE_MS).unix_micros()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open;

    fn session(number: u8) -> NewSession {
        NewSession {
            sha256: [number; 32],
            token_sha256: [200; 32],
            expires_at: Timestamp::from_unix_micros(10_000 + i64::from(number)),
        }
    }

    #[test]
    fn the_oldest_goes_when_a_token_has_too_many_and_what_is_over_is_swept() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let at = |number: u32| Timestamp::from_unix_micros(i64::from(number));
        let beyond = SESSIONS_PER_TOKEN_MAX + 1;
        for number in 1..=beyond {
            begin(&connection, &session(u8::try_from(number).expect("small")), at(number)).expect("begun");
        }
        let found = |number: u8| find(&connection, &[number; 32]).expect("read").is_some();
        assert!(!found(1) && found(2), "the oldest alone went");

        sweep(&connection, at(10_003)).expect("swept");
        assert!(!found(2) && !found(3) && found(4), "their time is over");
        let late = Timestamp::from_unix_micros(SESSION_IDLE_MS * 1_000 + 10_000);
        let kept = NewSession { expires_at: late.plus_millis(1), ..session(100) };
        begin(&connection, &kept, at(5)).expect("begun");
        let unused = NewSession { expires_at: late.plus_millis(1), ..session(101) };
        begin(&connection, &unused, at(5)).expect("begun");
        touch(&connection, &kept.sha256, late).expect("touched");
        sweep(&connection, late).expect("swept");
        assert!(found(100) && !found(101), "unused");
        end(&connection, &kept.sha256).expect("ended");
        assert!(!found(100));
    }

    #[test]
    fn a_session_knows_that_its_token_was_revoked() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let now = Timestamp::from_unix_micros(1);
        begin(&connection, &session(1), now).expect("begun");
        let revoked = || find(&connection, &[1; 32]).expect("read").expect("there").revoked;
        assert!(!revoked());
        crate::store::revocations::revoke_on_host(folder.path(), &[200; 32], "ann", now).expect("revoked");
        assert!(revoked());
    }
}
