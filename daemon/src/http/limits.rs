//! Every bound of the API's side that faces strangers, in one place. What is not bounded is not tested.

use std::time::Duration;

use super::problem::Refusal;

/// From the connection's first byte to the end of the TLS handshake.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long a connection may be idle or dribble one request's headers: longer than the long poll, so that a runner keeps its connection.
pub(crate) const HEADER_READ_MAX: Duration = Duration::from_secs(75);

/// From the end of the headers to the end of a JSON body.
pub(crate) const JSON_BODY_READ_MAX: Duration = Duration::from_secs(10);

/// The same for a piece of a log, which may come over a slow line.
pub(crate) const LOG_BODY_READ_MAX: Duration = Duration::from_secs(30);

/// The same for what an attempt carries over an approval, which may be 64 times as long.
pub(crate) const CARRY_BODY_READ_MAX: Duration = Duration::from_secs(300);

/// A body that is too large, and no larger than this, is read to its end before it is refused.
pub(crate) const DISCARDED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A client that takes no byte of its answer for this long is dropped.
pub(crate) const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// The most bytes of all headers of one request; their number has hyper's own bound, 100.
pub(crate) const HEADER_BYTES_MAX: usize = 32 * 1024;

/// The most bytes of a body that is held for somebody who has proved nothing: a sign-in, a registration.
pub(crate) const STRANGERS_BODY_BYTES_MAX: usize = 16 * 1024;

/// The most bytes that one connection buffers of what it has not handed on.
pub(crate) const CONNECTION_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The most connections at a time, whatever the descriptors allow.
pub(crate) const CONNECTIONS_MAX: u64 = 32_768;

/// Descriptors that connections leave to the store, the logs and git: at least so many.
pub(crate) const DESCRIPTORS_RESERVED_MIN: u64 = 256;

/// And one in so many: a tenth of all may be open logs, and twice that for a moment while they are brought to disk.
pub(crate) const DESCRIPTORS_PER_RESERVED: u64 = 4;

/// The most connections of the metrics listener.
pub(crate) const METRICS_CONNECTIONS_MAX: u64 = 64;

/// The pause after an accept that failed, as when descriptors ran out.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long a drain may take before what is left is cut.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The most bytes read of a plain-HTTP request on the TLS port, before it is told so.
pub(crate) const PLAIN_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// How long the rest of a plain-HTTP request is waited for.
pub(crate) const PLAIN_REQUEST_MAX: Duration = Duration::from_millis(500);

/// Failed authentications of one address within [`FAILED_WINDOW`] before it is answered 429.
pub(crate) const FAILED_AUTHENTICATIONS_MAX: u32 = 30;

/// The window that failed authentications are counted in.
pub(crate) const FAILED_WINDOW: Duration = Duration::from_secs(60);

/// The most addresses that failed authentications are counted for.
pub(crate) const FAILED_ADDRESSES_MAX: usize = 16_384;

/// How many seconds' worth of requests an access token may send at once.
pub(crate) const RATE_BURST_S: u32 = 5;

/// The most access tokens whose requests are counted.
pub(crate) const RATE_TOKENS_MAX: usize = 4_096;

/// The most items of one page of a listing.
pub(crate) const PAGE_ITEMS_MAX: u32 = 500;

/// Items of a page when the request does not say.
pub(crate) const PAGE_ITEMS_DEFAULT: u32 = 50;

/// The most bytes of one read of a log that is streamed.
pub(crate) const LOG_READ_BYTES_MAX: usize = 256 * 1024;

/// Lines of a log when the request does not say.
pub(crate) const LOG_LINES_DEFAULT: u32 = 200;

/// Found lines of a log when the request does not say.
pub(crate) const LOG_MATCHES_DEFAULT: u32 = 100;

/// The most revisions of the configuration in one answer: so many are kept.
pub(crate) const REVISIONS_MAX: u32 = 100;

/// Hours of load when the request does not say.
pub(crate) const LOAD_HOURS_DEFAULT: u32 = 24;

/// How many streams of events a token has open at a time.
pub(crate) const EVENT_STREAMS_PER_TOKEN_MAX: u32 = 32;

/// How many logs a token follows at a time: a pipeline may follow each of its tasks.
pub(crate) const LOG_STREAMS_PER_TOKEN_MAX: u32 = 1_024;

/// When who has too many streams may ask again, in seconds.
pub(crate) const STREAM_RETRY_S: u64 = 10;

/// How long one stream of events lasts: who listens on comes back with its token.
pub(crate) const EVENT_STREAM_MAX: Duration = Duration::from_secs(300);

/// How often a stream that goes on looks whether who listens still may.
pub(crate) const STREAM_LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// A stream that has nothing to tell says so this often.
pub(crate) const EVENT_COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// The longest Idempotency-Key.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The most bytes of a push webhook: what the largest of the git servers sends. They are hashed as they come, and not kept.
pub(crate) const HOOK_BODY_BYTES_MAX: u64 = 25 * 1024 * 1024;

/// The most bytes of a request to an integration, which is held in memory to be looked into.
pub(crate) const INTEGRATION_BODY_BYTES_MAX: u64 = 5 * 1024 * 1024;

/// How many of them are held at a time; more wait.
pub(crate) const INTEGRATION_BODIES_MAX: usize = 32;

/// How many of them one address has.
pub(crate) const INTEGRATION_BODIES_OF_ADDRESS_MAX: usize = 4;

/// How long a request to an integration waits for a place.
pub(crate) const INTEGRATION_WAIT_MAX: Duration = Duration::from_secs(15);

/// From the end of the headers to the end of a webhook's body.
pub(crate) const HOOK_BODY_READ_MAX: Duration = Duration::from_secs(10);

/// How far the clock of whoever signs a webhook may be from ours.
pub(crate) const HOOK_AGE_MAX: Duration = Duration::from_secs(5 * 60);

/// How long an admin who applies a revision is kept waiting for it; it is applied all the same.
pub(crate) const APPLY_WAIT_MAX: Duration = Duration::from_secs(120);

/// How many items a page has: what was asked for, within the bounds.
pub(crate) fn page_items(asked: Option<u32>) -> Result<u32, Refusal> {
    bounded("limit", asked, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX)
}

/// A number of the query: what was asked for, from 1 to `max`.
pub(crate) fn bounded(name: &str, asked: Option<u32>, default: u32, max: u32) -> Result<u32, Refusal> {
    let number = asked.unwrap_or(default);
    if (1..=max).contains(&number) {
        return Ok(number);
    }
    let detail = format!("`{name}` is {number} and not 1 to {max}");
    Err(Refusal::invalid(detail).hint("ask for less, and go on where the answer ends"))
}

/// How much of a file is read at a time while it is sent, in bytes.
pub(super) const FILE_PIECE_BYTES: usize = 64 * 1024;
