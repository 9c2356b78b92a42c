//! A runner's machine: the shipped session and warden, with a simulated disk, simulated supervisors and simulated jobs.
//!
//! What the runner does around those rules (ask before a start, send what its delivery says, remove the spool when that is done) is done
//! here in the same order, without files and processes.

mod supervised;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, HEARTBEAT_INTERVAL_MS, Job, LOG_DIFFERS, RegisterResponse, Secret,
    Timestamp,
};
use forge_runner::rules::{
    Action, Again, Contact, Delivery, EndWhy, Failure, Input, Opener, Order, PieceFault, ResultFault, Session, Spool,
    Start, Step, Terms, alive_interval_ms, is_fresh,
};
use supervised::{Kept, Running, Spooled, Stage};

use crate::Guard;
use crate::message::{Answer, Bearer, Failed, Identity, Request};
use crate::random::Random;

/// How long at most a supervisor is not ready when the daemon has given its word, in milliseconds.
const READY_MS_MAX: u64 = 1_500;

/// How long at most a supervisor takes to begin once it is told to, in milliseconds.
const BEGINS_MS_MAX: u64 = 500;

/// The longest pause after a failure, in milliseconds.
const PAUSE_MS_MAX: u64 = 5_000;

/// The most bytes of a log patch here: small, so that there are many.
const PATCH_BYTES_MAX: u64 = 64;

/// The way of one attempt's log and result, as the runner process knows it.
#[derive(Debug)]
struct Upload {
    delivery: Delivery,
    /// The request under way, and what it is.
    in_flight: Option<(u64, Step)>,
    not_before_ms: u64,
    told: bool,
}

impl Upload {
    fn new(spool: Spool) -> Self {
        Self { delivery: Delivery::of_pieces(spool, PATCH_BYTES_MAX), in_flight: None, not_before_ms: 0, told: false }
    }
}

/// A job that waits for the daemon's word.
#[derive(Debug)]
struct Starting {
    job: Job,
    leased_ms: u64,
    /// The request under way, and when it was sent.
    in_flight: Option<(u64, u64)>,
    not_before_ms: u64,
    /// The daemon said that it may begin; its supervisor is ready at this moment.
    ready_at_ms: Option<u64>,
}

/// The runner's process.
#[derive(Debug)]
struct Process {
    session: Session,
    identity: Identity,
    started_ms: u64,
    /// SIGSTOP: it does nothing, and what comes waits.
    stopped: bool,
    /// What came while it or its machine stood still.
    waiting: Vec<(u64, Answer)>,
    claim: Option<(u64, u64, bool)>,
    claim_not_before_ms: u64,
    beat: Option<(u64, u64)>,
    beat_at_ms: u64,
    leased_ms: u64,
    starting: BTreeMap<AttemptId, Starting>,
    uploads: BTreeMap<AttemptId, Upload>,
}

/// What a step of a machine leads to.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A request goes out under this ticket.
    Send(u64, Request),
    /// A job's process begins.
    Began {
        attempt: AttemptId,
        /// The attempt whose plan it carries out.
        resume: Option<AttemptId>,
    },
    /// The runner's process ended.
    Exited,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) token: Secret,
    pub(crate) limit: u32,
    /// How often a runner process was started here.
    pub(crate) incarnation: u64,
    /// Its packets go nowhere.
    pub(crate) is_cut: bool,
    opener: Opener,
    sessions: Vec<String>,
    disk: BTreeMap<AttemptId, Spooled>,
    process: Option<Process>,
    ticket: u64,
    random: Random,
    guard: Option<Guard>,
    /// Since when nothing of it runs.
    asleep_since_ms: Option<u64>,
    woke_at_ms: Option<u64>,
    disk_is_full: bool,
    /// How many logs found no room.
    pub(crate) torn_logs: u64,
    /// How often the daemon's word was too old to begin anything.
    pub(crate) stale_words: u64,
    /// What each job's process wrote, kept beside the spool to compare with.
    pub(crate) written: BTreeMap<AttemptId, Vec<u8>>,
    /// What power cuts have left of a log, each with the line that says so.
    pub(crate) left: BTreeMap<AttemptId, Vec<Vec<u8>>>,
}

fn open_token(key: &age::x25519::Identity, registered: &RegisterResponse) -> Secret {
    let sealed = registered.sealed_token_bytes().expect("base64");
    Secret::new(String::from_utf8(age::decrypt(key, &sealed).expect("sealed to it")).expect("text"))
}

impl Machine {
    pub(crate) fn new(
        name: &str,
        limit: u32,
        key: age::x25519::Identity,
        registered: &RegisterResponse,
        random: Random,
        guard: Option<Guard>,
    ) -> Self {
        let token = open_token(&key, registered);
        let signing_key = STANDARD.decode(&registered.signing_key).expect("base64");
        Self {
            name: name.to_owned(),
            token,
            limit,
            incarnation: 0,
            is_cut: false,
            opener: Opener { runner: name.to_owned(), identity: key, signing_key },
            sessions: Vec::new(),
            disk: BTreeMap::new(),
            process: None,
            ticket: 0,
            random,
            guard,
            asleep_since_ms: None,
            woke_at_ms: None,
            disk_is_full: false,
            torn_logs: 0,
            stale_words: 0,
            written: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }

    /// A machine with a copy of another's token and key, and a spool of its own.
    pub(crate) fn cloned(of: &Self, mut random: Random) -> Self {
        let signing_key = of.opener.signing_key.clone();
        let opener = Opener { runner: of.name.clone(), identity: of.opener.identity.clone(), signing_key };
        // The proof that it is the same machine's next process, which a clone has when its disk was copied, too.
        let stolen = of.guard == Some(Guard::OneSession) || random.between(0, 1) == 0;
        Self {
            name: of.name.clone(),
            token: of.token.clone(),
            limit: of.limit,
            incarnation: 0,
            is_cut: false,
            opener,
            sessions: if stolen { of.sessions.clone() } else { Vec::new() },
            disk: BTreeMap::new(),
            process: None,
            ticket: 0,
            random,
            guard: of.guard,
            asleep_since_ms: None,
            woke_at_ms: None,
            disk_is_full: false,
            torn_logs: 0,
            stale_words: 0,
            written: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }

    pub(crate) fn public_key(&self) -> String {
        self.opener.identity.to_public().to_string()
    }

    /// It was registered anew; the token of before is worth nothing.
    pub(crate) fn take_token(&mut self, registered: &RegisterResponse) {
        self.token = open_token(&self.opener.identity, registered);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether a job waits here for the daemon's word.
    pub(crate) fn is_starting(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.starting.is_empty())
    }

    /// Whether nothing is left to hand in.
    pub(crate) fn is_clean(&self) -> bool {
        self.disk.is_empty()
    }

    /// Starts the runner's process; it finds what its predecessor left.
    pub(crate) fn boot(&mut self, now_ms: u64) {
        self.incarnation += 1;
        let session = format!("{:016x}", self.random.next());
        let identity = Identity { session: session.clone(), previous_sessions: self.sessions.clone() };
        self.sessions.insert(0, session);
        self.sessions.truncate(8);
        let mut process = Process {
            session: Session::new("https://forge", self.limit, false),
            identity,
            started_ms: now_ms,
            stopped: false,
            waiting: Vec::new(),
            claim: None,
            claim_not_before_ms: now_ms,
            beat: None,
            beat_at_ms: now_ms,
            leased_ms: 0,
            starting: BTreeMap::new(),
            uploads: BTreeMap::new(),
        };
        for (attempt, spooled) in &self.disk {
            process.session.step(Input::Found(*attempt));
            process.uploads.insert(*attempt, Upload::new(spooled.spool));
        }
        process.session.step(Input::DiskFull(self.disk_is_full));
        self.process = Some(process);
        self.bury();
    }

    /// SIGKILL to the runner; its supervisors live on.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.forget_what_was_in_memory();
    }

    pub(crate) fn set_stopped(&mut self, stopped: bool) {
        if let Some(process) = &mut self.process {
            process.stopped = stopped;
        }
    }

    /// SIGTERM.
    pub(crate) fn drain(&mut self, now_ms: u64, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.input(Input::Drain, 0, now_ms, now, &mut effects);
        effects
    }

    /// Time has passed: supervisors judge, jobs write and end, the runner asks what it has to ask.
    pub(crate) fn tick(&mut self, now_ms: u64, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_asleep() {
            return effects;
        }
        // Who is the first after a standstill nobody knows.
        let supervisors_first = self.random.between(0, 1) == 0;
        if supervisors_first {
            self.supervise(now_ms, &mut effects);
        }
        let heard = match &mut self.process {
            Some(process) if !process.stopped => std::mem::take(&mut process.waiting),
            _ => Vec::new(),
        };
        for (ticket, answer) in heard {
            self.answered(ticket, answer, now_ms, now, &mut effects);
        }
        if !supervisors_first {
            self.supervise(now_ms, &mut effects);
        }
        if self.process.as_ref().is_some_and(|process| !process.stopped) {
            self.bury();
            self.begin_ready(now_ms);
            self.ask(now_ms, &mut effects);
        }
        effects
    }

    /// An answer arrives.
    pub(crate) fn hear(&mut self, ticket: u64, answer: Answer, now_ms: u64, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &mut self.process {
            Some(process) if process.stopped || self.asleep_since_ms.is_some() => {
                // What its machine's kernel has is there still; other connections have broken meanwhile.
                let is_broken = self.asleep_since_ms.is_some() && self.random.between(0, 3) == 0;
                process.waiting.push((ticket, if is_broken { answer.lost() } else { answer }));
            }
            Some(_) => {
                self.answered(ticket, answer, now_ms, now, &mut effects);
                self.begin_ready(now_ms);
                self.supervise(now_ms, &mut effects);
                self.ask(now_ms, &mut effects);
            }
            None => {}
        }
        effects
    }

    /// Sends what is to be sent.
    fn ask(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(process) = &mut self.process else { return };
        let mut send = |request: Request| {
            self.ticket += 1;
            effects.push(Effect::Send(self.ticket, request));
            self.ticket
        };
        let ask = process.session.ask();
        // A claim that was parked full must ask for the slot that is free now.
        let outdated = process.claim.is_some_and(|(_, _, for_slots)| for_slots != (ask.slots > 0));
        if (process.claim.is_none() && now_ms >= process.claim_not_before_ms) || outdated {
            let for_slots = ask.slots > 0;
            process.claim = Some((send(Request::Claim(process.identity.clone(), ask.clone())), now_ms, for_slots));
        }
        if !ask.held.is_empty() && process.beat.is_none() && now_ms >= process.beat_at_ms {
            process.beat = Some((send(Request::Beat(process.identity.clone(), ask.held)), now_ms));
        }
        for (attempt, starting) in &mut process.starting {
            let waits = starting.in_flight.is_some() || starting.ready_at_ms.is_some();
            if !waits && now_ms >= starting.not_before_ms {
                let bearer = Bearer { attempt: *attempt, token: starting.job.token.clone() };
                // The guard taken out: nobody tells one process of a runner from another.
                let session = process.identity.session.clone();
                let session = (self.guard != Some(Guard::OneSession)).then_some(session);
                starting.in_flight = Some((send(Request::Start(bearer, session)), now_ms));
            }
        }
        for (attempt, upload) in &mut process.uploads {
            let Some(spooled) = self.disk.get(attempt) else { continue };
            if upload.in_flight.is_some() || now_ms < upload.not_before_ms {
                continue;
            }
            let bearer = Bearer { attempt: *attempt, token: spooled.token.clone() };
            let step = upload.delivery.next(spooled.log.len() as u64, spooled.result.is_some(), now_ms);
            let request = match (step, &spooled.result) {
                (Step::Piece { first, length }, _) => {
                    let [from, to] = [first, first + length].map(|at| usize::try_from(at).expect("small"));
                    Request::Log(bearer, first, spooled.log.get(from..to).expect("inside").to_vec())
                }
                (Step::Result, Some(result)) => Request::Finish(bearer, Box::new(result.clone())),
                (Step::Result | Step::WaitUntil(_) | Step::Done, _) => continue,
            };
            upload.in_flight = Some((send(request), step));
        }
    }

    fn answered(&mut self, ticket: u64, answer: Answer, now_ms: u64, now: Timestamp, effects: &mut Vec<Effect>) {
        let pause = self.random.between(200, PAUSE_MS_MAX);
        let Some(process) = &mut self.process else { return };
        match answer {
            Answer::Claim(answer) => {
                let Some((expected, sent_ms, _)) = process.claim else { return };
                if expected != ticket {
                    return;
                }
                process.claim = None;
                let input = match answer {
                    Ok(response) => Input::Claimed { sent_ms, now_ms, response },
                    Err(failed) => Input::Failed(failure(failed, process, now_ms)),
                };
                self.input(input, sent_ms, now_ms, now, effects);
                self.input(Input::DiskFull(self.disk_is_full), 0, now_ms, now, effects);
                if let Some(process) = &mut self.process {
                    let waits = process.session.is_down() || process.session.take_refused_again();
                    process.claim_not_before_ms = if waits { now_ms + pause } else { now_ms };
                }
            }
            Answer::Beat(answer) => {
                let Some((expected, sent_ms)) = process.beat else { return };
                if expected != ticket {
                    return;
                }
                process.beat = None;
                process.beat_at_ms = now_ms + alive_interval_ms(40_000).min(HEARTBEAT_INTERVAL_MS);
                let input = match answer {
                    Ok(answer) => {
                        process.leased_ms = sent_ms;
                        Input::Beaten(answer)
                    }
                    Err(failed) => Input::Failed(failure(failed, process, now_ms)),
                };
                self.input(Input::DiskFull(self.disk_is_full), 0, now_ms, now, effects);
                self.input(input, 0, now_ms, now, effects);
            }
            Answer::Start(attempt, answer) => {
                let Some(starting) = process.starting.get_mut(&attempt) else { return };
                let Some((_, sent_ms)) = starting.in_flight.take_if(|(expected, _)| *expected == ticket) else {
                    return;
                };
                match answer {
                    Ok(answer) if answer.cancel => self.end_unstarted(attempt, EndWhy::Canceled),
                    // The guard taken out: however old the word is, it is believed.
                    Ok(_)
                        if self.guard == Some(Guard::FreshWord)
                            || is_fresh(sent_ms, starting.job.runner_grace_ms, now_ms) =>
                    {
                        starting.leased_ms = starting.leased_ms.max(sent_ms);
                        // The plugin and the supervisor may be there already, or not for long.
                        let is_there = is_eager(self.guard) || self.random.between(0, 1) == 0;
                        let ready_ms = if is_there { 0 } else { self.random.between(0, READY_MS_MAX) };
                        starting.ready_at_ms = Some(now_ms + ready_ms);
                    }
                    Ok(_) => {
                        self.stale_words += 1;
                        starting.not_before_ms = now_ms;
                    }
                    Err(failed) if failed.is_passing() => starting.not_before_ms = now_ms + pause,
                    Err(_) => {
                        process.starting.remove(&attempt);
                        self.input(Input::Gone(attempt), 0, now_ms, now, effects);
                    }
                }
            }
            Answer::Log(attempt, answer) => {
                let Some(upload) = process.uploads.get_mut(&attempt) else { return };
                let Some((_, sent)) = upload.in_flight.take_if(|(expected, _)| *expected == ticket) else { return };
                let Step::Piece { first, length } = sent else { return };
                let log_length = self.disk.get(&attempt).map_or(0, |spooled| spooled.log.len() as u64);
                let fault = match answer {
                    Ok(accepted) => {
                        upload.delivery.taken(accepted, first + length, log_length, now_ms);
                        self.remove_delivered(attempt, now_ms, now, effects);
                        return;
                    }
                    Err(Failed::Problem(problem)) if problem.status == 416 => {
                        PieceFault::Rewind(problem.log_length.expect("it says how much it has"))
                    }
                    Err(Failed::Problem(problem)) if problem.slug() == LOG_DIFFERS => PieceFault::Differs,
                    // It was whole before a power cut took some of it here.
                    Err(Failed::Problem(problem)) if problem.status == 409 && self.left.contains_key(&attempt) => {
                        PieceFault::Refused
                    }
                    Err(failed) if failed.is_passing() => PieceFault::Passing,
                    Err(failed) => panic!("{attempt}: the daemon takes no more of the log: {failed:?}"),
                };
                if upload.delivery.piece_failed(fault, first, length, log_length) == Again::Later {
                    upload.not_before_ms = now_ms + pause;
                }
                self.remove_delivered(attempt, now_ms, now, effects);
            }
            Answer::Finish(attempt, answer) => {
                let Some(upload) = process.uploads.get_mut(&attempt) else { return };
                if upload.in_flight.take_if(|(expected, _)| *expected == ticket).is_none() {
                    return;
                }
                match answer {
                    Ok(answer) => {
                        let length = self.disk.get(&attempt).map_or(0, |spooled| spooled.log.len() as u64);
                        upload.delivery.answered(&answer, length, now_ms);
                        if !std::mem::replace(&mut upload.told, true) {
                            self.input(Input::Acknowledged(attempt), 0, now_ms, now, effects);
                        }
                        self.remove_delivered(attempt, now_ms, now, effects);
                    }
                    Err(failed) if failed.is_passing() => {
                        upload.delivery.result_failed(ResultFault::Passing);
                        upload.not_before_ms = now_ms + pause;
                    }
                    Err(failed) => panic!("{attempt}: the daemon does not take the result: {failed:?}"),
                }
            }
        }
    }

    /// Removes an attempt from the spool once everything of it is handed in.
    fn remove_delivered(&mut self, attempt: AttemptId, now_ms: u64, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(upload) = self.process.as_mut().and_then(|process| process.uploads.get_mut(&attempt)) else { return };
        let Some(spooled) = self.disk.get(&attempt) else { return };
        // The guard taken out: what was acknowledged in any way is thrown away.
        let careless = self.guard == Some(Guard::KeepSpool) && upload.told;
        let length = spooled.log.len() as u64;
        let is_over = upload.told && upload.delivery.next(length, spooled.result.is_some(), now_ms) == Step::Done;
        if careless || is_over {
            self.disk.remove(&attempt);
            if let Some(process) = &mut self.process {
                process.uploads.remove(&attempt);
            }
            self.input(Input::Delivered(attempt), 0, now_ms, now, effects);
        }
    }

    /// Does what the session says; what comes of it goes back into the session.
    fn input(&mut self, input: Input, leased_ms: u64, now_ms: u64, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Some(process) = &mut self.process else { return };
            for action in process.session.step(input) {
                match action {
                    Action::Start(sealed) => match self.opener.open(&sealed, now) {
                        Ok(job) => self.take(job, leased_ms, now_ms),
                        Err(error) => {
                            inputs.push(Input::JobRefused { attempt: sealed.attempt, reason: error.to_string() });
                        }
                    },
                    Action::End(attempt, why) => self.end(attempt, why, now_ms),
                    Action::Announce(_) => {}
                    Action::Return(_) | Action::GiveUp(_) => {
                        self.process = None;
                        effects.push(Effect::Exited);
                        return;
                    }
                }
            }
        }
    }

    fn take(&mut self, job: Job, leased_ms: u64, now_ms: u64) {
        let attempt = job.attempt;
        if self.disk_is_full {
            // It came before the daemon heard that there is no room.
            let order = Order { outcome: unbegun(&job), reason: "its folder cannot be made".to_owned() };
            return self.hand_in_unbegun(attempt, job.token, &order, Kept::NothingOnDisk);
        }
        let Some(process) = &mut self.process else { return };
        // The guard taken out: the process does not wait for the daemon's word.
        let ready_at_ms = (self.guard == Some(Guard::AskBeforeStart)).then_some(now_ms);
        let starting = Starting { job, leased_ms, in_flight: None, not_before_ms: now_ms, ready_at_ms };
        process.starting.insert(attempt, starting);
    }

    /// Has supervisors begin that are ready. Where the daemon's word is too old by then, it is asked anew.
    fn begin_ready(&mut self, now_ms: u64) {
        let Some(process) = &mut self.process else { return };
        let is_due = |starting: &Starting| starting.ready_at_ms.is_some_and(|ready_at_ms| ready_at_ms <= now_ms);
        let due: Vec<AttemptId> =
            process.starting.iter().filter(|(_, starting)| is_due(starting)).map(|(attempt, _)| *attempt).collect();
        for attempt in due {
            let Some(process) = &mut self.process else { return };
            let Some(starting) = process.starting.get_mut(&attempt) else { continue };
            let leased_ms = starting.leased_ms.max(process.leased_ms);
            let unguarded = matches!(self.guard, Some(Guard::FreshWord | Guard::AskBeforeStart));
            if unguarded || is_fresh(leased_ms, starting.job.runner_grace_ms, now_ms) {
                self.begin(attempt, leased_ms, now_ms);
            } else {
                self.stale_words += 1;
                starting.ready_at_ms = None;
                starting.not_before_ms = now_ms;
            }
        }
    }

    /// Tells a supervisor to begin.
    fn begin(&mut self, attempt: AttemptId, leased_ms: u64, now_ms: u64) {
        let Some(process) = &mut self.process else { return };
        let Some(Starting { job, .. }) = process.starting.remove(&attempt) else { return };
        if self.disk_is_full {
            // That it was told is on the disk, and more finds no room.
            let order = Order { outcome: unbegun(&job), reason: "its supervisor cannot be told to begin".to_owned() };
            return self.hand_in_unbegun(attempt, job.token, &order, Kept::ResultInMemory);
        }
        let on_runner_lost = match self.guard {
            // The guard taken out: nobody ends a job whose lease ran out.
            Some(Guard::LeaseEnd) => forge_api::OnRunnerLost::Fail,
            _ => job.on_runner_lost,
        };
        let runner_grace_ms = match self.guard {
            Some(Guard::LeaseEnd) => u64::MAX,
            _ => job.runner_grace_ms,
        };
        let terms = Terms { timeout_ms: job.timeout_ms, runner_grace_ms, on_runner_lost };
        let resume = job.resume.as_ref().map(|carry| carry.attempt);
        if resume.is_some() && self.random.between(0, 2) == 0 {
            let order = Order { outcome: AttemptOutcome::Retry, reason: "its plan cannot be had".to_owned() };
            return self.hand_in_unbegun(attempt, job.token, &order, Kept::OnDisk);
        }
        let outcome = match self.random.between(0, 99) {
            0..60 if job.template == "planned" && resume.is_none() => AttemptOutcome::AwaitsApproval,
            0..70 => AttemptOutcome::Succeeded,
            _ => AttemptOutcome::Failed,
        };
        let is_quick = is_eager(self.guard) || self.random.between(0, 1) == 0;
        let begins_ms = if is_quick { 0 } else { self.random.between(0, BEGINS_MS_MAX) };
        let running = Running {
            terms,
            contact: Contact { started_ms: now_ms, heard_ms: now_ms, leased_ms },
            resume,
            outcome,
            stage: Stage::BeginsAt(now_ms + begins_ms),
            ends_at_ms: self.random.between(0, 120_000),
            writes_at_ms: 0,
            has_reserve: self.random.between(0, 4) > 0,
            naps_until_ms: now_ms,
            order: None,
        };
        let spooled = Spooled {
            token: job.token.clone(),
            log: Vec::new(),
            result: None,
            running: Some(running),
            began: false,
            kept: Kept::OnDisk,
            spool: Spool::Whole,
        };
        self.spool(attempt, spooled);
    }

    /// An order that comes before there is a supervisor: the end is handed in without one.
    fn end_unstarted(&mut self, attempt: AttemptId, why: EndWhy) {
        let Some(process) = &mut self.process else { return };
        let Some(Starting { job, .. }) = process.starting.remove(&attempt) else { return };
        self.hand_in_unbegun(attempt, job.token, &why.order(), Kept::OnDisk);
    }

    fn end(&mut self, attempt: AttemptId, why: EndWhy, now_ms: u64) {
        if self.process.as_ref().is_some_and(|process| process.starting.contains_key(&attempt)) {
            self.end_unstarted(attempt, why);
        }
        self.order(attempt, why.order(), now_ms);
    }
}

/// Whether every supervisor is ready at once: a guard that is taken out is looked for where no other one has time to step in.
fn is_eager(guard: Option<Guard>) -> bool {
    guard.is_some_and(|guard| guard != Guard::FreshWord)
}

/// How an attempt ended that could not begin.
fn unbegun(job: &Job) -> AttemptOutcome {
    if job.resume.is_some() { AttemptOutcome::Retry } else { AttemptOutcome::Failed }
}

fn failure(failed: Failed, process: &Process, now_ms: u64) -> Failure {
    match failed {
        Failed::Unreachable => Failure::Passing("nobody answers".to_owned()),
        Failed::Problem(problem) => {
            let start = if process.identity.previous_sessions.is_empty() { Start::First } else { Start::Again };
            forge_runner::rules::failure(*problem, start, now_ms.saturating_sub(process.started_ms))
        }
    }
}

fn result_of(order: &Order, log: &[u8]) -> AttemptResult {
    let sha256 = ring::digest::digest(&ring::digest::SHA256, log);
    AttemptResult {
        outcome: order.outcome,
        reason: Some(order.reason.clone()),
        exit_code: None,
        summary: None,
        commit: None,
        log_length: log.len() as u64,
        log_sha256: sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        carry: None,
        no_retry: false,
        retry_after_ms: None,
        nothing_ran: false,
    }
}
