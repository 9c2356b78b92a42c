//! The HTTPS calls of a runner, one function a route, and their errors sorted by what to do next.
//!
//! It retries nothing: whoever calls knows whether and when to.

use std::time::Duration;

use bytes::Bytes;
use forge_api::{
    API_PREFIX, AttemptId, AttemptResult, CARRY_BYTES_MAX, CARRY_OVERHEAD_BYTES_MAX, ClaimRequest, ClaimResponse,
    ContentRange, HeartbeatRequest, HeartbeatResponse, JSON_BODY_BYTES_MAX, LogAccepted, PLUGIN_BYTES_MAX, Problem,
    RegisterRequest, RegisterResponse, ResultAccepted, Secret, StartRequest, StartResponse,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use tokio_util::io::ReaderStream;

use crate::settings::Settings;
use crate::{settings, trust};

/// How long a call may take from its first byte to its last.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer than its own wait a claim may take.
const CLAIM_MARGIN: Duration = Duration::from_secs(10);

/// How long the download of a plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a call had no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer: worth another try.
    #[error("{0}")]
    Unreachable(String),
    /// The daemon answered with a problem.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Something answered that is no Forge daemon, or no daemon of this version.
    #[error("{0}")]
    Garbled(String),
    /// Something on the way to the daemon takes no body of this length.
    #[error("{0}")]
    TooLarge(String),
}

impl CallError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Garbled(_) | Self::TooLarge(_) => true,
            Self::Problem(problem) => matches!(problem.status, 408 | 425 | 429 | 500..=599),
        }
    }

    /// Whether the daemon answered with the problem of this slug.
    pub(crate) fn is_problem(&self, slug: &str) -> bool {
        matches!(self, Self::Problem(problem) if problem.slug() == slug)
    }

    /// The HTTP status where the daemon answered.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Unreachable(_) | Self::Garbled(_) | Self::TooLarge(_) => None,
        }
    }
}

/// The daemon as one runner sees it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    shown: String,
}

impl Client {
    /// A client for the daemon of `settings`.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ClientError> {
        let url = settings::base_url(&settings.web_host)?;
        let shown = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http: trust::http_client(&settings.trust)?, base: format!("{shown}{API_PREFIX}"), shown })
    }

    /// Where the daemon is, for people.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn request(&self, method: Method, path: &str, token: &Secret) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token.reveal()).timeout(CALL_TIMEOUT)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.problem(response).await) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CallError {
        CallError::Unreachable(trust::explain(error, &self.shown))
    }

    async fn problem(&self, response: Response) -> CallError {
        let status = response.status();
        let body = match self.body(response, JSON_BODY_BYTES_MAX).await {
            Ok(body) => body,
            // Who refuses a body hangs up while it is still sent, at times in the middle of saying so.
            Err(_) if status == StatusCode::PAYLOAD_TOO_LARGE => Vec::new(),
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => CallError::Problem(Box::new(problem)),
            Err(_) if status == StatusCode::PAYLOAD_TOO_LARGE => CallError::TooLarge(format!(
                "a proxy before {} takes no body of this length ({}): let it take bodies of {} MiB",
                self.shown,
                heard(status, &body),
                (CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX).div_ceil(1 << 20)
            )),
            // A gateway that reaches no daemon says so in its own words: the daemon is away.
            Err(_) if matches!(status.as_u16(), 502..=504) => CallError::Unreachable(self.stranger(status, &body)),
            Err(_) => CallError::Garbled(self.stranger(status, &body)),
        }
    }

    fn stranger(&self, status: StatusCode, body: &[u8]) -> String {
        format!(
            "what answers at {} is no Forge daemon ({}): is web_host right, and is a proxy in between?",
            self.shown,
            heard(status, body)
        )
    }

    async fn body(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(CallError::Garbled(format!(
                    "an answer of {} is longer than {bytes_max} bytes: its version does not fit this runner's",
                    self.shown
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder, bytes_max: usize) -> Result<T, CallError> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = self.body(response, bytes_max).await?;
        serde_json::from_slice(&body).map_err(|_| CallError::Garbled(self.stranger(status, &body)))
    }

    /// `POST /runners`.
    pub(crate) async fn register(&self, token: &Secret, body: &RegisterRequest) -> Result<RegisterResponse, CallError> {
        self.json(self.request(Method::POST, "/runners", token).json(body), JSON_BODY_BYTES_MAX).await
    }

    /// `DELETE /runner`.
    pub(crate) async fn unregister(&self, token: &Secret) -> Result<(), CallError> {
        self.send(self.request(Method::DELETE, "/runner", token)).await.map(drop)
    }

    /// `POST /runner/claim`.
    pub(crate) async fn claim(&self, token: &Secret, body: &ClaimRequest) -> Result<ClaimResponse, CallError> {
        let timeout = Duration::from_millis(body.wait_ms) + CLAIM_MARGIN;
        // One answer may carry a job for each free slot, each as large as a JSON body may be; the daemon bounds the number.
        let bytes_max = JSON_BODY_BYTES_MAX * CLAIM_JOBS_MAX as usize;
        self.json(self.request(Method::POST, "/runner/claim", token).json(body).timeout(timeout), bytes_max).await
    }

    /// `POST /runner/heartbeat`.
    pub(crate) async fn heartbeat(
        &self,
        token: &Secret,
        body: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, CallError> {
        let request = self.request(Method::POST, "/runner/heartbeat", token).json(body).timeout(HEARTBEAT_TIMEOUT);
        self.json(request, JSON_BODY_BYTES_MAX).await
    }

    /// `GET /plugins/{sha256}`.
    pub(crate) async fn plugin(&self, token: &Secret, sha256: &str) -> Result<Vec<u8>, CallError> {
        let request = self.request(Method::GET, &format!("/plugins/{sha256}"), token).timeout(PLUGIN_TIMEOUT);
        let response = self.send(request).await?;
        self.body(response, PLUGIN_BYTES_MAX).await
    }

    /// `POST /attempts/{id}/start`.
    pub(crate) async fn start(
        &self,
        token: &Secret,
        attempt: AttemptId,
        body: &StartRequest,
    ) -> Result<StartResponse, CallError> {
        let request = self.request(Method::POST, &format!("/attempts/{attempt}/start"), token).json(body);
        self.json(request, JSON_BODY_BYTES_MAX).await
    }

    /// `PATCH /attempts/{id}/log`.
    pub(crate) async fn append_log(
        &self,
        token: &Secret,
        attempt: AttemptId,
        range: ContentRange,
        bytes: Bytes,
    ) -> Result<LogAccepted, CallError> {
        let request = self
            .request(Method::PATCH, &format!("/attempts/{attempt}/log"), token)
            .header(reqwest::header::CONTENT_RANGE, range.to_string())
            .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
            .body(bytes);
        self.json(request, JSON_BODY_BYTES_MAX).await
    }

    /// `PUT /attempts/{id}/result`.
    pub(crate) async fn finish(
        &self,
        token: &Secret,
        attempt: AttemptId,
        body: &AttemptResult,
    ) -> Result<ResultAccepted, CallError> {
        self.json(
            self.request(Method::PUT, &format!("/attempts/{attempt}/result"), token).json(body),
            JSON_BODY_BYTES_MAX,
        )
        .await
    }

    /// `PUT /attempts/{id}/carry`.
    pub(crate) async fn put_carry(
        &self,
        token: &Secret,
        attempt: AttemptId,
        length: u64,
        file: tokio::fs::File,
    ) -> Result<(), CallError> {
        let request = self
            .request(Method::PUT, &format!("/attempts/{attempt}/carry"), token)
            .timeout(CARRY_TIMEOUT)
            .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
        self.send(request).await.map(drop)
    }

    /// `GET /attempts/{id}/carry`, of the length that the job names.
    pub(crate) async fn carry(&self, token: &Secret, attempt: AttemptId, length: u64) -> Result<Vec<u8>, CallError> {
        let request = self.request(Method::GET, &format!("/attempts/{attempt}/carry"), token).timeout(CARRY_TIMEOUT);
        let response = self.send(request).await?;
        let bytes_max = usize::try_from(length).unwrap_or(usize::MAX).min(CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX);
        self.body(response, bytes_max).await
    }
}

/// What a stranger said, in short.
fn heard(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
    format!("HTTP {status}: {:?}", text.lines().next().unwrap_or_default())
}

/// How long what an attempt carries over an approval may take on its way.
const CARRY_TIMEOUT: Duration = Duration::from_secs(300);

/// The most jobs that one claim asks for.
pub(crate) const CLAIM_JOBS_MAX: u32 = 64;

/// How long a heartbeat may take: a late one is as good as none, and the next is due.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The URL.
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    /// The certificates.
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
}
