//! What a runner says about one attempt: that it starts, its log's bytes, and how it ended.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AttemptId, TaskState, Timestamp};

/// What `POST /attempts/{id}/start` takes. It may be sent again, and is when the commit becomes known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartRequest {
    /// The repository's commit, once it is resolved.
    #[serde(default)]
    pub commit: Option<String>,
    /// The session of the runner process that is about to run it: the first one to say so is the only one that may. Absent
    /// when nothing new begins.
    #[serde(default)]
    pub session: Option<String>,
}

/// The answer to a start: the attempt is live and its process may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartResponse {
    /// True when a cancel is pending: end it as soon as possible.
    pub cancel: bool,
}

/// How an attempt ended, as its runner saw it. The daemon decides what that makes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The executor reported success.
    Succeeded,
    /// The executor, the checkout or the runner failed.
    Failed,
    /// Worth another try where the template allows one.
    Retry,
    /// Ended since the daemon asked for it.
    Canceled,
    /// Took longer than the template's `timeout`.
    TimedOut,
    /// The runner ended it: it was being stopped, or had been out of contact for too long.
    Lost,
    /// The executor has planned, and a person has to approve it. What the plan needs was handed in before.
    AwaitsApproval,
}

/// What an attempt hands to the one that follows an approval: encrypted files of its workspace, as `PUT /attempts/{id}/carry` took them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Carry {
    /// The attempt that left it.
    pub attempt: AttemptId,
    /// How many bytes, as they are sent.
    pub length: u64,
    /// The SHA-256 of these bytes, in lower-case hex.
    pub sha256: String,
}

/// What `PUT /attempts/{id}/result` takes. It is sent until it is acknowledged; sending it again changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptResult {
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Why, for every outcome but `succeeded`.
    pub reason: Option<String>,
    /// The exit code of the last process, where there was one.
    pub exit_code: Option<i32>,
    /// What the executor plugin reported.
    pub summary: Option<Value>,
    /// The repository's commit, where there is a repository.
    pub commit: Option<String>,
    /// The length of the whole log in bytes.
    pub log_length: u64,
    /// The SHA-256 of the whole log, in lower-case hex.
    pub log_sha256: String,
    /// What an attempt that awaits approval leaves for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<Carry>,
    /// Whether a failure is one that another try does not mend, such as params that make no sense.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_retry: bool,
    /// Not before this long is another try of use, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whether nothing of the job ran: its plugin was never called, so what was approved may still be done, once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nothing_ran: bool,
}

/// The answer to a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResultAccepted {
    /// Where the task stands now.
    pub state: TaskState,
    /// False when the attempt was closed already (lost, say): the report is kept and shown, and changes nothing.
    pub counted: bool,
    /// The length of the log that the daemon holds: less than the result's length asks for the rest.
    pub log_length: u64,
    /// True when the log is whole and its SHA-256 is the result's.
    pub log_whole: bool,
}

/// The answer to a log patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogAccepted {
    /// The length that the daemon holds: the next patch begins here.
    pub length: u64,
    /// How much of it is on disk for good: what lies before may leave the spool.
    pub synced: u64,
}

/// What is known of an attempt's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// It may still grow.
    Open,
    /// Every byte is there, and its SHA-256 is the runner's.
    Whole,
    /// It was sent twice and is not what the runner says it is, or it is longer than a log may be.
    Damaged,
}

/// One try of a task, as `GET /tasks/{n}/attempts` lists it. What has not happened yet is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Its number within its task, from 1.
    pub number: u32,
    /// The runner that it was given to.
    pub runner: String,
    /// When it was given to its runner.
    pub assigned_at: Timestamp,
    /// When its runner said that it starts.
    pub started_at: Option<Timestamp>,
    /// When it was over for the daemon.
    pub closed_at: Option<Timestamp>,
    /// What closed it, in words.
    pub closed_why: Option<String>,
    /// When its runner reported.
    pub reported_at: Option<Timestamp>,
    /// How it ended, as its runner reported.
    pub outcome: Option<AttemptOutcome>,
    /// Why, as its runner reported.
    pub reason: Option<String>,
    /// The exit code that its runner reported.
    pub exit_code: Option<i32>,
    /// Whether its report decided anything: false for one that came after the attempt was closed. Null before the report.
    pub counted: Option<bool>,
    /// What is known of its log.
    pub log_state: LogState,
    /// How many bytes of its log the daemon holds.
    pub log_bytes: u64,
}

/// `Content-Range` of a log patch, `bytes FIRST-LAST/*`: LAST is inclusive, the whole length is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The offset of the first byte.
    pub first: u64,
    /// The offset of the last byte, never before `first`.
    pub last: u64,
}

/// The header is not a range of a log.
#[derive(Debug, thiserror::Error)]
#[error("Content-Range {text:?} is not of the form `bytes FIRST-LAST/*`")]
pub struct ContentRangeError {
    text: String,
}

impl ContentRange {
    /// The range of `length` bytes from `first`; `None` when `length` is 0 or the end would overflow.
    pub fn of(first: u64, length: u64) -> Option<Self> {
        Some(Self { first, last: first.checked_add(length.checked_sub(1)?)? })
    }

    /// How many bytes it covers.
    pub fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/*", self.first, self.last)
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        let parse = || {
            let (first, last) = text.strip_prefix("bytes ")?.strip_suffix("/*")?.split_once('-')?;
            let digits =
                |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok())?;
            let range = Self { first: digits(first)?, last: digits(last)? };
            (range.first <= range.last).then_some(range)
        };
        parse().ok_or_else(|| ContentRangeError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_reads_what_it_writes() {
        let range = ContentRange::of(10, 5).expect("five bytes");
        assert_eq!(range.to_string(), "bytes 10-14/*");
        assert_eq!(range.to_string().parse::<ContentRange>().ok(), Some(range));
        assert_eq!(range.length(), 5);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in [
            "",
            "bytes",
            "bytes 5-4/*",
            "bytes -4/*",
            "bytes 0-4/5",
            "bytes +0-4/*",
            "lines 0-4/*",
            "bytes 0-99999999999999999999/*",
        ] {
            assert!(wrong.parse::<ContentRange>().is_err(), "{wrong}");
        }
        assert_eq!(ContentRange::of(0, 0), None);
        assert_eq!(ContentRange::of(u64::MAX, 2), None);
    }
}
