//! The routes that runners use: registration, the long poll, heartbeats, plugins, and what attempts report.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use forge_api::{
    AttemptResult, ClaimRequest, ClaimResponse, ContentRange, HeartbeatRequest, HeartbeatResponse, LOG_LENGTH_HEADER,
    RegisterRequest, ResultAccepted, StartRequest, StartResponse,
};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use tokio_util::io::ReaderStream;

use super::answer::Peer;
use super::auth::{AttemptBearer, RegistrationBearer, RunnerBearer, count_registration};
use super::body::{JsonBody, LogBytes, StrangersJson};
use super::limits::FILE_PIECE_BYTES;
use super::path::PathOf;
use super::problem::Refusal;
use super::routes::Api;
use crate::core::DAEMON_VERSION;

/// `POST /runners`
pub(super) async fn register(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    RegistrationBearer(token): RegistrationBearer,
    StrangersJson(request): StrangersJson<RegisterRequest>,
) -> Result<Response, Refusal> {
    let registered = api.core.register_from(Some(peer.remote.ip().to_canonical()), &token, request).await;
    let registered = count_registration(registered, peer, &api)?;
    tracing::info!(runner = registered.name, remote = %peer.remote, "a runner registered");
    Ok((StatusCode::CREATED, Json(registered)).into_response())
}

/// `DELETE /runner`
pub(super) async fn unregister(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    RunnerBearer(runner): RunnerBearer,
) -> Result<StatusCode, Refusal> {
    api.core.unregister(&runner, Some(peer.remote.ip().to_canonical())).await?;
    tracing::info!(runner = runner.name(), "a runner unregistered");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /runner/claim`: the long poll. A client that goes away drops this future, and with it its place.
pub(super) async fn claim(
    State(api): State<Api>,
    RunnerBearer(runner): RunnerBearer,
    JsonBody(request): JsonBody<ClaimRequest>,
) -> Result<Json<ClaimResponse>, Refusal> {
    let answer = api.core.claim(&runner, request).await?;
    Ok(Json(ClaimResponse { daemon_version: DAEMON_VERSION.to_owned(), ..answer }))
}

/// `POST /runner/heartbeat`
pub(super) async fn heartbeat(
    State(api): State<Api>,
    RunnerBearer(runner): RunnerBearer,
    JsonBody(request): JsonBody<HeartbeatRequest>,
) -> Result<Json<HeartbeatResponse>, Refusal> {
    Ok(Json(api.core.heartbeat(&runner, request).await?))
}

/// `GET /plugins/{sha256}`
pub(super) async fn plugin(
    State(api): State<Api>,
    _runner: RunnerBearer,
    PathOf(sha256): PathOf<String>,
) -> Result<Response, Refusal> {
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest {
        return Err(Refusal::not_found("plugin", &sha256).hint("a plugin is named by its SHA-256 in lower-case hex"));
    }
    let (file, length) = api.core.plugin_file(&sha256).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/wasm")),
        (CONTENT_LENGTH, HeaderValue::from(length)),
        // What a digest names never changes.
        (CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
    ];
    // Many runners may ask at once, each as slowly as its network is: none of it is held whole.
    Ok((headers, Body::from_stream(ReaderStream::with_capacity(file, FILE_PIECE_BYTES))).into_response())
}

/// `POST /attempts/{id}/start`
pub(super) async fn start(
    State(api): State<Api>,
    AttemptBearer(access): AttemptBearer,
    JsonBody(request): JsonBody<StartRequest>,
) -> Result<Json<StartResponse>, Refusal> {
    Ok(Json(api.core.start_attempt(&access, request).await?))
}

/// `PATCH /attempts/{id}/log`
pub(super) async fn append_log(
    State(api): State<Api>,
    AttemptBearer(access): AttemptBearer,
    headers: HeaderMap,
    LogBytes(bytes): LogBytes,
) -> Result<Response, Refusal> {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let range: ContentRange = range.parse().map_err(|error: forge_api::ContentRangeError| {
        Refusal::invalid(error.to_string()).hint("say where the bytes belong, as in `Content-Range: bytes 0-99/*`")
    })?;
    if range.length() != bytes.len() as u64 {
        let detail = format!("Content-Range names {} bytes and the body has {}", range.length(), bytes.len());
        return Err(Refusal::invalid(detail).hint("send as many bytes as Content-Range names"));
    }
    let accepted = api.core.append_log(&access, range, bytes).await?;
    Ok(([(LOG_LENGTH_HEADER, HeaderValue::from(accepted.length))], Json(accepted)).into_response())
}

/// `PUT /attempts/{id}/result`
pub(super) async fn finish(
    State(api): State<Api>,
    AttemptBearer(access): AttemptBearer,
    JsonBody(result): JsonBody<AttemptResult>,
) -> Result<Response, Refusal> {
    let accepted: ResultAccepted = api.core.finish_attempt(&access, result).await?;
    Ok(([(LOG_LENGTH_HEADER, HeaderValue::from(accepted.log_length))], Json(accepted)).into_response())
}
