//! Bodies, bounded in bytes and in time before anything looks at them.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use forge_api::{JSON_BODY_BYTES_MAX, LOG_CHUNK_BYTES_MAX};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;

use super::auth::Access;
use super::gate::{self, ProvedByHeader};
use super::limits;
use super::problem::Refusal;
use super::session::{self, CSRF_FIELD};

/// A JSON body of a known shape.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// The same from somebody who has proved nothing: no longer than headers may be.
pub(crate) struct StrangersJson<T>(pub(crate) T);

/// A JSON body of a known shape, or none.
pub(crate) struct MaybeJson<T>(pub(crate) T);

/// A piece of a log.
pub(crate) struct LogBytes(pub(crate) Bytes);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        read_json(request, JSON_BODY_BYTES_MAX).await.map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrangersJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        read_json(request, limits::STRANGERS_BODY_BYTES_MAX).await.map(Self)
    }
}

async fn read_json<T: DeserializeOwned>(request: Request, bytes_max: usize) -> Result<T, Refusal> {
    let essence = essence(&request);
    if essence != "application/json" {
        let detail = format!("the body's media type is {essence:?} and not \"application/json\"");
        return Err(Refusal::new(415, "media-type", "Unsupported media type", detail)
            .hint("send JSON, with the header `Content-Type: application/json`"));
    }
    let bytes = read(request, bytes_max, limits::JSON_BODY_READ_MAX).await?;
    // A bad byte would otherwise be told of as a mistake of JSON, at a column that counts bytes.
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Refusal::invalid(format!("the body is not UTF-8: {error}")).hint("send JSON as UTF-8"))?;
    // A list of values would be read as the fields in their order, which is nobody's contract.
    if text.trim_start().starts_with('[') {
        let refusal = Refusal::invalid("the body is not what this route takes: it is a list and not an object");
        return Err(refusal.hint("send an object with the fields' names"));
    }
    serde_json::from_str(text)
        .map_err(|error| Refusal::invalid(format!("the body is not what this route takes: {error}")))
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for MaybeJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        // What neither says its type nor has a byte is no body.
        if request.headers().get(CONTENT_TYPE).is_none() && request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        JsonBody::from_request(request, state).await.map(|JsonBody(body)| Self(body))
    }
}

/// What a form of a page of ours says. A session that sends it is proved by the field `csrf`, which `T` never sees, or was by the header.
pub(crate) struct Form<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let access = gate::passed::<Access>(&parts)?;
        let is_proved = parts.extensions.get::<ProvedByHeader>().is_some();
        let (said, rest) = fields(Request::from_parts(parts, body), JSON_BODY_BYTES_MAX).await?;
        // What nothing proves is told nothing of what the form takes.
        match access.session() {
            Some(session) if !is_proved && !session.is_proved_by(&said) => Err(session::unproved()),
            Some(_) | None => read_form(&rest).map(Self),
        }
    }
}

/// The fields of a form that somebody sends who has proved nothing.
pub(crate) async fn strangers_form<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let (_csrf, rest) = fields(request, limits::STRANGERS_BODY_BYTES_MAX).await?;
    read_form(&rest)
}

/// What the field `csrf` says, and the other fields as they came.
async fn fields(request: Request, bytes_max: usize) -> Result<(String, String), Refusal> {
    let essence = essence(&request);
    if essence != "application/x-www-form-urlencoded" {
        let detail = format!("the body's media type is {essence:?} and not \"application/x-www-form-urlencoded\"");
        return Err(Refusal::new(415, "media-type", "Unsupported media type", detail).hint("send a form"));
    }
    let bytes = read(request, bytes_max, limits::JSON_BODY_READ_MAX).await?;
    let mut said = String::new();
    let mut rest = form_urlencoded::Serializer::new(String::with_capacity(bytes.len()));
    for (name, value) in form_urlencoded::parse(&bytes) {
        if name == CSRF_FIELD {
            said = value.into_owned();
        } else {
            rest.append_pair(&name, &value);
        }
    }
    Ok((said, rest.finish()))
}

fn read_form<T: DeserializeOwned>(fields: &str) -> Result<T, Refusal> {
    serde_urlencoded::from_str(fields)
        .map_err(|error| Refusal::invalid(format!("the form is not what this route takes: {error}")))
}

/// The body's media type, without its parameters.
fn essence(request: &Request) -> String {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The arguments of a handler whose last is a [`Form`]: what the table asks of the handler of a route that reads one.
pub(crate) trait TakesForm {}

impl<M, T> TakesForm for (M, Form<T>) {}
impl<M, A, T> TakesForm for (M, A, Form<T>) {}
impl<M, A, B, T> TakesForm for (M, A, B, Form<T>) {}
impl<M, A, B, C, T> TakesForm for (M, A, B, C, Form<T>) {}
impl<M, A, B, C, D, T> TakesForm for (M, A, B, C, D, Form<T>) {}

impl<S: Send + Sync> FromRequest<S> for LogBytes {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        read(request, LOG_CHUNK_BYTES_MAX, limits::LOG_BODY_READ_MAX).await.map(Self)
    }
}

/// The whole body, or why not. A length that is too large is refused before a byte is read.
async fn read(request: Request<Body>, bytes_max: usize, time_max: Duration) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(413, "body-too-large", "Body too large", format!("the body is larger than {bytes_max} bytes"))
            .hint("send less at a time")
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = announced.filter(|length| *length > bytes_max as u64) {
        if length <= limits::DISCARDED_BYTES_MAX {
            let _ = tokio::time::timeout(time_max, discard(request.into_body())).await;
        }
        return Err(too_large());
    }
    match tokio::time::timeout(time_max, Limited::new(request.into_body(), bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body could not be read: {error}"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", time_max.as_secs());
            Err(Refusal::new(408, "body-timeout", "Body too slow", detail).hint("send it again"))
        }
    }
}

/// Reads a body that is somewhat too large to its end and keeps nothing: who still sends when the connection closes never
/// sees why. A larger one is not worth the wait.
async fn discard(mut body: Body) {
    while let Some(Ok(_frame)) = body.frame().await {}
}
