//! Every number that bounds what a guest may take, in one place, and [`Limits`], the two that an operator sets.

/// What `plugins/NAME.toml` sets under `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of one call together, in bytes.
    pub memory_bytes: u64,
    /// The guest's own computing in one call, without what it waits for, in milliseconds.
    pub time_ms: u64,
}

impl Default for Limits {
    /// What holds where the operator says nothing.
    fn default() -> Self {
        Self { memory_bytes: 64 * 1024 * 1024, time_ms: 5_000 }
    }
}

/// The most that `[limits].memory` may say, in bytes: forge-config checks it, and messages name no more.
pub(crate) const MEMORY_BYTES_WRITTEN_MAX: u64 = 4 << 30;
/// The most that `[limits].time` may say, in milliseconds: as above.
pub(crate) const TIME_MS_WRITTEN_MAX: u64 = 10 * 60 * 1_000;

/// How often the engine looks at the guests that compute, in milliseconds.
pub const TICK_MS: u64 = 10;
/// What a guest may still compute after its task was canceled, to report how it ended, in milliseconds.
pub(crate) const CANCELED_COMPUTING_MS: u64 = 100;

/// The most bytes of a component: what the daemon serves.
pub(crate) const COMPONENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A guest's own stack.
pub(crate) const STACK_BYTES_MAX: usize = 1024 * 1024;
/// Core instances in one call: a Python guest holds 38.
pub(crate) const INSTANCES_MAX: usize = 128;
/// Linear memories in one call.
pub(crate) const MEMORIES_MAX: usize = 128;
/// Tables in one call.
pub(crate) const TABLES_MAX: usize = 128;
/// Elements of all tables in one call.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 200_000;
/// Core instances, and tables, that a pool holds for each call: a Python guest holds 38.
pub(crate) const POOL_INSTANCES_PER_CALL: u32 = 64;
/// Linear memories that a pool holds for each call.
pub(crate) const POOL_MEMORIES_PER_CALL: u32 = 4;
/// The most that one linear memory may grow to in a pool, whatever `[limits].memory` says.
pub(crate) const POOL_MEMORY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// What a pool's slot keeps of its memory for the next call, emptied: giving it back to the system costs more than a call.
pub(crate) const POOL_KEPT_BYTES: usize = 256 * 1024;

/// The same, of a slot's tables.
pub(crate) const POOL_KEPT_TABLE_BYTES: usize = 64 * 1024;

/// Bytes that one host call may bring in, in strings and lists.
pub(crate) const HOST_CALL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Log lines of one call.
pub(crate) const LOG_LINES_MAX: u64 = 100_000;
/// Log bytes of one call, fields included.
pub(crate) const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of one log line; the rest of a longer one is cut.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 64 * 1024;
/// Fields of one log line; more are cut.
pub(crate) const LOG_FIELDS_MAX: usize = 64;

/// Bytes that one read answers.
pub(crate) const READ_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Entries of a folder that is listed.
pub(crate) const LIST_ENTRIES_MAX: usize = 10_000;
/// Bytes that one call writes into the workspace itself, all writes together.
pub(crate) const WRITTEN_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Files and folders that one call makes in the workspace itself.
pub(crate) const WRITTEN_ENTRIES_MAX: u32 = 10_000;
/// Bytes of a path inside the workspace.
pub(crate) const PATH_BYTES_MAX: usize = 4_096;

/// Bytes of one argument: Linux takes no more.
pub(crate) const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;
/// Bytes of all arguments and the environment of a command.
pub(crate) const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Arguments and variables of a command.
pub(crate) const COMMAND_ITEMS_MAX: usize = 10_000;
/// Bytes of a command's standard input.
pub(crate) const STDIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Children that one call holds at a time.
pub(crate) const CHILDREN_MAX: usize = 64;

/// Requests of one plan, or of one `then`.
pub(crate) const REQUESTS_MAX: usize = 16;
/// Bytes of a planned request's body.
pub(crate) const REQUEST_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Headers of a planned request.
pub(crate) const REQUEST_HEADERS_MAX: usize = 64;
/// Bytes of all headers of a planned request, names and values.
pub(crate) const REQUEST_HEADER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a planned request's URL.
pub(crate) const REQUEST_URL_BYTES_MAX: usize = 4 * 1024;
/// Bytes of all that a planned request says about how it is signed.
pub(crate) const REQUEST_SIGNING_BYTES_MAX: usize = 8 * 1024;
/// Bytes of what a webhook target says to people; the rest is cut.
pub(crate) const TARGET_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a message, a summary or an output that a guest hands back.
pub(crate) const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Guest frames that an error shows.
pub(crate) const FRAMES_MAX: usize = 8;
