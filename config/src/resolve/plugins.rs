//! Plugins: where the component comes from, whether it is the one that was reviewed, and what it may do.

use std::collections::BTreeMap;

use crate::catalog::{PluginCatalog, PluginFacts, Wants};
use crate::diagnostic::Code;
use crate::host_grant::HostGrant;
use crate::meant;
use crate::name::{Digest, Name};
use crate::resolve::parts::{RESERVED_PREFIX, allowed};
use crate::resolve::reference_path;
use crate::schema::{self, Compiled};
use crate::secret::{PLUGIN_SECRETS, SecretValue};
use crate::suggest::{did_you_mean, list_of, nearest};
use crate::tree::{CheckOptions, Documents, Files};
use crate::written::plugin::{Allow, Limits, Plugin};
use crate::written::secret::is_variable_name;
use crate::written::sheet::{At, Sheet, Span};

/// Defaults, each decided here only.
const MEMORY_BYTES: u64 = 64 << 20;
const TIME_MS: u64 = 5_000;

/// Bounds of what a plugin may be given.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const MEMORY_BYTES_MAX: u64 = 4 << 30;
const TIME_MS_MIN: u64 = 1;
const TIME_MS_MAX: u64 = 10 * 60 * 1_000;

/// What a built-in plugin's source begins with.
const BUILTIN: &str = "builtin:";

/// A plugin as far as it resolved: a template may be checked against a plugin whose own file has mistakes.
pub(crate) struct ResolvedPlugin {
    pub(crate) facts: Option<PluginFacts>,
    pub(crate) params_schema: Option<Compiled>,
    pub(crate) meant: Option<meant::Plugin>,
}

pub(super) fn plugins(
    written: &Documents<Plugin>,
    files: &Files,
    catalog: &dyn PluginCatalog,
    options: &CheckOptions,
) -> BTreeMap<Name, ResolvedPlugin> {
    written
        .iter()
        .map(|(name, document)| {
            let resolved = match &document.written {
                Some(plugin) => resolve(name, &document.sheet, plugin, files, catalog, options),
                None => ResolvedPlugin { facts: None, params_schema: None, meant: None },
            };
            (name.clone(), resolved)
        })
        .collect()
}

fn resolve(
    name: &Name,
    sheet: &Sheet,
    written: &Plugin,
    files: &Files,
    catalog: &dyn PluginCatalog,
    options: &CheckOptions,
) -> ResolvedPlugin {
    let component = written.source.as_ref().and_then(|source| component(source, written, sheet, files, catalog));
    let allow = written.allow.clone().unwrap_or_default().value;
    let grants = grants(&allow, sheet);
    if let Some(Component { facts, .. }) = &component {
        let span = written.allow.as_ref().map(|allow| allow.span).or(written.source.as_ref().map(|source| source.span));
        ungranted(name, &facts.wants, &allow, span.unwrap_or(Span::FILE), sheet);
    }
    let limits = limits(&written.limits.clone().unwrap_or_default().value, sheet);
    let compiled = |schema: fn(&PluginFacts) -> Option<&serde_json::Value>| {
        component.as_ref().and_then(|component| schema(&component.facts)).map(Compiled::new)
    };
    let params_schema = compiled(|facts| facts.params_schema.as_ref());
    let config_schema = compiled(|facts| facts.config_schema.as_ref());
    let config = config(name, written, component.is_some(), config_schema.as_ref(), sheet);
    let facts = component.as_ref().map(|component| component.facts.clone());
    let config_secrets = config_secrets(written, options, sheet);
    let meant = (|| {
        let Component { source, facts, digest } = component?;
        let (memory_bytes, time_ms) = limits?;
        let (programs, hosts, env) = grants?;
        Some(meant::Plugin {
            name: name.clone(),
            source,
            sha256: digest?,
            kind: facts.kind,
            programs,
            hosts,
            env,
            memory_bytes,
            time_ms,
            config: config?,
            config_secrets: config_secrets?,
        })
    })();
    ResolvedPlugin { facts, params_schema, meant }
}

/// What the plugin itself is told. Without its component there is no schema, and the mistake is noted where the component is named.
fn config(
    name: &Name,
    written: &Plugin,
    has_component: bool,
    schema: Option<&Compiled>,
    sheet: &Sheet,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    let config = written.config.as_ref();
    if !has_component {
        return None;
    }
    let table = config.map(|config| At { value: config.value.table.clone(), span: config.span });
    let subject = schema::Subject {
        name: "config",
        owner: name.as_str(),
        table: table.as_ref(),
        span: config.map_or(Span::FILE, |config| config.span),
        code: Code::PluginConfig,
    };
    schema::check(schema, subject, sheet)
}

/// The secrets of a plugin's `[config]`: the host fills them into what the plugin sends or runs.
fn config_secrets(written: &Plugin, options: &CheckOptions, sheet: &Sheet) -> Option<BTreeMap<String, SecretValue>> {
    // The name is one that every project's name could be; the check of places keeps projects away from it.
    let owner = PLUGIN_SECRETS.parse::<Name>().ok()?;
    let mut valid = true;
    let mut secrets = BTreeMap::new();
    for (field, secret) in written.config.iter().flat_map(|config| &config.value.secrets) {
        valid &= allowed(&secret.value.0, secret.span, &format!("config.{field}"), &owner, options, sheet);
        secrets.insert(field.clone(), secret.value.0.clone());
    }
    valid.then_some(secrets)
}

/// A component that may be asked what it is.
struct Component {
    source: meant::PluginSource,
    facts: PluginFacts,
    /// Its digest, when it is the one that is written.
    digest: Option<Digest>,
}

/// The component and what it says of itself. A file is compiled and asked only when it is the one that was reviewed.
fn component(
    written: &At<String>,
    plugin: &Plugin,
    sheet: &Sheet,
    files: &Files,
    catalog: &dyn PluginCatalog,
) -> Option<Component> {
    let unusable = |why: String, hint: Option<String>| {
        sheet.error(written.span, Code::PluginUnusable, why, hint);
        None
    };
    let builtins = catalog.builtin_names();
    let names = || builtins.iter().map(String::as_str);
    if let Some(builtin) = written.value.strip_prefix(BUILTIN) {
        return match catalog.builtin(builtin) {
            Some(Ok(facts)) => {
                let source = meant::PluginSource::Builtin(builtin.to_owned());
                let digest = digest(&source, facts.sha256, plugin, sheet);
                Some(Component { source, facts, digest })
            }
            Some(Err(why)) => unusable(format!("the built-in plugin `{builtin}` cannot be used: {why}"), None),
            None => {
                let hint = did_you_mean(builtin, names())
                    .unwrap_or_else(|| format!("the built-in ones are {}", list_of(names())));
                unusable(format!("no plugin `{builtin}` is built in"), Some(hint))
            }
        };
    }
    if builtins.contains(&written.value) {
        return unusable(
            format!("`{}` is no file of the tree", written.value),
            Some(format!("write \"{BUILTIN}{}\"", written.value)),
        );
    }
    let path = reference_path("source", written, sheet)?;
    let Some(bytes) = files.get(&path) else {
        let components = files.keys().map(String::as_str).filter(|path| path.ends_with(".wasm"));
        let hint = nearest(&path, components).map(|near| format!("did you mean \"{near}\"?")).unwrap_or_else(|| {
            "the path is relative to the root of the tree, as in \"plugins/ansible.wasm\"; for a built-in one write \"builtin:NAME\"".to_owned()
        });
        return unusable(format!("the tree has no file `{path}`"), Some(hint));
    };
    let source = meant::PluginSource::File(path.clone());
    let digest = digest(&source, catalog.digest(bytes), plugin, sheet)?;
    match catalog.inspect(bytes) {
        Ok(facts) => Some(Component { source, facts, digest: Some(digest) }),
        Err(why) => {
            sheet.error(
                written.span,
                Code::PluginUnusable,
                format!("`{path}` is no plugin that Forge can run: {why}"),
                None,
            );
            None
        }
    }
}

/// The component's digest, when it is the one that is written.
fn digest(source: &meant::PluginSource, own: Digest, written: &Plugin, sheet: &Sheet) -> Option<Digest> {
    let Some(at) = &written.sha256 else {
        return match source {
            meant::PluginSource::Builtin(_) => Some(own),
            meant::PluginSource::File(path) => {
                let span = written.source.as_ref().map_or(Span::FILE, |source| source.span);
                let hint = format!("when you have reviewed it, write `sha256 = \"{}\"`", own.hex());
                sheet.error(span, Code::PluginDigest, format!("`sha256` of `{path}` is missing"), Some(hint));
                None
            }
        };
    };
    match at.value.parse::<Digest>() {
        Ok(digest) if digest == own => Some(digest),
        Ok(_) => {
            let message = format!("`sha256` is not that of the component: its own is {}", own.hex());
            let hint =
                "when you have reviewed the new component, write that one; else put the old component back".to_owned();
            sheet.error(at.span, Code::PluginDigest, message, Some(hint));
            None
        }
        Err(error) => {
            let hint = format!("the component's own is \"{}\"", own.hex());
            sheet.error(at.span, Code::PluginDigest, format!("`sha256` is refused: {error}"), Some(hint));
            None
        }
    }
}

/// Says what to grant where nothing of the kind is granted. A list that is there was decided by someone: what it lacks, the plugin may never need.
fn ungranted(name: &Name, wants: &Wants, allow: &Allow, span: Span, sheet: &Sheet) {
    let Wants { programs, hosts, env } = wants;
    let kinds = [("programs", programs, &allow.programs), ("hosts", hosts, &allow.hosts), ("env", env, &allow.env)];
    for (key, wanted, granted) in kinds {
        if wanted.is_empty() || granted.is_some() {
            continue;
        }
        let quoted: Vec<_> = wanted.iter().map(|one| format!("{one:?}")).collect();
        let names = list_of(wanted.iter().map(String::as_str));
        let message = format!("the plugin `{name}` asks for the {key} {names}, and `allow.{key}` grants none");
        let hint = format!("write `{key} = [{}]` below [allow], or `{key} = []` to leave it so", quoted.join(", "));
        sheet.note(span, Code::NotGranted, message, Some(hint));
    }
}

type Grants = (Vec<String>, Vec<String>, Vec<String>);

fn grants(allow: &Allow, sheet: &Sheet) -> Option<Grants> {
    let mut valid = true;
    let mut taken = |key: &str, list: &Option<At<Vec<At<String>>>>, check: Check, hint: &str| -> Vec<String> {
        let mut values = Vec::new();
        for at in list.iter().flat_map(|list| &list.value) {
            if let Err(why) = check(&at.value) {
                let message = format!("`{}` in `allow.{key}` is refused{why}", at.value);
                sheet.error(at.span, Code::BadValue, message, Some(hint.to_owned()));
                valid = false;
            } else if !values.contains(&at.value) {
                values.push(at.value.clone());
            }
        }
        values
    };
    let programs = taken(
        "programs",
        &allow.programs,
        |program| if is_program(program) { Ok(()) } else { Err(String::new()) },
        "write the bare name, such as \"bash\": it is found on the runner's PATH",
    );
    let hosts = taken(
        "hosts",
        &allow.hosts,
        |host| host.parse::<HostGrant>().map(drop).map_err(|error| format!(": {error}")),
        "write \"host\", \"host:port\" or \"http://host:port\", and for a name of your own network \"host in 10.0.0.0/8\"",
    );
    let env = taken(
        "env",
        &allow.env,
        |name| {
            if !is_variable_name(name) {
                return Err(String::new());
            }
            // The runner's own token is one of them.
            let reserved = name.starts_with(RESERVED_PREFIX);
            if reserved { Err(format!(": what begins with {RESERVED_PREFIX} is Forge's own")) } else { Ok(()) }
        },
        "write the name of a variable of the runner's environment, such as \"LANG\"",
    );
    valid.then_some((programs, hosts, env))
}

/// Whether a grant is one; an error ends the message.
type Check = fn(&str) -> Result<(), String>;

/// A bare name: with a slash in it, it would be a path, and whoever can write there would choose the program.
fn is_program(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '.'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c))
}

fn limits(limits: &Limits, sheet: &Sheet) -> Option<(u64, u64)> {
    let mut valid = true;
    let memory = limits.memory.as_ref().map_or(MEMORY_BYTES, |at| {
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&at.value.0) {
            let message =
                format!("`limits.memory` must be from {}MiB to {}GiB", MEMORY_BYTES_MIN >> 20, MEMORY_BYTES_MAX >> 30);
            sheet.error(at.span, Code::BadValue, message, Some("the default is \"64MiB\"".to_owned()));
            valid = false;
        }
        at.value.0
    });
    let time = limits.time.as_ref().map_or(TIME_MS, |at| {
        if !(TIME_MS_MIN..=TIME_MS_MAX).contains(&at.value.0) {
            let message = format!("`limits.time` must be from {TIME_MS_MIN}ms to {}m", TIME_MS_MAX / 60_000);
            let hint = "it is the plugin's own computing, not the processes that it waits for; the default is \"5s\""
                .to_owned();
            sheet.error(at.span, Code::BadValue, message, Some(hint));
            valid = false;
        }
        at.value.0
    });
    valid.then_some((memory, time))
}
