//! The template's `[params]`: their schema, and what they mean. The two are one decision and stand together.

use forge_plugin::{Failure, Job};
use serde::Deserialize;
use serde_json::{Value, json};

/// What runs the script when nothing is said.
pub(crate) const DEFAULT_INTERPRETER: &str = "bash";

/// What the params mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) source: Source,
    pub(crate) interpreter: String,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    script: Option<String>,
    file: Option<String>,
    interpreter: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
}

/// "Exactly one of two" is written as if-then-else, since a validator's words for `oneOf` tell a reader nothing: here
/// they are "'file' was unexpected" beside a script, and "\"file\" is a required property" without either.
pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "shell",
        "description": "A script, either as `script` or as `file`, and what runs it",
        "type": "object",
        "properties": {
            "script": { "type": "string", "minLength": 1, "description": "The script itself" },
            "file": { "type": "string", "minLength": 1, "description": "The script's path in the repository" },
            "interpreter": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$",
                "default": DEFAULT_INTERPRETER,
                "description": "The program that runs it, by bare name; granted in [allow].programs of the plugin"
            },
            "arguments": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "What the script is given; a trigger's own arguments follow"
            }
        },
        "if": { "required": ["script"] },
        "then": {
            "properties": { "script": true, "interpreter": true, "arguments": true },
            "additionalProperties": false
        },
        "else": {
            "properties": { "file": true, "interpreter": true, "arguments": true },
            "required": ["file"],
            "additionalProperties": false
        }
    })
}

impl Params {
    pub(crate) fn of(job: &Job) -> Result<Self, Failure> {
        let Written { script, file, interpreter, arguments } = job.params()?;
        let source = match (script, file) {
            (Some(script), None) => Source::Script(script),
            (None, Some(file)) => Source::File(file),
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
        Ok(Self { source, interpreter: interpreter.unwrap_or_else(|| DEFAULT_INTERPRETER.to_owned()), arguments })
    }
}
