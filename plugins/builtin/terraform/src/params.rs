//! The template's `[params]`: their schema, and what they mean. The two are one decision and stand together.

use std::collections::BTreeMap;

use forge_plugin::{Failure, Job};
use serde::Deserialize;
use serde_json::{Value, json};

/// The most operations at a time: each holds a connection and memory of the runner.
const PARALLELISM_MAX: u32 = 256;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// Say what would change.
    Plan,
    /// Change it.
    Apply,
    /// Take everything away.
    Destroy,
    /// Say what would change, and change exactly that once a person has said yes.
    PlanThenApply,
    /// The same, for taking everything away.
    PlanThenDestroy,
}

impl Action {
    /// Whether the plan takes everything away.
    pub(crate) const fn destroys(self) -> bool {
        matches!(self, Self::Destroy | Self::PlanThenDestroy)
    }
}

/// Which program does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Binary {
    #[default]
    Terraform,
    Tofu,
}

impl Binary {
    /// Its bare name.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Terraform => "terraform",
            Self::Tofu => "tofu",
        }
    }
}

/// A value of `backend_config`, as people write it in TOML.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Setting {
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
}

impl std::fmt::Display for Setting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => write!(formatter, "{flag}"),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// What the params mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) command: Action,
    #[serde(default)]
    pub(crate) working_dir: String,
    #[serde(default)]
    pub(crate) binary: Binary,
    pub(crate) workspace: Option<String>,
    #[serde(default)]
    pub(crate) var_files: Vec<String>,
    #[serde(default)]
    pub(crate) backend_config: BTreeMap<String, Setting>,
    #[serde(default)]
    pub(crate) backend_config_files: Vec<String>,
    #[serde(default)]
    pub(crate) targets: Vec<String>,
    #[serde(default)]
    pub(crate) replace: Vec<String>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) lock_timeout: Option<String>,
    #[serde(default)]
    pub(crate) carry: Vec<String>,
    #[serde(default = "yes")]
    pub(crate) color: bool,
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
}

const fn yes() -> bool {
    true
}

pub(crate) fn schema() -> Value {
    let texts = |description: &str| {
        json!({
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
            "default": [],
            "description": description
        })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "terraform",
        "description": "A configuration of the template's repository, and what is done with it",
        "type": "object",
        "properties": {
            "command": {
                "type": "string",
                "enum": ["plan", "apply", "destroy", "plan-then-apply", "plan-then-destroy"],
                "description": "What is done; `plan-then-...` waits for a person's approval and then does exactly what was planned"
            },
            "working_dir": {
                "type": "string", "default": ".",
                "description": "The folder of the root module, in the repository"
            },
            "binary": {
                "type": "string", "enum": ["terraform", "tofu"], "default": "terraform",
                "description": "Which program; granted in [allow].programs of the plugin"
            },
            "workspace": {
                "type": "string", "pattern": "^[A-Za-z0-9_.~][A-Za-z0-9_.~-]*$",
                "description": "The workspace to work in; it is made when it is not there"
            },
            "var_files": texts("Files of variables, relative to working_dir; the task's own variables win over them"),
            "backend_config": {
                "type": "object",
                "additionalProperties": { "type": ["string", "number", "boolean"] },
                "default": {},
                "description": "Settings of the backend, as -backend-config takes them; secrets belong into the environment"
            },
            "backend_config_files": texts("Files of settings of the backend, relative to working_dir"),
            "targets": texts("Only these resources, and what they depend on"),
            "replace": texts("Resources that are made anew though nothing about them changed"),
            "parallelism": {
                "type": "integer", "minimum": 1, "maximum": PARALLELISM_MAX,
                "description": "How many operations at a time; the program's default is 10"
            },
            "lock_timeout": {
                "type": "string", "pattern": "^[0-9]+(s|m|h)$",
                "description": "How long to wait for a locked state, such as \"5m\"; not at all when it is not set"
            },
            "carry": texts("Further files, relative to working_dir, that planning makes and the approved apply needs"),
            "color": { "type": "boolean", "default": true, "description": "Whether the log has the program's colors" },
            "arguments": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "Further options of `plan`; a trigger's own arguments follow"
            }
        },
        "required": ["command"],
        "additionalProperties": false
    })
}

impl Params {
    /// The schema is checked where the tree is; what would become another option here is refused again.
    pub(crate) fn of(job: &Job) -> Result<Self, Failure> {
        let params: Self = job.params()?;
        if let Some(workspace) = params.workspace.as_ref().filter(|name| name.is_empty() || name.starts_with('-')) {
            return Err(Failure::Invalid(format!("[params].workspace = {workspace:?} is not a workspace's name")));
        }
        Ok(params)
    }
}
