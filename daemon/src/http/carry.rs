//! `PUT` and `GET /attempts/{id}/carry`: what a plan hands to the attempt that does it, a stream of bytes that the daemon never opens.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use forge_api::{CARRY_BYTES_MAX, CARRY_OVERHEAD_BYTES_MAX};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio_util::io::ReaderStream;

use super::auth::AttemptBearer;
use super::limits;
use super::problem::Refusal;
use super::routes::Api;

/// `PUT /attempts/{id}/carry`
pub(super) async fn put(
    State(api): State<Api>,
    AttemptBearer(access): AttemptBearer,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > CARRY_BYTES_MAX + CARRY_OVERHEAD_BYTES_MAX) {
        let detail = format!("what an attempt carries over an approval has {CARRY_BYTES_MAX} bytes at most");
        return Err(Refusal::new(413, "carry-too-large", "Carry too large", detail)
            .hint("carry the plan alone, and leave what can be made again"));
    }
    let mut carry = api.core.carry_in(&access).await?;
    let mut body = request.into_body();
    let whole = async {
        let mut is_empty = true;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal::invalid(format!("the body could not be read: {error}")))?;
            if let Ok(bytes) = frame.into_data() {
                is_empty &= bytes.is_empty();
                carry.write(&bytes).await?;
            }
        }
        if is_empty {
            return Err(Refusal::invalid("the body is empty").hint("send what the attempt carries, encrypted"));
        }
        Ok::<_, Refusal>(carry)
    };
    let carry = tokio::time::timeout(limits::CARRY_BODY_READ_MAX, whole).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} s", limits::CARRY_BODY_READ_MAX.as_secs());
        Refusal::new(408, "body-timeout", "Body too slow", detail).hint("send it again")
    })??;
    carry.keep().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /attempts/{id}/carry`
pub(super) async fn get(State(api): State<Api>, AttemptBearer(access): AttemptBearer) -> Result<Response, Refusal> {
    let (file, length) = api.core.carry_out(&access).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
