//! The example fleet, for real: two runners, a git repository with the playbook, ansible-playbook, a vault.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::ansible_core;
use crate::harness::{Daemon, Process, World, utf8};

/// What the example's vault file holds.
const TOKEN: &str = "the-token-of-the-fleet";

/// A daemon on a copy of `examples/ansible-fleet`, and a runner in each region.
struct Fleet {
    world: World,
    daemon: Daemon,
    _runners: Vec<Process>,
}

impl Fleet {
    /// `change` may write further files of the tree and of the repository before anything starts.
    fn start(change: impl FnOnce(&World)) -> Self {
        let world = World::new();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ansible-fleet");
        copy(&example, &world.path("tree"));
        let repository = world.path("fleet");
        std::fs::rename(world.path("tree/repository"), &repository).expect("the repository moves out of the tree");
        let vault = world.path("vault-password");
        std::fs::write(&vault, "example\n").expect("a file");
        world.write(
            "projects/fleet/repositories/fleet.toml",
            &format!("url = \"file://{}\"\nbranch = \"main\"\n", repository.display()),
        );
        world.write("projects/fleet/keys/vault.toml", &format!("type = \"string\"\nvalue = {{ file = {vault:?} }}\n"));
        world.write(
            "projects/fleet/environments/production.toml",
            &format!("[variables]\nrelease_folder = {:?}\n", world.path("releases")),
        );
        change(&world);
        git(&repository, &["init", "--quiet", "--initial-branch=main"]);
        commit(&repository);
        world.daemon_settings(&format!("[secrets.allow.fleet]\nfiles = [{vault:?}]\n"));
        let daemon = world.daemon();
        let _runners =
            ["new-york-1", "frankfurt-1"].map(|name| start_runner(&world, &daemon, name, ansible_core::path())).into();
        Self { world, daemon, _runners }
    }

    /// Runs a template to its end and answers the task and its log; the exit code says whether it succeeded.
    fn run(&self, template: &str, more: &[&str], code: i32) -> (Value, String) {
        let template = format!("fleet/{template}");
        let arguments = [&["run", &template, "--var", "version=v7", "--output", "json"], more].concat();
        let done = self.world.ask(&self.daemon, &arguments).expect_code(code);
        (done.json(), done.stderr)
    }

    fn release(&self, host: &str) -> Option<String> {
        std::fs::read_to_string(self.world.path(&format!("releases/{host}"))).ok()
    }
}

/// Registers a runner and starts it with this PATH.
pub(crate) fn start_runner(world: &World, daemon: &Daemon, name: &str, path: &std::ffi::OsStr) -> Process {
    let settings = world.runner_settings(daemon, name, "");
    world.register(&settings).expect_code(0);
    let mut command = world.forge(&["runner", "--config", utf8(&settings)]);
    command.env("PATH", path);
    Process::start(command, &world.path("out"), name)
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the example is there") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a file is copied");
        }
    }
}

pub(crate) fn git(folder: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "-m", "Change the playbook"]);
}

/// The recap of one host.
pub(crate) fn counts(ok: u64, changed: u64, failed: u64) -> Value {
    json!({ "ok": ok, "changed": changed, "unreachable": 0, "failed": failed, "skipped": 0, "rescued": 0, "ignored": 0 })
}

#[test]
fn each_region_rolls_out_on_its_own_runner_and_is_recapped_by_host() {
    let fleet = Fleet::start(|_| ());
    // Check mode says what would change, and changes nothing but the folder, which the playbook makes in any case.
    let (task, log) = fleet.run("preview-new-york", &[], 0);
    assert_eq!(task["runner"], "new-york-1");
    assert!(log.contains("+version=v7"), "the difference is shown: {log}");
    assert_eq!(fleet.release("ny-1.release"), None);

    let (task, log) = fleet.run("roll-out-new-york", &[], 0);
    assert_eq!(
        (&task["state"], &task["runner"], &task["exit_code"]),
        (&json!("succeeded"), &json!("new-york-1"), &json!(0))
    );
    assert_eq!(task["summary"]["hosts"], json!({ "ny-1": counts(4, 2, 0), "ny-2": counts(4, 2, 0) }));
    assert_eq!(task["summary"]["text"], "2 hosts: 8 ok, 4 changed, 0 failed");
    assert_eq!(fleet.release("ny-1.release").as_deref(), Some("host=ny-1\nregion=new-york\nversion=v7\n"));
    assert_eq!(fleet.release("ny-2.token").as_deref(), Some(TOKEN), "the vault was opened");
    assert!(!log.contains(TOKEN), "{log}");
    assert!(log.contains("+version=v7"), "{log}");

    // One host first by the template's own limit, then the other by a trigger's argument.
    let (task, _) = fleet.run("canary-frankfurt", &[], 0);
    assert_eq!(
        (&task["runner"], &task["summary"]["hosts"]),
        (&json!("frankfurt-1"), &json!({ "fra-1": counts(4, 2, 0) }))
    );
    assert_eq!(fleet.release("fra-2.release"), None);
    let (task, _) = fleet.run("roll-out-frankfurt", &["--arg=--limit=fra-2"], 0);
    assert_eq!(task["summary"]["hosts"], json!({ "fra-2": counts(4, 2, 0) }));
    assert_eq!(fleet.release("fra-2.release").as_deref(), Some("host=fra-2\nregion=frankfurt\nversion=v7\n"));
}

#[test]
fn a_host_that_fails_fails_the_task_and_the_recap_says_which() {
    let fleet = Fleet::start(|world| {
        let file = world.path("tree/projects/fleet/inventories/frankfurt.toml");
        let text = std::fs::read_to_string(file).expect("the example has it");
        world.write(
            "projects/fleet/inventories/frankfurt.toml",
            &text.replace("    fra-2:\n", "    fra-2: { out_of_service: true }\n"),
        );
        // A role that the playbook needs, from a repository of its own.
        let role = world.path("role");
        for (name, text) in [
            ("tasks/main.yml", "- ansible.builtin.debug:\n    msg: the role of v1 ran\n"),
            ("meta/main.yml", "dependencies: []\n"),
        ] {
            let file = role.join(name);
            std::fs::create_dir_all(file.parent().expect("a file has a folder")).expect("a folder");
            std::fs::write(file, text).expect("a file");
        }
        git(&role, &["init", "--quiet", "--initial-branch=main"]);
        commit(&role);
        let requirements = format!("- name: announce\n  src: file://{}\n  scm: git\n  version: main\n", role.display());
        std::fs::create_dir_all(world.path("fleet/roles")).expect("a folder");
        std::fs::write(world.path("fleet/roles/requirements.yml"), requirements).expect("a file");
        let playbook = world.path("fleet/site.yml");
        let text = std::fs::read_to_string(&playbook).expect("the example has it");
        std::fs::write(&playbook, text.replace("  tasks:\n", "  roles: [announce]\n  tasks:\n")).expect("a file");
    });
    let (task, log) = fleet.run("roll-out-frankfurt", &[], 1);
    assert_eq!(task["reason"], "failed: fra-2 (2 hosts: 6 ok, 3 changed, 1 failed)", "{log}");
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("failed"), &json!(2)));
    assert_eq!(task["summary"]["hosts"], json!({ "fra-1": counts(5, 3, 0), "fra-2": counts(1, 0, 1) }));
    assert_eq!(task["summary"]["text"], task["reason"]);
    assert!(log.contains("fra-2 is out of service") && log.contains("the role of v1 ran"), "{log}");
    assert!(fleet.release("fra-1.release").is_some(), "the other host was worked on");
}

#[test]
fn a_runner_without_ansible_fails_the_task_and_says_what_to_install() {
    let world = World::new();
    world.write("plugins/ansible.toml", "source = \"builtin:ansible\"\n[allow]\nprograms = [\"ansible-playbook\"]\n");
    let repository = world.path("origin");
    std::fs::create_dir(&repository).expect("a folder");
    std::fs::write(repository.join("site.yml"), "- hosts: localhost\n").expect("a file");
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    commit(&repository);
    world.write(
        "projects/shop/repositories/app.toml",
        &format!("url = \"file://{}\"\nbranch = \"main\"\n", repository.display()),
    );
    world.write(
        "projects/shop/templates/deploy.toml",
        "executor = \"ansible\"\nrepository = \"app\"\n[params]\nplaybook = \"site.yml\"\n",
    );
    let daemon = world.daemon();
    // A PATH with git and nothing else.
    let programs = world.path("programs");
    std::fs::create_dir(&programs).expect("a folder");
    let path = std::env::var_os("PATH").expect("PATH is set");
    let real = std::env::split_paths(&path)
        .map(|folder| folder.join("git"))
        .find(|file| file.is_file())
        .expect("git is on PATH");
    std::os::unix::fs::symlink(real, programs.join("git")).expect("a link");
    let _runner = start_runner(&world, &daemon, "ny-1", programs.as_os_str());
    let done = world.ask(&daemon, &["run", "shop/deploy", "--output", "json"]).expect_code(1);
    let reason = done.json()["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("ansible-playbook is not on this runner"), "{reason}");
    assert!(reason.contains("install ansible-core there"), "{reason}");
}
