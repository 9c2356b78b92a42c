//! What the daemon knows of plugins: their own words, asked through the same host that runs them, and their components on disk for runners.
//!
//! It runs no plugin's work. Built-ins get no privilege: they are described by the same call as a file of the tree.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use forge_config::meant::{Plugin, PluginKind, PluginSource, Tree};
use forge_config::{Digest, Files, PluginCatalog, PluginFacts};
use forge_plugin_host::{Host, Kind};

use crate::files::{self, FileError, MODE_PRIVATE};
use crate::hex;

/// How many components' facts are remembered; a tree of today has a handful.
const FACTS_MAX: usize = 1_024;

/// The plugin host as the configuration's check asks it.
pub(crate) struct Catalog {
    host: Host,
    /// By hex digest: a component never changes what it says.
    facts: Mutex<HashMap<String, Result<PluginFacts, String>>>,
}

impl Catalog {
    /// Asks through `host`.
    pub(crate) fn new(host: Host) -> Self {
        Self { host, facts: Mutex::new(HashMap::new()) }
    }

    fn describe(&self, bytes: &[u8], hash: [u8; 32]) -> Result<PluginFacts, String> {
        let plugin = self.host.load(bytes).map_err(|error| error.to_string())?;
        let info = plugin.describe().map_err(|error| format!("it does not describe itself: {error}"))?;
        Ok(PluginFacts {
            sha256: Digest(hash),
            kind: match plugin.kind() {
                Kind::Executor => PluginKind::Executor,
            },
            params_schema: info.params_schema,
            config_schema: info.config_schema,
        })
    }
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
        known.unwrap_or_else(|| {
            // Not under the lock: compiling takes its time, and two that compile the same agree.
            let facts = self.describe(bytes, hash);
            let mut known = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= FACTS_MAX {
                known.clear();
            }
            known.insert(key, facts.clone());
            facts
        })
    }
}

/// Puts every component that the tree names where runners are served from, as `<sha256>.wasm`.
pub(crate) fn store_components(folder: &Path, tree: &Tree, files: &Files) -> Result<(), FileError> {
    let components: BTreeMap<String, &[u8]> = tree
        .plugins
        .values()
        .filter_map(|plugin| component(plugin, files).map(|bytes| (hex::encode(&plugin.sha256.0), bytes)))
        .collect();
    for (sha256, bytes) in components {
        let path = folder.join(format!("{sha256}.wasm"));
        // Named by digest and written whole: a file of the right length is the right file.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes.len() as u64) {
            continue;
        }
        files::write_atomic(&path, bytes, MODE_PRIVATE)?;
    }
    Ok(())
}

fn component<'a>(plugin: &Plugin, files: &'a Files) -> Option<&'a [u8]> {
    match &plugin.source {
        PluginSource::Builtin(name) => forge_plugin_builtins::get(name).map(|builtin| builtin.wasm),
        PluginSource::File(path) => files.get(path).map(Vec::as_slice),
    }
}
