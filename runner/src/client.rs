//! The HTTPS calls of a runner, one function a route, and their errors sorted by what to do next.
//!
//! It retries nothing: whoever calls knows whether and when to.

use std::time::Duration;

use bytes::Bytes;
use forge_api::{
    API_PREFIX, AttemptId, AttemptResult, CARRY_BYTES_MAX, CARRY_OVERHEAD_BYTES_MAX, ClaimRequest, ClaimResponse,
    ContentRange, HeartbeatRequest, HeartbeatResponse, JSON_BODY_BYTES_MAX, LOG_CHUNK_BYTES_MAX, LogAccepted,
    PLUGIN_BYTES_MAX, Problem, RegisterRequest, RegisterResponse, ResultAccepted, Secret, StartRequest, StartResponse,
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
        self.send_up_to(request, JSON_BODY_BYTES_MAX.max(LOG_CHUNK_BYTES_MAX)).await
    }

    /// Sends what may have so many bytes.
    async fn send_up_to(&self, request: RequestBuilder, bytes_max: usize) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.problem(response, bytes_max).await) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CallError {
        CallError::Unreachable(trust::explain(error, &self.shown))
    }

    /// What an answer that is no success says; the request may have had so many bytes.
    async fn problem(&self, response: Response, sent_bytes_max: usize) -> CallError {
        let status = response.status();
        let body = match self.body(response, Answer::JSON).await {
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
                sent_bytes_max.div_ceil(1 << 20)
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

    async fn body(&self, response: Response, answer: Answer) -> Result<Vec<u8>, CallError> {
        let body = self.read(response, answer.bytes_max).await?;
        if body.len() <= answer.bytes_max { Ok(body) } else { Err(CallError::Garbled(answer.too_long(&self.shown))) }
    }

    /// The whole body, or its begin, which is longer than `bytes_max`.
    async fn read(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while body.len() <= bytes_max
            && let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))?
        {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder, answer: Answer) -> Result<T, CallError> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = self.body(response, answer).await?;
        serde_json::from_slice(&body).map_err(|_| CallError::Garbled(self.stranger(status, &body)))
    }

    /// `POST /runners`.
    pub(crate) async fn register(&self, token: &Secret, body: &RegisterRequest) -> Result<RegisterResponse, CallError> {
        self.json(self.request(Method::POST, "/runners", token).json(body), Answer::JSON).await
    }

    /// `DELETE /runner`.
    pub(crate) async fn unregister(&self, token: &Secret) -> Result<(), CallError> {
        self.send(self.request(Method::DELETE, "/runner", token)).await.map(drop)
    }

    /// `POST /runner/claim`.
    pub(crate) async fn claim(&self, token: &Secret, body: &ClaimRequest) -> Result<ClaimResponse, CallError> {
        let timeout = Duration::from_millis(body.wait_ms) + CLAIM_MARGIN;
        self.json(self.request(Method::POST, "/runner/claim", token).json(body).timeout(timeout), Answer::JOBS).await
    }

    /// `POST /runner/heartbeat`.
    pub(crate) async fn heartbeat(
        &self,
        token: &Secret,
        body: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, CallError> {
        let request = self.request(Method::POST, "/runner/heartbeat", token).json(body).timeout(HEARTBEAT_TIMEOUT);
        self.json(request, Answer::JSON).await
    }

    /// `GET /plugins/{sha256}`.
    pub(crate) async fn plugin(&self, token: &Secret, sha256: &str) -> Result<Vec<u8>, CallError> {
        let request = self.request(Method::GET, &format!("/plugins/{sha256}"), token).timeout(PLUGIN_TIMEOUT);
        let response = self.send(request).await?;
        self.body(response, Answer::PLUGIN).await
    }

    /// `POST /attempts/{id}/start`.
    pub(crate) async fn start(
        &self,
        token: &Secret,
        attempt: AttemptId,
        body: &StartRequest,
    ) -> Result<StartResponse, CallError> {
        let request = self.request(Method::POST, &format!("/attempts/{attempt}/start"), token).json(body);
        self.json(request, Answer::JSON).await
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
        self.json(request, Answer::JSON).await
    }

    /// `PUT /attempts/{id}/result`.
    pub(crate) async fn finish(
        &self,
        token: &Secret,
        attempt: AttemptId,
        body: &AttemptResult,
    ) -> Result<ResultAccepted, CallError> {
        self.json(self.request(Method::PUT, &format!("/attempts/{attempt}/result"), token).json(body), Answer::JSON)
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
        self.send_up_to(request, CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX).await.map(drop)
    }

    /// `GET /attempts/{id}/carry`, of the length that the job names. What is longer is cut behind that: it is not what was approved.
    pub(crate) async fn carry(&self, token: &Secret, attempt: AttemptId, length: u64) -> Result<Vec<u8>, CallError> {
        let request = self.request(Method::GET, &format!("/attempts/{attempt}/carry"), token).timeout(CARRY_TIMEOUT);
        let response = self.send(request).await?;
        let bytes_max = usize::try_from(length).unwrap_or(usize::MAX).min(CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX);
        self.read(response, bytes_max).await
    }
}

/// What is asked for, and how long it may be.
#[derive(Clone, Copy)]
struct Answer {
    /// In words.
    what: &'static str,
    bytes_max: usize,
    /// What a longer one most likely means.
    longer: &'static str,
}

impl Answer {
    const JSON: Self = Self {
        what: "an answer",
        bytes_max: JSON_BODY_BYTES_MAX,
        longer: "its version does not fit this runner's, or something in between answers in its place",
    };
    /// One answer may carry a job for each free slot, each as large as a JSON body may be before it is sealed; the daemon bounds the number.
    const JOBS: Self = Self {
        what: "the jobs of one claim",
        bytes_max: SEALED_JOB_BYTES_MAX * CLAIM_JOBS_MAX as usize,
        longer: "its version does not fit this runner's",
    };
    const PLUGIN: Self = Self {
        what: "a plugin",
        bytes_max: PLUGIN_BYTES_MAX,
        longer: "no plugin is so long; something between daemon and runner changes what it passes on, or the file in plugins of data_dir is damaged",
    };

    fn too_long(self, shown: &str) -> String {
        let Self { what, bytes_max, longer } = self;
        format!("{what} from {shown} is longer than {bytes_max} bytes: {longer}")
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

/// How long a sealed job may be: base64 makes four bytes of three, and it is signed and encrypted.
const SEALED_JOB_BYTES_MAX: usize = JSON_BODY_BYTES_MAX / 3 * 4 + 16 * 1024;

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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_claim_with_all_the_jobs_that_it_asks_for_fits() {
        let recipient = age::x25519::Identity::generate().to_public();
        let job = age::encrypt(&recipient, &vec![b'x'; JSON_BODY_BYTES_MAX]).expect("sealed");
        let sealed = STANDARD.encode(job).len();
        assert!(Answer::JOBS.bytes_max > sealed * CLAIM_JOBS_MAX as usize, "{sealed} bytes each");
    }
}
