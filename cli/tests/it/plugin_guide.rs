//! `docs/guides/write-a-plugin.md`, as written: its blocks are read from the page and run in order, against a daemon and a runner.
//!
//! A block's mark says what comes of it: `run` ends well, and `apply` changes the tree, and the daemon looks at it as it would after a push.
//! Nothing is replaced: `~/ops` is the world's tree, and `forge` is told which compiler builds for WebAssembly, as a variable would.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Daemon, Finished, World, build_environment, utf8};

/// What begins a block.
const MARK: &str = "<!-- guide: ";

/// The guide's blocks in order: what is to come of each, and its script.
fn blocks() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/write-a-plugin.md");
    let page = std::fs::read_to_string(path).expect("the guide");
    let marked = page.split(MARK).skip(1).map(|rest| {
        let (what, rest) = rest.split_once(" -->\n```sh\n").expect("a mark stands right above its block");
        let (script, _) = rest.split_once("\n```").expect("a block has an end");
        (what.to_owned(), script.to_owned())
    });
    marked.collect()
}

/// A folder of cargo's or rustup's: the variable, or what stands in the home.
fn tool_folder(variable: &str, in_home: &str) -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(in_home);
    std::env::var_os(variable).map_or_else(home, PathBuf::from)
}

struct Guide {
    world: World,
    daemon: Daemon,
}

impl Guide {
    /// The reader's machine: a tree in git at `~/ops`, a daemon that serves it, a runner.
    fn new() -> Self {
        let world = World::new();
        std::os::unix::fs::symlink(world.path("tree"), world.path("ops")).expect("a link");
        std::fs::create_dir(world.path("bin")).expect("a folder");
        let mut forge = "#!/bin/sh\nif [ \"$1 $2\" = 'plugin build' ]; then\n".to_owned();
        for (name, value) in build_environment() {
            writeln!(forge, "export {name}='{}'", value.display()).expect("a String takes it");
        }
        writeln!(forge, "fi\nexec '{}' \"$@\"", env!("CARGO_BIN_EXE_forge")).expect("a String takes it");
        std::fs::write(world.path("bin/forge"), forge).expect("written");
        std::fs::set_permissions(world.path("bin/forge"), PermissionsExt::from_mode(0o755)).expect("executable");
        let daemon = world.daemon();
        let guide = Self { world, daemon };
        guide.run("cd ~/ops && git init --quiet && git add --all && git commit --quiet --message Begin", "");
        guide
    }

    /// Runs a script in a folder of the home.
    fn run(&self, script: &str, folder: &str) -> Finished {
        let path = format!("{}:{}", utf8(&self.world.path("bin")), std::env::var("PATH").expect("PATH is set"));
        let mut shell = Command::new("sh");
        shell
            .args(["-e", "-c", script])
            .current_dir(self.world.path(folder))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.world.path(""))
            .env("LANG", "C.UTF-8")
            .env("CARGO_HOME", tool_folder("CARGO_HOME", ".cargo"))
            .env("RUSTUP_HOME", tool_folder("RUSTUP_HOME", ".rustup"))
            // The dependencies are built once, whatever the world's folder is called.
            .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-guide"))
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.com")
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.com")
            .env("FORGE_URL", &self.daemon.api)
            .env("FORGE_TOKEN", self.world.admin_token())
            .env("FORGE_CA_FILE", &self.daemon.ca_file);
        Finished::of(shell, b"").expect_code(0)
    }

    /// The digest that the tree on disk names.
    fn digest(&self) -> String {
        let toml = std::fs::read_to_string(self.world.path("tree/plugins/room.toml")).expect("it is there");
        let (_, rest) = toml.split_once("sha256 = \"").expect("a digest");
        rest.get(..64).expect("64 digits").to_owned()
    }
}

#[test]
fn a_plugin_from_nothing_to_production_and_back() {
    let guide = Guide::new();
    let runner = guide.world.runner(&guide.daemon, "ny-1", "");
    let (mut said, mut digests, mut runs) = (String::new(), Vec::new(), 0);
    // The reader's shell stays where it went.
    let mut folder = String::new();
    for (what, script) in blocks() {
        let done = guide.run(&script, &folder);
        said.push_str(&done.text());
        said.push_str(&done.stderr);
        for line in script.lines() {
            match line.strip_prefix("cd ") {
                Some(home) if home.starts_with("~/") => folder = home.trim_start_matches("~/").to_owned(),
                Some(inside) => folder = format!("{folder}/{inside}").trim_start_matches('/').to_owned(),
                None => {}
            }
        }
        match what.as_str() {
            "run" => runs += script.matches("forge run shop/room").count(),
            "apply" => {
                // What a push hook does.
                guide.world.ask(&guide.daemon, &["config", "apply"]).expect_code(0);
                digests.push(guide.digest());
            }
            other => panic!("{MARK}{other} --> is no mark that this test knows"),
        }
    }
    let [first, second, third] = digests.as_slice() else { panic!("three commits: {digests:?}") };
    assert!(first != second && first == third, "an update is a new digest, and a revert the old one: {digests:?}");
    for expected in ["test result: ok. 5 passed", "room.wasm is an executor", "min_free_percent  integer  required"] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
    assert!(said.contains("% /"), "what df says is in the log: {said}");
    assert_eq!(runs, 3);
    for number in 1..=runs {
        let task = guide.world.task(&guide.daemon, number as u64);
        assert_eq!(task["state"], "succeeded", "{task}");
        let summary = task["summary"].to_string();
        assert!(summary.contains("free_percent"), "{task}");
    }
    // Nothing of this machine is in what was built.
    let component = std::fs::read(guide.world.path("room/room.wasm")).expect("it was built");
    let home = guide.world.path("room");
    let text = String::from_utf8_lossy(&component);
    for path in [utf8(&home), utf8(&tool_folder("CARGO_HOME", ".cargo"))] {
        assert!(!text.contains(path), "{path} is in the component");
    }
    assert_eq!(runner.stop().code(), Some(0));
}

#[test]
fn the_template_of_a_webhook_target_builds_and_passes_its_tests_too() {
    let guide = Guide::new();
    let said = guide.run("forge plugin new tell --kind webhook; cd tell; cargo test; forge plugin build", "");
    assert!(said.text().contains("test result: ok. 3 passed"), "{}{}", said.text(), said.stderr);
    let file = guide.world.path("tell/tell.wasm");
    let inside = guide.world.run(&["plugin", "inspect", utf8(&file), "--output", "json"]).expect_code(0).json();
    assert_eq!(inside["exports"], serde_json::json!(["forge:plugin/webhook-target@0.1.0"]));
    let checked = guide.world.run(&["plugin", "check", utf8(&file)]).expect_code(0).text();
    for expected in
        ["is a webhook target", "a secret, of which the plugin sees a placeholder", "hosts = [\"chat.example.com\"]"]
    {
        assert!(checked.contains(expected), "{expected:?} is missing:\n{checked}");
    }
}
