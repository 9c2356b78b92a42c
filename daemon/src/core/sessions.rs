//! Sessions of the dashboard: begun with an access token, used in its place, ended by whichever comes first: a sign-out, the token's
//! end, twelve hours without use, seven days.

use forge_api::{AuditAction, Secret, Timestamp};
use forge_config::Digest;

use super::{Actor, Core, CoreError, internal, stored};
use crate::secrets::{digest_of, random_bytes};
use crate::store::{About, NewSession, Note, SESSION_IDLE_MS, SessionRow};

/// A session ends after so long, however much it is used.
pub(crate) const SESSION_AGE_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// A session's use is written down when the last that is written is so old.
const SEEN_INTERVAL_MS: i64 = 60 * 1000;

/// What a session is good for at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It stands, and its use is to be written down.
    Stale,
    /// It stands.
    Fresh,
    /// It has ended.
    Over,
}

fn standing(row: &SessionRow, now: Timestamp) -> Standing {
    let idle = row.last_seen_at.plus_millis(SESSION_IDLE_MS);
    if row.revoked || row.expires_at <= now || idle <= now {
        return Standing::Over;
    }
    if row.last_seen_at.plus_millis(SEEN_INTERVAL_MS) <= now { Standing::Stale } else { Standing::Fresh }
}

impl Core {
    /// Begins a session of the token with this hash, which ends at `token_ends` by itself, where it does. Answers the session's own secret.
    pub(crate) async fn begin_session(
        &self,
        token: &Digest,
        token_ends: Option<Timestamp>,
        by: Actor,
    ) -> Result<Secret, CoreError> {
        let id = Secret::new(crate::hex::encode(&random_bytes::<32>().map_err(internal)?));
        let now = self.now();
        let longest = now.plus_millis(SESSION_AGE_MS);
        let new = NewSession {
            sha256: digest_of(&id).0,
            token_sha256: token.0,
            expires_at: token_ends.map_or(longest, |ends| ends.min(longest)),
        };
        self.inner.store.begin_session(new, session_note(AuditAction::SessionBegin, by), now).await.map_err(stored)?;
        Ok(id)
    }

    /// The hash of the token that a session stands for; `None` when it has ended, or there never was one.
    pub(crate) async fn session_token(&self, id: &Secret) -> Result<Option<Digest>, CoreError> {
        let sha256 = digest_of(id).0;
        let now = self.now();
        let Some(row) = self.inner.store.session(sha256).await.map_err(stored)? else { return Ok(None) };
        match standing(&row, now) {
            Standing::Over => return Ok(None),
            Standing::Stale => self.inner.store.touch_session(sha256, now).await.map_err(stored)?,
            Standing::Fresh => {}
        }
        Ok(Some(Digest(row.token_sha256)))
    }

    /// Whether a session has not ended. That somebody looks is no use of it.
    pub(crate) async fn session_stands(&self, id: &Secret) -> Result<bool, CoreError> {
        let row = self.inner.store.session(digest_of(id).0).await.map_err(stored)?;
        Ok(row.is_some_and(|row| standing(&row, self.now()) != Standing::Over))
    }

    /// Ends a session, because somebody signs out where `by` says so.
    pub(crate) async fn end_session(&self, id: &Secret, by: Option<Actor>) -> Result<(), CoreError> {
        let note = by.map(|by| session_note(AuditAction::SessionEnd, by));
        self.inner.store.end_session(digest_of(id).0, note, self.now()).await.map_err(stored)
    }
}

/// What is written down when a session begins, ends, or does not begin.
pub(crate) fn session_note(action: AuditAction, actor: Actor) -> Note {
    Note { actor, action, about: About::Nothing, object: "session".to_owned(), detail: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_disuse_by_age_and_by_revocation() {
        let at = Timestamp::from_unix_micros;
        let minutes = |count: i64| at(count * 60 * 1_000_000);
        let row = SessionRow {
            token_sha256: [0; 32],
            last_seen_at: minutes(0),
            expires_at: at(0).plus_millis(SESSION_AGE_MS),
            revoked: false,
        };
        for (now, expected) in [
            (at(59_999_999), Standing::Fresh),
            (minutes(1), Standing::Stale),
            (minutes(12 * 60 - 1), Standing::Stale),
            (minutes(12 * 60), Standing::Over),
        ] {
            assert_eq!(standing(&row, now), expected, "{now}");
        }
        let used = SessionRow { last_seen_at: minutes(7 * 24 * 60 - 1), ..row.clone() };
        assert_eq!(standing(&used, minutes(7 * 24 * 60 - 1)), Standing::Fresh);
        assert_eq!(standing(&used, minutes(7 * 24 * 60)), Standing::Over, "seven days are the most");
        assert_eq!(standing(&SessionRow { revoked: true, ..row }, minutes(0)), Standing::Over);
    }
}
