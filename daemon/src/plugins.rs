//! What the daemon knows of plugins: their own words, asked through the same host that runs them.
//!
//! It runs no plugin's work. Built-ins get no privilege: they are described by the same call as a file of the tree.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use forge_api::{PluginAccess, PluginRole, PluginSummary};
use forge_config::meant::{Plugin, PluginKind, PluginSource, Tree};
use forge_config::{Digest, PluginCatalog, PluginFacts, Wants};
use forge_plugin_host::{Capability, Host, Kind};

use crate::hex;

/// How many components' facts are remembered; a tree of today has a handful.
const FACTS_MAX: usize = 1_024;

/// How many names of each kind a plugin may ask for; more are not looked at.
const WANTS_MAX: usize = 64;

/// The plugin host as the configuration's check asks it.
pub(crate) struct Catalog {
    host: Host,
    /// By hex digest: a component never changes what it says.
    facts: Mutex<HashMap<String, Result<Described, String>>>,
}

/// What a component says of itself.
#[derive(Clone, Debug)]
struct Described {
    facts: PluginFacts,
    version: String,
}

impl Catalog {
    /// Asks through `host`.
    pub(crate) fn new(host: Host) -> Self {
        Self { host, facts: Mutex::new(HashMap::new()) }
    }

    fn describe(&self, bytes: &[u8], hash: [u8; 32]) -> Result<Described, String> {
        let plugin = self.host.load(bytes).map_err(|error| error.to_string())?;
        let info = plugin.describe().map_err(|error| format!("it does not describe itself: {error}"))?;
        let facts = PluginFacts {
            sha256: Digest(hash),
            kind: match plugin.kind() {
                Kind::Executor => PluginKind::Executor,
                Kind::WebhookTarget => PluginKind::WebhookTarget,
            },
            params_schema: info.params_schema,
            config_schema: info.config_schema,
            wants: wants(info.wants),
        };
        Ok(Described { facts, version: info.version })
    }

    /// What a component says of itself that was looked at before.
    fn known(&self, sha256: &str) -> Option<Described> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(sha256)?.as_ref().ok().cloned()
    }
}

/// The plugins of a tree, as people see them.
pub(crate) fn summaries(tree: &Tree, catalog: &Catalog) -> Vec<PluginSummary> {
    tree.plugins.values().map(|plugin| summary(tree, plugin, catalog.known(&plugin.sha256.hex()))).collect()
}

fn summary(tree: &Tree, plugin: &Plugin, said: Option<Described>) -> PluginSummary {
    let executes = tree.projects.values().flat_map(|project| {
        let templates = project.templates.values().filter(|template| template.executor == plugin.name);
        templates.map(|template| format!("{}/{}", project.name, template.name))
    });
    let targets = tree.webhooks.iter().filter(|(_, webhook)| webhook.plugin == plugin.name);
    let used_by = executes.chain(targets.map(|(name, _)| name.to_string())).collect();
    let (version, wants) = said.map(|said| (said.version, said.facts.wants)).unzip();
    let wants = wants.unwrap_or_default();
    let missing =
        |wants: Vec<String>, granted: &[String]| wants.into_iter().filter(|name| !granted.contains(name)).collect();
    PluginSummary {
        name: plugin.name.to_string(),
        source: match &plugin.source {
            PluginSource::Builtin(name) => format!("builtin:{name}"),
            PluginSource::File(path) => path.clone(),
        },
        version: version.filter(|version| !version.is_empty()),
        kind: match plugin.kind {
            PluginKind::Executor => PluginRole::Executor,
            PluginKind::WebhookTarget => PluginRole::WebhookTarget,
        },
        sha256: plugin.sha256.hex(),
        not_granted: PluginAccess {
            programs: missing(wants.programs, &plugin.programs),
            hosts: missing(wants.hosts, &plugin.hosts),
            env: missing(wants.env, &plugin.env),
        },
        grants: PluginAccess {
            programs: plugin.programs.clone(),
            hosts: plugin.hosts.clone(),
            env: plugin.env.clone(),
        },
        memory_bytes: plugin.memory_bytes,
        time_ms: plugin.time_ms,
        used_by,
    }
}

fn wants(capabilities: Vec<Capability>) -> Wants {
    let mut wants = Wants::default();
    for capability in capabilities.into_iter().take(WANTS_MAX) {
        match capability {
            Capability::Process(programs) => wants.programs.extend(programs),
            Capability::Env(names) => wants.env.extend(names),
            Capability::Http(hosts) => wants.hosts.extend(hosts),
        }
    }
    for names in [&mut wants.programs, &mut wants.hosts, &mut wants.env] {
        names.truncate(WANTS_MAX);
    }
    wants
}

impl PluginCatalog for Catalog {
    fn builtin_names(&self) -> Vec<String> {
        forge_plugin_builtins::all().iter().map(|builtin| builtin.name.to_owned()).collect()
    }

    fn builtin(&self, name: &str) -> Option<Result<PluginFacts, String>> {
        forge_plugin_builtins::get(name).map(|builtin| self.inspect(builtin.wasm))
    }

    fn inspect(&self, bytes: &[u8]) -> Result<PluginFacts, String> {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        let key = hex::encode(&hash);
        let known = self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let described = known.unwrap_or_else(|| {
            // Not under the lock: compiling takes its time, and two that compile the same agree.
            let facts = self.describe(bytes, hash);
            let mut known = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= FACTS_MAX {
                known.clear();
            }
            known.insert(key, facts.clone());
            facts
        });
        described.map(|described| described.facts)
    }
}
