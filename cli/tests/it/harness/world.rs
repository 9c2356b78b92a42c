//! The world of a story: home, tree, daemon, runners.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::{Finished, Process, wait_for};

/// A temporary home with a tree of configuration that holds the shell plugin and an admin's token, and a registration token
/// for any name.
pub(crate) struct World {
    folder: TempDir,
    admin_token: String,
    registration_token: String,
}

/// A daemon of a world, and where it listens.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) api: String,
    pub(crate) ca_file: PathBuf,
}

/// A runner of a world.
pub(crate) struct Runner {
    pub(crate) process: Process,
}

impl World {
    /// A new world whose tree has one project, `shop`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("forge-it-").tempdir().expect("a temporary folder");
        let mut world = Self { folder, admin_token: String::new(), registration_token: String::new() };
        let (token, hash) = world.new_token();
        world.admin_token = token;
        world.write("access/admin.toml", &format!("hash = \"{hash}\"\nrole = \"admin\"\n"));
        world.registration_token = world.new_token().0;
        std::fs::write(world.path("registration-token"), format!("{}\n", world.registration_token)).expect("a file");
        world.write(
            "plugins/shell.toml",
            "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\", \"sh\"]\nenv = [\"LANG\"]\n",
        );
        world.write("projects/shop/project.toml", "description = \"The shop\"\n");
        world.daemon_settings("");
        world
    }

    /// Writes forge.toml: port 0, the tree of this world, and what `more` adds.
    pub(crate) fn daemon_settings(&self, more: &str) {
        self.daemon_settings_of(0, more);
    }

    /// Writes forge.toml with a port of its own for the API: what a daemon that comes back needs.
    pub(crate) fn daemon_settings_on(&self, port: u16) {
        self.daemon_settings_of(port, "");
    }

    /// Writes forge.toml with a port and more settings.
    pub(crate) fn daemon_settings_of(&self, port: u16, more: &str) {
        let text = format!(
            "data_dir = {data:?}\nrunner_registration_token_file = {token:?}\n{more}\n[listen]\napi = \"127.0.0.1:{port}\"\nmetrics = \"127.0.0.1:0\"\n[source]\npath = {tree:?}\n",
            data = self.path("data"),
            token = self.path("registration-token"),
            tree = self.path("tree"),
        );
        std::fs::write(self.path("forge.toml"), text).expect("forge.toml can be written");
    }

    /// A path below this world's home.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file of the tree, by rename as an editor does.
    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.path("tree").join(relative);
        let folder = path.parent().expect("a file has a folder");
        std::fs::create_dir_all(folder).expect("the tree's folder can be made");
        let temporary = folder.join(".new");
        std::fs::write(&temporary, text).expect("the file can be written");
        std::fs::rename(&temporary, &path).expect("the file can be renamed");
    }

    /// Writes a template of project `shop` whose script is `script`; `more` goes before `[params]`.
    pub(crate) fn template(&self, name: &str, more: &str, script: &str) {
        assert!(!script.contains("'''"), "the script must fit into a literal string");
        self.write(
            &format!("projects/shop/templates/{name}.toml"),
            &format!("executor = \"shell\"\n{more}\n[params]\nscript = '''\n{script}\n'''\n"),
        );
    }

    /// `forge` with `arguments` and an environment that holds nothing of the machine's but PATH.
    pub(crate) fn forge(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8");
        command
    }

    /// Runs `forge` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.forge(arguments), b"")
    }

    /// A token and the hash to commit for it.
    pub(crate) fn new_token(&self) -> (String, String) {
        let new = self.run(&["token", "new", "--output", "json"]).expect_code(0).json();
        let text = |key: &str| new[key].as_str().expect("a text").to_owned();
        (text("token"), text("hash"))
    }

    /// The token of the tree's admin.
    pub(crate) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    pub(crate) fn registration_token(&self) -> &str {
        &self.registration_token
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    /// The same, with more variables in the daemon's environment.
    pub(crate) fn daemon_with(&self, environment: &[(&str, &str)]) -> Daemon {
        let mut command = self.forge(&["daemon", "--config", "forge.toml"]);
        command.envs(environment.iter().copied());
        self.daemon_of(command)
    }

    /// The same, by a command of the story's own; its process is the daemon's.
    pub(crate) fn daemon_of(&self, command: Command) -> Daemon {
        let addresses = self.path("data/addresses.json");
        let _ = std::fs::remove_file(&addresses);
        let mut process = Process::start(command, &self.path("out"), "daemon");
        let found: Value = wait_for("the daemon serves", || {
            assert!(process.exited().is_none(), "the daemon ended at once: {}", process.stderr());
            serde_json::from_slice(&std::fs::read(&addresses).ok()?).ok()
        });
        assert_eq!(found["pid"], process.pid());
        Daemon {
            api: found["api"].as_str().expect("an address").to_owned(),
            ca_file: found["ca_file"].as_str().expect("a self-made CA").into(),
            process,
        }
    }

    /// `forge` as the admin of `daemon`.
    pub(crate) fn client(&self, daemon: &Daemon, arguments: &[&str]) -> Command {
        let mut command = self.forge(arguments);
        command
            .env("FORGE_URL", &daemon.api)
            .env("FORGE_TOKEN", &self.admin_token)
            .env("FORGE_CA_FILE", &daemon.ca_file);
        command
    }

    /// Runs `forge` as the admin of `daemon` to its end.
    pub(crate) fn ask(&self, daemon: &Daemon, arguments: &[&str]) -> Finished {
        Finished::of(self.client(daemon, arguments), b"")
    }

    /// Starts a task of project `shop` and answers its number.
    pub(crate) fn start_task(&self, daemon: &Daemon, template: &str) -> u64 {
        let template = format!("shop/{template}");
        let created = self.ask(daemon, &["run", &template, "--detach", "--output", "json"]).expect_code(0).json();
        created["number"].as_u64().expect("a number")
    }

    /// A task as the API shows it.
    pub(crate) fn task(&self, daemon: &Daemon, number: u64) -> Value {
        self.ask(daemon, &["task", "show", &number.to_string(), "--output", "json"]).expect_code(0).json()
    }

    /// Waits until a task is in a state.
    pub(crate) fn wait_state(&self, daemon: &Daemon, number: u64, state: &str) -> Value {
        wait_for(&format!("task {number} is {state}"), || {
            let task = self.task(daemon, number);
            (task["state"] == state).then_some(task)
        })
    }

    /// A task's whole log.
    pub(crate) fn log(&self, daemon: &Daemon, number: u64) -> Vec<u8> {
        self.ask(daemon, &["task", "log", &number.to_string()]).expect_code(0).stdout
    }

    /// Writes `NAME/runner.toml` for a runner of this daemon; `more` goes into `[runner]`.
    pub(crate) fn runner_settings(&self, daemon: &Daemon, name: &str, more: &str) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).expect("the runner's folder can be made");
        let text = format!(
            "web_host = {web:?}\ntmp_path = {tmp:?}\nca_file = {ca:?}\n[runner]\nname = {name:?}\ntoken_file = {token:?}\nprivate_key_file = {key:?}\n{more}\n",
            web = daemon.api,
            tmp = folder.join("tmp"),
            ca = daemon.ca_file,
            token = folder.join("token"),
            key = folder.join("private.key"),
        );
        let path = folder.join("runner.toml");
        std::fs::write(&path, text).expect("runner.toml can be written");
        path
    }

    /// Registers a runner with this world's registration token on stdin.
    pub(crate) fn register(&self, settings: &Path) -> Finished {
        let command = self.forge(&["runner", "register", "--stdin-registration-token", "--config", utf8(settings)]);
        Finished::of(command, format!("{}\n", self.registration_token).as_bytes())
    }

    /// Starts a registered runner with bare `forge runner`.
    pub(crate) fn start_runner(&self, name: &str) -> Runner {
        let settings = self.path(name).join("runner.toml");
        let process = Process::start(self.forge(&["runner", "--config", utf8(&settings)]), &self.path("out"), name);
        Runner { process }
    }

    /// Registers and starts a runner.
    pub(crate) fn runner(&self, daemon: &Daemon, name: &str, more: &str) -> Runner {
        let settings = self.runner_settings(daemon, name, more);
        self.register(&settings).expect_code(0);
        self.start_runner(name)
    }

    /// Waits until the daemon shows a runner in a status.
    pub(crate) fn wait_runner(&self, daemon: &Daemon, name: &str, status: &str) -> Value {
        wait_for(&format!("runner {name} is {status}"), || {
            let shown = self.ask(daemon, &["runners", "show", name, "--output", "json"]);
            (shown.status.success()).then(|| shown.json()).filter(|runner| runner["status"] == status)
        })
    }
}

impl Daemon {
    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait("the daemon stops")
    }
}

impl Runner {
    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait("the runner stops")
    }
}

/// A path of a world as text; worlds lie in folders whose names are UTF-8.
pub(crate) fn utf8(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}
