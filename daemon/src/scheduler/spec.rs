//! What a task needs of the revision that it was created from, cut out and kept: a later revision, or its removal, changes
//! nothing for tasks that exist. It holds where secrets come from, never their values.

use std::collections::BTreeMap;

use forge_api::{Grants, Limits, OnRunnerLost, PluginRef};
use forge_config::meant::{self, Project, Template, Tree};
use forge_config::{Name, SecretValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::assign::Concurrency;

/// The cut. Its JSON is stored once for all tasks that share it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskSpec {
    pub(crate) project: String,
    pub(crate) template: String,
    pub(crate) plugin: PluginRef,
    /// The secrets of the plugin's own `[config]`, by field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) plugin_secrets: BTreeMap<String, SecretRef>,
    pub(crate) params: Map<String, Value>,
    pub(crate) survey: Vec<String>,
    pub(crate) variables: Map<String, Value>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, EnvironmentSecret>,
    pub(crate) repository: Option<RepositorySpec>,
    pub(crate) inventory: Option<InventorySpec>,
    /// Keys by role.
    pub(crate) keys: Vec<(String, KeySpec)>,
    pub(crate) required_tag: Option<String>,
    /// Whether the project took global runners: what counts for its open tasks once it has left the tree. What was cut out before this was
    /// kept could run on any.
    #[serde(default = "yes")]
    pub(crate) global_runners: bool,
    pub(crate) timeout_ms: u64,
    pub(crate) queue_timeout_ms: u64,
    /// What was cut out before there was one has the default.
    #[serde(default = "approval_timeout_default_ms")]
    pub(crate) approval_timeout_ms: u64,
    pub(crate) runner_grace_ms: u64,
    pub(crate) on_runner_lost: OnRunnerLost,
    pub(crate) retry_attempts: u32,
    pub(crate) retry_delay_ms: u64,
    pub(crate) priority: i32,
    pub(crate) concurrency: Concurrency,
    /// The targets of the template and of its project: who is told that a task was made is told of its end, whatever is committed between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) webhooks: Vec<String>,
}

fn yes() -> bool {
    true
}

fn approval_timeout_default_ms() -> u64 {
    meant::APPROVAL_TIMEOUT_MS
}

/// One of little, for tests.
#[cfg(test)]
pub(crate) fn sample() -> TaskSpec {
    serde_json::from_value(serde_json::json!({
        "project": "shop", "template": "report",
        "plugin": { "name": "shell", "sha256": "aa", "config": {}, "grants": { "programs": [], "env": [] },
            "limits": { "memory_bytes": 1, "time_ms": 1 } },
        "params": {}, "survey": [], "variables": {}, "env": {}, "secrets": {}, "repository": null, "inventory": null, "keys": [],
        "required_tag": null, "timeout_ms": 1000, "queue_timeout_ms": 1000, "runner_grace_ms": 1000, "on_runner_lost": "fail",
        "retry_attempts": 0, "retry_delay_ms": 0, "priority": 0, "concurrency": "parallel"
    }))
    .expect("a spec")
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecretRef {
    Age(String),
    File(String),
    Env(String),
    Credential(String),
}

/// A secret of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvironmentSecret {
    pub(crate) destination: Destination,
    pub(crate) value: SecretRef,
}

/// Where a job sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Destination {
    Env,
    Variable,
}

/// A repository and what opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositorySpec {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) branch: Option<String>,
    pub(crate) submodules: bool,
    pub(crate) depth: Option<u32>,
    pub(crate) key: Option<KeySpec>,
}

/// An inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InventorySpec {
    pub(crate) name: String,
    pub(crate) source: InventorySourceSpec,
}

/// Where an inventory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InventorySourceSpec {
    Static(String),
    StaticYaml(String),
    File(String),
    RepositoryFile { repository: RepositorySpec, path: String },
}

/// A key of the tree. Its name serves messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeySpec {
    pub(crate) name: String,
    pub(crate) material: KeyMaterialSpec,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyMaterialSpec {
    Ssh { login: Option<String>, private_key: SecretRef, passphrase: Option<SecretRef> },
    LoginPassword { login: String, password: SecretRef },
    String { value: SecretRef },
}

/// The tree names what it does not have. A checked tree never does; whoever hands in another one learns it here.
#[derive(Debug, thiserror::Error)]
#[error("{template} of project {project} names the {what} {name:?}, which its revision does not have")]
pub(crate) struct DanglingName {
    project: String,
    template: String,
    what: &'static str,
    name: String,
}

type KeysByRole = Vec<(String, KeySpec)>;

struct Cut<'a> {
    project: &'a Project,
    template: &'a Template,
}

impl TaskSpec {
    /// Cuts out what the tasks of a template need.
    pub(crate) fn of(tree: &Tree, project: &Project, template: &Template) -> Result<Self, DanglingName> {
        let cut = Cut { project, template };
        let plugin = cut.found(&tree.plugins, &template.executor, "plugin")?;
        let environment = match &template.environment {
            Some(name) => cut.found(&project.environments, name, "environment")?.clone(),
            None => meant::Environment::default(),
        };
        let (inventory, mut keys) = match &template.inventory {
            Some(name) => cut.inventory(name)?,
            None => (None, Vec::new()),
        };
        for (id, key) in &template.vault_keys {
            keys.push((format!("vault:{id}"), cut.key(key)?));
        }
        let mut repository = match &template.repository {
            Some(name) => Some(cut.repository(name)?),
            None => None,
        };
        if let Some(repository) = &mut repository {
            repository.branch.clone_from(&template.branch);
        }
        Ok(Self {
            project: project.name.as_str().to_owned(),
            template: template.name.as_str().to_owned(),
            plugin: plugin_ref(plugin),
            plugin_secrets: plugin
                .config_secrets
                .iter()
                .map(|(field, value)| (field.clone(), secret_ref(value.clone())))
                .collect(),
            params: template.params.clone(),
            survey: template.survey.keys().cloned().collect(),
            variables: environment.variables,
            env: environment.env,
            secrets: environment.secrets.into_iter().map(|(name, secret)| (name, environment_secret(secret))).collect(),
            repository,
            inventory,
            keys,
            required_tag: template.required_tag.clone(),
            global_runners: project.global_runners,
            timeout_ms: template.timeout_ms,
            queue_timeout_ms: template.queue_timeout_ms,
            approval_timeout_ms: template.approval_timeout_ms,
            runner_grace_ms: template.runner_grace_ms,
            on_runner_lost: match template.on_runner_lost {
                meant::OnRunnerLost::Fail => OnRunnerLost::Fail,
                meant::OnRunnerLost::Retry => OnRunnerLost::Retry,
            },
            retry_attempts: template.retry_attempts,
            retry_delay_ms: template.retry_delay_ms,
            priority: template.priority,
            concurrency: match template.concurrency {
                meant::Concurrency::Queue => Concurrency::Queue,
                meant::Concurrency::Parallel => Concurrency::Parallel,
                meant::Concurrency::Skip => Concurrency::Skip,
                meant::Concurrency::Replace => Concurrency::Replace,
            },
            webhooks: cut.webhooks(),
        })
    }
}

impl Cut<'_> {
    fn webhooks(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.template.webhooks.iter().chain(&self.project.webhooks) {
            if !names.iter().any(|known| known == name.as_str()) {
                names.push(name.as_str().to_owned());
            }
        }
        names
    }

    fn found<'m, V>(&self, map: &'m BTreeMap<Name, V>, name: &Name, what: &'static str) -> Result<&'m V, DanglingName> {
        map.get(name).ok_or_else(|| self.dangling(what, name))
    }

    fn dangling(&self, what: &'static str, name: &Name) -> DanglingName {
        DanglingName {
            project: self.project.name.as_str().to_owned(),
            template: self.template.name.as_str().to_owned(),
            what,
            name: name.as_str().to_owned(),
        }
    }

    fn key(&self, name: &Name) -> Result<KeySpec, DanglingName> {
        let material = match self.found(&self.project.keys, name, "key")?.clone() {
            meant::Key::Ssh { login, private_key, passphrase } => KeyMaterialSpec::Ssh {
                login,
                private_key: secret_ref(private_key),
                passphrase: passphrase.map(secret_ref),
            },
            meant::Key::LoginPassword { login, password } => {
                KeyMaterialSpec::LoginPassword { login, password: secret_ref(password) }
            }
            meant::Key::String { value } => KeyMaterialSpec::String { value: secret_ref(value) },
        };
        Ok(KeySpec { name: name.as_str().to_owned(), material })
    }

    fn repository(&self, name: &Name) -> Result<RepositorySpec, DanglingName> {
        let meant::Repository { url, branch, ssh_key, submodules, depth } =
            self.found(&self.project.repositories, name, "repository")?.clone();
        let key = ssh_key.map(|key| self.key(&key)).transpose()?;
        Ok(RepositorySpec { name: name.as_str().to_owned(), url, branch, submodules, depth, key })
    }

    fn inventory(&self, name: &Name) -> Result<(Option<InventorySpec>, KeysByRole), DanglingName> {
        let meant::Inventory { source, ssh_key, become_key } =
            self.found(&self.project.inventories, name, "inventory")?.clone();
        let source = match source {
            meant::InventorySource::Static(text) => InventorySourceSpec::Static(text),
            meant::InventorySource::StaticYaml(text) => InventorySourceSpec::StaticYaml(text),
            meant::InventorySource::File { repository: None, path } => InventorySourceSpec::File(path),
            meant::InventorySource::File { repository: Some(repository), path } => {
                InventorySourceSpec::RepositoryFile { repository: self.repository(&repository)?, path }
            }
            // It stands among the params already.
            meant::InventorySource::TerraformWorkspace(_) => return Ok((None, Vec::new())),
        };
        let mut keys = Vec::new();
        for (role, key) in [("ssh", ssh_key), ("become", become_key)] {
            if let Some(key) = key {
                keys.push((role.to_owned(), self.key(&key)?));
            }
        }
        Ok((Some(InventorySpec { name: name.as_str().to_owned(), source }), keys))
    }
}

fn plugin_ref(plugin: &meant::Plugin) -> PluginRef {
    PluginRef {
        name: plugin.name.as_str().to_owned(),
        sha256: hex(&plugin.sha256.0),
        config: Value::Object(plugin.config.clone()),
        grants: Grants { programs: plugin.programs.clone(), env: plugin.env.clone() },
        limits: Limits { memory_bytes: plugin.memory_bytes, time_ms: plugin.time_ms },
    }
}

fn environment_secret(secret: meant::EnvironmentSecret) -> EnvironmentSecret {
    EnvironmentSecret {
        destination: match secret.destination {
            meant::SecretDestination::Env => Destination::Env,
            meant::SecretDestination::Variable => Destination::Variable,
        },
        value: secret_ref(secret.value),
    }
}

/// Where a secret's value comes from, as it is kept.
pub(crate) fn secret_ref(value: SecretValue) -> SecretRef {
    match value {
        SecretValue::Age(text) => SecretRef::Age(text),
        SecretValue::File(path) => SecretRef::File(path),
        SecretValue::Env(name) => SecretRef::Env(name),
        SecretValue::Credential(name) => SecretRef::Credential(name),
    }
}

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
