//! A target of the tree that serves, ready to be told: its plugin loaded, its grants read, its secrets resolved.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use forge_api::Secret;
use forge_config::meant::{Plugin as MeantPlugin, Webhook};
use forge_config::{HostGrant, PLUGIN_SECRETS, WEBHOOK_SECRETS};
use forge_plugin_host::{Host, Limits, TargetCall};
use serde_json::{Map, Value};

use super::backoff::Retry;
use crate::clock::Clock;
use crate::core::{Applied, Core};
use crate::hex;
use crate::webhooks::{Guest, PluginGuest};

/// How long secrets are used before they are asked for again, in milliseconds: a file of the host may be written anew.
const READY_MS: u64 = 10_000;

/// What targets are made ready from.
pub(crate) struct TargetOptions {
    /// What runs their plugins.
    pub(crate) host: Host,
    /// Where components lie as `<sha256>.wasm`.
    pub(crate) plugin_dir: PathBuf,
}

/// A target that can be told.
pub(super) struct Ready {
    pub(super) guest: Arc<dyn Guest>,
    pub(super) plugin_name: String,
    pub(super) plugin_config: Map<String, Value>,
    /// The secrets of the plugin's own `[config]`.
    pub(super) plugin_fields: BTreeMap<String, Secret>,
    pub(super) grants: Vec<HostGrant>,
    pub(super) config: Map<String, Value>,
    pub(super) fields: BTreeMap<String, Secret>,
    pub(super) own: Option<Secret>,
    pub(super) retry: Retry,
    /// What it was made from.
    applied: Arc<Applied>,
    made_ms: u64,
}

/// Why a target cannot be told.
pub(super) enum Unready {
    /// The tree has no such target.
    Gone,
    /// Something of this host is wrong: it may be mended.
    Later {
        /// What.
        message: String,
        /// The target's own.
        retry: Retry,
    },
}

/// The targets.
pub(super) struct Targets {
    core: Core,
    clock: Clock,
    options: Arc<TargetOptions>,
    ready: Mutex<HashMap<String, Arc<Ready>>>,
}

impl Targets {
    pub(super) fn new(core: Core, clock: Clock, options: TargetOptions) -> Self {
        Self { core, clock, options: Arc::new(options), ready: Mutex::default() }
    }

    /// The target of a name as the tree has it now.
    pub(super) async fn ready(&self, name: &str) -> Result<Arc<Ready>, Unready> {
        let (applied, now_ms) = (self.core.applied(), self.clock.elapsed_ms());
        let known = self.lock().get(name).cloned();
        if let Some(known) = known
            && Arc::ptr_eq(&known.applied, &applied)
            && now_ms.saturating_sub(known.made_ms) < READY_MS
        {
            return Ok(known);
        }
        let found = applied.tree.webhooks.get(name);
        let found =
            found.and_then(|webhook| Some((webhook.clone(), applied.tree.plugins.get(&webhook.plugin)?.clone())));
        let Some((webhook, plugin)) = found else {
            self.lock().remove(name);
            return Err(Unready::Gone);
        };
        let retry = Retry { attempts: webhook.retry_attempts, delay_ms: webhook.retry_delay_ms };
        let (core, options) = (self.core.clone(), Arc::clone(&self.options));
        let made = tokio::task::spawn_blocking(move || make(&core, &options, &webhook, &plugin, applied, now_ms)).await;
        match made.unwrap_or_else(|ended| Err(format!("its plugin could not be loaded: {ended}"))) {
            Ok(ready) => {
                let ready = Arc::new(ready);
                let mut all = self.lock();
                // What the tree has lost holds a plugin and secrets for nothing.
                all.retain(|name, _| ready.applied.tree.webhooks.contains_key(name.as_str()));
                all.insert(name.to_owned(), Arc::clone(&ready));
                Ok(ready)
            }
            Err(message) => Err(Unready::Later { message, retry }),
        }
    }

    /// How a target of the tree is tried again.
    pub(super) fn retry(&self, name: &str) -> Option<Retry> {
        let applied = self.core.applied();
        let webhook = applied.tree.webhooks.get(name)?;
        Some(Retry { attempts: webhook.retry_attempts, delay_ms: webhook.retry_delay_ms })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Ready>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(
    core: &Core,
    options: &TargetOptions,
    webhook: &Webhook,
    plugin: &MeantPlugin,
    applied: Arc<Applied>,
    made_ms: u64,
) -> Result<Ready, String> {
    let secret = |what: String, value| {
        let value = core.shared_secret(WEBHOOK_SECRETS, value);
        value.map_err(|error| format!("the secret `{what}` of the target: {error}"))
    };
    let mut fields = BTreeMap::new();
    for (field, value) in &webhook.config_secrets {
        fields.insert(field.clone(), secret(format!("config.{field}"), value)?);
    }
    let mut plugin_fields = BTreeMap::new();
    for (field, value) in &plugin.config_secrets {
        let value = core.shared_secret(PLUGIN_SECRETS, value);
        let value =
            value.map_err(|error| format!("the secret `config.{field}` of the plugin {}: {error}", plugin.name))?;
        plugin_fields.insert(field.clone(), value);
    }
    let own = webhook.secret.as_ref().map(|value| secret("secret".to_owned(), value)).transpose()?;
    // The check of the tree read them already.
    let grants = plugin.hosts.iter().map(|host| host.parse().map_err(|error| format!("{host}: {error}")));
    let grants = grants.collect::<Result<_, _>>()?;
    let limits = Limits { memory_bytes: plugin.memory_bytes, time_ms: plugin.time_ms };
    let plugin_name = plugin.name.as_str().to_owned();
    let call = TargetCall { plugin_name: plugin_name.clone(), limits };
    let loaded = load(options, &hex::encode(&plugin.sha256.0))?;
    Ok(Ready {
        guest: Arc::new(PluginGuest { plugin: loaded, call }),
        plugin_name,
        plugin_config: plugin.config.clone(),
        plugin_fields,
        grants,
        config: webhook.config.clone(),
        fields,
        own,
        retry: Retry { attempts: webhook.retry_attempts, delay_ms: webhook.retry_delay_ms },
        applied,
        made_ms,
    })
}

fn load(options: &TargetOptions, sha256: &str) -> Result<forge_plugin_host::Plugin, String> {
    match options.host.load_cached(sha256) {
        Ok(Some(plugin)) => return Ok(plugin),
        Ok(None) => {}
        // What is compiled anew mends it.
        Err(error) => tracing::warn!(%error, "a compiled plugin that was kept cannot be used: it is compiled anew"),
    }
    let path = options.plugin_dir.join(format!("{sha256}.wasm"));
    let bytes =
        std::fs::read(&path).map_err(|error| format!("its plugin {} cannot be read: {error}", path.display()))?;
    let plugin = options.host.load(&bytes).map_err(|error| format!("its plugin cannot be loaded: {error}"))?;
    if plugin.sha256_hex() == sha256 { Ok(plugin) } else { Err(format!("{} is another component", path.display())) }
}
