//! A log by its lines, as terminals show them: what pages read of logs that are too long to be read whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most lines that one request for lines answers.
pub const LOG_LINES_MAX: u32 = 1_000;

/// The most bytes of one line that are shown; what follows is counted, and is in the log itself.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;

/// Some lines of an attempt's log, as `GET /tasks/{n}/log/lines` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLines {
    /// The attempt; 0 while the task has none.
    pub attempt: u32,
    /// How many lines there are, as far as was counted; one without an end is counted, too.
    pub total: u64,
    /// Whether all bytes were counted and no more will come. While it is false, ask again.
    pub complete: bool,
    /// How many bytes of the log the daemon holds.
    pub bytes: u64,
    /// The lines. Fewer than asked for where the log has no more yet, or where they are very long: go on after the last.
    pub items: Vec<LogLine>,
}

/// One line as a terminal would show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Its number, from 1.
    pub number: u64,
    /// Its text, in pieces of one look each; none for an empty line.
    pub segments: Vec<LogSegment>,
}

/// A piece of a line. Its text holds no control character but the tab, and is never markup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSegment {
    /// The text; what was no UTF-8 is U+FFFD.
    pub text: String,
    /// How it looks, by name: `bold`, `dim`, `italic`, `underline`, `inverse`, `strike`; a colour of the text `fg-0` to `fg-255` or
    /// `fg-rrggbb` in hex; one of what lies behind it `bg-…`; and `cut` for the note that the rest of the line is not shown. `inverse`
    /// comes without a colour: where one is set, text and ground have changed places already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub style: Vec<String>,
}

/// Lines of an attempt's log in which something was found, as `GET /tasks/{n}/log/search` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogMatches {
    /// The attempt; 0 while the task has none.
    pub attempt: u32,
    /// The lines, in their order.
    pub items: Vec<LogMatch>,
    /// The line to go on with as `from`; null where the log that is there was looked through. One request looks through a bounded
    /// number of bytes, so that it may come with no line found.
    pub next_from: Option<u64>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogMatch {
    /// Its number, from 1.
    pub number: u64,
    /// Its text without its look, cut where it is long.
    pub text: String,
}
