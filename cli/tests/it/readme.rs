//! The README's tour, as written: its blocks are read from the page and run in order. Only what belongs to the reader's own hosts is
//! replaced: addresses, the fingerprint, and the folders below `/etc` and `/var`.
//!
//! A block's mark says what comes of it: `run` ends well, `start` goes on beside the rest, `apply` and `refuse` change the tree, and the
//! story goes on when the daemon has seen it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Finished, Process, World, utf8, wait_for};

/// What begins a block of the tour.
const MARK: &str = "<!-- tour: ";

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The tour's blocks in order: what is to come of each, and its script.
fn blocks() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let marked = page.split(MARK).skip(1).map(|rest| {
        let (what, rest) = rest.split_once(" -->\n```sh\n").expect("a mark stands right above its block");
        let (script, _) = rest.split_once("\n```").expect("a block has an end");
        (what.to_owned(), script.to_owned())
    });
    marked.collect()
}

/// Where the tour's scripts run: a world, and what stands for the reader's hosts.
struct Tour {
    world: World,
    /// What the reader would write, and what stands for it here; the longest first.
    replaced: Vec<(String, String)>,
}

impl Tour {
    fn new() -> Self {
        let world = World::new();
        for folder in ["etc/forge", "var/lib", "bin"] {
            std::fs::create_dir_all(world.path(folder)).expect("a folder");
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_forge"), world.path("bin/forge")).expect("a link");
        std::os::unix::fs::symlink(root().join("examples"), world.path("examples")).expect("a link");
        let mut tour = Self { world, replaced: Vec::new() };
        for folder in ["/etc/forge", "/var/lib"] {
            tour.replace(folder, utf8(&tour.world.path(folder.trim_start_matches('/'))).to_owned());
        }
        // Any free port, on loopback.
        tour.replace("0.0.0.0:8443", "127.0.0.1:0\"\nmetrics = \"127.0.0.1:0".to_owned());
        tour
    }

    fn replace(&mut self, written: &str, here: String) {
        self.replaced.push((written.to_owned(), here));
    }

    fn shell(&self, script: &str) -> Command {
        let mut script = script.to_owned();
        for (written, here) in &self.replaced {
            script = script.replace(written, here);
        }
        let path = format!("{}:{}", utf8(&self.world.path("bin")), std::env::var("PATH").expect("PATH is set"));
        let mut shell = Command::new("sh");
        shell
            .args(["-e", "-c", &script])
            .current_dir(self.world.path(""))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.world.path(""))
            .env("LANG", "C.UTF-8");
        shell
    }

    /// What the daemon serves.
    fn status(&self) -> Value {
        self.world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json()
    }
}

#[test]
fn the_tour_works_as_written() {
    let mut tour = Tour::new();
    let mut exports = String::new();
    let mut started = Vec::new();
    let mut said = Vec::new();
    for (what, script) in blocks() {
        match what.as_str() {
            "run" => {
                let done = Finished::of(tour.shell(&format!("{exports}{script}")), b"").expect_code(0);
                // A reader's shell keeps what it exported.
                let lines = script.lines().filter(|line| line.starts_with("export "));
                exports.extend(lines.flat_map(|line| [line, "\n"]));
                said.push(format!("{}{}", done.text(), done.stderr));
            }
            "start" => {
                let name = format!("started-{}", started.len());
                let script = format!("exec {script}");
                started.push(Process::start(tour.shell(&script), &tour.world.path("out"), &name));
                if started.len() == 1 {
                    let file = tour.world.path("var/lib/forge/addresses.json");
                    let api = wait_for("the daemon serves", || {
                        let found: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
                        Some(found["api"].as_str()?.to_owned())
                    });
                    let fingerprint = wait_for("it prints the fingerprint", || {
                        let log = started.first()?.stderr();
                        let (_, rest) = log.split_once("fingerprint=\"sha256:")?;
                        rest.get(..64).map(str::to_owned)
                    });
                    tour.replace("sha256:...", format!("sha256:{fingerprint}"));
                    tour.replace("https://forge.example.com:8443", api);
                }
            }
            "apply" => {
                let before = tour.status()["revision"].clone();
                Finished::of(tour.shell(&script), b"").expect_code(0);
                wait_for("it serves", || (tour.status()["revision"] != before).then_some(()));
            }
            "refuse" => {
                Finished::of(tour.shell(&script), b"").expect_code(0);
                wait_for("it is refused", || (!tour.status()["last_error"].is_null()).then_some(()));
            }
            other => panic!("{MARK}{other} --> is no mark that this test knows"),
        }
    }
    assert_eq!(started.len(), 2, "a daemon and a runner");
    let [_, setup, run, broken] = said.as_slice() else { panic!("four blocks are run: {said:#?}") };
    assert!(setup.contains("forge runner --config"), "{setup}");
    let count = run.matches("greetings from task 1 on new-york-1\n").count();
    assert_eq!(count, 2, "it ran, and its log was read again: {run}");
    for expected in ["greet.toml:1:12", "executor = \"shel\"", "greetings from task 2 on new-york-1"] {
        assert!(broken.contains(expected), "{expected:?} is missing:\n{broken}");
    }
}
