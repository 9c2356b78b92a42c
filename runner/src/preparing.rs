//! Who fetches and compiles which plugin: one at a time of each, so that attempts that begin together do the work once. A large one that
//! comes slowly holds up nobody who wants another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// A lock for each digest that somebody prepares.
#[derive(Debug, Default)]
pub(crate) struct Preparing(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Preparing {
    /// Waits until nobody else prepares this one. Dropping the guard lets the next one on.
    pub(crate) async fn alone(&self, sha256: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds one, or waits for it, has it too.
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(all.entry(sha256.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_of_each_plugin() {
        let preparing = Preparing::default();
        let first = preparing.alone("a").await;
        let mut again = pin!(preparing.alone("a"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(again.as_mut().poll(&mut context).is_pending());
        let mut other = pin!(preparing.alone("b"));
        assert!(other.as_mut().poll(&mut context).is_ready(), "it waits for nobody");
        drop(first);
        assert!(again.as_mut().poll(&mut context).is_ready());
    }
}
