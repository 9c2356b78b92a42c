//! A runner without processes: it registers, claims, opens what is sealed to it, starts, sends logs and ends attempts over the
//! API, as a real one does. It does not check the daemon's signature: that is no work of the daemon's, which is what is measured.

use std::sync::Arc;

use age::x25519::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use forge_api::{
    AttemptId, AttemptOutcome, AttemptResult, CLAIM_WAIT_MS_MAX, ClaimRequest, ClaimResponse, ContentRange, Job,
    LogAccepted, RegisterRequest, RegisterResponse, ResultAccepted, SealedJob, Secret, StartRequest, StartResponse,
};
use http::Method;

use super::wire::{Body, Connection, Endpoint};
use crate::error::CliError;

/// A simulated runner and its one connection.
pub(super) struct Simulated {
    connection: Connection,
    identity: Identity,
    token: Secret,
    name: String,
    held: Vec<AttemptId>,
}

/// An attempt that it holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) attempt: AttemptId,
    token: Secret,
}

impl Simulated {
    /// Registers a runner of this name.
    pub(super) async fn register(endpoint: &Arc<Endpoint>, name: String, token: &Secret) -> Result<Self, CliError> {
        let identity = Identity::generate();
        let request = RegisterRequest {
            name: name.clone(),
            public_key: identity.to_public().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_parallel_tasks: 0,
            one_off: false,
            ..RegisterRequest::default()
        };
        let mut connection = Connection::new(endpoint);
        let body = Body::json(&request)?;
        let registered: RegisterResponse = connection.json(Method::POST, "/runners", token.reveal(), body).await?;
        let sealed = registered.sealed_token_bytes().unwrap_or_default();
        let token = age::decrypt(&identity, &sealed)
            .map_err(|error| CliError::failed(format_args!("the token of {name} does not open: {error}")))?;
        let token = Secret::new(String::from_utf8(token).map_err(CliError::failed)?);
        Ok(Self { connection, identity, token, name, held: Vec::new() })
    }

    /// Asks for at most `slots` attempts and waits for them as long as a claim may.
    pub(super) async fn claim(&mut self, slots: u32) -> Result<Vec<Held>, CliError> {
        let request = ClaimRequest {
            session: format!("{}-bench", self.name),
            previous_sessions: Vec::new(),
            wait_ms: CLAIM_WAIT_MS_MAX,
            slots,
            max_parallel_tasks: 0,
            held: self.held.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            resumes: true,
            ..ClaimRequest::default()
        };
        let body = Body::json(&request)?;
        let response: ClaimResponse =
            self.connection.json(Method::POST, "/runner/claim", self.token.reveal(), body).await?;
        let opened = response.jobs.iter().map(|sealed| self.open(sealed)).collect::<Result<Vec<_>, _>>()?;
        self.held.extend(opened.iter().map(|held| held.attempt));
        Ok(opened)
    }

    fn open(&self, sealed: &SealedJob) -> Result<Held, CliError> {
        let garbled = |error: &dyn std::fmt::Display| {
            CliError::failed(format_args!("the job of attempt {} does not open: {error}", sealed.attempt))
        };
        let bytes = STANDARD.decode(&sealed.sealed).map_err(|error| garbled(&error))?;
        let json = age::decrypt(&self.identity, &bytes).map_err(|error| garbled(&error))?;
        let job: Job = serde_json::from_slice(&json).map_err(|error| garbled(&error))?;
        Ok(Held { attempt: job.attempt, token: job.token })
    }

    /// Says that an attempt's process is about to run.
    pub(super) async fn start(&mut self, held: &Held) -> Result<(), CliError> {
        let path = format!("/attempts/{}/start", held.attempt);
        let body = Body::json(&StartRequest::default())?;
        let _answer: StartResponse = self.connection.json(Method::POST, &path, held.token.reveal(), body).await?;
        Ok(())
    }

    /// Sends a piece of an attempt's log.
    pub(super) async fn append(&mut self, held: &Held, first: u64, bytes: Bytes) -> Result<LogAccepted, CliError> {
        let path = format!("/attempts/{}/log", held.attempt);
        let range =
            ContentRange::of(first, bytes.len() as u64).ok_or_else(|| CliError::failed("a piece of a log is empty"))?;
        let body = Body::Log(range.to_string(), bytes);
        self.connection.json(Method::PATCH, &path, held.token.reveal(), body).await
    }

    /// Says that an attempt succeeded, with a log of this length and hash.
    pub(super) async fn finish(
        &mut self,
        held: Held,
        log_length: u64,
        log_sha256: &str,
    ) -> Result<ResultAccepted, CliError> {
        let result = AttemptResult {
            outcome: AttemptOutcome::Succeeded,
            reason: None,
            exit_code: Some(0),
            summary: None,
            commit: None,
            log_length,
            log_sha256: log_sha256.to_owned(),
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        };
        let path = format!("/attempts/{}/result", held.attempt);
        let accepted: ResultAccepted =
            self.connection.json(Method::PUT, &path, held.token.reveal(), Body::json(&result)?).await?;
        self.held.retain(|attempt| *attempt != held.attempt);
        if accepted.counted && accepted.log_whole {
            Ok(accepted)
        } else {
            Err(CliError::failed(format_args!("the end of attempt {} was not taken whole", held.attempt)))
        }
    }
}
