//! `forge plugin check` and `forge plugin list`: what the daemon finds out about a component, without a tree and without a daemon.

use std::time::{Duration, Instant};

use forge_config::meant::PluginKind;
use forge_config::{Digest, PluginCatalog, schema_mistake};
use forge_plugin_host::{Capability, Host, HostError, PluginInfo};
use serde_json::Value;

use crate::plugins::{Catalog, as_the_daemon};

/// Looks at components through the same host that runs them.
pub struct PluginExaminer {
    host: Host,
    catalog: Catalog,
}

impl std::fmt::Debug for PluginExaminer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PluginExaminer")
    }
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct ExaminedPlugin {
    /// SHA-256 of the component.
    pub sha256: Digest,
    /// Its size.
    pub bytes: usize,
    /// How long it took to compile.
    pub compiling: Duration,
    /// What it is; `None` when it does not load or does not say what it is.
    pub kind: Option<PluginKind>,
    /// What it says of itself; `None` as for the kind.
    pub words: Option<PluginWords>,
    /// Why the daemon would not take it.
    pub mistakes: Vec<String>,
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginWords {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// JSON Schema of a template's `[params]`.
    pub params_schema: Option<Value>,
    /// JSON Schema of its `[config]`.
    pub config_schema: Option<Value>,
    /// Programs that it wants to run.
    pub programs: Vec<String>,
    /// Variables of the runner's environment that it wants.
    pub env: Vec<String>,
    /// Hosts that it wants to send requests to.
    pub hosts: Vec<String>,
}

impl PluginExaminer {
    /// Starts the plugin host.
    ///
    /// # Errors
    /// The plugin host does not start.
    pub fn new() -> Result<Self, HostError> {
        let host = Host::new(as_the_daemon())?;
        Ok(Self { catalog: Catalog::new(host.clone()), host })
    }

    /// Loads a component and has it describe itself. It blocks, and compiles.
    pub fn examine(&self, bytes: &[u8]) -> ExaminedPlugin {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        let begun = Instant::now();
        let loaded = self.host.load(bytes);
        let mut examined = ExaminedPlugin {
            sha256: Digest(hash),
            bytes: bytes.len(),
            compiling: begun.elapsed(),
            kind: None,
            words: None,
            mistakes: Vec::new(),
        };
        let plugin = match loaded {
            Ok(plugin) => plugin,
            Err(error) => {
                examined.mistakes.push(error.to_string());
                return examined;
            }
        };
        match plugin.describe() {
            Ok(info) => {
                let words = PluginWords::of(info);
                examined.mistakes.extend(words.mistakes());
                examined.words = Some(words);
            }
            Err(error) => examined.mistakes.push(format!("it does not describe itself: {error}")),
        }
        examined.kind = self.catalog.inspect(bytes).ok().map(|facts| facts.kind);
        examined
    }

    /// What bytes that are no WASM most likely are, in words that go on after the file's name.
    pub fn looks_like(bytes: &[u8]) -> &'static str {
        forge_plugin_host::looks_like(bytes)
    }

    /// The built-in plugins by name.
    pub fn builtins(&self) -> Vec<(&'static str, ExaminedPlugin)> {
        forge_plugin_builtins::all().iter().map(|builtin| (builtin.name, self.examine(builtin.wasm))).collect()
    }
}

impl PluginWords {
    fn of(info: PluginInfo) -> Self {
        let PluginInfo { name, version, summary, params_schema, config_schema, wants } = info;
        let (mut programs, mut env, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for want in wants {
            match want {
                Capability::Process(names) => programs.extend(names),
                Capability::Env(names) => env.extend(names),
                Capability::Http(names) => hosts.extend(names),
            }
        }
        Self { name, version, summary, params_schema, config_schema, programs, env, hosts }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (table, schema) in [("params", &self.params_schema), ("config", &self.config_schema)] {
            let Some(schema) = schema else { continue };
            if let Some(mistake) = schema_mistake(schema) {
                mistakes.push(format!("its schema of [{table}] is no JSON Schema: {mistake}"));
            } else if !schema.is_object() || schema.get("type").is_some_and(|kind| kind != "object") {
                mistakes.push(format!(
                    "its schema of [{table}] refuses every table: write \"type\": \"object\" at its top"
                ));
            }
        }
        for program in self.programs.iter().filter(|program| program.is_empty() || program.contains('/')) {
            mistakes.push(format!("it wants to run {program:?}, which no TOML grants: write the program's bare name"));
        }
        mistakes
    }
}
