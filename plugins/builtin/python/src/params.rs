//! The template's `[params]`: their schema, and what they mean. The two are one decision and stand together.

use forge_plugin::{Failure, Job};
use serde::Deserialize;
use serde_json::{Value, json};

/// What runs the code when nothing is said.
pub(crate) const DEFAULT_INTERPRETER: &str = "python3";

/// What the params mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) source: Source,
    pub(crate) interpreter: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) requirements: Option<Requirements>,
    pub(crate) pip_arguments: Vec<String>,
}

/// Where the code is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the template itself.
    Script(String),
    /// In the repository.
    File(String),
    /// A module, of the repository or of the requirements.
    Module(String),
}

/// What the code needs.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Requirements {
    /// A file in the repository.
    File(String),
    /// The lines of one.
    Lines(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    script: Option<String>,
    file: Option<String>,
    module: Option<String>,
    interpreter: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
    requirements: Option<Requirements>,
    #[serde(default)]
    pip_arguments: Vec<String>,
}

/// "Exactly one of three" is written as if-then-else, since a validator's words for `oneOf` tell a reader nothing: here
/// they are "'file' was unexpected" beside a script, and "\"file\" is a required property" without any.
pub(crate) fn schema() -> Value {
    let only = |name: &str| {
        let mut properties = json!({
            "interpreter": true, "arguments": true, "requirements": true, "pip_arguments": true
        });
        properties[name] = Value::Bool(true);
        json!({ "properties": properties, "required": [name], "additionalProperties": false })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "python",
        "description": "Python code, as `file`, `module` or `script`, and what it needs",
        "type": "object",
        "properties": {
            "script": { "type": "string", "minLength": 1, "description": "The code itself" },
            "file": { "type": "string", "minLength": 1, "description": "The code's path in the repository" },
            "module": {
                "type": "string",
                "pattern": "^[^\\s-][^\\s]*$",
                "description": "A module, as after `python -m`: of the repository, or one that the requirements bring"
            },
            "interpreter": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$",
                "default": DEFAULT_INTERPRETER,
                "description": "The Python that runs it, by bare name; granted in [allow].programs of the plugin"
            },
            "arguments": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "What the code is given; a trigger's own arguments follow"
            },
            "requirements": {
                "type": ["string", "array"],
                "minLength": 1,
                "items": { "type": "string" },
                "description": "What pip installs before it runs: a file of the repository such as \"requirements.txt\", or a list of its lines"
            },
            "pip_arguments": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "Further arguments of `pip install`, such as \"--require-hashes\" or \"--index-url=https://...\""
            }
        },
        "if": { "required": ["script"] },
        "then": only("script"),
        "else": { "if": { "required": ["module"] }, "then": only("module"), "else": only("file") }
    })
}

impl Params {
    pub(crate) fn of(job: &Job) -> Result<Self, Failure> {
        let Written { script, file, module, interpreter, arguments, requirements, pip_arguments } = job.params()?;
        let source = match (script, file, module) {
            (Some(script), None, None) => Source::Script(script),
            (None, Some(file), None) => Source::File(file),
            (None, None, Some(module)) => Source::Module(module),
            (None, None, None) => {
                return Err(Failure::Invalid(
                    "[params] has neither `file` nor `module` nor `script`: name a file of the repository as \
                     `file = \"...\"`, a module as `module = \"...\"`, or write the code as `script = \"...\"`"
                        .to_owned(),
                ));
            }
            _ => {
                return Err(Failure::Invalid(
                    "[params] has more than one of `file`, `module` and `script`: keep one of them".to_owned(),
                ));
            }
        };
        if requirements.is_none() && !pip_arguments.is_empty() {
            return Err(Failure::Invalid(
                "[params] has `pip_arguments` and no `requirements`, so pip is not run: write `requirements`, or take \
                 `pip_arguments` out"
                    .to_owned(),
            ));
        }
        let interpreter = interpreter.unwrap_or_else(|| DEFAULT_INTERPRETER.to_owned());
        Ok(Self { source, interpreter, arguments, requirements, pip_arguments })
    }
}
