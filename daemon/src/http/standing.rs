//! A stream's right to go on. What lets a request in is looked at once; an answer without an end outlives that, so it looks again while it
//! lasts: it ends with the token or the session that it was asked for with, and shows no more than those may see by then.

use tokio::time::Instant;

use super::auth::{self, Access};
use super::limits;
use super::routes::Api;

/// Who listens, as it stood when that was looked at last.
pub(super) struct Standing {
    api: Api,
    access: Access,
    look_at: Instant,
}

impl Standing {
    /// Of a request that was just let in.
    pub(super) fn new(api: Api, access: Access) -> Self {
        Self { api, access, look_at: next_look() }
    }

    /// Who listens.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// When it is to be looked at again, whether there is something to send or not.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Whether the stream may go on. It is looked at where that is due; in between what was found last counts.
    pub(super) async fn holds(&mut self) -> bool {
        if Instant::now() < self.look_at {
            return true;
        }
        self.look_at = next_look();
        match auth::still(&self.api, &self.access).await {
            Ok(Some(access)) => {
                self.access = access;
                true
            }
            Ok(None) => {
                tracing::info!(access = self.access.name(), "a stream ends with what it was asked for with");
                false
            }
            // It comes back, and is answered what is the matter.
            Err(_refusal) => false,
        }
    }
}

fn next_look() -> Instant {
    Instant::now() + limits::STREAM_LOOK_INTERVAL
}
