//! Runners that ask for work: one claim at a time each, parked until there is something to say.

use std::sync::Arc;

use forge_api::{AttemptId, ClaimRequest, HeartbeatRequest, HeartbeatResponse, RunnerStatus, Timestamp};
use tokio::sync::oneshot;

use super::assign::RunnerFacts;
use super::facts::Permission;
use super::{Contact, Live, Scheduler, millis};
use crate::core::Applied;
use crate::store::{ContactRow, Delivery, Held, Registration};

/// A claim that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) ticket: u64,
    pub(super) registration: Registration,
    /// The process that asks.
    session: String,
    pub(super) slots: u32,
    pub(super) own_max: u32,
    /// Whether it does a plan that was approved.
    pub(super) resumes: bool,
    sender: oneshot::Sender<Wake>,
    /// What the assignment reads of it, and the revision that it follows from.
    facts: Option<(Arc<Applied>, RunnerFacts)>,
}

impl Parked {
    /// What the assignment reads of its runner, but for what it runs: worked out once a revision, since every pass asks.
    pub(super) fn facts(&mut self, name: &str, applied: &Arc<Applied>) -> RunnerFacts {
        if let Some((of, facts)) = &self.facts
            && Arc::ptr_eq(of, applied)
        {
            return facts.clone();
        }
        let permission = Permission::of(&applied.tree, name, Some(&self.registration));
        let status = match (permission.enabled, self.registration.draining) {
            (false, _) => RunnerStatus::Disabled,
            (true, true) => RunnerStatus::Draining,
            (true, false) => RunnerStatus::Online,
        };
        let facts = permission.facts(name, status, self.own_max, 0, self.slots);
        let facts = RunnerFacts { resumes: self.resumes, ..facts };
        self.facts = Some((Arc::clone(applied), facts.clone()));
        facts
    }

    /// Wakes it; `false` when it was given up: it hears nothing, and its runner asks again.
    pub(super) fn wake(self, wake: Wake) -> bool {
        self.sender.send(wake).is_ok()
    }
}

/// What attempts are made of that their runner's claim is given, while they are being committed.
#[derive(Debug)]
pub(crate) struct Foretold {
    pub(crate) deliveries: Vec<(AttemptId, Delivery)>,
    /// Answers when they are there for good; an error when they are not to be.
    pub(crate) committed: oneshot::Receiver<()>,
}

/// Why a parked claim wakes.
#[derive(Debug)]
pub(crate) enum Wake {
    /// These are about to be its runner's: it makes them ready.
    Foretold(Foretold),
    /// These attempts are its runner's.
    Jobs(Vec<AttemptId>),
    /// Something about the runner or its attempts changed: look again.
    Look,
    /// A newer claim of the same runner took its place.
    Replaced,
    /// The daemon is about to stop.
    Drain,
}

/// What a claim finds.
#[derive(Debug)]
pub(crate) enum Considered {
    /// Another session of the same runner is at work.
    Clash { last_contact_at: Timestamp },
    /// Its runner takes nothing, and these attempts never arrived there: they are another's.
    TakeBack(Vec<AttemptId>),
    /// There is something to say at once.
    Answer(Answer),
    /// It waits.
    Parked(Place),
}

/// What a claim is answered with.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Assigned attempts that the runner does not hold: they never arrived.
    pub(crate) undelivered: Vec<AttemptId>,
    /// The key that jobs for the runner are sealed to.
    pub(crate) public_key: String,
    pub(crate) cancels: Vec<AttemptId>,
    pub(crate) lost: Vec<AttemptId>,
    pub(crate) draining: bool,
    /// A one-off runner that had its task: it is told to leave and waits for nothing.
    pub(crate) over: bool,
}

/// A place among the parked claims; given up when it is dropped.
pub(crate) struct Place {
    scheduler: Arc<Scheduler>,
    runner: String,
    ticket: u64,
    pub(crate) draining: bool,
    /// The key that jobs for the runner are sealed to.
    pub(crate) public_key: String,
    pub(crate) woken: oneshot::Receiver<Wake>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("runner", &self.runner).field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut live = self.scheduler.lock();
        // That it waited until now is no word of its runner: the connection of one that died may stay open.
        if live.parked.get(&self.runner).is_some_and(|parked| parked.ticket == self.ticket) {
            live.parked.remove(&self.runner);
        }
    }
}

/// Who says something.
struct Hello<'a> {
    /// When that came in: a claim is looked at again for as long as it waits.
    heard_ms: u64,
    session: &'a str,
    previous_sessions: &'a [String],
    health: Option<forge_api::Health>,
    version: Option<&'a str>,
    own_max: Option<u32>,
}

impl<'a> Hello<'a> {
    fn of_claim(request: &'a ClaimRequest, heard_ms: u64) -> Self {
        Self {
            heard_ms,
            session: &request.session,
            previous_sessions: &request.previous_sessions,
            health: request.health,
            version: Some(&request.version),
            own_max: Some(request.max_parallel_tasks),
        }
    }
}

impl Scheduler {
    /// Whether a claim comes from its runner's one live session; the error is when the other session was last heard of.
    pub(crate) fn meet(
        &self,
        registration: &Registration,
        request: &ClaimRequest,
        heard_ms: u64,
    ) -> Result<(), Timestamp> {
        self.greet(&mut self.lock(), registration, &Hello::of_claim(request, heard_ms))
    }

    /// What a claim that came in at `heard_ms` finds, given what its runner holds by the store; called in the writer's turn, so that
    /// nothing is assigned between the look and the parking.
    pub(crate) fn consider(
        self: &Arc<Self>,
        registration: Registration,
        held: &[Held],
        request: &ClaimRequest,
        heard_ms: u64,
    ) -> (Considered, bool) {
        let mut live = self.lock();
        let hello = Hello::of_claim(request, heard_ms);
        if let Err(last_contact_at) = self.greet(&mut live, &registration, &hello) {
            return (Considered::Clash { last_contact_at }, false);
        }
        renew(&mut live, held, &request.held, heard_ms);
        let draining = registration.draining || self.is_draining();
        let public_key = registration.public_key.clone();
        let over = registration.one_off && registration.draining && held.is_empty();
        let mut answer = Answer { draining, over, public_key: public_key.clone(), ..Answer::default() };
        let told = live.contacts.get_mut(&registration.name).map(|contact| {
            // What the runner holds no more it asks no more about.
            contact.told.retain(|attempt| request.held.contains(attempt));
            contact.told.clone()
        });
        let told = told.unwrap_or_default();
        for attempt in held {
            if !request.held.contains(&attempt.attempt) {
                // To an older program, put back meanwhile, it would be a job that plans anew: it is taken back in time.
                if !attempt.started && (request.resumes || !attempt.resumes) {
                    answer.undelivered.push(attempt.attempt);
                }
            } else if attempt.cancel && !told.contains(&attempt.attempt) {
                answer.cancels.push(attempt.attempt);
            }
        }
        if request.slots == 0 && !answer.undelivered.is_empty() {
            return (Considered::TakeBack(answer.undelivered), false);
        }
        answer.lost = lost(held, &request.held).filter(|id| !told.contains(id)).collect();
        let nothing = answer.undelivered.is_empty() && answer.cancels.is_empty() && answer.lost.is_empty();
        if !nothing || over || self.is_draining() {
            if let Some(contact) = live.contacts.get_mut(&registration.name) {
                contact.told.extend(answer.cancels.iter().chain(&answer.lost));
            }
            return (Considered::Answer(answer), false);
        }
        live.ticket += 1;
        let ticket = live.ticket;
        let (sender, woken) = oneshot::channel();
        let runner = registration.name.clone();
        let slots = request.slots;
        let own_max = request.max_parallel_tasks;
        let (session, resumes) = (request.session.clone(), request.resumes);
        let parked = Parked { ticket, registration, session, slots, own_max, resumes, sender, facts: None };
        if let Some(older) = live.parked.insert(runner.clone(), parked) {
            older.wake(Wake::Replaced);
        }
        drop(live);
        let place = Place { scheduler: Arc::clone(self), runner, ticket, draining, public_key, woken };
        (Considered::Parked(place), slots > 0)
    }

    /// Takes a heartbeat; the error is when the other session was last heard of.
    pub(crate) fn heartbeat(
        &self,
        registration: &Registration,
        held: &[Held],
        request: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Timestamp> {
        let heard_ms = self.clock.elapsed_ms();
        let mut live = self.lock();
        let hello = Hello {
            heard_ms,
            session: &request.session,
            previous_sessions: &request.previous_sessions,
            health: request.health,
            version: Some(request.version.as_str()).filter(|version| !version.is_empty()),
            own_max: None,
        };
        self.greet(&mut live, registration, &hello)?;
        renew(&mut live, held, &request.held, heard_ms);
        let canceled = held.iter().filter(|held| held.cancel && request.held.contains(&held.attempt));
        Ok(HeartbeatResponse {
            cancels: canceled.map(|held| held.attempt).collect(),
            lost: lost(held, &request.held).collect(),
        })
    }

    /// One live session a runner: another one is refused while the last was heard of a moment ago and is not its predecessor. A claim
    /// of a predecessor that still waits belongs to a process that lives: who names it then has a copy of its disk.
    fn greet(&self, live: &mut Live, registration: &Registration, hello: &Hello<'_>) -> Result<(), Timestamp> {
        let look = self.clock.look();
        let waiting = live.parked.get(&registration.name).map(|parked| parked.session.clone());
        let known = live.contacts.remove(&registration.name).filter(|known| known.said.key == registration.key);
        // What the store has may be older than what this process heard: a heartbeat does not say the limit, nor an older runner's its version.
        let (version, own_max) = match &known {
            Some(known) => (known.said.version.clone(), known.said.own_max),
            None => (registration.version.clone(), registration.own_max),
        };
        let mut seen_ms = millis(hello.heard_ms);
        let (told, leaves) = match known {
            Some(known) if known.said.session == hello.session => {
                seen_ms = seen_ms.max(known.seen_ms);
                (known.told, known.leaves)
            }
            Some(known) => {
                let lives = waiting.as_ref().is_some_and(|session| *session == known.said.session);
                let fresh = waiting.is_some() || known.is_fresh(look.elapsed_ms);
                if lives || (fresh && !hello.previous_sessions.contains(&known.said.session)) {
                    let last_contact_at = known.row(look).at;
                    live.contacts.insert(registration.name.clone(), known);
                    return Err(last_contact_at);
                }
                Default::default()
            }
            None => Default::default(),
        };
        let said = ContactRow {
            key: registration.key,
            at: look.calendar.plus_millis(seen_ms.saturating_sub(millis(look.elapsed_ms))),
            session: hello.session.to_owned(),
            version: hello.version.map_or(version, str::to_owned),
            own_max: hello.own_max.unwrap_or(own_max),
            health: hello.health.or(registration.health),
        };
        live.contacts.insert(registration.name.clone(), Contact { said, seen_ms, dirty: true, leaves, told });
        Ok(())
    }
}

/// Renews the leases of what a runner holds and said at `heard_ms` that it holds.
fn renew(live: &mut Live, held: &[Held], said: &[AttemptId], heard_ms: u64) {
    for held in held.iter().filter(|held| said.contains(&held.attempt)) {
        if let Some(lease) = live.leases.get_mut(&held.attempt) {
            lease.seen_ms = lease.seen_ms.max(heard_ms);
        }
    }
}

/// What a runner says that it holds and does not.
fn lost<'a>(held: &'a [Held], said: &'a [AttemptId]) -> impl Iterator<Item = AttemptId> + 'a {
    said.iter().copied().filter(|id| !held.iter().any(|held| held.attempt == *id))
}
