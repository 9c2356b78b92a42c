//! What [`Core`](super::Core) refuses and how it says so: one variant a kind of refusal, one place that makes problems of them.

use forge_api::{AttemptId, Problem, Timestamp};

use super::versions::{DAEMON_VERSION, RUNNER_VERSION_MIN};

/// Why the core did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// There is none of that name.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// The kind of object.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// What was asked for does not go with how things stand.
    #[error("{detail}")]
    Conflict {
        /// What happened.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A runner of that name is registered with another key.
    #[error("the runner name {name:?} is taken: another key is registered under it")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Another process with this runner's token is at work.
    #[error("the runner {runner:?} is already connected with another session, last in contact at {last_contact_at}")]
    SessionClash {
        /// The runner's name.
        runner: String,
        /// When the other one was last heard of.
        last_contact_at: Timestamp,
    },
    /// The runner's program is too old for this daemon.
    #[error(
        "runner {runner} is forge {version}, and this daemon (forge {DAEMON_VERSION}) works with {RUNNER_VERSION_MIN} or newer"
    )]
    RunnerTooOld {
        /// The runner's name.
        runner: String,
        /// What it says of itself.
        version: String,
    },
    /// The bearer is unknown. Strangers learn nothing more.
    #[error("the token is not valid here")]
    Unauthorized,
    /// The bearer is known and may not do this.
    #[error("{detail}")]
    Forbidden {
        /// What happened.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The attempt is closed: its task ended or went on without it.
    #[error("attempt {attempt} is closed: {reason}")]
    Gone {
        /// The attempt.
        attempt: AttemptId,
        /// Why it was closed.
        reason: String,
    },
    /// A newer attempt of the task exists.
    #[error("attempt {attempt} is older than attempt {newest} of the same task")]
    Older {
        /// The attempt.
        attempt: AttemptId,
        /// The number of the newest one.
        newest: u32,
    },
    /// The log patch does not join what is there.
    #[error("the patch does not join the log, which is {log_length} bytes long")]
    RangeNotSatisfiable {
        /// The length that the daemon holds.
        log_length: u64,
    },
    /// The log is longer than one may be.
    #[error("the log of attempt {attempt} is longer than {bytes_max} bytes")]
    LogLimit {
        /// The attempt.
        attempt: AttemptId,
        /// The limit.
        bytes_max: u64,
    },
    /// An attempt awaits approval, and what the next one needs is not here.
    #[error("the attempt cannot await approval: {detail}")]
    CarryMissing {
        /// What is missing.
        detail: String,
    },
    /// Answers to the survey that do not match, one line each. None holds a secret answer.
    #[error("{}", .0.join("; "))]
    InvalidAnswers(Vec<String>),
    /// The request makes no sense.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
        /// What to send instead.
        hint: Option<String>,
    },
    /// A piece of a log is not what the log holds there.
    #[error("the log of attempt {attempt} holds other bytes before {length} than were sent again")]
    LogDiffers {
        /// The attempt.
        attempt: AttemptId,
        /// The length that is held.
        length: u64,
    },
    /// Too little space for new work.
    #[error("only {free_bytes} bytes are free where Forge keeps its data; it keeps {reserve_bytes} in reserve")]
    StorageFull {
        /// What is free.
        free_bytes: u64,
        /// `[logs] disk_reserve`.
        reserve_bytes: u64,
    },
    /// The store takes no more.
    #[error("there is no room on the daemon's disk for what it has to remember")]
    StoreFull,
    /// The daemon is about to stop.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// Our own fault, or the disk's. The text is for the daemon's log and not for callers.
    #[error("{0}")]
    Internal(String),
}

impl CoreError {
    /// The error as callers see it.
    pub fn problem(&self) -> Problem {
        let detail = self.to_string();
        let problem = |status, slug, title| Problem::new(status, slug, title, detail.clone());
        match self {
            Self::NotFound { what: _, name: _, nearest } => {
                let problem = problem(404, "not-found", "Not found");
                match nearest {
                    Some(nearest) => problem.with_hint(format!("did you mean {nearest:?}?")),
                    None => problem,
                }
            }
            Self::Conflict { detail: _, hint } => with_hint(problem(409, "conflict", "Conflict"), hint.as_deref()),
            Self::NameTaken { name } => problem(409, "name-taken", "Name taken")
                .with_hint(format!("choose another name, or run `forge runners remove {name}` and register again")),
            Self::SessionClash { runner, last_contact_at: _ } => problem(409, forge_api::SESSION_CLASH, "Session clash")
                .with_hint(format!(
                    "stop the other process that runs as {runner:?}, or give this one a name and a token of its own; \
                     after 30 seconds without contact the other session is forgotten"
                )),
            Self::RunnerTooOld { runner, version: _ } => problem(426, "runner-too-old", "Runner too old").with_hint(format!(
                "install forge {DAEMON_VERSION} on the host of {runner} and start the runner again; its registration stays"
            )),
            Self::Unauthorized => problem(401, "unauthorized", "Unauthorized"),
            Self::Forbidden { detail: _, hint } => with_hint(problem(403, "forbidden", "Forbidden"), hint.as_deref()),
            Self::Gone { .. } => problem(410, "attempt-closed", "Attempt closed")
                .with_hint("end what still runs and hand in the rest of the log"),
            Self::Older { .. } => problem(409, "attempt-older", "A newer attempt exists")
                .with_hint("end what still runs and hand in the rest of the log"),
            Self::RangeNotSatisfiable { log_length } => {
                let mut problem =
                    problem(416, "log-range", "Range not satisfiable").with_hint(format!("go on at byte {log_length}"));
                problem.log_length = Some(*log_length);
                problem
            }
            Self::LogLimit { .. } => problem(413, "log-limit", "Log too long")
                .with_hint("write less, or raise `max_bytes` under [logs] of forge.toml"),
            Self::LogDiffers { .. } => problem(409, forge_api::LOG_DIFFERS, "Log differs")
                .with_hint("hand in the result; what the daemon holds is kept"),
            Self::CarryMissing { .. } => problem(409, forge_api::CARRY_MISSING, "Carry missing")
                .with_hint("send it with `PUT /attempts/{id}/carry`, and the result after it"),
            Self::InvalidAnswers(_) => problem(422, "invalid-answers", "Answers do not match the survey"),
            Self::Invalid { detail: _, hint } => with_hint(problem(400, "invalid", "Invalid request"), hint.as_deref()),
            Self::StorageFull { .. } => problem(507, "storage-full", "Storage full")
                .with_hint("free space on the daemon's host, or lower `disk_reserve` under [logs] of forge.toml"),
            Self::StoreFull => problem(507, "storage-full", "Storage full")
                .with_hint("free space where the daemon's `data_dir` lies, and try again"),
            Self::ShuttingDown => problem(503, "shutting-down", "Shutting down").with_hint("try again in a moment"),
            Self::Internal(_) => Problem::new(500, "internal", "Internal error", "the daemon failed to do this")
                .with_hint("the daemon's log has the cause"),
        }
    }
}

fn with_hint(problem: Problem, hint: Option<&str>) -> Problem {
    match hint {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_tells_strangers_nothing() {
        let problem = CoreError::Internal("/secret/path: disk I/O error".to_owned()).problem();
        assert_eq!(problem.status, 500);
        assert!(!format!("{problem:?}").contains("secret"));
    }

    #[test]
    fn a_taken_name_says_how_to_free_it() {
        let problem = CoreError::NameTaken { name: "ny-1".to_owned() }.problem();
        assert_eq!((problem.status, problem.slug()), (409, "name-taken"));
        assert!(problem.hint.is_some_and(|hint| hint.contains("forge runners remove ny-1")));
    }
}
