//! What crosses the simulated network, in the API's own types.

use forge_api::{
    AttemptId, AttemptResult, ClaimResponse, HeartbeatResponse, LogAccepted, Problem, ResultAccepted, Secret,
    StartResponse,
};
use forge_runner::rules::Ask;

/// Which process of which machine: answers to an earlier process are heard by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) machine: usize,
    pub(crate) incarnation: u64,
}

/// A runner process's name for itself, and the proof that it is no clone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) session: String,
    pub(crate) previous_sessions: Vec<String>,
}

/// An attempt and its own token.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    pub(crate) attempt: AttemptId,
    pub(crate) token: Secret,
}

/// What a runner asks.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Claim(Identity, Ask),
    Beat(Identity, Vec<AttemptId>),
    Start(Bearer, Option<String>),
    Log(Bearer, u64, Vec<u8>),
    Finish(Bearer, Box<AttemptResult>),
}

/// Why a request had no good answer.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    /// Nobody answered.
    Unreachable,
    /// The daemon said no.
    Problem(Box<Problem>),
}

impl Failed {
    /// As the runner's client judges it.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Problem(problem) => matches!(problem.status, 408 | 425 | 429 | 500..=599),
        }
    }
}

/// What it is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Claim(Result<ClaimResponse, Failed>),
    Beat(Result<HeartbeatResponse, Failed>),
    Start(AttemptId, Result<StartResponse, Failed>),
    Log(AttemptId, Result<LogAccepted, Failed>),
    Finish(AttemptId, Result<ResultAccepted, Failed>),
}

impl Answer {
    /// What is heard instead when it does not come through.
    pub(crate) fn lost(&self) -> Self {
        let nobody = Failed::Unreachable;
        match self {
            Self::Claim(_) => Self::Claim(Err(nobody)),
            Self::Beat(_) => Self::Beat(Err(nobody)),
            Self::Start(attempt, _) => Self::Start(*attempt, Err(nobody)),
            Self::Log(attempt, _) => Self::Log(*attempt, Err(nobody)),
            Self::Finish(attempt, _) => Self::Finish(*attempt, Err(nobody)),
        }
    }

    /// Whether the daemon had no room for what was asked.
    pub(crate) fn is_refused_full(&self) -> bool {
        let failed = match self {
            Self::Claim(answer) => answer.as_ref().err(),
            Self::Beat(answer) => answer.as_ref().err(),
            Self::Start(_, answer) => answer.as_ref().err(),
            Self::Log(_, answer) => answer.as_ref().err(),
            Self::Finish(_, answer) => answer.as_ref().err(),
        };
        matches!(failed, Some(Failed::Problem(problem)) if problem.status == 507)
    }

    /// Whether it is the runner's own finding that nobody answers, which needs no network.
    pub(crate) fn is_local(&self) -> bool {
        matches!(
            self,
            Self::Claim(Err(Failed::Unreachable))
                | Self::Beat(Err(Failed::Unreachable))
                | Self::Start(_, Err(Failed::Unreachable))
                | Self::Log(_, Err(Failed::Unreachable))
                | Self::Finish(_, Err(Failed::Unreachable))
        )
    }
}

impl Request {
    /// What the runner hears when nobody answers.
    pub(crate) fn unanswered(&self) -> Answer {
        let nobody = Failed::Unreachable;
        match self {
            Self::Claim(..) => Answer::Claim(Err(nobody)),
            Self::Beat(..) => Answer::Beat(Err(nobody)),
            Self::Start(bearer, _) => Answer::Start(bearer.attempt, Err(nobody)),
            Self::Log(bearer, ..) => Answer::Log(bearer.attempt, Err(nobody)),
            Self::Finish(bearer, _) => Answer::Finish(bearer.attempt, Err(nobody)),
        }
    }
}
