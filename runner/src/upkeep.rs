//! Removing what was kept for too long, or is too much: when a runner starts, and now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cache;
use crate::job::Context;

/// How often it is looked. Walking large folders is work for a disk that jobs use too.
const INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

/// Looks until the runner leaves, which it does not wait with: what is half removed is removed by the next look.
pub(crate) async fn keep(context: Arc<Context>, leaving: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let (caches, leaving) = (context.settings.caches(), leaving.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if let Err(error) = cache::evict(&caches, &|| leaving.is_cancelled()) {
                tracing::warn!(folder = %caches.display(), %error, "old caches of jobs cannot be removed: they fill the disk");
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "the look for old caches ended badly");
        }
    }
}
