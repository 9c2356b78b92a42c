//! A tree as objects with fields, in the words of the files: what `forge config diff` compares and what a daemon says it serves.
//!
//! No secret is in it. A host kind shows where its value comes from, an age value only a fingerprint of its encrypted text, a token's
//! hash only its beginning.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::meant::{
    AccessToken, Environment, EnvironmentSecret, Extract, Integration, IntegrationAuth, Inventory, InventorySource,
    Key, Match, MatchTest, Plugin, PluginKind, PluginSource, Project, Question, QuestionKind, RegistrationToken,
    Repository, RequestPart, Retention, Role, RunnerRule, Schedule, SecretDestination, Template, Tree, Webhook,
};
use crate::name::{Digest, Name};
use crate::secret::SecretValue;
use crate::units::{duration_text, moment_text, size_text};

/// The fields of an object, in the words of its file.
pub type Fields = Map<String, Value>;

/// Objects by their file's path without `.toml`, such as `projects/shop/templates/deploy`.
pub type Objects = BTreeMap<String, Fields>;

/// How many hex digits of a token's hash are shown.
const HASH_DIGITS_SHOWN: usize = 12;

/// The objects of a tree.
pub fn objects(tree: &Tree) -> Objects {
    let Tree { recipients, projects, runners, registration_tokens, plugins, webhooks, access } = tree;
    let mut objects = Objects::new();
    if !recipients.is_empty() {
        objects.insert("secrets".to_owned(), fields([("recipients", json!(recipients))]));
    }
    for (name, project) in projects {
        add_project(name, project, &mut objects);
    }
    add(&mut objects, "runners", runners, runner);
    add(&mut objects, "registration-tokens", registration_tokens, registration_token);
    add(&mut objects, "plugins", plugins, |plugin| self::plugin(plugin));
    add(&mut objects, "webhooks", webhooks, webhook);
    add(&mut objects, "access", access, self::access);
    objects
}

fn add<T>(objects: &mut Objects, folder: &str, of_kind: &BTreeMap<Name, T>, form: impl Fn(&T) -> Fields) {
    objects.extend(of_kind.iter().map(|(name, object)| (format!("{folder}/{name}"), form(object))));
}

/// Fields without those that hold nothing.
fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Fields {
    let holds = |value: &Value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    pairs.into_iter().filter(|(_, value)| holds(value)).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn add_project(name: &Name, project: &Project, objects: &mut Objects) {
    let Project {
        name: _,
        description,
        global_runners,
        max_parallel_tasks,
        retention: Retention { tasks, age_ms },
        templates,
        inventories,
        environments,
        repositories,
        keys,
        schedules,
        integrations,
        webhooks,
    } = project;
    let folder = format!("projects/{name}");
    let own = fields([
        ("description", json!(description)),
        ("global_runners", json!(global_runners)),
        ("max_parallel_tasks", json!(max_parallel_tasks)),
        ("retention", json!({ "tasks": tasks, "age": duration_text(*age_ms) })),
        ("webhooks", json!(webhooks)),
    ]);
    objects.insert(format!("{folder}/project"), own);
    add(objects, &format!("{folder}/templates"), templates, |template| self::template(template));
    add(objects, &format!("{folder}/inventories"), inventories, inventory);
    add(objects, &format!("{folder}/environments"), environments, environment);
    add(objects, &format!("{folder}/repositories"), repositories, repository);
    add(objects, &format!("{folder}/keys"), keys, key);
    add(objects, &format!("{folder}/schedules"), schedules, schedule);
    add(objects, &format!("{folder}/integrations"), integrations, integration);
}

fn template(template: &Template) -> Fields {
    let Template {
        name: _,
        description,
        executor,
        repository,
        branch,
        inventory,
        environment,
        vault_keys,
        required_tag,
        timeout_ms,
        queue_timeout_ms,
        approval_timeout_ms,
        concurrency,
        on_runner_lost,
        runner_grace_ms,
        retry_attempts,
        retry_delay_ms,
        priority,
        allow_arguments,
        params,
        survey,
        webhooks,
    } = template;
    let survey: Fields = survey.iter().map(|(name, question)| (name.clone(), self::question(question))).collect();
    fields([
        ("description", json!(description)),
        ("executor", json!(executor)),
        ("repository", json!(repository)),
        ("branch", json!(branch)),
        ("inventory", json!(inventory)),
        ("environment", json!(environment)),
        ("vault_keys", json!(vault_keys)),
        ("runner_tag", json!(required_tag)),
        ("timeout", json!(duration_text(*timeout_ms))),
        ("queue_timeout", json!(duration_text(*queue_timeout_ms))),
        ("approval_timeout", json!(duration_text(*approval_timeout_ms))),
        ("concurrency", json!(concurrency.as_str())),
        ("on_runner_lost", json!(on_runner_lost.as_str())),
        ("runner_grace", json!(duration_text(*runner_grace_ms))),
        ("retry", json!({ "attempts": retry_attempts, "delay": duration_text(*retry_delay_ms) })),
        ("priority", json!(priority)),
        ("allow_arguments", json!(allow_arguments)),
        ("params", Value::Object(params.clone())),
        ("survey", Value::Object(survey)),
        ("webhooks", json!(webhooks)),
    ])
}

fn question(question: &Question) -> Value {
    let Question { kind, description, required, default } = question;
    let (pattern, choices, min, max) = match kind {
        QuestionKind::String { pattern } => {
            (json!(pattern.as_ref().map(regex::Regex::as_str)), Value::Null, Value::Null, Value::Null)
        }
        QuestionKind::Integer { min, max } => (Value::Null, Value::Null, json!(min), json!(max)),
        QuestionKind::Number { min, max } => (Value::Null, Value::Null, json!(min), json!(max)),
        QuestionKind::Choice(choices) => (Value::Null, json!(choices), Value::Null, Value::Null),
        QuestionKind::Boolean | QuestionKind::Secret => (Value::Null, Value::Null, Value::Null, Value::Null),
    };
    Value::Object(fields([
        ("type", json!(kind.type_name())),
        ("required", json!(required)),
        ("default", json!(default)),
        ("description", json!(description)),
        ("pattern", pattern),
        ("choices", choices),
        ("min", min),
        ("max", max),
    ]))
}

fn inventory(inventory: &Inventory) -> Fields {
    let Inventory { source, ssh_key, become_key } = inventory;
    let (kind, content, path, repository) = match source {
        InventorySource::Static(text) => ("static", json!(text), Value::Null, Value::Null),
        InventorySource::StaticYaml(text) => ("static-yaml", json!(text), Value::Null, Value::Null),
        InventorySource::File { repository, path } => ("file", Value::Null, json!(path), json!(repository)),
        InventorySource::TerraformWorkspace(name) => ("terraform-workspace", json!(name), Value::Null, Value::Null),
    };
    fields([
        ("type", json!(kind)),
        ("content", content),
        ("path", path),
        ("repository", repository),
        ("ssh_key", json!(ssh_key)),
        ("become_key", json!(become_key)),
    ])
}

fn environment(environment: &Environment) -> Fields {
    let Environment { variables, env, secrets } = environment;
    let secrets: Fields = secrets
        .iter()
        .map(|(name, EnvironmentSecret { destination, value })| {
            let destination = match destination {
                SecretDestination::Env => "env",
                SecretDestination::Variable => "var",
            };
            (name.clone(), json!({ "from": secret(value), "as": destination }))
        })
        .collect();
    fields([("variables", Value::Object(variables.clone())), ("env", json!(env)), ("secrets", Value::Object(secrets))])
}

fn repository(repository: &Repository) -> Fields {
    let Repository { url, branch, ssh_key, submodules, depth } = repository;
    fields([
        ("url", json!(url)),
        ("branch", json!(branch)),
        ("ssh_key", json!(ssh_key)),
        ("submodules", json!(submodules)),
        ("depth", json!(depth)),
    ])
}

fn key(key: &Key) -> Fields {
    match key {
        Key::Ssh { login, private_key, passphrase } => fields([
            ("type", json!("ssh")),
            ("login", json!(login)),
            ("private_key", json!(secret(private_key))),
            ("passphrase", json!(passphrase.as_ref().map(secret))),
        ]),
        Key::LoginPassword { login, password } => {
            fields([("type", json!("login_password")), ("login", json!(login)), ("password", json!(secret(password)))])
        }
        Key::String { value } => fields([("type", json!("string")), ("value", json!(secret(value)))]),
    }
}

fn schedule(schedule: &Schedule) -> Fields {
    let Schedule { template, cron, timezone, answers, enabled, overlap } = schedule;
    fields([
        ("template", json!(template)),
        ("cron", json!(cron)),
        ("timezone", json!(timezone)),
        ("params", Value::Object(answers.clone())),
        ("enabled", json!(enabled)),
        ("overlap", json!(overlap.as_str())),
    ])
}

fn integration(integration: &Integration) -> Fields {
    let Integration { template, auth, matches, extract } = integration;
    let (auth, secret_value) = match auth {
        IntegrationAuth::Github(value) => ("github", Some(value)),
        IntegrationAuth::Hmac(value) => ("hmac", Some(value)),
        IntegrationAuth::Token(value) => ("token", Some(value)),
        IntegrationAuth::None => ("none", None),
    };
    let matches = matches.iter().map(|Match { part, test }| {
        let (equals, pattern) = match test {
            MatchTest::Equals(text) => (json!(text), Value::Null),
            MatchTest::Pattern(pattern) => (Value::Null, json!(pattern.as_str())),
        };
        let (header, path) = request_part(part);
        Value::Object(fields([("header", header), ("json", path), ("equals", equals), ("pattern", pattern)]))
    });
    let extract = extract.iter().map(|(name, Extract { part, pattern })| {
        let (header, path) = request_part(part);
        let pattern = json!(pattern.as_ref().map(regex::Regex::as_str));
        (name.clone(), Value::Object(fields([("header", header), ("json", path), ("pattern", pattern)])))
    });
    fields([
        ("template", json!(template)),
        ("auth", json!(auth)),
        ("secret", json!(secret_value.map(secret))),
        ("match", Value::Array(matches.collect())),
        ("extract", Value::Object(extract.collect())),
    ])
}

/// The header and the path of a part; one of them is null.
fn request_part(part: &RequestPart) -> (Value, Value) {
    match part {
        RequestPart::Header(name) => (json!(name), Value::Null),
        RequestPart::Json(path) => (Value::Null, json!(path.to_string())),
    }
}

fn runner(runner: &RunnerRule) -> Fields {
    let RunnerRule {
        tags,
        project,
        max_parallel_tasks,
        run_untagged,
        enabled,
        registration_token,
        webhooks,
        one_off_wait_ms,
    } = runner;
    fields([
        ("tags", json!(tags)),
        ("project", json!(project)),
        ("max_parallel_tasks", json!(max_parallel_tasks)),
        ("run_untagged", json!(run_untagged)),
        ("enabled", json!(enabled)),
        ("registration_token", json!(registration_token)),
        ("webhooks", json!(webhooks)),
        ("one_off_wait_ms", json!(one_off_wait_ms)),
    ])
}

fn registration_token(token: &RegistrationToken) -> Fields {
    let RegistrationToken { hash, project, tags, max_parallel_tasks, expires_unix_micros, uses, runner } = token;
    fields([
        ("hash", json!(hash_beginning(hash))),
        ("project", json!(project)),
        ("tags", json!(tags)),
        ("max_parallel_tasks", json!(max_parallel_tasks)),
        ("expires", json!(expires_unix_micros.map(moment_text))),
        ("uses", json!(uses)),
        ("runner", json!(runner)),
    ])
}

fn plugin(plugin: &Plugin) -> Fields {
    let Plugin { name: _, source, sha256, kind, programs, hosts, env, memory_bytes, time_ms, config, config_secrets } =
        plugin;
    let config = with_secrets(config, config_secrets);
    let source = match source {
        PluginSource::Builtin(name) => format!("builtin:{name}"),
        PluginSource::File(path) => path.clone(),
    };
    let kind = match kind {
        PluginKind::Executor => "executor",
        PluginKind::WebhookTarget => "webhook target",
    };
    let allow = fields([("programs", json!(programs)), ("hosts", json!(hosts)), ("env", json!(env))]);
    fields([
        ("source", json!(source)),
        ("kind", json!(kind)),
        ("sha256", json!(sha256.hex())),
        ("allow", Value::Object(allow)),
        ("limits", json!({ "memory": size_text(*memory_bytes), "time": duration_text(*time_ms) })),
        ("config", Value::Object(config)),
    ])
}

/// A `[config]` with where its secrets come from.
fn with_secrets(config: &Fields, secrets: &BTreeMap<String, SecretValue>) -> Fields {
    let mut config = config.clone();
    config.extend(secrets.iter().map(|(field, value)| (field.clone(), json!(secret(value)))));
    config
}

fn webhook(webhook: &Webhook) -> Fields {
    let Webhook {
        plugin,
        events,
        on,
        waiting_again_ms,
        config,
        config_secrets,
        secret: signing,
        retry_attempts,
        retry_delay_ms,
    } = webhook;
    let config = with_secrets(config, config_secrets);
    fields([
        ("plugin", json!(plugin)),
        ("events", events.iter().map(|event| event.as_str()).collect()),
        ("on", json!(on.as_str())),
        ("waiting_again", json!(duration_text(*waiting_again_ms))),
        ("config", Value::Object(config)),
        ("secret", json!(signing.as_ref().map(secret))),
        ("retry", json!({ "attempts": retry_attempts, "delay": duration_text(*retry_delay_ms) })),
    ])
}

fn access(access: &AccessToken) -> Fields {
    let AccessToken { hash, role, projects, expires_unix_micros } = access;
    let role = match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Owner => "owner",
        Role::Admin => "admin",
    };
    fields([
        ("hash", json!(hash_beginning(hash))),
        ("role", json!(role)),
        // An empty list reaches no project, and none at all reaches every one: that difference must show.
        ("projects", projects.as_ref().map_or_else(|| json!("all"), |projects| json!(projects))),
        ("expires", json!(expires_unix_micros.map(moment_text))),
    ])
}

/// Enough of a token's hash to see that it changed.
fn hash_beginning(hash: &Digest) -> String {
    format!("sha256:{}...", hash.hex().chars().take(HASH_DIGITS_SHOWN).collect::<String>())
}

/// Where a secret comes from, never what it is.
fn secret(value: &SecretValue) -> String {
    match value {
        SecretValue::Age(armored) => format!("age ({:016x})", fingerprint(armored)),
        SecretValue::File(path) => format!("file {path}"),
        SecretValue::Env(name) => format!("env {name}"),
        SecretValue::Credential(name) => format!("credential {name}"),
    }
}

/// FNV-1a over the text without white space: it tells two encrypted texts apart, the same in every version of Forge. It protects nothing,
/// and need not: the text is public.
fn fingerprint(text: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    text.bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}
