//! From bytes to a [`Plugin`]: digest, shape, imports, and code that is compiled once per digest.
//!
//! What a component imports is checked before it is linked, so that the message names the import and the versions that
//! this host offers, and not a mismatch deep in a type.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use wasmtime::component::Component;

use crate::bindings::ExecutorPluginPre;
use crate::bindings::webhook::WebhookPluginPre;
use crate::cache::CacheError;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::refusal::{
    EXECUTOR, LoadError, OFFERED, OFFERED_TO_TARGETS, WEBHOOK_TARGET, is_of_another_version, looks_like,
};
use crate::state::State;
use crate::{Host, Kind};

/// A plugin that is ready to be called. Cloning it is cheap.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) host: Host,
    pub(crate) loaded: Arc<Loaded>,
}

pub(crate) struct Loaded {
    sha256_hex: String,
    pub(crate) entry: Entry,
}

/// What Forge calls of a plugin, linked.
pub(crate) enum Entry {
    Executor(ExecutorPluginPre<State>),
    WebhookTarget(WebhookPluginPre<State>),
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("sha256", &self.loaded.sha256_hex).finish_non_exhaustive()
    }
}

impl Plugin {
    /// The component's SHA-256 in lower-case hex.
    pub fn sha256_hex(&self) -> &str {
        &self.loaded.sha256_hex
    }

    /// What it is, by what it exports.
    pub fn kind(&self) -> Kind {
        match self.loaded.entry {
            Entry::Executor(_) => Kind::Executor,
            Entry::WebhookTarget(_) => Kind::WebhookTarget,
        }
    }
}

impl Host {
    /// Loads a component: from memory, else from the cache, else by compiling it, which is kept.
    ///
    /// What it loaded, another process on the same cache folder finds with [`Host::load_cached`].
    ///
    /// # Errors
    /// It is not a component, imports what this host does not offer, or does not export what Forge calls. A cache that
    /// cannot be written is only logged: the plugin works without.
    pub fn load(&self, bytes: &[u8]) -> Result<Plugin, LoadError> {
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(LoadError::TooLarge { bytes: bytes.len() });
        }
        let sha256_hex = sha256_hex(bytes);
        let mut loaded = self.loaded();
        // A file that somebody removed is made again, so that another process finds what this one has loaded.
        let is_kept = self.shared.cache.as_ref().is_none_or(|cache| cache.has(&sha256_hex));
        if is_kept && let Some(plugin) = self.known(&loaded, &sha256_hex) {
            return Ok(plugin);
        }
        let cached = self.cached(&sha256_hex).unwrap_or_else(|error| {
            tracing::warn!(%error, "the plugin is compiled anew");
            None
        });
        let component = match cached {
            Some(component) => component,
            None => self.compile(&sha256_hex, bytes)?,
        };
        self.keep(&mut loaded, sha256_hex, &component)
    }

    /// Loads a plugin that an earlier [`Host::load`] compiled, in this process or another. `None` when there is none.
    ///
    /// # Errors
    /// The digest is not one, the cache cannot be read, or what was compiled does not fit.
    pub fn load_cached(&self, sha256_hex: &str) -> Result<Option<Plugin>, LoadError> {
        if sha256_hex.len() != 64 || !sha256_hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(LoadError::NotADigest(sha256_hex.to_owned()));
        }
        let mut loaded = self.loaded();
        if let Some(plugin) = self.known(&loaded, sha256_hex) {
            return Ok(Some(plugin));
        }
        self.cached(sha256_hex)?.map(|component| self.keep(&mut loaded, sha256_hex.to_owned(), &component)).transpose()
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<String, Weak<Loaded>>> {
        // A panic while it was held leaves a map without the newest plugin, which is then loaded again.
        self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, loaded: &HashMap<String, Weak<Loaded>>, sha256_hex: &str) -> Option<Plugin> {
        let loaded = loaded.get(sha256_hex)?.upgrade()?;
        Some(Plugin { host: self.clone(), loaded })
    }

    fn cached(&self, sha256_hex: &str) -> Result<Option<Component>, CacheError> {
        match &self.shared.cache {
            Some(cache) => cache.get(&self.shared.engine, sha256_hex),
            None => Ok(None),
        }
    }

    fn keep(
        &self,
        loaded: &mut HashMap<String, Weak<Loaded>>,
        sha256_hex: String,
        component: &Component,
    ) -> Result<Plugin, LoadError> {
        let entry = self.link(component)?;
        let new = Arc::new(Loaded { sha256_hex: sha256_hex.clone(), entry });
        loaded.retain(|_, plugin| plugin.strong_count() > 0);
        loaded.insert(sha256_hex, Arc::downgrade(&new));
        Ok(Plugin { host: self.clone(), loaded: new })
    }

    fn compile(&self, sha256_hex: &str, bytes: &[u8]) -> Result<Component, LoadError> {
        check_header(bytes)?;
        let component = Component::from_binary(&self.shared.engine, bytes).map_err(|error| {
            let why = format!("{error:#}");
            // A pool refuses what does not fit into its slots only once all is compiled.
            match self.shared.engine.precompile_component(bytes) {
                Ok(_) => LoadError::TooMuch(why),
                Err(_) => LoadError::Invalid(why),
            }
        })?;
        // Checked before it is kept: the cache holds only what this host runs.
        self.link(&component)?;
        if let Some(cache) = &self.shared.cache
            && let Err(error) = cache.put(sha256_hex, &component)
        {
            tracing::warn!(%error, "the compiled plugin is not kept: the next process compiles it again");
        }
        Ok(component)
    }

    fn link(&self, component: &Component) -> Result<Entry, LoadError> {
        let engine = &self.shared.engine;
        let shape = component.component_type();
        let imports = || shape.imports(engine).map(|(import, _)| import);
        let exports = |wanted: &str| shape.exports(engine).any(|(export, _)| export == wanted);
        let unknown: Vec<String> = imports().filter(|import| !OFFERED.contains(import)).map(str::to_owned).collect();
        if !unknown.is_empty() {
            return Err(LoadError::of_unknown_imports(unknown));
        }
        let mismatch = |error: wasmtime::Error| LoadError::Mismatch(format!("{error:#}"));
        match (exports(EXECUTOR), exports(WEBHOOK_TARGET)) {
            (true, false) => {
                let linked = self.shared.linker.instantiate_pre(component).and_then(ExecutorPluginPre::new);
                linked.map(Entry::Executor).map_err(mismatch)
            }
            (false, true) => {
                if let Some(import) = imports().find(|import| !OFFERED_TO_TARGETS.contains(import)) {
                    return Err(LoadError::NotForTargets { import: import.to_owned() });
                }
                let linked = self.shared.target_linker.instantiate_pre(component).and_then(WebhookPluginPre::new);
                linked.map(Entry::WebhookTarget).map_err(mismatch)
            }
            (true, true) => Err(LoadError::TwoKinds),
            (false, false) => {
                let exports: Vec<String> = shape.exports(engine).map(|(export, _)| export.to_owned()).collect();
                let others: Vec<String> = exports.iter().filter(|name| is_of_another_version(name)).cloned().collect();
                if others.is_empty() {
                    Err(LoadError::NotAPlugin { exports })
                } else {
                    Err(LoadError::UnknownVersion { does: "exports", names: others })
                }
            }
        }
    }
}

/// A component and a core module begin alike and differ in the version's second half.
fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    match bytes {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm { looks_like: looks_like(bytes) }),
    }
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().fold(
        String::with_capacity(64),
        |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        },
    )
}
