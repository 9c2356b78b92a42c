//! A runner's machine: the shipped session and warden, with a simulated disk, simulated supervisors and simulated jobs.
//!
//! What the runner does around those rules (ask before a start, send what its delivery says, remove the spool when that is done) is done
//! here in the same order, without files and processes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, HEARTBEAT_INTERVAL_MS, Job, LOG_DIFFERS, RegisterResponse, Secret,
    Timestamp,
};
use forge_runner::rules::{
    Action, Again, Contact, Delivery, EndWhy, Failure, Input, Opener, Order, PieceFault, ResultFault, Session, Spool,
    Start, Step, Terms, Verdict, alive_interval_ms, is_fresh, verdict,
};

use crate::Guard;
use crate::message::{Answer, Bearer, Failed, Identity, Request};
use crate::random::Random;

/// How long a process may take to die once it is told to, in milliseconds.
const DEATH_MS_MAX: u64 = 3_000;

/// The longest pause after a failure, in milliseconds.
const PAUSE_MS_MAX: u64 = 5_000;

/// The most bytes of a log patch here: small, so that there are many.
const PATCH_BYTES_MAX: u64 = 64;

/// A job's process and its supervisor: they outlive the runner.
#[derive(Debug)]
struct Running {
    terms: Terms,
    contact: Contact,
    ends_at_ms: u64,
    outcome: AttemptOutcome,
    writes_at_ms: u64,
    /// Told to end, and when it is dead.
    order: Option<(Order, u64)>,
}

/// What lies on the machine's disk of an attempt.
#[derive(Debug)]
struct Spooled {
    token: Secret,
    log: Vec<u8>,
    result: Option<AttemptResult>,
    running: Option<Running>,
    /// Whether a power cut may have taken some of the log.
    spool: Spool,
}

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
}

/// The runner's process.
#[derive(Debug)]
struct Process {
    session: Session,
    identity: Identity,
    started_ms: u64,
    /// SIGSTOP: it does nothing, and what comes waits.
    stopped: bool,
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

    /// Attempts whose process lives.
    pub(crate) fn running(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.disk.iter().filter(|(_, spooled)| spooled.running.is_some()).map(|(id, _)| *id)
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
        self.process = Some(process);
    }

    /// SIGKILL to the runner; its supervisors live on.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// The machine loses power: what ran is gone, and of each log some of the end that was not on the disk yet.
    pub(crate) fn lose_power(&mut self) {
        self.kill();
        for (attempt, spooled) in &mut self.disk {
            let length = spooled.log.len();
            let left = usize::try_from(self.random.between(0, length as u64)).expect("small");
            let ran = spooled.running.take().is_some();
            spooled.spool = Spool::MayBeShorter;
            if left == length && !ran {
                continue;
            }
            spooled.log.truncate(left);
            let end = if spooled.log.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
            spooled.log.extend_from_slice(format!("{end}[forge] {attempt} lost its machine\n").as_bytes());
            let outcome = spooled.result.as_ref().map_or(AttemptOutcome::Lost, |result| result.outcome);
            let order = Order { outcome, reason: "the machine started anew".to_owned() };
            spooled.result = Some(result_of(&order, &spooled.log));
            self.left.entry(*attempt).or_default().push(spooled.log.clone());
        }
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
        self.supervise(now_ms);
        let heard = match &mut self.process {
            Some(process) if !process.stopped => std::mem::take(&mut process.waiting),
            _ => return effects,
        };
        for (ticket, answer) in heard {
            self.answered(ticket, answer, now_ms, now, &mut effects);
        }
        self.ask(now_ms, &mut effects);
        effects
    }

    /// An answer arrives.
    pub(crate) fn hear(&mut self, ticket: u64, answer: Answer, now_ms: u64, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &mut self.process {
            Some(process) if process.stopped => process.waiting.push((ticket, answer)),
            Some(_) => {
                self.answered(ticket, answer, now_ms, now, &mut effects);
                self.ask(now_ms, &mut effects);
            }
            None => {}
        }
        effects
    }

    fn supervise(&mut self, now_ms: u64) {
        let alive = self.process.as_ref().filter(|process| !process.stopped).map(|process| process.leased_ms);
        for (attempt, spooled) in &mut self.disk {
            let Some(running) = &mut spooled.running else { continue };
            if let Some(leased_ms) = alive {
                running.contact.heard_ms = now_ms;
                running.contact.leased_ms = running.contact.leased_ms.max(leased_ms);
            }
            if running.order.is_none()
                && let Verdict::End(order) = verdict(running.terms, running.contact, now_ms)
            {
                running.order = Some((order, now_ms + self.random.between(0, DEATH_MS_MAX)));
            }
            let dead_at = running.order.as_ref().map_or(u64::MAX, |(_, dead_at_ms)| *dead_at_ms);
            let ends_at = running.ends_at_ms.min(dead_at);
            while running.writes_at_ms <= now_ms.min(ends_at) {
                let line = format!("{attempt} at {}\n", running.writes_at_ms);
                spooled.log.extend_from_slice(line.as_bytes());
                self.written.entry(*attempt).or_default().extend_from_slice(line.as_bytes());
                running.writes_at_ms += self.random.between(200, 4_000);
            }
            if now_ms >= ends_at {
                let order = match &running.order {
                    Some((order, _)) => order.clone(),
                    None => Order { outcome: running.outcome, reason: "it ended".to_owned() },
                };
                spooled.result = Some(result_of(&order, &spooled.log));
                spooled.running = None;
            }
        }
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
            if starting.in_flight.is_none() && now_ms >= starting.not_before_ms {
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
                self.input(input, 0, now_ms, now, effects);
            }
            Answer::Start(attempt, answer) => {
                let Some(starting) = process.starting.get_mut(&attempt) else { return };
                let Some((_, sent_ms)) = starting.in_flight.take_if(|(expected, _)| *expected == ticket) else {
                    return;
                };
                match answer {
                    Ok(answer) if answer.cancel => self.end_unstarted(attempt, EndWhy::Canceled),
                    Ok(_) if is_fresh(sent_ms, starting.job.runner_grace_ms, now_ms) => {
                        starting.leased_ms = starting.leased_ms.max(sent_ms);
                        self.begin(attempt, now_ms, effects);
                    }
                    Ok(_) => starting.not_before_ms = now_ms,
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
                        Ok(job) => self.take(job, leased_ms, now_ms, effects),
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

    fn take(&mut self, job: Job, leased_ms: u64, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(process) = &mut self.process else { return };
        let attempt = job.attempt;
        process.starting.insert(attempt, Starting { job, leased_ms, in_flight: None, not_before_ms: now_ms });
        // The guard taken out: the process does not wait for the daemon's word.
        if self.guard == Some(Guard::AskBeforeStart) {
            self.begin(attempt, now_ms, effects);
        }
    }

    fn begin(&mut self, attempt: AttemptId, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(process) = &mut self.process else { return };
        let Some(Starting { job, leased_ms, .. }) = process.starting.remove(&attempt) else { return };
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
            return self.hand_in_unbegun(attempt, job.token, &order);
        }
        let outcome = match self.random.between(0, 99) {
            0..60 if job.template == "planned" && resume.is_none() => AttemptOutcome::AwaitsApproval,
            0..70 => AttemptOutcome::Succeeded,
            _ => AttemptOutcome::Failed,
        };
        let running = Running {
            terms,
            contact: Contact { started_ms: now_ms, heard_ms: now_ms, leased_ms: leased_ms.max(process.leased_ms) },
            ends_at_ms: now_ms + self.random.between(0, 120_000),
            outcome,
            writes_at_ms: now_ms + self.random.between(0, 2_000),
            order: None,
        };
        let spooled = Spooled {
            token: job.token.clone(),
            log: Vec::new(),
            result: None,
            running: Some(running),
            spool: Spool::Whole,
        };
        self.disk.insert(attempt, spooled);
        process.uploads.insert(attempt, Upload::new(Spool::Whole));
        effects.push(Effect::Began { attempt, resume });
    }

    /// An order that comes before there is a supervisor: the end is handed in without one.
    fn end_unstarted(&mut self, attempt: AttemptId, why: EndWhy) {
        let Some(process) = &mut self.process else { return };
        let Some(Starting { job, .. }) = process.starting.remove(&attempt) else { return };
        self.hand_in_unbegun(attempt, job.token, &why.order());
    }

    /// Hands in the end of an attempt of which nothing ran.
    fn hand_in_unbegun(&mut self, attempt: AttemptId, token: Secret, order: &Order) {
        let Some(process) = &mut self.process else { return };
        let result = Some(AttemptResult { nothing_ran: true, ..result_of(order, b"") });
        let spooled = Spooled { token, log: Vec::new(), result, running: None, spool: Spool::Whole };
        self.disk.insert(attempt, spooled);
        process.uploads.insert(attempt, Upload::new(Spool::Whole));
    }

    fn end(&mut self, attempt: AttemptId, why: EndWhy, now_ms: u64) {
        if self.process.as_ref().is_some_and(|process| process.starting.contains_key(&attempt)) {
            self.end_unstarted(attempt, why);
        }
        let dies_at_ms = now_ms + self.random.between(0, DEATH_MS_MAX);
        let running = self.disk.get_mut(&attempt).and_then(|spooled| spooled.running.as_mut());
        if let Some(running) = running {
            running.order.get_or_insert((why.order(), dies_at_ms));
        }
    }
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
