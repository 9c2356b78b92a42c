//! The calls of a webhook target. It is pure: each call is a fresh store with a log and nothing else, and what it answers is bounded.

use wasmtime::Store;

use crate::bindings::webhook::WebhookPlugin;
use crate::load::Entry;
use crate::state::State;
use crate::trap::Ended;
use crate::{
    CapabilityError, ChildProcess, Command, Disposition, Finished, Grants, HttpRequest, HttpResponse, Level, Limits,
    Plugin, Sent, Services, Trap, WebhookEvent, request,
};

/// What each call of a target needs beside its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetCall {
    /// The plugin's name in the tree: messages point to `plugins/NAME.toml`.
    pub plugin_name: String,
    /// How much it may use.
    pub limits: Limits,
}

/// What the embedder does for a webhook target.
pub trait TargetServices: Send {
    /// A line of its log, bounded.
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]);
    /// Whether the call is to end. Asked every 10 ms while the guest computes: answer at once.
    fn canceled(&self) -> bool;
}

/// Why a target did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It refuses the event: never tried again.
    #[error("{0}")]
    Refused(String),
    /// It ended before it answered.
    #[error(transparent)]
    Trapped(#[from] Trap),
    /// It answered what cannot be used.
    #[error("the plugin's answer cannot be used: {0}")]
    BadAnswer(String),
    /// The embedder ended it.
    #[error("canceled")]
    Canceled,
    /// It is something else.
    #[error("the plugin is an executor and tells nobody of events")]
    NotATarget,
}

impl Plugin {
    /// Asks a webhook target for the requests that tell of an event.
    ///
    /// # Errors
    /// It refuses the event, ended before it answered, or planned what is too much.
    pub fn plan(
        &self,
        call: &TargetCall,
        event: &WebhookEvent,
        services: impl TargetServices + 'static,
    ) -> Result<Vec<HttpRequest>, TargetError> {
        let event = request::event(event);
        let planned = self
            .call_target(call, services, |guest, store| guest.forge_plugin_webhook_target().call_plan(store, &event))?;
        match planned {
            Ok(planned) => request::requests(planned).map_err(TargetError::BadAnswer),
            Err(why) => Err(TargetError::Refused(request::message(why))),
        }
    }

    /// Asks a webhook target what an answer means.
    ///
    /// # Errors
    /// It ended before it answered, or planned what is too much.
    pub fn judge(
        &self,
        call: &TargetCall,
        event: &WebhookEvent,
        sent: &Sent,
        response: &HttpResponse,
        services: impl TargetServices + 'static,
    ) -> Result<Disposition, TargetError> {
        let (event, sent, response) = (request::event(event), request::sent(sent), request::response(response));
        let judged = self.call_target(call, services, |guest, store| {
            guest.forge_plugin_webhook_target().call_judge(store, &event, &sent, &response)
        })?;
        request::disposition(judged).map_err(TargetError::BadAnswer)
    }

    fn call_target<R>(
        &self,
        call: &TargetCall,
        services: impl TargetServices + 'static,
        function: impl FnOnce(&WebhookPlugin, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, TargetError> {
        let Entry::WebhookTarget(pre) = &self.loaded.entry else { return Err(TargetError::NotATarget) };
        let TargetCall { plugin_name, limits } = call.clone();
        let grants = Grants { plugin_name, ..Grants::default() };
        let state = State::new(Box::new(LogOnly(services)), grants, None, limits);
        let answer = self.call(state, limits, |store| {
            let guest = pre.instantiate(&mut *store)?;
            function(&guest, store)
        });
        answer.map_err(|ended| match ended {
            Ended::Canceled => TargetError::Canceled,
            Ended::Trapped(trap) => trap.into(),
        })
    }
}

/// A target's services as every call has them. What a target does not have, it cannot import either.
struct LogOnly<S>(S);

impl<S> LogOnly<S> {
    fn refusal() -> CapabilityError {
        CapabilityError::Denied("a webhook target runs nothing".to_owned())
    }
}

impl<S: TargetServices> Services for LogOnly<S> {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        self.0.log(level, message, fields);
    }

    fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

    fn canceled(&self) -> bool {
        self.0.canceled()
    }

    fn run(&mut self, _command: Command) -> Result<Finished, CapabilityError> {
        Err(Self::refusal())
    }

    fn spawn(&mut self, _command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        Err(Self::refusal())
    }
}
