//! What belongs to a project besides templates: inventories, environments, repositories and keys.

use std::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::git::{self, Transport};
use crate::meant;
use crate::name::Name;
use crate::place::ProjectKind;
use crate::resolve::{or_default, project_reference, reference_path, tag};
use crate::secret::{AgeCause, PLUGIN_SECRETS, SecretValue, WEBHOOK_SECRETS};
use crate::suggest::either_of;
use crate::tree::{CheckOptions, WrittenProject};
use crate::written::declare::Table;
use crate::written::environment::Environment;
use crate::written::inventory::{Inventory, InventoryType};
use crate::written::key::{Key, KeyType};
use crate::written::reader::{Count, Named, is_misspelled};
use crate::written::repository::Repository;
use crate::written::secret::{Destination, is_variable_name};
use crate::written::sheet::{At, Sheet, Span};

/// The fewest characters of a value that could be a secret.
const SECRET_CHARS_MIN: usize = 6;

/// What only Forge sets in a job's environment, and what of a runner's own no job sees.
pub(super) const RESERVED_PREFIX: &str = "FORGE_";

/// How long the name of a workspace may be.
const WORKSPACE_BYTES_MAX: usize = 255;

pub(super) fn inventory(sheet: &Sheet, written: &Inventory, project: &WrittenProject) -> Option<meant::Inventory> {
    let ssh_key =
        key_reference("ssh_key", written.ssh_key.as_ref(), &[KeyType::Ssh, KeyType::LoginPassword], project, sheet);
    let become_key = key_reference(
        "become_key",
        written.become_key.as_ref(),
        &[KeyType::LoginPassword, KeyType::String],
        project,
        sheet,
    );
    let repository =
        project_reference(ProjectKind::Repository, written.repository.as_ref(), project.repositories.keys(), sheet);
    let runner_tag = tag("runner_tag", written.runner_tag.as_ref(), sheet);
    let kind = written.kind.as_ref()?.value;
    let (content, path, own_repository) = (&written.content, &written.path, &written.repository);
    let source = match kind {
        InventoryType::Static | InventoryType::StaticYaml | InventoryType::TerraformWorkspace => {
            let name = type_name(kind);
            refuse(name, "path", path.as_ref().map(|at| at.span), sheet);
            refuse(name, "repository", own_repository.as_ref().map(|at| at.span), sheet);
            let content = needed(name, "content", content.as_ref(), sheet)?;
            match kind {
                InventoryType::Static => meant::InventorySource::Static(content.value.clone()),
                InventoryType::TerraformWorkspace => {
                    meant::InventorySource::TerraformWorkspace(workspace(content, sheet)?)
                }
                InventoryType::StaticYaml | InventoryType::File => {
                    meant::InventorySource::StaticYaml(content.value.clone())
                }
            }
        }
        InventoryType::File => {
            refuse("file", "content", content.as_ref().map(|at| at.span), sheet);
            let path = needed("file", "path", path.as_ref(), sheet)?;
            meant::InventorySource::File { path: reference_path("path", path, sheet)?, repository: repository.clone()? }
        }
    };
    runner_tag?;
    repository?;
    Some(meant::Inventory { source, ssh_key: ssh_key?, become_key: become_key? })
}

const fn type_name(kind: InventoryType) -> &'static str {
    match kind {
        InventoryType::Static => "static",
        InventoryType::StaticYaml => "static-yaml",
        InventoryType::File => "file",
        InventoryType::TerraformWorkspace => "terraform-workspace",
    }
}

/// The name of a workspace of Terraform, by Terraform's own rule: what needs no escaping in a URL.
fn workspace(written: &At<String>, sheet: &Sheet) -> Option<String> {
    let name = &written.value;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    if name.is_empty() || name.len() > WORKSPACE_BYTES_MAX || name.starts_with('-') || !name.chars().all(is_plain) {
        let message = format!("`content` is no name of a workspace: `{name}`");
        let hint = "write letters, digits and -._~, as in \"production\"".to_owned();
        sheet.error(written.span, Code::BadValue, message, Some(hint));
        return None;
    }
    Some(name.clone())
}

/// Notes a key that the type does not have.
fn refuse(kind: &str, key: &str, span: Option<Span>, sheet: &Sheet) {
    if let Some(span) = span {
        let message = format!("`{key}` does not go with `type = \"{kind}\"`");
        sheet.error(span, Code::Conflict, message, Some("take it out, or change the type".to_owned()));
    }
}

/// The value that the type needs, or the mistake noted.
fn needed<'a, T>(kind: &str, key: &str, written: Option<&'a At<T>>, sheet: &Sheet) -> Option<&'a At<T>> {
    if written.is_none() {
        let message = format!("`{key}` is missing, and `type = \"{kind}\"` needs it");
        sheet.error(Span::FILE, Code::MissingKey, message, None);
    }
    written
}

const fn type_word(kind: KeyType) -> &'static str {
    match kind {
        KeyType::Ssh => "ssh",
        KeyType::LoginPassword => "login_password",
        KeyType::String => "string",
    }
}

/// The keys that open Ansible's vaults, by the vault's id.
pub(super) fn vault_keys(
    written: Option<&At<Named<String>>>,
    project: &WrittenProject,
    sheet: &Sheet,
) -> Option<BTreeMap<String, Name>> {
    let mut keys = BTreeMap::new();
    let mut valid = true;
    for (id, key) in written.iter().flat_map(|keys| &keys.value.0) {
        let is_id = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        if id.value.is_empty() || id.value.starts_with('-') || !id.value.chars().all(is_id) {
            let message = format!("`{}` in [vault_keys] is no id of a vault", id.value);
            let hint = "an id has letters, digits, `-`, `_` and `.`, and does not begin with `-`".to_owned();
            sheet.error(id.span, Code::BadName, message, Some(hint));
            valid = false;
        }
        let label = format!("vault_keys.{}", id.value);
        match key_reference(&label, Some(key), &[KeyType::String, KeyType::LoginPassword], project, sheet) {
            Some(Some(name)) => {
                keys.insert(id.value.clone(), name);
            }
            Some(None) | None => valid = false,
        }
    }
    valid.then_some(keys)
}

/// A reference to a key of one of these types.
fn key_reference(
    key: &str,
    written: Option<&At<String>>,
    kinds: &[KeyType],
    project: &WrittenProject,
    sheet: &Sheet,
) -> Option<Option<Name>> {
    let name = project_reference(ProjectKind::Key, written, project.keys.keys(), sheet)?;
    let Some((name, at)) = name.as_ref().zip(written) else { return Some(None) };
    let actual = project.keys.get(name).and_then(|key| key.written.as_ref()?.kind.as_ref()).map(|kind| kind.value);
    match actual {
        // A key whose type is wrong says so itself.
        Some(actual) if !kinds.contains(&actual) => {
            let message = format!("`{key}` cannot be the key `{name}`: its type is `{}`", type_word(actual));
            let words = kinds.iter().copied().map(type_word);
            let hint = format!("name a key of the type {}", either_of(words));
            sheet.error(at.span, Code::WrongKind, message, Some(hint));
            None
        }
        Some(_) | None => Some(Some(name.clone())),
    }
}

pub(super) fn environment(
    sheet: &Sheet,
    written: &Environment,
    project: &Name,
    options: &CheckOptions,
) -> Option<meant::Environment> {
    let mut valid = true;
    let mut environment = meant::Environment::default();
    if let Some(variables) = &written.variables {
        for name in variables.value.value.keys() {
            let span = variables.value.spans.get(&format!("/{}", crate::written::raw::pointer_part(name)));
            valid &= variable_name("variables", name, span.map_or(variables.span, |span| span.key), sheet);
            if let (Some(text), Some(span)) = (variables.value.value.get(name).and_then(|value| value.as_str()), span) {
                warn_of_secret(name, text, ", as = \"var\"", span.value, sheet);
            }
        }
        environment.variables = variables.value.value.clone();
    }
    for (name, value) in written.env.iter().flat_map(|env| &env.value.0) {
        valid &= variable_name("env", &name.value, name.span, sheet) && not_reserved(&name.value, name.span, sheet);
        if value.value.contains('\0') {
            sheet.error(value.span, Code::BadValue, format!("`env.{}` holds a NUL", name.value), None);
            valid = false;
        }
        warn_of_secret(&name.value, &value.value, "", value.span, sheet);
        environment.env.insert(name.value.clone(), value.value.clone());
    }
    for (name, secret) in written.secrets.iter().flat_map(|secrets| &secrets.value.0) {
        let destination = match secret.value.destination.as_ref().map(|at| at.value) {
            None | Some(Destination::Env) => meant::SecretDestination::Env,
            Some(Destination::Variable) => meant::SecretDestination::Variable,
        };
        valid &= variable_name("secrets", &name.value, name.span, sheet);
        let (taken, table) = match destination {
            meant::SecretDestination::Env => {
                valid &= not_reserved(&name.value, name.span, sheet);
                (environment.env.contains_key(&name.value), "env")
            }
            meant::SecretDestination::Variable => (environment.variables.contains_key(&name.value), "variables"),
        };
        if taken {
            let message = format!("`{}` stands in [{table}] too", name.value);
            let hint = "take one of them out: nobody could say which one the job sees".to_owned();
            sheet.error(name.span, Code::Conflict, message, Some(hint));
            valid = false;
        }
        valid &= allowed(&secret.value.value, secret.span, &format!("secrets.{}", name.value), project, options, sheet);
        let value = secret.value.value.clone();
        environment.secrets.insert(name.value.clone(), meant::EnvironmentSecret { destination, value });
    }
    valid.then_some(environment)
}

/// How the names of secrets end, whatever program wants them.
const SECRET_NAMES: &[&str] =
    &["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY"];

/// Warns of a variable whose name says that it is a secret. It is only a name, so the tree is applied; the value is not shown.
/// `also` is what its place under `[secrets]` needs beside where it comes from.
fn warn_of_secret(name: &str, value: &str, also: &str, span: Span, sheet: &Sheet) {
    let upper = name.to_uppercase().replace('-', "_");
    // A path or an address says where the secret is, and is none.
    let is_a_place = value.contains('/') && (value.starts_with(['/', '.', '~']) || value.contains("://"));
    let is_one = SECRET_NAMES.iter().any(|end| upper.ends_with(end));
    if !is_one || value.chars().count() < SECRET_CHARS_MIN || is_a_place || sheet.is_hidden(span) {
        return;
    }
    sheet.hide(span);
    let message = format!("`{name}` sounds like a secret, and its value stands here in clear");
    let hint = format!(
        "if it is one, write it under [secrets] as `{name} = {{ file = \"...\"{also} }}`, or env, credential or age, and replace it: this value is in git's \
         history now"
    );
    sheet.warning(span, Code::PlainSecret, message, Some(hint));
}

fn variable_name(table: &str, name: &str, span: Span, sheet: &Sheet) -> bool {
    let valid = is_variable_name(name);
    if !valid {
        let message = format!("`{name}` in [{table}] is no name of a variable");
        let hint = "a name has letters, digits and `_`, and does not begin with a digit".to_owned();
        sheet.error(span, Code::BadName, message, Some(hint));
    }
    valid
}

fn not_reserved(name: &str, span: Span, sheet: &Sheet) -> bool {
    let reserved = name.starts_with(RESERVED_PREFIX);
    if reserved {
        let message = format!("`{name}` is reserved: Forge itself sets what begins with {RESERVED_PREFIX}");
        sheet.error(span, Code::BadName, message, Some("choose another name".to_owned()));
    }
    !reserved
}

/// Whether the project may have this secret, as far as that is known here.
pub(super) fn allowed(
    value: &SecretValue,
    span: Span,
    key: &str,
    project: &Name,
    options: &CheckOptions,
    sheet: &Sheet,
) -> bool {
    if let SecretValue::Age(armored) = value {
        return opens(armored, span, key, project, options, sheet);
    }
    let Some(rules) = &options.secrets_allow else { return true };
    let (list, written) = match value {
        SecretValue::Age(_) => return true,
        SecretValue::File(path) => ("files", path),
        SecretValue::Env(name) => ("env", name),
        SecretValue::Credential(name) => ("credentials", name),
    };
    if rules.get(project).is_some_and(|rule| rule.allows(value)) {
        return true;
    }
    let who = match project.as_str() {
        WEBHOOK_SECRETS => "a webhook target".to_owned(),
        PLUGIN_SECRETS => "a plugin".to_owned(),
        project => format!("the project {project}"),
    };
    let message = format!("{who} may not use `{written}` of the daemon's host in `{key}`");
    let hint = format!("in forge.toml, below [secrets.allow.{project}], write `{list} = [\"{written}\"]`");
    sheet.error(span, Code::SecretNotAllowed, message, Some(hint));
    false
}

/// Whether the age value opens, and in this project, as far as an identity is at hand.
fn opens(armored: &str, span: Span, key: &str, project: &Name, options: &CheckOptions, sheet: &Sheet) -> bool {
    let Some(values) = &options.age_values else { return true };
    let Err(refusal) = values.check(project, armored) else { return true };
    let code = match refusal.cause {
        AgeCause::Value => Code::SecretLocked,
        AgeCause::Identity => Code::NoIdentity,
    };
    sheet.error(span, code, format!("`{key}` cannot be opened: {}", refusal.message), Some(refusal.hint));
    false
}

pub(super) fn repository(sheet: &Sheet, written: &Repository, project: &WrittenProject) -> Option<meant::Repository> {
    let url = written.url.as_ref().and_then(|url| git::checked_url("url", url, sheet));
    let branch = git::branch("branch", written.branch.as_ref(), sheet);
    let ssh_key =
        key_reference("ssh_key", written.ssh_key.as_ref(), &[KeyType::Ssh, KeyType::LoginPassword], project, sheet);
    let url = url?;
    let transport = git::repository_url(&url).ok()?.transport();
    if let Some(key) = written.ssh_key.as_ref().filter(|_| transport == Transport::File) {
        let message = "`ssh_key` has no effect: a repository on the runner's own disk needs no key";
        sheet.warning(key.span, Code::Unused, message, None);
    }
    let depth = or_default(written.depth.clone(), Count::default()).count();
    Some(meant::Repository {
        url,
        branch: branch?,
        ssh_key: ssh_key?,
        submodules: or_default(written.submodules.clone(), false),
        depth: (depth > 0).then_some(depth),
    })
}

pub(super) fn key(sheet: &Sheet, written: &Key, project: &Name, options: &CheckOptions) -> Option<meant::Key> {
    let secrets = [
        ("private_key", &written.private_key),
        ("passphrase", &written.passphrase),
        ("password", &written.password),
        ("value", &written.value),
    ];
    let mut valid = true;
    let kind = written.kind.as_ref()?.value;
    let (takes, needs): (&[&str], &str) = match kind {
        KeyType::Ssh => (&["private_key", "passphrase"], "private_key"),
        KeyType::LoginPassword => (&["password"], "password"),
        KeyType::String => (&["value"], "value"),
    };
    let mut values = BTreeMap::new();
    for (name, secret) in secrets {
        let Some(secret) = secret else { continue };
        if takes.contains(&name) {
            valid &= allowed(&secret.value.0, secret.span, name, project, options, sheet);
            values.insert(name, secret.value.0.clone());
        } else {
            refuse(type_word(kind), name, Some(secret.span), sheet);
            valid = false;
        }
    }
    if kind == KeyType::String && written.login.is_some() {
        refuse(type_word(kind), "login", written.login.as_ref().map(|at| at.span), sheet);
        valid = false;
    }
    // One that is there and wrong is noted already, and looks absent here.
    if !values.contains_key(needs) && !mentions::<Key>(sheet, needs) {
        let message = format!("`{needs}` is missing, and `type = \"{}\"` needs it", type_word(kind));
        let hint = format!("write `{needs} = {{ file = \"...\" }}`, or env, credential or age in the place of file");
        sheet.error(Span::FILE, Code::MissingKey, message, Some(hint));
        valid = false;
    }
    if !valid {
        return None;
    }
    let login = written.login.clone().map(|login| login.value);
    Some(match kind {
        KeyType::Ssh => meant::Key::Ssh {
            login,
            private_key: values.remove("private_key")?,
            passphrase: values.remove("passphrase"),
        },
        KeyType::LoginPassword => {
            meant::Key::LoginPassword { login: login.unwrap_or_default(), password: values.remove("password")? }
        }
        KeyType::String => meant::Key::String { value: values.remove("value")? },
    })
}

/// Whether the file has the key at its top, however wrong its value or its spelling.
pub(super) fn mentions<T: Table>(sheet: &Sheet, key: &str) -> bool {
    let keys: Vec<_> = T::info().fields.iter().map(|field| field.key).collect();
    toml::de::DeTable::parse(sheet.text()).is_ok_and(|table| {
        let table = table.get_ref();
        table.contains_key(key) || is_misspelled(table, key, &keys)
    })
}
