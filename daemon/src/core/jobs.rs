//! Jobs on their way to the claims that wait for them, and attempts that the daemon itself ends.

use forge_api::{AttemptId, ClaimResponse, SealedJob};

use super::{Core, CoreError, stored};
use crate::scheduler::claims::{Foretold, Place, Wake};
use crate::scheduler::task::Happening;
use crate::secrets::{self, Parts};
use crate::store::{Delivery, StoreError};

/// A job that is sealed, or the attempt that none can be made for, with the reason.
type Sealed = Result<SealedJob, (AttemptId, String)>;

impl Core {
    /// Waits at a place; `None` when the claim is to look again.
    pub(super) async fn wait(&self, mut place: Place, until_ms: u64) -> Result<Option<ClaimResponse>, CoreError> {
        let draining = place.draining;
        let woken = tokio::select! {
            biased;
            woken = &mut place.woken => woken.ok(),
            () = self.inner.clock.sleep_until_ms(until_ms) => place.woken.try_recv().ok(),
        };
        let public_key = std::mem::take(&mut place.public_key);
        drop(place);
        let empty = ClaimResponse { draining, ..ClaimResponse::default() };
        let jobs = match woken {
            Some(Wake::Jobs(attempts)) => self.deliver(public_key, attempts).await?,
            Some(Wake::Foretold(foretold)) => self.deliver_foretold(public_key, foretold).await?,
            Some(Wake::Look) => return Ok(None),
            Some(Wake::Drain) => return Ok(Some(ClaimResponse { draining: true, ..empty })),
            Some(Wake::Replaced) | None => return Ok(Some(empty)),
        };
        Ok((!jobs.is_empty()).then_some(ClaimResponse { jobs, ..empty }))
    }

    /// Makes jobs of attempts, sealed to their runner's key. One whose secrets do not resolve fails, with the reason.
    pub(super) async fn deliver(
        &self,
        public_key: String,
        attempts: Vec<AttemptId>,
    ) -> Result<Vec<SealedJob>, CoreError> {
        if attempts.is_empty() {
            return Ok(Vec::new());
        }
        let sealing = self.inner.store.with_deliveries(attempts, self.seal(public_key));
        self.fit_to_send(sealing.await.map_err(stored)?).await
    }

    /// The same of attempts that are being committed: what is ready is given out when they are there for good.
    async fn deliver_foretold(&self, public_key: String, foretold: Foretold) -> Result<Vec<SealedJob>, CoreError> {
        let Foretold { deliveries, committed } = foretold;
        let seal = self.seal(public_key);
        let seal_all = move || deliveries.into_iter().map(|(id, delivery)| seal(id, delivery)).collect();
        let sealing = tokio::task::spawn_blocking(seal_all);
        if committed.await.is_err() {
            return Ok(Vec::new());
        }
        self.fit_to_send(sealing.await.map_err(|_reported| stored(StoreError::Panicked))?).await
    }

    /// What makes a job of what the store knows; it blocks for as long as its secrets take.
    fn seal(&self, public_key: String) -> impl Fn(AttemptId, Delivery) -> Sealed + Send + 'static {
        let (core, now) = (self.clone(), self.now());
        move |attempt, delivery| {
            let (resolver, keys) = (&*core.inner.resolver, &*core.inner.keys);
            let parts = Parts { attempt, delivery, resolver, keys, now };
            let job = secrets::build(parts).map_err(|error| (attempt, error.to_string()))?;
            secrets::seal_job(&job, &public_key, keys.signing()).map_err(|error| (attempt, error.to_string()))
        }
    }

    /// The jobs that could be made; the attempts of the others end here.
    async fn fit_to_send(&self, sealed: Vec<Sealed>) -> Result<Vec<SealedJob>, CoreError> {
        let mut jobs = Vec::new();
        for sealed in sealed {
            match sealed {
                Ok(job) => jobs.push(job),
                Err((attempt, reason)) => self.fail_attempt(attempt, reason).await?,
            }
        }
        Ok(jobs)
    }

    /// Gives a task that its runner never began back to the queue.
    pub(super) async fn take_back(&self, attempt: AttemptId) -> Result<(), CoreError> {
        match self.inner.store.happen_to_attempt(attempt, Happening::TakeBack, self.now()).await {
            Ok(fate) => {
                tracing::info!(%attempt, "an attempt is taken back: its runner takes nothing more");
                self.inner.scheduler.after(&[fate]);
                Ok(())
            }
            // It began meanwhile, or ended.
            Err(StoreError::Refused(_)) => Ok(()),
            Err(error) => Err(stored(error)),
        }
    }

    /// Ends an attempt from the daemon's side.
    pub(super) async fn fail_attempt(&self, attempt: AttemptId, reason: String) -> Result<(), CoreError> {
        tracing::warn!(%attempt, reason, "the daemon ended an attempt");
        match self.inner.store.happen_to_attempt(attempt, Happening::Fail { reason }, self.now()).await {
            Ok(fate) => {
                self.inner.scheduler.after(&[fate]);
                Ok(())
            }
            // It ended meanwhile, for another reason.
            Err(StoreError::Refused(_)) => Ok(()),
            Err(error) => Err(stored(error)),
        }
    }
}
