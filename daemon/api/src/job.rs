//! The job: everything that a runner needs for one attempt, signed by the daemon and sealed to that runner.
//!
//! An older runner passes over fields that it does not know. One that it must not pass over (a new limit, say) needs a higher
//! `RUNNER_VERSION_MIN` in the daemon, which then gives that runner no job at all.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AttemptId, Carry, Secret, Timestamp};

/// What the daemon's Ed25519 signature covers is these bytes followed by the job's JSON: a signature for one purpose serves no other.
pub const SIGNED_JOB_CONTEXT: &[u8] = b"forge job v1\n";

/// A job on the wire. Only the runner that it is sealed to can open it, and it checks the signature before it reads the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SealedJob {
    /// Which attempt it is.
    pub attempt: AttemptId,
    /// The JSON of a [`Job`], encrypted with age to the runner's public key, in base64.
    pub sealed: String,
    /// Ed25519 over [`SIGNED_JOB_CONTEXT`] and the JSON before it was sealed, in base64.
    pub signature: String,
}

/// Everything that one attempt needs. It is never written to disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Which attempt it is.
    pub attempt: AttemptId,
    /// The bearer of this attempt's own requests.
    pub token: Secret,
    /// The runner that it is for: another one refuses it.
    pub runner: String,
    /// A runner refuses to start it after this moment by the daemon's clock, as far as it can tell.
    pub expires_at: Timestamp,
    /// The project's name.
    pub project: String,
    /// The template's name.
    pub template: String,
    /// The configuration's revision.
    pub revision: String,
    /// The executor.
    pub plugin: PluginRef,
    /// The template's `[params]`.
    pub params: Value,
    /// Arguments that the trigger appended.
    pub arguments: Vec<String>,
    /// Variables that are not secret: the environment's, then the survey's answers on top.
    pub variables: Map<String, Value>,
    /// Variables that are secret.
    pub secret_variables: BTreeMap<String, Secret>,
    /// Names of the variables that are answers to the survey: each also becomes `FORGE_VAR_<NAME>`.
    pub survey: Vec<String>,
    /// The process's environment that is not secret.
    pub env: BTreeMap<String, String>,
    /// The process's environment that is secret.
    pub secret_env: BTreeMap<String, Secret>,
    /// What is checked out into the workspace.
    pub repository: Option<Repository>,
    /// What the executor works on.
    pub inventory: Option<Inventory>,
    /// Keys by role: `ssh`, `become`, `vault:NAME`.
    pub keys: Vec<JobKey>,
    /// How long the attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long the runner may be out of contact, in milliseconds.
    pub runner_grace_ms: u64,
    /// What follows when it is longer.
    pub on_runner_lost: OnRunnerLost,
    /// The secrets of the plugin's own `[config]`, by field: each stands for the `{{secret:field}}` that is there.
    #[serde(default)]
    pub plugin_secrets: BTreeMap<String, Secret>,
    /// What encrypts and opens a [`Carry`] of this task: 32 bytes in base64.
    #[serde(default)]
    pub carry_key: Option<Secret>,
    /// What an earlier attempt left for this one, once a person has approved it.
    #[serde(default)]
    pub resume: Option<Carry>,
}

/// What the daemon does with a task whose runner is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRunnerLost {
    /// The task ends as `lost`: nothing else starts it, so the runner works on through an outage.
    Fail,
    /// The task is queued again: the runner ends the job before that happens.
    Retry,
}

/// A plugin by digest, with what it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginRef {
    /// Its name in the tree; messages point to `plugins/NAME.toml`.
    pub name: String,
    /// SHA-256 of the component, in lower-case hex.
    pub sha256: String,
    /// Its `[config]`, with `{{secret:field}}` in the place of each secret.
    pub config: Value,
    /// What it may do.
    pub grants: Grants,
    /// How much it may use.
    pub limits: Limits,
}

/// What `plugins/NAME.toml` allows. Nothing else is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Programs by bare name.
    pub programs: Vec<String>,
    /// Variables of the runner's own environment that its processes see.
    pub env: Vec<String>,
}

/// How much a plugin may use of its own computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Computing time in milliseconds, without what it waits for.
    pub time_ms: u64,
}

/// A git repository to check out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repository {
    /// Its name in the tree.
    pub name: String,
    /// Its URL, checked by the daemon against the grammar that the runner checks again.
    pub url: String,
    /// The branch; `None` is the remote's own default.
    pub branch: Option<String>,
    /// The commit that an earlier attempt resolved; `None` resolves the branch.
    pub commit: Option<String>,
    /// Whether submodules are checked out.
    pub submodules: bool,
    /// How many commits of history; `None` is all.
    pub depth: Option<u32>,
    /// What opens it.
    pub key: Option<KeyMaterial>,
}

/// An inventory and what opens its hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Its name in the tree.
    pub name: String,
    /// Where it comes from.
    pub source: InventorySource,
}

/// Where an inventory comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InventorySource {
    /// Text in INI form, written to a file for the executor.
    Static(String),
    /// Text in YAML, written to a file for the executor.
    StaticYaml(String),
    /// A file in the template's checkout.
    File(String),
    /// A file in a checkout of its own.
    RepositoryFile {
        /// The repository.
        repository: Box<Repository>,
        /// The file's path in it.
        path: String,
    },
}

/// A key and what it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobKey {
    /// `ssh`, `become` or `vault:NAME`.
    pub role: String,
    /// The key.
    pub key: KeyMaterial,
}

/// What a key of the tree holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMaterial {
    /// A private key for ssh.
    Ssh {
        /// The user, where the key names one.
        login: Option<String>,
        /// The private key in OpenSSH or PEM form.
        private_key: Secret,
        /// What opens the private key, where it is locked.
        passphrase: Option<Secret>,
    },
    /// A user and a password or access token.
    LoginPassword {
        /// The user; empty where the password alone is a token.
        login: String,
        /// The password.
        password: Secret,
    },
    /// A text such as a vault password.
    String {
        /// The text.
        value: Secret,
    },
}

impl Job {
    /// Every secret that must not show in a log.
    pub fn secrets(&self) -> Vec<&Secret> {
        fn of_key(key: &KeyMaterial) -> Vec<&Secret> {
            match key {
                KeyMaterial::Ssh { login: _, private_key, passphrase } => {
                    std::iter::once(private_key).chain(passphrase.as_ref()).collect()
                }
                KeyMaterial::LoginPassword { login: _, password } => vec![password],
                KeyMaterial::String { value } => vec![value],
            }
        }
        let inventory_key = self.inventory.as_ref().and_then(|inventory| match &inventory.source {
            InventorySource::RepositoryFile { repository, path: _ } => repository.key.as_ref(),
            InventorySource::Static(_) | InventorySource::StaticYaml(_) | InventorySource::File(_) => None,
        });
        let repository_key = self.repository.as_ref().and_then(|repository| repository.key.as_ref());
        std::iter::once(&self.token)
            .chain(self.secret_variables.values())
            .chain(self.secret_env.values())
            .chain(self.plugin_secrets.values())
            .chain(self.keys.iter().map(|key| &key.key).chain(repository_key).chain(inventory_key).flat_map(of_key))
            .collect()
    }
}
