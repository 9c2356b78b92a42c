//! A runner whose program is the test: it registers with a key of its own, and says by hand over HTTPS what a runner says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{AttemptOutcome, AttemptResult, Carry, ClaimResponse, Job, RegisterResponse};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{REGISTRATION_TOKEN, Running};

/// The version that it says it has.
const VERSION: &str = "0.1.0";

/// The SHA-256 of some bytes, in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The runner.
pub(crate) struct ByHand<'a> {
    daemon: &'a Running,
    name: String,
    key: age::x25519::Identity,
    /// Empty until it has registered.
    pub(crate) token: String,
}

impl<'a> ByHand<'a> {
    /// One that has not registered.
    pub(crate) fn new(daemon: &'a Running, name: &str) -> Self {
        Self { daemon, name: name.to_owned(), key: age::x25519::Identity::generate(), token: String::new() }
    }

    /// One that has.
    pub(crate) async fn registered(daemon: &'a Running, name: &str) -> Self {
        let mut runner = Self::new(daemon, name);
        let answer = runner.registration().send().await.expect("an answer");
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap_or_default());
        runner.take_token(&answer.json().await.expect("a registration"));
        runner
    }

    /// What it registers with.
    pub(crate) fn registration_body(&self) -> Value {
        json!({"name": self.name, "public_key": self.key.to_public().to_string(), "version": VERSION})
    }

    /// Its request to be registered.
    pub(crate) fn registration(&self) -> RequestBuilder {
        self.daemon.request(Method::POST, "/runners", REGISTRATION_TOKEN).json(&self.registration_body())
    }

    /// Opens the token that it was given.
    pub(crate) fn take_token(&mut self, registered: &RegisterResponse) {
        let sealed = registered.sealed_token_bytes().expect("base64");
        self.token = String::from_utf8(age::decrypt(&self.key, &sealed).expect("sealed to us")).expect("text");
    }

    /// A claim that takes one task and waits for so long.
    pub(crate) fn claim(&self, wait_ms: u64) -> RequestBuilder {
        let body = json!({"session": "s1", "wait_ms": wait_ms, "slots": 1, "max_parallel_tasks": 0, "held": [], "version": VERSION, "resumes": true});
        self.daemon.request(Method::POST, "/runner/claim", &self.token).json(&body)
    }

    /// What it says while it holds these attempts.
    pub(crate) fn heartbeat(&self, held: &[&str]) -> RequestBuilder {
        let body = json!({"session": "s1", "held": held, "version": VERSION});
        self.daemon.request(Method::POST, "/runner/heartbeat", &self.token).json(&body)
    }

    /// The one job of a claim's answer.
    pub(crate) fn open(&self, claimed: &ClaimResponse) -> ByHandAttempt<'a> {
        let [sealed] = claimed.jobs.as_slice() else { panic!("one job: {claimed:?}") };
        let bytes = STANDARD.decode(&sealed.sealed).expect("base64");
        let job: Job = serde_json::from_slice(&age::decrypt(&self.key, &bytes).expect("sealed to us")).expect("a job");
        ByHandAttempt { daemon: self.daemon, id: job.attempt.to_string(), job }
    }

    /// Claims until there is a job, and begins it.
    pub(crate) async fn begin(&self) -> ByHandAttempt<'a> {
        let claimed = self.claim(20_000).send().await.expect("an answer").json().await.expect("a claim");
        let attempt = self.open(&claimed);
        assert_eq!(done(attempt.start()).await, 200);
        attempt
    }
}

/// One attempt of it.
pub(crate) struct ByHandAttempt<'a> {
    daemon: &'a Running,
    /// As paths name it.
    pub(crate) id: String,
    pub(crate) job: Job,
}

impl ByHandAttempt<'_> {
    fn request(&self, method: Method, what: &str) -> RequestBuilder {
        self.daemon.request(method, &format!("/attempts/{}/{what}", self.id), self.job.token.reveal())
    }

    /// Says that its process is about to run.
    pub(crate) fn start(&self) -> RequestBuilder {
        self.request(Method::POST, "start").json(&json!({"session": "s1"}))
    }

    /// Hands in bytes of its log from `from` on.
    pub(crate) fn log(&self, from: usize, bytes: &str) -> RequestBuilder {
        let range = format!("bytes {from}-{}/*", from + bytes.len() - 1);
        self.request(Method::PATCH, "log").header("content-range", range).body(bytes.to_owned())
    }

    /// Leaves what its plan hands on.
    pub(crate) fn carry(&self, bytes: &str) -> RequestBuilder {
        self.request(Method::PUT, "carry").header("content-type", "application/octet-stream").body(bytes.to_owned())
    }

    /// Fetches what an approved plan has left.
    pub(crate) fn carried(&self) -> RequestBuilder {
        self.request(Method::GET, "carry")
    }

    /// Says how it ended, after this log; `plan` is what it handed on, where it has planned.
    pub(crate) fn result(&self, outcome: AttemptOutcome, log: &str, plan: Option<&str>) -> RequestBuilder {
        let carry = plan.map(|plan| Carry {
            attempt: self.job.attempt,
            length: plan.len() as u64,
            sha256: sha256(plan.as_bytes()),
        });
        let result = AttemptResult {
            outcome,
            reason: None,
            exit_code: Some(0),
            summary: Some(json!({"text": "done by hand"})),
            commit: None,
            log_length: log.len() as u64,
            log_sha256: sha256(log.as_bytes()),
            carry,
            no_retry: false,
            nothing_ran: false,
            retry_after_ms: None,
        };
        self.request(Method::PUT, "result").json(&result)
    }
}

/// The status of an answer.
pub(crate) async fn done(request: RequestBuilder) -> u16 {
    let answer: Response = request.send().await.expect("an answer");
    answer.status().as_u16()
}
