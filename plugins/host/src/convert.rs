//! Between the contract's generated types and [`crate::types`]: the one place that knows both.

use serde_json::Value;

use crate::bindings::exports::forge::plugin::executor;
use crate::bindings::forge::plugin::{process, types};
use crate::limits::RESULT_BYTES_MAX;
use crate::{Capability, CapabilityError, Done, Event, Exit, Finished, Job, Level, Outcome, PluginInfo};

pub(crate) fn pairs(pairs: Vec<types::Pair>) -> Vec<(String, String)> {
    pairs.into_iter().map(|types::Pair { key, value }| (key, value)).collect()
}

pub(crate) fn level(level: types::Level) -> Level {
    match level {
        types::Level::Trace => Level::Trace,
        types::Level::Debug => Level::Debug,
        types::Level::Info => Level::Info,
        types::Level::Warn => Level::Warn,
        types::Level::Error => Level::Error,
    }
}

pub(crate) fn host_error(error: CapabilityError) -> types::HostError {
    match error {
        CapabilityError::Denied(message) => types::HostError::Denied(message),
        CapabilityError::NotFound(message) => types::HostError::NotFound(message),
        CapabilityError::Invalid(message) => types::HostError::Invalid(message),
        CapabilityError::Canceled => types::HostError::Canceled,
        CapabilityError::Io(message) => types::HostError::Io(message),
    }
}

fn exit(exit: Exit) -> process::Exit {
    match exit {
        Exit::Code(code) => process::Exit::Code(code),
        Exit::Signal(signal) => process::Exit::Signal(signal),
        Exit::TimedOut => process::Exit::TimedOut,
    }
}

pub(crate) fn event(event: Event) -> process::Event {
    match event {
        Event::Stdout(bytes) => process::Event::Stdout(bytes),
        Event::Stderr(bytes) => process::Event::Stderr(bytes),
        Event::Exited(how) => process::Event::Exited(exit(how)),
    }
}

pub(crate) fn finished(finished: Finished) -> process::Finished {
    let Finished { exit: how, stdout_tail, stderr_tail } = finished;
    process::Finished { exit: exit(how), stdout_tail, stderr_tail }
}

pub(crate) fn job(job: Job) -> types::Job {
    let Job {
        id,
        attempt,
        project,
        template,
        params,
        config,
        variables,
        variables_file,
        inventory,
        checkout,
        key_files,
        cache,
        arguments,
        deadline_ms,
        resume,
    } = job;
    types::Job {
        id,
        attempt,
        project,
        template,
        params_json: params.to_string(),
        config_json: config.to_string(),
        variables_json: Value::Object(variables).to_string(),
        variables_file,
        inventory,
        checkout,
        key_files: key_files.into_iter().map(|(key, value)| types::Pair { key, value }).collect(),
        cache,
        arguments,
        deadline_ms,
        resume,
    }
}

/// What a guest hands back is bounded before it is looked at.
pub(crate) fn text(field: &str, text: String) -> Result<String, String> {
    if text.len() > RESULT_BYTES_MAX {
        return Err(format!("its {field} has {} bytes; at most {RESULT_BYTES_MAX} are taken", text.len()));
    }
    Ok(text)
}

pub(crate) fn json(field: &str, json: Option<String>) -> Result<Option<Value>, String> {
    let Some(json) = json else { return Ok(None) };
    let json = text(field, json)?;
    serde_json::from_str(&json).map(Some).map_err(|error| format!("its {field} is not JSON: {error}"))
}

pub(crate) fn from_pairs(pairs: &[(String, String)]) -> Vec<types::Pair> {
    pairs.iter().map(|(key, value)| types::Pair { key: key.clone(), value: value.clone() }).collect()
}

pub(crate) fn info(info: types::PluginInfo) -> Result<PluginInfo, String> {
    let types::PluginInfo { name, version, summary, params_schema, config_schema, wants } = info;
    Ok(PluginInfo {
        name: text("name", name)?,
        version: text("version", version)?,
        summary: text("summary", summary)?,
        params_schema: json("params-schema", params_schema)?,
        config_schema: json("config-schema", config_schema)?,
        wants: wants
            .into_iter()
            .map(|want| match want {
                types::Capability::Process(programs) => Capability::Process(programs),
                types::Capability::Env(names) => Capability::Env(names),
                types::Capability::Http(hosts) => Capability::Http(hosts),
            })
            .collect(),
    })
}

fn outcome(outcome: types::Outcome) -> Result<Outcome, String> {
    let types::Outcome { summary, output_json, exit_code } = outcome;
    Ok(Outcome { summary: text("summary", summary)?, output: json("output-json", output_json)?, exit_code })
}

pub(crate) fn done(done: executor::Done) -> Result<Done, String> {
    match done {
        executor::Done::Finished(finished) => Ok(Done::Finished(outcome(finished)?)),
        executor::Done::Pending(executor::Pending { outcome: planned, carry }) => {
            Ok(Done::Pending { outcome: outcome(planned)?, carry })
        }
    }
}
