//! `GET /events`: server-sent events of what changes, as far as the token sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use forge_api::LAST_EVENT_ID_HEADER;
use futures_util::stream::{self, Stream};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::auth::Access;
use super::limits;
use super::path::QueryOf;
use super::problem::Refusal;
use super::routes::Api;
use super::standing::Standing;
use super::streams::Place;
use crate::core::{Event, EventId, Listener, RESET};

/// What the route takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only what is of this project or of none.
    project: Option<String>,
}

/// `GET /events`
pub(super) async fn events(
    State(api): State<Api>,
    access: Access,
    QueryOf(query): QueryOf<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Some(place) = api.event_streams.open(*access.token()) else {
        let detail = format!("this token has {} streams of events open", limits::EVENT_STREAMS_PER_TOKEN_MAX);
        return Err(Refusal::new(429, "too-many-streams", "Too many streams", detail)
            .hint("close one first: a program needs one stream, whatever it waits for")
            .retry_after(limits::STREAM_RETRY_S));
    };
    // An id that is none is as one of long ago.
    let last = headers.get(LAST_EVENT_ID_HEADER).filter(|last| !last.is_empty());
    let is_strange = last.is_some_and(|last| parsed(last).is_none());
    let Listener { missed, reset, newest, receiver } = api.core.listen(last.and_then(parsed));
    let view = View { standing: Standing::new(api.clone(), access), project: query.project };
    let mut waiting = VecDeque::new();
    if reset || is_strange {
        waiting.push_back(frame(newest, RESET, "{}"));
    } else if missed.is_empty() {
        // From here on it knows where to go on.
        waiting.push_back(Bytes::from(format!("id: {newest}\n\n")));
    }
    waiting
        .extend(missed.iter().filter(|event| view.shows(event)).map(|event| frame(event.id, event.name, &event.data)));
    let streaming = Streaming {
        waiting,
        seen: newest,
        receiver,
        view,
        shutdown: api.shutdown.clone(),
        ends_at: Instant::now() + limits::EVENT_STREAM_MAX,
        _place: place,
    };
    let mut response = Body::from_stream(frames(streaming)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn parsed(last: &HeaderValue) -> Option<EventId> {
    last.to_str().ok()?.parse().ok()
}

/// What a listener sees.
struct View {
    standing: Standing,
    project: Option<String>,
}

impl View {
    fn shows(&self, event: &Event) -> bool {
        event
            .project
            .as_ref()
            .is_none_or(|of| self.standing.access().sees(of) && self.project.as_ref().is_none_or(|asked| asked == of))
    }
}

struct Streaming {
    /// What is still to be sent of what was before.
    waiting: VecDeque<Bytes>,
    /// The newest event that was looked at.
    seen: EventId,
    receiver: tokio::sync::broadcast::Receiver<Arc<Event>>,
    view: View,
    shutdown: CancellationToken,
    ends_at: Instant,
    _place: Place,
}

fn frames(streaming: Streaming) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(streaming, |mut streaming| async move {
        if !streaming.view.standing.holds().await {
            return None;
        }
        if let Some(frame) = streaming.waiting.pop_front() {
            return Some((Ok(frame), streaming));
        }
        let quiet_until = Instant::now() + limits::EVENT_COMMENT_INTERVAL;
        loop {
            let received = tokio::select! {
                () = streaming.shutdown.cancelled() => return None,
                // It comes back with its token, which may be worth less by then.
                () = tokio::time::sleep_until(streaming.ends_at) => return None,
                () = tokio::time::sleep_until(quiet_until) => {
                    let comment = Bytes::from(format!(": nothing new\nid: {}\n\n", streaming.seen));
                    return Some((Ok(comment), streaming));
                }
                () = tokio::time::sleep_until(streaming.view.standing.look_at()) => {
                    if streaming.view.standing.holds().await {
                        continue;
                    }
                    return None;
                }
                received = streaming.receiver.recv() => received,
            };
            // One that is too slow comes back, and goes on where it was or begins anew.
            let event = received.ok()?;
            streaming.seen = event.id;
            if streaming.view.shows(&event) {
                return Some((Ok(frame(event.id, event.name, &event.data)), streaming));
            }
        }
    })
}

/// One event as it is sent. Its data is JSON, which has no line of its own.
fn frame(id: EventId, name: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {name}\nid: {id}\ndata: {data}\n\n"))
}
