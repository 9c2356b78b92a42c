//! `GET /tasks/{n}/log`: the process's exact bytes, whole, in part, or as they come.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use forge_api::LOG_LENGTH_HEADER;
use futures_util::stream::{self, Stream};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::auth::Access;
use super::gate::SeenTask;
use super::limits::{self, LOG_READ_BYTES_MAX};
use super::path::QueryOf;
use super::problem::Refusal;
use super::routes::Api;
use super::standing::Standing;
use super::streams::Place;
use crate::core::{CoreError, LogReader};

/// What the route takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// Which attempt's log; the newest one's without.
    attempt: Option<u32>,
    /// Sends on what comes until the attempt is over.
    #[serde(default)]
    follow: bool,
}

/// Which bytes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first up to and without the last.
    Range(u64, u64),
    /// Nothing of it is there.
    Beyond,
}

/// `GET /tasks/{n}/log`
pub(super) async fn log(
    State(api): State<Api>,
    access: Access,
    SeenTask(task): SeenTask,
    QueryOf(query): QueryOf<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let reader = api.core.log(task.number, query.attempt).await?;
    let length = reader.length();
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let mut response = if query.follow {
        // A log that is followed has no end yet: only where to begin can be asked for.
        let from = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()).unwrap_or(0);
        let place = api.log_streams.open(*access.token()).ok_or_else(too_many)?;
        let (standing, project) = (Standing::new(api.clone(), access), task.project.clone());
        let follower = Follower { reader, from, standing, project, shutdown: api.shutdown.clone(), _place: place };
        Body::from_stream(following(follower)).into_response()
    } else {
        match range.map_or(Part::Whole, |range| part(range, length)) {
            Part::Whole => bytes_answer(StatusCode::OK, reader, 0, length),
            Part::Range(from, to) => {
                let mut response = bytes_answer(StatusCode::PARTIAL_CONTENT, reader, from, to);
                set_text(response.headers_mut(), CONTENT_RANGE, &format!("bytes {from}-{}/{length}", to - 1));
                response
            }
            Part::Beyond => {
                let detail = format!("the log has {length} bytes now, and the range begins beyond them");
                let refusal = Refusal::new(416, "log-range", "Range not satisfiable", detail)
                    .hint("ask for a range that begins earlier, or follow the log with `?follow=true`");
                let mut refusal = refusal.into_response();
                refusal.headers_mut().insert(LOG_LENGTH_HEADER, HeaderValue::from(length));
                set_text(refusal.headers_mut(), CONTENT_RANGE, &format!("bytes */{length}"));
                return Ok(refusal);
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(LOG_LENGTH_HEADER, HeaderValue::from(length));
    Ok(response)
}

fn too_many() -> Refusal {
    let detail = format!("this token follows {} logs", limits::LOG_STREAMS_PER_TOKEN_MAX);
    Refusal::new(429, "too-many-streams", "Too many streams", detail)
        .hint("end one first, or ask for what there is, without `follow`")
        .retry_after(limits::STREAM_RETRY_S)
}

fn bytes_answer(status: StatusCode, reader: LogReader, from: u64, to: u64) -> Response {
    let length = HeaderValue::from(to - from);
    (status, [(CONTENT_LENGTH, length)], Body::from_stream(reading(reader, from, to))).into_response()
}

fn set_text(headers: &mut HeaderMap, name: http::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// One range of `Range`, as RFC 9110 reads it; several ranges, or what is no range of bytes, answer the whole.
fn part(range: &str, length: u64) -> Part {
    let parse = || {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        if first.is_empty() {
            let suffix: u64 = last.parse().ok()?;
            return Some((length.saturating_sub(suffix), length));
        }
        let first: u64 = first.parse().ok()?;
        let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.saturating_add(1).min(length) };
        Some((first, end))
    };
    match parse() {
        None => Part::Whole,
        Some((from, to)) if from < to => Part::Range(from, to),
        Some(_) => Part::Beyond,
    }
}

/// The bytes from `from` up to `to`, a piece at a time.
fn reading(reader: LogReader, from: u64, to: u64) -> impl Stream<Item = Result<Bytes, CoreError>> {
    stream::try_unfold((reader, from), move |(reader, from)| async move {
        let wanted = usize::try_from(to - from).unwrap_or(usize::MAX).min(LOG_READ_BYTES_MAX);
        if wanted == 0 {
            return Ok(None);
        }
        let bytes = reader.read(from, wanted).await?;
        if bytes.is_empty() {
            // The log was removed while it was read: ending early shows, since the length was promised.
            return Err(CoreError::Internal(format!("the log ended at byte {from} of {to}")));
        }
        let next = from + bytes.len() as u64;
        Ok(Some((bytes, (reader, next))))
    })
}

/// Who follows a log, and how far it came.
struct Follower {
    reader: LogReader,
    from: u64,
    standing: Standing,
    /// Whose task it is.
    project: String,
    shutdown: CancellationToken,
    _place: Place,
}

impl Follower {
    /// The next bytes. An error and not an end where it may not go on: a client must not take half a log for a whole one.
    async fn next(&mut self) -> Result<Option<Bytes>, CoreError> {
        let Self { reader, from, standing, project, shutdown, _place: _ } = self;
        // It is never begun anew: it counts how long an attempt that is over has been quiet.
        let mut coming = std::pin::pin!(reader.follow(*from, LOG_READ_BYTES_MAX));
        let next = loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return Err(CoreError::ShuttingDown),
                () = tokio::time::sleep_until(standing.look_at()) => None,
                next = &mut coming => Some(next?),
            };
            if !standing.holds().await || !standing.access().sees(project) {
                return Err(CoreError::Unauthorized);
            }
            if let Some(next) = next {
                break next;
            }
        };
        *from += next.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(next)
    }
}

/// The bytes as they come, until the attempt is over or the follower may not go on.
fn following(follower: Follower) -> impl Stream<Item = Result<Bytes, CoreError>> {
    stream::try_unfold(
        follower,
        |mut follower| async move { Ok(follower.next().await?.map(|bytes| (bytes, follower))) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_rfc_9110_does() {
        for (range, expected) in [
            ("bytes=0-0", Part::Range(0, 1)),
            ("bytes=2-", Part::Range(2, 10)),
            ("bytes=2-99", Part::Range(2, 10)),
            ("bytes=-3", Part::Range(7, 10)),
            ("bytes=-99", Part::Range(0, 10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=a-b", Part::Whole),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Beyond);
    }
}
