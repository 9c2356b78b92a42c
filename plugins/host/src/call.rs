//! One call of a guest: a fresh store, bounded in every way, and how it may end.

use std::path::PathBuf;

use serde_json::Value;

use crate::bindings::forge::plugin::types::{Failed, Failure, Retry};
use crate::convert;
use crate::engine::Ticker;
use crate::load::Entry;
use crate::state::State;
use crate::trap::{self, Ended};
use crate::workspace::Workspace;
use crate::{
    CapabilityError, ChildProcess, Command, Done, ExecuteRequest, Finished, Grants, Level, Limits, Plugin, PluginInfo,
    Services, Trap, TrapCause,
};

/// Why a plugin could not describe itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It ended before it answered.
    #[error(transparent)]
    Trapped(#[from] Trap),
    /// It answered what cannot be used.
    #[error("the plugin's answer cannot be used: {0}")]
    BadAnswer(String),
}

/// How a job ended that did not end well.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExecuteError {
    /// The plugin refuses the params: never retried.
    #[error("{0}")]
    Invalid(String),
    /// The work ran and failed.
    #[error("{message}")]
    Failed {
        /// One line for people.
        message: String,
        /// Of the process that did the work.
        exit_code: Option<i32>,
        /// For machines.
        output: Option<Value>,
    },
    /// Worth another try.
    #[error("{message}")]
    Retry {
        /// One line for people.
        message: String,
        /// Not before this long, in milliseconds.
        after_ms: Option<u64>,
    },
    /// The task was canceled.
    #[error("canceled")]
    Canceled,
    /// The plugin ended before it answered.
    #[error(transparent)]
    Trapped(#[from] Trap),
    /// The plugin answered what cannot be used.
    #[error("the plugin's answer cannot be used: {0}")]
    BadAnswer(String),
    /// The attempt's folder cannot be opened.
    #[error("the workspace {}: {error}", .path.display())]
    Workspace {
        /// Where.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

impl Plugin {
    /// Asks the plugin what it is, with the default limits. It may do nothing meanwhile.
    ///
    /// # Errors
    /// The plugin ended before it answered, or its answer cannot be used.
    pub fn describe(&self) -> Result<PluginInfo, CallError> {
        let limits = Limits::default();
        let state = State::new(Box::new(NoServices), Grants::default(), None, limits);
        let answer = self.call(state, limits, |store| match &self.loaded.entry {
            Entry::Executor(pre) => pre.instantiate(&mut *store)?.forge_plugin_executor().call_describe(store),
            Entry::WebhookTarget(pre) => {
                pre.instantiate(&mut *store)?.forge_plugin_webhook_target().call_describe(store)
            }
        });
        match answer {
            Ok(info) => convert::info(info).map_err(CallError::BadAnswer),
            Err(Ended::Trapped(trap)) => Err(trap.into()),
            Err(Ended::Canceled) => Err(CallError::BadAnswer("canceled".to_owned())),
        }
    }

    /// Makes an instance and drops it: nothing of the plugin is called, and what an instance needs has been touched once.
    pub fn warm_up(&self) {
        let state = State::new(Box::new(NoServices), Grants::default(), None, Limits::default());
        let mut store = state.into_store(&self.host);
        // What fails here fails again when it is called.
        match &self.loaded.entry {
            Entry::Executor(pre) => drop(pre.instantiate(&mut store)),
            Entry::WebhookTarget(pre) => drop(pre.instantiate(&mut store)),
        }
    }

    /// Runs a job to its end on this thread.
    ///
    /// # Errors
    /// See [`ExecuteError`]: the plugin's own verdicts, and calls that ended before it gave one.
    pub fn execute(&self, request: ExecuteRequest, services: Box<dyn Services>) -> Result<Done, ExecuteError> {
        let Entry::Executor(pre) = &self.loaded.entry else {
            return Err(ExecuteError::Invalid("the plugin is a webhook target and runs no jobs".to_owned()));
        };
        let ExecuteRequest { job, workspace, grants, limits, file_user } = request;
        let opened = Workspace::open(&workspace, file_user)
            .map_err(|error| ExecuteError::Workspace { path: workspace.clone(), error: error.to_string() })?;
        let state = State::new(services, grants, Some((opened, workspace)), limits);
        let job = convert::job(job);
        let answer = self.call(state, limits, |store| {
            pre.instantiate(&mut *store)?.forge_plugin_executor().call_execute(store, &job)
        });
        match answer {
            Ok(Ok(done)) => convert::done(done).map_err(ExecuteError::BadAnswer),
            Ok(Err(failure)) => Err(verdict(failure)),
            Err(Ended::Canceled) => Err(ExecuteError::Canceled),
            Err(Ended::Trapped(trap)) => Err(trap.into()),
        }
    }

    /// Instantiates and calls the guest by `function`, in a store that is bounded in every way.
    pub(crate) fn call<R>(
        &self,
        state: State,
        limits: Limits,
        function: impl FnOnce(&mut wasmtime::Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, Ended> {
        let mut store = state.into_store(&self.host);
        // Without the ticker nothing would bound the guest's time.
        let ticking = self.host.shared.ticker.as_ref().map(Ticker::tick).transpose().map_err(|error| {
            let cause = TrapCause::Other(format!("the thread that bounds its time does not start: {error}"));
            Ended::Trapped(Trap { cause, frames: Vec::new() })
        })?;
        let answer = function(&mut store);
        drop(ticking);
        answer.map_err(|error| {
            let state = store.data_mut();
            let panic = state.log.panic.take();
            trap::read(&error, &state.grants.plugin_name, limits, panic)
        })
    }
}

fn verdict(failure: Failure) -> ExecuteError {
    let read = match failure {
        Failure::Invalid(message) => convert::text("message", message).map(ExecuteError::Invalid),
        Failure::Failed(Failed { message, exit_code, output_json }) => convert::json("output-json", output_json)
            .and_then(|output| {
                Ok(ExecuteError::Failed { message: convert::text("message", message)?, exit_code, output })
            }),
        Failure::Retry(Retry { message, after_ms }) => {
            convert::text("message", message).map(|message| ExecuteError::Retry { message, after_ms })
        }
        Failure::Canceled => Ok(ExecuteError::Canceled),
    };
    read.unwrap_or_else(ExecuteError::BadAnswer)
}

/// What a plugin has while it describes itself: nothing.
struct NoServices;

impl NoServices {
    fn refusal() -> CapabilityError {
        CapabilityError::Denied("a plugin that describes itself runs nothing".to_owned())
    }
}

impl Services for NoServices {
    fn log(&mut self, level: Level, message: &str, _fields: &[(String, String)]) {
        tracing::debug!(?level, message, "a plugin that describes itself logs");
    }

    fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

    fn canceled(&self) -> bool {
        false
    }

    fn run(&mut self, _command: Command) -> Result<Finished, CapabilityError> {
        Err(Self::refusal())
    }

    fn spawn(&mut self, _command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        Err(Self::refusal())
    }
}
