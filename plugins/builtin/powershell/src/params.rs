//! The template's `[params]`: their schema, and what they mean. The two are one decision and stand together.

use forge_plugin::{Failure, Job};
use serde::Deserialize;
use serde_json::{Value, json};

/// How the names of PowerShell's scripts end: another file would be started as a program.
pub(crate) const ENDING: &str = ".ps1";

/// What the params mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) source: Source,
    pub(crate) error_action: ErrorAction,
    pub(crate) arguments: Vec<String>,
}

/// Where the script is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the template itself.
    Script(String),
    /// In the repository.
    File(String),
}

/// What an error does that a command reports and goes on after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ErrorAction {
    /// It ends the script.
    #[default]
    Stop,
    /// It is shown, and the script goes on: what PowerShell does by itself.
    Continue,
}

impl ErrorAction {
    /// As PowerShell calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stop => "Stop",
            Self::Continue => "Continue",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    script: Option<String>,
    file: Option<String>,
    #[serde(default)]
    error_action: ErrorAction,
    #[serde(default)]
    arguments: Vec<String>,
}

/// "Exactly one of two" is written as if-then-else, since a validator's words for `oneOf` tell a reader nothing: here
/// they are "'file' was unexpected" beside a script, and "\"file\" is a required property" without either.
pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "powershell",
        "description": "A script for PowerShell, either as `script` or as `file`",
        "type": "object",
        "properties": {
            "script": { "type": "string", "minLength": 1, "description": "The script itself" },
            "file": { "type": "string", "pattern": "\\.ps1$", "description": "The script's path in the repository, *.ps1" },
            "error_action": {
                "type": "string", "enum": ["stop", "continue"], "default": "stop",
                "description": "Whether an error of a command ends the script, or is only shown"
            },
            "arguments": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "What the script is given, such as \"-Name\", \"value\"; a trigger's own arguments follow"
            }
        },
        "if": { "required": ["script"] },
        "then": {
            "properties": { "script": true, "error_action": true, "arguments": true },
            "additionalProperties": false
        },
        "else": {
            "properties": { "file": true, "error_action": true, "arguments": true },
            "required": ["file"],
            "additionalProperties": false
        }
    })
}

impl Params {
    pub(crate) fn of(job: &Job) -> Result<Self, Failure> {
        let Written { script, file, error_action, arguments } = job.params()?;
        let source = match (script, file) {
            (Some(script), None) => Source::Script(script),
            (None, Some(file)) if file.ends_with(ENDING) => Source::File(file),
            (None, Some(file)) => {
                return Err(Failure::Invalid(format!(
                    "[params].file = {file:?}: PowerShell runs files whose names end with {ENDING}"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(Failure::Invalid("[params] has both `script` and `file`: keep one of them".to_owned()));
            }
            (None, None) => {
                return Err(Failure::Invalid(
                    "[params] has neither `script` nor `file`: write the script as `script = \"...\"`, or name one in \
                     the repository as `file = \"...\"`"
                        .to_owned(),
                ));
            }
        };
        Ok(Self { source, error_action, arguments })
    }
}
