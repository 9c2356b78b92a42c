//! What the daemon knows of plugins: their own words, asked through the same host that runs them.
//!
//! It runs no plugin's work. Built-ins get no privilege: they are described by the same call as a file of the tree.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forge_api::{PluginAccess, PluginRole, PluginSummary};
use forge_config::meant::{Plugin, PluginKind, PluginSource, Tree};
use forge_config::{Digest, PluginCatalog, PluginFacts, Wants};
use forge_plugin_host::{CallError, Capability, Host, HostOptions, Kind, Memory, Trap, TrapCause};

/// How many components' facts are remembered; a tree of today has a handful.
const FACTS_MAX: usize = 1_024;

/// How many names of each kind a plugin may ask for; more are not looked at.
const WANTS_MAX: usize = 64;

/// How a check makes its host: as the daemon does, whose calls have what a pool's slot has and no more. What passes here passes there.
pub(crate) fn as_the_daemon() -> HostOptions {
    HostOptions { memory: Memory::Pool { calls: 1 }, ..HostOptions::default() }
}

/// Why a component has no facts, in words.
enum DescribeError {
    /// The host had no room just then: it says nothing of the component, so it is not remembered.
    Busy(String),
    /// The component.
    Plugin(String),
}

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

    fn facts(&self) -> MutexGuard<'_, HashMap<String, Result<Described, String>>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, bytes: &[u8], sha256: Digest) -> Result<Described, DescribeError> {
        let plugin = self.host.load(bytes).map_err(|error| DescribeError::Plugin(error.to_string()))?;
        let info = plugin.describe().map_err(|error| {
            let why = format!("it does not describe itself: {error}");
            match error {
                CallError::Trapped(Trap { cause: TrapCause::Busy, .. }) => DescribeError::Busy(why),
                CallError::Trapped(_) | CallError::BadAnswer(_) => DescribeError::Plugin(why),
            }
        })?;
        let facts = PluginFacts {
            sha256,
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
        self.facts().get(sha256)?.as_ref().ok().cloned()
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

    fn digest(&self, bytes: &[u8]) -> Digest {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        Digest(hash)
    }

    fn inspect(&self, bytes: &[u8]) -> Result<PluginFacts, String> {
        let digest = self.digest(bytes);
        let key = digest.hex();
        if let Some(known) = self.facts().get(&key) {
            return known.clone().map(|described| described.facts);
        }
        // Not under the lock: compiling takes its time, and two that compile the same agree.
        let described = match self.describe(bytes, digest) {
            Ok(described) => Ok(described),
            Err(DescribeError::Busy(why)) => return Err(why),
            Err(DescribeError::Plugin(why)) => Err(why),
        };
        let mut known = self.facts();
        if known.len() >= FACTS_MAX {
            known.clear();
        }
        known.insert(key, described.clone());
        described.map(|described| described.facts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use forge_plugin_host::{
        CapabilityError, ChildProcess, Command, ExecuteRequest, Finished, Grants, Job, Level, Limits, Services,
    };
    use serde_json::json;

    use super::*;

    /// Stands in the middle of a command until it is told to go on.
    struct Standing {
        inside: Sender<()>,
        go_on: Receiver<()>,
    }

    impl Services for Standing {
        fn log(&mut self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

        fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

        fn canceled(&self) -> bool {
            false
        }

        fn run(&mut self, _command: Command) -> Result<Finished, CapabilityError> {
            self.inside.send(()).expect("the test waits");
            self.go_on.recv().expect("the test goes on");
            Err(CapabilityError::Canceled)
        }

        fn spawn(&mut self, _command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
            Err(CapabilityError::Canceled)
        }
    }

    #[test]
    fn that_there_was_no_room_is_not_remembered_of_a_plugin() {
        let host = Host::new(as_the_daemon()).expect("the engine starts");
        let catalog = Catalog::new(host.clone());
        let shell = forge_plugin_builtins::get("shell").expect("it is built in").wasm;
        let plugin = host.load(shell).expect("it loads");
        let workspace = tempfile::tempdir().expect("a folder");
        let request = ExecuteRequest {
            job: Job { params: json!({"script": "true"}), ..Job::default() },
            workspace: workspace.path().to_owned(),
            grants: Grants { plugin_name: "shell".to_owned(), programs: vec!["bash".to_owned()] },
            limits: Limits::default(),
            file_user: None,
        };
        let (inside, stands) = channel();
        let (go_on, told) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| plugin.execute(request, Box::new(Standing { inside, go_on: told })));
            stands.recv().expect("it runs its program");
            let why = catalog.inspect(shell).expect_err("the one place is taken");
            assert!(why.contains("as many plugins run as there is room for"), "{why}");
            go_on.send(()).expect("it stands there");
        });
        catalog.inspect(shell).expect("there is room again");
    }
}
