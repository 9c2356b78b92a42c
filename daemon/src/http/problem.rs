//! Every error of the API leaves through one type: a problem for the caller, and where it matters a sentence for the log.

use axum::Json;
use axum::response::{IntoResponse, Response};
use forge_api::{LOG_LENGTH_HEADER, PROBLEM_MEDIA_TYPE, Problem};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::core::CoreError;

/// What a route answers when it does not do what was asked.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Boxed: a refusal travels in every `Result` of the routes, and is rare.
    problem: Box<Problem>,
    retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal of a kind of its own.
    pub(crate) fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self { problem: Box::new(Problem::new(status, slug, title, detail)), retry_after_s: None }
    }

    /// The same with what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// The same with when to come back.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The request makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid", "Invalid request", detail)
    }

    /// There is none, or none that the caller may see: both are told alike.
    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::new(404, "not-found", "Not found", format!("there is no {what} {name:?}"))
    }

    /// No valid bearer.
    pub(crate) fn unauthorized(hint: &str) -> Self {
        Self::new(401, "unauthorized", "Unauthorized", "the token is missing or not valid here").hint(hint)
    }

    /// Nobody is signed in, or not any more. It is no sign of guessing, and is not counted.
    pub(crate) fn signed_out() -> Self {
        Self::new(401, "unauthorized", "Unauthorized", "nobody is signed in here, or not any more")
            .hint("sign in at /login; a program sends `Authorization: Bearer` and its token")
    }

    /// Which HTTP status it has.
    pub(crate) fn status(&self) -> u16 {
        self.problem.status
    }

    /// The bearer is known and its role does not reach so far.
    pub(crate) fn role(needed: &str, held: &str) -> Self {
        Self::new(403, "forbidden", "Forbidden", format!("this needs the role {needed}; the token's role is {held}"))
            .hint("use a token with that role, or raise `role` in the token's file under access/ of the tree")
    }
}

/// What a refusal said, beside its answer: for whoever says it in another form.
#[derive(Clone, Debug)]
pub(crate) struct Told(pub(crate) Box<Problem>);

/// The same, beside an answer that has its form already: it is only written down.
#[derive(Clone, Debug)]
pub(crate) struct Shown(pub(crate) Box<Problem>);

impl From<CoreError> for Refusal {
    fn from(error: CoreError) -> Self {
        // The caller is told that the log has the cause: so it must.
        if let CoreError::Internal(cause) = &error {
            tracing::error!(%cause, "a request failed inside the daemon");
        }
        let retry_after_s = match &error {
            CoreError::ShuttingDown => Some(1),
            CoreError::StorageFull { .. } | CoreError::StoreFull => Some(30),
            _ => None,
        };
        Self { problem: Box::new(error.problem()), retry_after_s }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = http::StatusCode::from_u16(self.problem.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let log_length = self.problem.log_length;
        let told = Told(self.problem.clone());
        let mut response = (status, Json(self.problem)).into_response();
        response.extensions_mut().insert(told);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(length) = log_length {
            headers.insert(LOG_LENGTH_HEADER, HeaderValue::from(length));
        }
        if status == http::StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
