//! Every number that bounds one try of a delivery, in one place. The bounds of a plan itself are the plugin host's.

use std::time::Duration;

/// Until a connection stands, TLS included.
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an address that says nothing is waited for before the next of the same name is tried beside it.
pub(super) const NEXT_ADDRESS_WAIT: Duration = Duration::from_millis(300);
/// How long a connection is kept for the next request to the same place.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections that are kept so for one place, and for all.
pub(super) const IDLE_OF_PLACE_MAX: usize = 16;
pub(super) const IDLE_CONNECTIONS_MAX: usize = 256;
/// Names that are looked up at a time: each holds a thread for as long as a name server is silent.
pub(super) const LOOK_UPS_MAX: usize = 64;
/// One request, from the look-up of its name to the last byte of its answer. A guest may ask for less.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// One try: all its requests together.
pub(super) const TRY_TIME_MAX: Duration = Duration::from_secs(120);
/// How often `then` may follow, so that no guest goes on for ever.
pub(super) const THEN_ROUNDS_MAX: u32 = 4;
/// Requests of one try, those of every `then` included.
pub(super) const TRY_REQUESTS_MAX: usize = 32;
/// Bytes of an answer's body; the rest is not read.
pub(super) const ANSWER_BODY_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer's headers, names and values; the rest is left out.
pub(super) const ANSWER_HEADER_BYTES_MAX: usize = 16 * 1024;
/// Addresses of one name that are tried; more are left out, after all were checked.
pub(super) const ADDRESSES_MAX: usize = 8;
/// Bytes of a URL once its secrets are filled in.
pub(super) const FILLED_URL_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a body once its secrets are filled in.
pub(super) const FILLED_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Calls of one target's plugin that compute at a time: two of those that compute for long leave the others theirs.
pub(crate) const PLUGIN_CALLS_OF_TARGET_MAX: u32 = 2;
/// Calls of webhook targets' plugins that compute at a time.
pub(crate) const PLUGIN_CALLS_MAX: u32 = 24;
