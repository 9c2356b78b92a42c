//! The template's `[params]`: their schema, and what they mean. The two are one decision and stand together.

use forge_plugin::{Failure, Job};
use serde::Deserialize;
use serde_json::{Value, json};

/// The most `-v` that change anything.
const VERBOSITY_MAX: u8 = 4;

/// The most hosts that are worked on at a time: each is a process of the runner.
const FORKS_MAX: u32 = 1_000;

/// What the params mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) playbook: String,
    pub(crate) limit: Option<String>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) skip_tags: Vec<String>,
    #[serde(default, rename = "become")]
    pub(crate) becomes: bool,
    pub(crate) become_user: Option<String>,
    #[serde(default)]
    pub(crate) check: bool,
    #[serde(default)]
    pub(crate) diff: bool,
    pub(crate) forks: Option<u32>,
    #[serde(default)]
    pub(crate) verbosity: u8,
    #[serde(default = "yes")]
    pub(crate) galaxy: bool,
    #[serde(default = "yes")]
    pub(crate) color: bool,
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
}

const fn yes() -> bool {
    true
}

pub(crate) fn schema() -> Value {
    let names = |description: &str| {
        json!({
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
            "default": [],
            "description": description
        })
    };
    let flag =
        |default: bool, description: &str| json!({ "type": "boolean", "default": default, "description": description });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ansible",
        "description": "A playbook of the template's repository, and how it is run",
        "type": "object",
        "properties": {
            "playbook": { "type": "string", "minLength": 1, "description": "The playbook's path in the repository" },
            "limit": { "type": "string", "minLength": 1, "description": "Which hosts, as a pattern of Ansible" },
            "tags": names("Only tasks with one of these tags"),
            "skip_tags": names("No tasks with one of these tags"),
            "become": flag(false, "Whether tasks run as another user on the hosts"),
            "become_user": { "type": "string", "minLength": 1, "description": "As which user; Ansible's default is root" },
            "check": flag(false, "Whether to say what would change, and change nothing"),
            "diff": flag(false, "Whether to show what changes in files"),
            "forks": {
                "type": "integer", "minimum": 1, "maximum": FORKS_MAX,
                "description": "How many hosts at a time; Ansible's default is 5"
            },
            "verbosity": {
                "type": "integer", "minimum": 0, "maximum": VERBOSITY_MAX, "default": 0,
                "description": "How much Ansible tells: 1 is -v, 4 is -vvvv"
            },
            "galaxy": flag(true, "Whether requirements.yml, roles/requirements.yml and collections/requirements.yml are installed first"),
            "color": flag(true, "Whether the log has Ansible's colors"),
            "arguments": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "Further options of ansible-playbook; a trigger's own arguments follow"
            }
        },
        "required": ["playbook"],
        "additionalProperties": false
    })
}

impl Params {
    pub(crate) fn of(job: &Job) -> Result<Self, Failure> {
        let params: Self = job.params()?;
        if params.verbosity > VERBOSITY_MAX {
            return Err(Failure::Invalid(format!(
                "[params].verbosity = {}: the most is {VERBOSITY_MAX}",
                params.verbosity
            )));
        }
        Ok(params)
    }
}
