//! A world to measure in: a temporary folder with a tree, a daemon in a process of its own, and runners.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_api::{CreateTask, Secret, Task};
use forge_daemon::{ADDRESSES_FILE, Addresses};
use forge_runner::trust::Trust;
use http::Method;
use rustix::process::Signal;
use serde_json::Map;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::process::Process;
use super::simulated::Simulated;
use super::wire::{Body, Connection, Endpoint};
use crate::client::Client;
use crate::commands::runner::register;
use crate::commands::scratch::{self, RunnerFile, Tokens};
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::settings;

/// The project whose templates are run.
pub(super) const PROJECT: &str = "bench";

/// A template whose process ends at once.
pub(super) const NOTHING: &str = "nothing";

/// A template whose process writes down when it began.
pub(super) const MOMENT: &str = "moment";

/// How long something of the world may take to come about.
pub(super) const FACT_DEADLINE: Duration = Duration::from_secs(120);

/// How often it is looked for.
const FACT_LOOK: Duration = Duration::from_millis(5);

/// How many connections make tasks at a time.
const CREATORS: u32 = 16;

/// How many runners register at a time.
const REGISTRARS: usize = 32;

/// The tree: retention is off, since a history that shrinks while it is measured is none.
const TREE: [(&str, &str); 4] = [
    ("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n"),
    (
        "projects/bench/project.toml",
        "description = \"What forge bench runs\"\nretention = { tasks = 0, age = \"0s\" }\n",
    ),
    (
        "projects/bench/templates/nothing.toml",
        "executor = \"shell\"\nconcurrency = \"parallel\"\n[params]\nscript = \"true\"\n",
    ),
    // EPOCHREALTIME is bash's own: no other process stands between the first instruction and the clock.
    (
        "projects/bench/templates/moment.toml",
        "executor = \"shell\"\nconcurrency = \"parallel\"\n[params]\nscript = 'echo \"$EPOCHREALTIME\"'\n",
    ),
];

/// What the daemon can do is measured, and not what one token may ask of it.
const UNLIMITED: &str = "\n[limits]\nrequests_per_second = 0\n";

/// Where a secret of webhook targets may lie.
const SECRET_FILE: &str = "webhook-secret";

/// A daemon that serves, and what was made for it. What is dropped first ends first: the folder goes last.
pub(super) struct World {
    daemon: Process,
    addresses: Addresses,
    ca_file: PathBuf,
    metrics: reqwest::Client,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) client: Client,
    tokens: Tokens,
    folder: TempDir,
}

impl World {
    /// Makes the folder and starts the daemon.
    pub(super) async fn start() -> Result<Self, CliError> {
        let folder = scratch::folder("forge-bench-")?;
        let secret = folder.path().join(SECRET_FILE);
        let more = format!("{UNLIMITED}\n[secrets.allow.webhooks]\nfiles = [{secret:?}]\n");
        let tokens = scratch::prepare(folder.path(), None, &more)?;
        for (path, text) in TREE {
            scratch::write(&folder.path().join(scratch::TREE).join(path), text)?;
        }
        Self::serve(folder, tokens).await
    }

    async fn serve(folder: TempDir, tokens: Tokens) -> Result<Self, CliError> {
        let arguments = ["daemon", "--config", scratch::DAEMON_FILE];
        let mut daemon = Process::start(folder.path(), "daemon", &arguments, Signal::TERM)?;
        let file = folder.path().join(scratch::DATA).join(ADDRESSES_FILE);
        let addresses: Addresses = wait_for("the daemon to serve", async || {
            daemon.check_alive()?;
            // It is written whole, by rename, once every listener is bound.
            let Ok(bytes) = std::fs::read(&file) else { return Ok(None) };
            let found: Addresses = serde_json::from_slice(&bytes).map_err(CliError::failed)?;
            Ok((found.pid == daemon.pid()).then_some(found))
        })
        .await?;
        let ca_file = addresses.ca_file.clone().ok_or_else(|| CliError::failed("the daemon made no CA"))?;
        let trust = Trust::CaFile(ca_file.clone());
        Ok(Self {
            endpoint: Arc::new(Endpoint::new(&addresses.api, &ca_file)?),
            client: Client::new(&addresses.api, tokens.access.reveal(), &trust)?,
            metrics: reqwest::Client::builder().no_proxy().build().map_err(CliError::failed)?,
            daemon,
            addresses,
            ca_file,
            tokens,
            folder,
        })
    }

    /// Stops the daemon, does `work` with its data folder, and starts another on it.
    pub(super) async fn restart(
        self,
        work: impl FnOnce(&std::path::Path) -> Result<(), CliError> + Send + 'static,
    ) -> Result<Self, CliError> {
        let Self { daemon, folder, tokens, .. } = self;
        let data = folder.path().join(scratch::DATA);
        let worked = tokio::task::spawn_blocking(move || {
            drop(daemon);
            work(&data)
        });
        worked.await.map_err(CliError::failed)??;
        Self::serve(folder, tokens).await
    }

    /// The daemon's process.
    pub(super) fn daemon_pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The file that secrets of webhook targets may come from.
    pub(super) fn secret_file(&self) -> PathBuf {
        self.folder.path().join(SECRET_FILE)
    }

    /// The folder that the daemon watches.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.path().join(scratch::TREE)
    }

    /// The size of the database, in MiB.
    pub(super) fn database_mib(&self) -> Result<f64, CliError> {
        let path = self.folder.path().join(scratch::DATA).join("forge.db");
        let metadata = std::fs::metadata(&path).map_err(|error| file_error("look at", &path, &error))?;
        Ok(metadata.len() as f64 / (1024.0 * 1024.0))
    }

    /// The token that sees and does everything.
    pub(super) fn access(&self) -> &Secret {
        &self.tokens.access
    }

    /// A sample of the daemon's metrics, such as `forge_parked_claims`.
    pub(super) async fn metric(&self, name: &str) -> Result<u64, CliError> {
        let url = format!("{}/metrics", self.addresses.metrics);
        let answer = self.metrics.get(&url).send().await.map_err(CliError::failed)?;
        let text = answer.text().await.map_err(CliError::failed)?;
        sample(&text, name).ok_or_else(|| CliError::failed(format_args!("{url} does not show {name}")))
    }

    /// How many tasks have succeeded.
    pub(super) async fn succeeded(&self) -> Result<u64, CliError> {
        self.metric("forge_tasks{state=\"succeeded\"}").await
    }

    /// Waits until so many tasks have succeeded; one that ended otherwise is an error.
    pub(super) async fn wait_succeeded(&self, count: u64) -> Result<(), CliError> {
        let failed = self.metric("forge_tasks{state=\"failed\"}").await?;
        if failed > 0 {
            return Err(CliError::failed(format_args!("{failed} tasks failed")));
        }
        wait_for(&format!("{count} tasks to succeed"), async || Ok((self.succeeded().await? >= count).then_some(())))
            .await
    }

    /// Waits until so many runners wait for work.
    pub(super) async fn wait_parked(&self, count: u64) -> Result<(), CliError> {
        wait_for(&format!("{count} runners to wait for work"), async || {
            Ok((self.metric("forge_parked_claims").await? >= count).then_some(()))
        })
        .await
    }

    /// Makes so many tasks of a template, over a few connections at a time; answers how long that took.
    pub(super) async fn create_tasks(&self, template: &str, tasks: u32) -> Result<Duration, CliError> {
        let body = serde_json::to_vec(&nothing_asked()).map_err(CliError::failed)?;
        let path = format!("/projects/{PROJECT}/templates/{template}/tasks");
        let begin = Instant::now();
        let mut creators = JoinSet::new();
        for creator in 0..CREATORS.min(tasks) {
            let own = tasks / CREATORS.min(tasks) + u32::from(creator < tasks % CREATORS.min(tasks));
            let (mut connection, token) = (Connection::new(&self.endpoint), self.access().clone());
            let (path, body) = (path.clone(), body.clone());
            creators.spawn(async move {
                for _ in 0..own {
                    let body = Body::Json(body.clone());
                    let _made: Task = connection.json(Method::POST, &path, token.reveal(), body).await?;
                }
                Ok::<_, CliError>(())
            });
        }
        all(creators).await?;
        Ok(begin.elapsed())
    }

    /// Registers so many simulated runners, and connects them.
    pub(super) async fn simulated(&self, prefix: &str, runners: u32) -> Result<Vec<Simulated>, CliError> {
        let mut registered = Vec::new();
        let mut registering = JoinSet::new();
        for number in 0..runners {
            if registering.len() >= REGISTRARS {
                registered.extend(next(&mut registering).await?);
            }
            let (endpoint, token) = (Arc::clone(&self.endpoint), self.tokens.registration.clone());
            let name = format!("{prefix}-{number}");
            registering.spawn(async move { Simulated::register(&endpoint, name, &token).await });
        }
        registered.extend(all(registering).await?);
        Ok(registered)
    }

    /// Registers a real runner and starts it in a process of its own.
    pub(super) async fn runner(&self, name: &str, limit: u32, printer: &Printer) -> Result<Process, CliError> {
        let file = RunnerFile { api: &self.addresses.api, ca_file: &self.ca_file, name, max_parallel_tasks: limit };
        let file = scratch::write_runner(&self.folder.path().join(name), &file)?;
        let no_environment = settings::Environment::new();
        let runner = settings::runner(Some(&file), &no_environment, printer)?;
        register(&runner.settings, self.tokens.registration.clone()).await?;
        let file = file.to_str().ok_or_else(|| CliError::failed("the temporary folder's name is not UTF-8"))?;
        // QUIT has it end its attempts at once: whoever interrupts the bench does not wait for them.
        Process::start(self.folder.path(), name, &["runner", "--config", file], Signal::QUIT)
    }
}

/// A request that answers no survey.
pub(super) fn nothing_asked() -> CreateTask {
    CreateTask { variables: Map::new(), arguments: Vec::new() }
}

/// The value of a sample in Prometheus' text.
fn sample(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Looks for a fact until it is there.
pub(super) async fn wait_for<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>, CliError>,
) -> Result<T, CliError> {
    let begin = Instant::now();
    loop {
        if let Some(fact) = look().await? {
            return Ok(fact);
        }
        if begin.elapsed() > FACT_DEADLINE {
            return Err(CliError::failed(format_args!("waited {} s in vain for {what}", FACT_DEADLINE.as_secs())));
        }
        tokio::time::sleep(FACT_LOOK).await;
    }
}

/// Waits for all of them; the first error is everyone's, and ends the others.
pub(super) async fn all<T: 'static>(mut tasks: JoinSet<Result<T, CliError>>) -> Result<Vec<T>, CliError> {
    let mut done = Vec::new();
    while !tasks.is_empty() {
        done.extend(next(&mut tasks).await?);
    }
    Ok(done)
}

async fn next<T: 'static>(tasks: &mut JoinSet<Result<T, CliError>>) -> Result<Option<T>, CliError> {
    match tasks.join_next().await {
        Some(ended) => ended.map_err(CliError::failed)?.map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# TYPE forge_tasks gauge\nforge_tasks{state=\"failed\"} 2\nforge_parked_claims 7\n";
        assert_eq!(sample(text, "forge_tasks{state=\"failed\"}"), Some(2));
        assert_eq!(sample(text, "forge_parked_claims"), Some(7));
        assert_eq!(sample(text, "forge_parked"), None);
    }
}
