//! The runner against a stand-in daemon: real supervisors, real processes, real git, a real component.
//!
//! Supervisors are this same binary, started so that only the test `as_a_supervisor` runs in it.

mod attempts;
mod carries;
mod daemon;
mod delivery;
mod faults;
mod git_server;
mod registration;
mod repositories;
mod trust;
mod versions;
mod word;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use forge_api::{AttemptId, Grants, Job, Limits, OnRunnerLost, PluginRef, Secret, Timestamp};
use forge_runner::trust::Trust;
use forge_runner::{Ended, Event, RunError, Settings, Shutdown};
use serde_json::{Map, Value};

use crate::daemon::{Daemon, REGISTRATION_TOKEN, sha256_hex};

#[test]
fn as_a_supervisor() {
    let is_chosen = std::env::args().any(|argument| argument == "as_a_supervisor");
    let stdin = std::io::stdin();
    let kind = rustix::fs::fstat(stdin.as_fd()).map(|found| rustix::fs::FileType::from_raw_mode(found.st_mode));
    if is_chosen && kind == Ok(rustix::fs::FileType::Socket) {
        let code = forge_runner::supervise();
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

/// The folder and the daemon of a runner that is a process of its own.
const APART: [&str; 2] = ["FORGE_TEST_FOLDER", "FORGE_TEST_DAEMON"];

#[tokio::test]
async fn as_a_runner() {
    let [folder, address] = APART.map(std::env::var);
    if let (Ok(folder), Ok(address)) = (folder, address) {
        let folder = Path::new(&folder);
        let mut settings = settings(&address, folder);
        settings.trust = Trust::CaFile(folder.join("ca.pem"));
        settings.pass_env = vec!["GIT_SSL_CAINFO".to_owned()];
        forge_runner::run(settings, Shutdown::default(), |_| {}).await.expect("it ends");
    }
}

/// A runner in a process of its own, which ends with this.
pub(crate) struct Apart(std::process::Child);

impl Apart {
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("listed").count()
    }

    /// Its children, dead ones included.
    pub(crate) fn children(&self) -> Vec<u32> {
        children_of(self.0.id())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The children of a process, dead ones included.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let seen = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        (seen == parent).then(|| entry.file_name().to_str()?.parse().ok())?
    };
    std::fs::read_dir("/proc").expect("listed").filter_map(is_child).collect()
}

/// A registered runner's home and its daemon.
pub(crate) struct Place {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) settings: Settings,
}

/// A runner at work.
pub(crate) struct Working {
    pub(crate) shutdown: Shutdown,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    pub(crate) task: tokio::task::JoinSet<Result<Ended, RunError>>,
}

pub(crate) fn settings(web_host: &str, folder: &Path) -> Settings {
    let program = std::env::current_exe().expect("this program");
    Settings {
        web_host: web_host.to_owned(),
        tmp_path: folder.join("tmp"),
        ssh_config_path: None,
        git_client: "git".to_owned(),
        trust: Trust::SystemRoots,
        name: "east-1".to_owned(),
        token_file: folder.join("token"),
        token: None,
        private_key_file: folder.join("private.key"),
        max_parallel_tasks: 0,
        one_off: false,
        supervisor_command: vec![program.into(), "--exact".into(), "as_a_supervisor".into(), "--nocapture".into()],
        stop_grace_ms: 300,
        obey_margin_ms: 2_000,
        run_as: None,
        keep_failed_workspaces: false,
        disk_reserve_bytes: 0,
        pass_env: vec![],
        alive_interval: None,
        version: "test".to_owned(),
    }
}

impl Place {
    pub(crate) async fn new() -> Self {
        let daemon = Daemon::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        // Certificates are not asked for over plain HTTP; a CA file keeps the test from the machine's own.
        let ca = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, ca.cert.pem()).expect("written");
        let settings = Settings { trust: Trust::CaFile(ca_file), ..settings(&daemon.address, folder.path()) };
        Self { daemon, folder, settings }
    }

    pub(crate) async fn registered() -> Self {
        let place = Self::new().await;
        forge_runner::register(&place.settings, Secret::new(REGISTRATION_TOKEN)).await.expect("registered");
        place
    }

    pub(crate) fn work(&self) -> Working {
        self.work_as(self.settings.clone())
    }

    pub(crate) fn work_as(&self, settings: Settings) -> Working {
        let shutdown = Shutdown::default();
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let seen = Arc::clone(&events);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(forge_runner::run(settings, shutdown.clone(), move |event| seen.lock().expect("free").push(event)));
        Working { shutdown, events, task }
    }

    /// Works in a process of its own, with `env` added to its environment.
    pub(crate) fn apart(&self, env: &[(&str, &Path)]) -> Apart {
        let [folder, address] = APART;
        let program = std::env::current_exe().expect("this program");
        let child = std::process::Command::new(program)
            .args(["--exact", "as_a_runner", "--nocapture"])
            .env(folder, self.folder.path())
            .env(address, &self.daemon.address)
            .envs(env.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("started");
        Apart(child)
    }

    /// A job that runs `script` in bash.
    pub(crate) fn job(&self, task: u64, script: &str) -> Job {
        Job {
            attempt: AttemptId { task, attempt: 1 },
            token: Secret::new(format!("forge_attempt_{task}_token")),
            runner: "east-1".to_owned(),
            expires_at: Timestamp::from_unix_micros(4_102_444_800_000_000),
            project: "shop".to_owned(),
            template: "deploy".to_owned(),
            revision: "abc".to_owned(),
            plugin: PluginRef {
                name: "guest".to_owned(),
                sha256: sha256_hex(&self.daemon.plugin),
                config: Value::Object(Map::new()),
                grants: Grants { programs: vec!["bash".to_owned(), "no-such-program".to_owned()], env: vec![] },
                limits: Limits { memory_bytes: 16 << 20, time_ms: 5_000 },
            },
            params: Value::Object(Map::new()),
            arguments: vec!["bash".to_owned(), "-c".to_owned(), script.to_owned()],
            variables: Map::new(),
            secret_variables: BTreeMap::new(),
            survey: vec![],
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            repository: None,
            inventory: None,
            keys: vec![],
            timeout_ms: 120_000,
            runner_grace_ms: 60_000,
            on_runner_lost: OnRunnerLost::Fail,
            plugin_secrets: BTreeMap::new(),
            carry_key: None,
            resume: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until a file is there and whole (it ends with a line's end), and reads it.
    pub(crate) async fn file(&self, name: &str) -> String {
        let path = self.path(name);
        self.daemon.wait(name, |_| std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await
    }

    /// Waits until a process is gone.
    pub(crate) async fn gone(&self, pid: &str) {
        let path = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let is_dead = |text: String| text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        let what = format!("the end of process {pid}");
        self.daemon
            .wait(&what, |_| std::fs::read_to_string(&path).map_or(Some(()), |text| is_dead(text).then_some(())))
            .await;
    }
}

impl Working {
    pub(crate) async fn drained(mut self) -> Result<Ended, RunError> {
        self.shutdown.drain.cancel();
        self.task.join_next().await.expect("one task").expect("no panic")
    }

    pub(crate) async fn ended(mut self) -> Result<Ended, RunError> {
        self.task.join_next().await.expect("one task").expect("no panic")
    }
}
