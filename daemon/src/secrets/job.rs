//! From what the store kept of a task to the job that its runner opens: this is where secrets become values.

use std::collections::BTreeMap;

use forge_api::{AttemptId, Inventory, InventorySource, Job, JobKey, KeyMaterial, Repository, Secret, Timestamp};
use forge_config::PLUGIN_SECRETS;

use super::keys::Keys;
use super::resolve::{Resolver, SecretError};
use crate::scheduler::deadline::START_WITHIN_MS;
use crate::scheduler::spec::{Destination, InventorySourceSpec, KeyMaterialSpec, KeySpec, RepositorySpec, SecretRef};
use crate::store::Delivery;

/// Why a job could not be made. The text ends up as its task's reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// A secret does not resolve.
    #[error("{what} does not resolve: {source}")]
    Secret {
        /// Such as `secret DB_PASSWORD of the environment`.
        what: String,
        /// Why.
        source: SecretError,
    },
    /// The secret answers do not open.
    #[error(
        "the secret answers of this task cannot be opened any more: the daemon's key in keys/store.age has changed"
    )]
    Answers,
}

/// What a job is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) attempt: AttemptId,
    pub(crate) delivery: Delivery,
    pub(crate) resolver: &'a Resolver,
    pub(crate) keys: &'a Keys,
    pub(crate) now: Timestamp,
}

/// Makes the job; it blocks for as long as its secrets take.
pub(crate) fn build(parts: Parts<'_>) -> Result<Job, JobError> {
    let Parts { attempt, delivery, resolver, keys, now } = parts;
    let Delivery { spec, revision, commit, variables: answers, arguments, secret_answers, nonce, runner, resume } =
        delivery;
    let resolve = |what: String, value: &SecretRef| {
        resolver.resolve(&spec.project, value).map_err(|source| JobError::Secret { what, source })
    };
    let mut secret_env = BTreeMap::new();
    let mut secret_variables = BTreeMap::new();
    for (name, secret) in &spec.secrets {
        let value = resolve(format!("secret {name} of the environment"), &secret.value)?;
        match secret.destination {
            Destination::Env => secret_env.insert(name.clone(), value),
            Destination::Variable => secret_variables.insert(name.clone(), value),
        };
    }
    let mut plugin_secrets = BTreeMap::new();
    for (field, value) in &spec.plugin_secrets {
        let what = || format!("config.{field} of plugins/{}.toml", spec.plugin.name);
        let value = resolver.resolve(PLUGIN_SECRETS, value);
        let value = value.map_err(|source| JobError::Secret { what: what(), source })?;
        plugin_secrets.insert(field.clone(), value);
    }
    let mut variables = spec.variables.clone();
    let mut env = spec.env.clone();
    // A secret of the same name wins over what is not secret, and an answer over both.
    variables.retain(|name, _| !secret_variables.contains_key(name));
    env.retain(|name, _| !secret_env.contains_key(name));
    for (name, answer) in answers {
        secret_variables.remove(&name);
        variables.insert(name, answer);
    }
    if let Some(sealed) = secret_answers {
        let opened = age::decrypt(keys.store(), &sealed).map_err(|_| JobError::Answers)?;
        let opened: BTreeMap<String, Secret> = serde_json::from_slice(&opened).map_err(|_| JobError::Answers)?;
        for (name, answer) in opened {
            variables.remove(&name);
            secret_variables.insert(name, answer);
        }
    }
    let repository = match &spec.repository {
        Some(repository) => Some(build_repository(repository, commit, &resolve)?),
        None => None,
    };
    let inventory = match spec.inventory {
        Some(inventory) => Some(Inventory {
            name: inventory.name,
            source: match inventory.source {
                InventorySourceSpec::Static(text) => InventorySource::Static(text),
                InventorySourceSpec::StaticYaml(text) => InventorySource::StaticYaml(text),
                InventorySourceSpec::File(path) => InventorySource::File(path),
                InventorySourceSpec::RepositoryFile { repository, path } => InventorySource::RepositoryFile {
                    repository: Box::new(build_repository(&repository, None, &resolve)?),
                    path,
                },
            },
        }),
        None => None,
    };
    let mut job_keys = Vec::new();
    for (role, key) in &spec.keys {
        job_keys.push(JobKey { role: role.clone(), key: build_key(key, &resolve)? });
    }
    let (token, _digest) = keys.attempt_token(attempt, &nonce);
    Ok(Job {
        attempt,
        token,
        runner,
        expires_at: now.plus_millis(i64::try_from(START_WITHIN_MS).unwrap_or(i64::MAX)),
        project: spec.project.clone(),
        template: spec.template,
        revision,
        plugin: spec.plugin,
        params: serde_json::Value::Object(spec.params),
        arguments,
        variables,
        secret_variables,
        survey: spec.survey,
        env,
        secret_env,
        repository,
        inventory,
        keys: job_keys,
        timeout_ms: spec.timeout_ms,
        runner_grace_ms: spec.runner_grace_ms,
        on_runner_lost: spec.on_runner_lost,
        plugin_secrets,
        carry_key: Some(keys.carry_key(attempt.task)),
        resume,
    })
}

type Resolve<'a> = dyn Fn(String, &SecretRef) -> Result<Secret, JobError> + 'a;

fn build_repository(
    spec: &RepositorySpec,
    commit: Option<String>,
    resolve: &Resolve<'_>,
) -> Result<Repository, JobError> {
    Ok(Repository {
        name: spec.name.clone(),
        url: spec.url.clone(),
        branch: spec.branch.clone(),
        commit,
        submodules: spec.submodules,
        depth: spec.depth,
        key: spec.key.as_ref().map(|key| build_key(key, resolve)).transpose()?,
    })
}

fn build_key(spec: &KeySpec, resolve: &Resolve<'_>) -> Result<KeyMaterial, JobError> {
    let field = |field: &str, value: &SecretRef| resolve(format!("{field} of key {}", spec.name), value);
    Ok(match &spec.material {
        KeyMaterialSpec::Ssh { login, private_key, passphrase } => KeyMaterial::Ssh {
            login: login.clone(),
            private_key: with_last_line_ended(&field("private_key", private_key)?),
            passphrase: passphrase.as_ref().map(|value| field("passphrase", value)).transpose()?,
        },
        KeyMaterialSpec::LoginPassword { login, password } => {
            KeyMaterial::LoginPassword { login: login.clone(), password: field("password", password)? }
        }
        KeyMaterialSpec::String { value } => KeyMaterial::String { value: field("value", value)? },
    })
}

/// OpenSSH takes no private key whose last line does not end, and values come without a last line feed.
fn with_last_line_ended(key: &Secret) -> Secret {
    Secret::new(format!("{}\n", key.reveal().trim_end_matches('\n')))
}
