//! Runners: who they are, what they ask for, and how they stand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use forge_api::{
    AuditAction, AuditActor, CLAIM_WAIT_MS_MAX, ClaimRequest, ClaimResponse, Health, HeartbeatRequest,
    HeartbeatResponse, REFUSED_JOBS_MAX, REFUSED_REASON_BYTES_MAX, RefusedJob, Runner, Secret, Timestamp,
};

use super::{Actor, Core, CoreError, RunnerIdentity, refused, stored, versions};
use crate::scheduler::assign::RunnerFacts;
use crate::scheduler::claims::{Answer, Considered};
use crate::scheduler::facts::{self, Permission};
use crate::scheduler::why::Candidate;
use crate::scheduler::words;
use crate::secrets::digest_of;
use crate::store::{Note, Registration, StoreError};

/// A claim is answered within this, in milliseconds: an idle runner's claims are all that is heard of it, and the next one has to be here before
/// it counts as offline.
const CLAIM_ANSWER_MS_MAX: u64 = forge_api::RUNNER_OFFLINE_AFTER_MS - 5_000;

/// The most characters of what a runner says of itself: its session and its version.
const SAID_BYTES_MAX: usize = 256;

/// The most attempts that a runner names as held.
const HELD_ATTEMPTS_MAX: usize = 10_000;

impl Core {
    /// Which runner a token belongs to.
    pub async fn authenticate_runner(&self, token: &Secret) -> Result<RunnerIdentity, CoreError> {
        let digest = digest_of(token);
        let asked = match self.inner.scheduler.runner_of_token(&digest.0) {
            Ok(runner) => return Ok(runner),
            Err(epoch) => epoch,
        };
        let found = self.inner.store.runner_by_token(digest.0).await.map_err(stored)?;
        // The token's hash was looked up whole: nothing of it can be guessed piece by piece.
        let (registration, pending) = found.ok_or(CoreError::Unauthorized)?;
        if pending {
            self.inner.store.promote(registration.key, digest.0, self.now()).await.map_err(stored)?;
            tracing::info!(runner = registration.name, "a runner's new token was used for the first time");
            // A claim that waits knows the runner as it was.
            self.inner.scheduler.wake(&registration.name);
        }
        let runner = RunnerIdentity { name: registration.name, key: registration.key };
        if !pending {
            self.inner.scheduler.remember_token(digest.0, runner.clone(), asked);
        }
        Ok(runner)
    }

    /// Ends a runner's registration at its own wish.
    pub async fn unregister(&self, runner: &RunnerIdentity, remote: Option<IpAddr>) -> Result<(), CoreError> {
        let actor = Actor { kind: AuditActor::Runner, name: runner.name.clone(), remote };
        let note = self.runner_note(AuditAction::RunnerUnregister, &runner.name, actor).await;
        self.forget(&runner.name, format!("runner {} unregistered", runner.name), note).await
    }

    /// Forgets a runner's registration. What it still runs is lost at once, and tried elsewhere when its lease is over.
    pub async fn remove_runner(&self, name: &str, by: impl Into<Actor>) -> Result<(), CoreError> {
        let note = self.runner_note(AuditAction::RunnerRemove, name, by.into()).await;
        match self.forget(name, format!("runner {name} was removed"), note).await {
            Err(CoreError::NotFound { .. }) => Err(self.no_runner(name).await),
            other => other,
        }
    }

    async fn forget(&self, name: &str, reason: String, note: Note) -> Result<(), CoreError> {
        let removed = self.inner.store.remove_runner(name.to_owned(), reason, note, self.now()).await;
        let fates = removed.map_err(|error| refused(error, "runner", name, None))?;
        self.inner.scheduler.after(&fates);
        self.inner.scheduler.forget_runner(name);
        Ok(())
    }

    /// Lets a runner take nothing new, or again.
    pub async fn set_draining(&self, name: &str, draining: bool, by: impl Into<Actor>) -> Result<Runner, CoreError> {
        let action = if draining { AuditAction::RunnerDrain } else { AuditAction::RunnerResume };
        let note = self.runner_note(action, name, by.into()).await;
        match self.inner.store.set_draining(name.to_owned(), draining, note, self.now()).await {
            Ok(()) => {}
            Err(StoreError::Refused(_)) => return Err(self.no_runner(name).await),
            Err(error) => return Err(stored(error)),
        }
        self.inner.scheduler.wake(name);
        self.runner(name).await
    }

    async fn no_runner(&self, name: &str) -> CoreError {
        let known = self.candidates().await.unwrap_or_default();
        let nearest = words::nearest(name, known.iter().map(|known| &*known.facts.name));
        CoreError::NotFound {
            what: "runner",
            name: name.to_owned(),
            nearest: nearest.filter(|nearest| nearest != name),
        }
    }

    /// The runners that a caller may see: global ones and those of its projects; `None` sees all.
    pub async fn runners(&self, visible: Option<Vec<String>>) -> Result<Vec<Runner>, CoreError> {
        let (registrations, _live) = self.inner.store.runners().await.map_err(stored)?;
        let registrations: BTreeMap<&str, &Registration> =
            registrations.iter().map(|known| (known.name.as_str(), known)).collect();
        let candidates = self.candidates().await?;
        let may_see = |project: &Option<Arc<str>>| match (project, &visible) {
            (Some(project), Some(visible)) => visible.iter().any(|name| **name == **project),
            (None, _) | (_, None) => true,
        };
        let shown = candidates.into_iter().filter(|candidate| may_see(&candidate.facts.project));
        Ok(shown
            .map(|candidate| {
                let registration = registrations.get(&*candidate.facts.name).copied();
                self.shown(candidate, registration)
            })
            .collect())
    }

    fn shown(&self, candidate: Candidate, registration: Option<&Registration>) -> Runner {
        let said = self.inner.scheduler.contact(&candidate.facts.name).map(|(said, _)| said);
        let stored_version = registration.map(|known| known.version.clone()).unwrap_or_default();
        Runner {
            project: candidate.facts.project.map(|project| project.to_string()),
            tags: candidate.facts.tags.to_vec(),
            status: candidate.facts.status,
            running: candidate.facts.running,
            max_parallel_tasks: candidate.facts.max_parallel_tasks,
            version: said.as_ref().map_or(stored_version, |said| said.version.clone()),
            last_contact_at: candidate.last_contact_at,
            health: said.and_then(|said| said.health).or_else(|| registration.and_then(|known| known.health)),
            public_key: registration.map(|known| known.public_key.clone()),
            name: candidate.facts.name.to_string(),
        }
    }

    /// One runner.
    pub async fn runner(&self, name: &str) -> Result<Runner, CoreError> {
        match self.runners(None).await?.into_iter().find(|runner| runner.name == name) {
            Some(runner) => Ok(runner),
            None => Err(self.no_runner(name).await),
        }
    }

    /// Every runner that is declared or registered, as the rules see it.
    pub(super) async fn candidates(&self) -> Result<Vec<Candidate>, CoreError> {
        let (registrations, live) = self.inner.store.runners().await.map_err(stored)?;
        let applied = self.inner.scheduler.applied();
        let declared = applied.tree.runners.keys().map(|name| (name.as_str(), None));
        // Who is both declared and registered is registered: the later entry stays.
        let known: BTreeMap<&str, Option<&Registration>> =
            declared.chain(registrations.iter().map(|known| (known.name.as_str(), Some(known)))).collect();
        let mut running_on: BTreeMap<&str, u32> = BTreeMap::new();
        for live in &live {
            *running_on.entry(&live.runner).or_default() += live.attempts;
        }
        let candidates = known.into_iter().map(|(name, registration)| {
            let permission = Permission::of(&applied.tree, name, registration);
            // What was heard of another registration of the name is another runner's.
            let contact = registration
                .and_then(|known| self.inner.scheduler.contact(name).filter(|(said, _)| said.key == known.key));
            let last_contact_at = contact
                .as_ref()
                .map(|(said, _)| said.at)
                .or_else(|| registration.and_then(|known| known.last_contact_at));
            let in_contact = contact.as_ref().map(|(_, here)| *here).or(last_contact_at.map(|_| false));
            let draining = registration.is_some_and(|known| known.draining);
            let status = facts::status(permission.enabled, draining, in_contact);
            let own_max =
                contact.map(|(said, _)| said.own_max).or(registration.map(|known| known.own_max)).unwrap_or_default();
            let running = running_on.get(name).copied().unwrap_or_default();
            let asking = self.inner.scheduler.asking(name);
            let (slots, resumes) = asking.unwrap_or((0, true));
            let facts = permission.facts(name, status, own_max, running, slots);
            Candidate {
                facts: RunnerFacts { resumes, ..facts },
                last_contact_at,
                in_contact: in_contact.unwrap_or_default(),
                declared: applied.tree.runners.contains_key(name),
                draining,
                one_off: registration.is_some_and(|known| known.one_off),
                waits: asking.is_some(),
                key: registration.map(|known| known.key),
            }
        });
        Ok(candidates.collect())
    }

    /// Waits for work. Dropping the future gives the place up.
    pub async fn claim(&self, runner: &RunnerIdentity, mut request: ClaimRequest) -> Result<ClaimResponse, CoreError> {
        let pinned = std::mem::take(&mut request.signing_key);
        let answer = self.answer_to_claim(runner, request).await?;
        Ok(ClaimResponse { key_changes: self.inner.keys.changes_since(&pinned).to_vec(), ..answer })
    }

    async fn answer_to_claim(
        &self,
        runner: &RunnerIdentity,
        mut request: ClaimRequest,
    ) -> Result<ClaimResponse, CoreError> {
        check_said(&[&request.session, &request.version], request.held.len())?;
        versions::check(&runner.name, &request.version)?;
        self.compare_clocks(&mut request.health, request.sent_at);
        if self.inner.scheduler.is_draining() {
            return Err(CoreError::ShuttingDown);
        }
        check_refused(&request.refused)?;
        let wait_ms = request.wait_ms.min(CLAIM_WAIT_MS_MAX).min(CLAIM_ANSWER_MS_MAX);
        let heard_ms = self.inner.clock.elapsed_ms();
        let until_ms = heard_ms.saturating_add(wait_ms);
        let request = Arc::new(request);
        self.end_refused(runner, &request, heard_ms).await?;
        loop {
            let (scheduler, asked) = (Arc::clone(&self.inner.scheduler), Arc::clone(&request));
            let considered = self
                .inner
                .store
                .ask(runner.key, move |registration, held| scheduler.consider(registration, &held, &asked, heard_ms));
            let considered = considered.await.map_err(gone_runner)?;
            match considered {
                Considered::Clash { last_contact_at } => {
                    return Err(CoreError::SessionClash { runner: runner.name.clone(), last_contact_at });
                }
                Considered::TakeBack(attempts) => {
                    for attempt in attempts {
                        self.take_back(attempt).await?;
                    }
                }
                Considered::Answer(answer) => {
                    let Answer { undelivered, public_key, cancels, lost, draining, over } = answer;
                    let nothing_else = cancels.is_empty() && lost.is_empty();
                    let asked_for_some = !undelivered.is_empty();
                    let jobs = self.deliver(public_key, undelivered).await?;
                    // What could not be delivered has failed; its runner waits on.
                    if jobs.is_empty() && asked_for_some && nothing_else {
                        continue;
                    }
                    return Ok(ClaimResponse { jobs, cancels, lost, draining, over, ..ClaimResponse::default() });
                }
                Considered::Parked(place) => {
                    if let Some(response) = self.wait(place, until_ms).await? {
                        return Ok(response);
                    }
                }
            }
        }
    }

    /// Ends the attempts whose jobs a runner does not begin, before it is asked what else there is for it.
    async fn end_refused(
        &self,
        runner: &RunnerIdentity,
        request: &Arc<ClaimRequest>,
        heard_ms: u64,
    ) -> Result<(), CoreError> {
        if request.refused.is_empty() {
            return Ok(());
        }
        let (scheduler, asked) = (Arc::clone(&self.inner.scheduler), Arc::clone(request));
        let may_speak = move |registration: &Registration| scheduler.meet(registration, &asked, heard_ms);
        let ended = self.inner.store.refuse(runner.key, request.refused.clone(), may_speak, self.now()).await;
        let fates = ended
            .map_err(gone_runner)?
            .map_err(|last_contact_at| CoreError::SessionClash { runner: runner.name.clone(), last_contact_at })?;
        for fate in &fates {
            let reason = request.refused.iter().find(|job| job.attempt == fate.attempt).map(|job| job.reason.as_str());
            tracing::error!(runner = runner.name, attempt = %fate.attempt, reason, "a runner refused a job");
        }
        self.inner.scheduler.count_refused(fates.len());
        self.inner.scheduler.after(&fates);
        Ok(())
    }

    /// Says in a runner's health how far its clock is from ours. Done as a request comes in: a claim may be parked for long.
    fn compare_clocks(&self, health: &mut Option<Health>, sent_at: Option<Timestamp>) {
        if let Some(health) = health {
            health.clock_skew_ms = sent_at.map(|sent_at| sent_at.millis_after(self.now()));
        }
    }

    /// Renews the leases of the attempts held.
    pub async fn heartbeat(
        &self,
        runner: &RunnerIdentity,
        mut request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, CoreError> {
        check_said(&[&request.session, &request.version], request.held.len())?;
        self.compare_clocks(&mut request.health, request.sent_at);
        let registration = self.inner.store.runner_by_name(runner.name.clone()).await.map_err(stored)?;
        let registration = registration.filter(|known| known.key == runner.key).ok_or(CoreError::Unauthorized)?;
        let held = self.inner.store.held(runner.name.clone()).await.map_err(stored)?;
        let answered = self.inner.scheduler.heartbeat(&registration, &held, &request);
        answered.map_err(|last_contact_at| CoreError::SessionClash { runner: runner.name.clone(), last_contact_at })
    }
}

fn check_refused(refused: &[RefusedJob]) -> Result<(), CoreError> {
    let is_long = |job: &RefusedJob| job.reason.len() > REFUSED_REASON_BYTES_MAX;
    if refused.len() > REFUSED_JOBS_MAX || refused.iter().any(is_long) {
        return Err(CoreError::Invalid {
            detail: format!(
                "a claim refuses {REFUSED_JOBS_MAX} jobs at most, for a reason of {REFUSED_REASON_BYTES_MAX} bytes at most"
            ),
            hint: Some("say the rest with the next claim, and cut long reasons".to_owned()),
        });
    }
    Ok(())
}

/// A runner that was removed while it asked is nobody.
fn gone_runner(error: StoreError) -> CoreError {
    match error {
        StoreError::Refused(_) => CoreError::Unauthorized,
        error => stored(error),
    }
}

pub(super) fn check_said(texts: &[&str], held: usize) -> Result<(), CoreError> {
    if texts.iter().any(|text| text.len() > SAID_BYTES_MAX) || held > HELD_ATTEMPTS_MAX {
        return Err(CoreError::Invalid {
            detail: format!(
                "a session or version has {SAID_BYTES_MAX} bytes at most, and {HELD_ATTEMPTS_MAX} attempts may be held"
            ),
            hint: None,
        });
    }
    Ok(())
}
