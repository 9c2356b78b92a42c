//! Plugins that a tree brings along: another language, and two revisions side by side.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Daemon, World, made_by, pids_in, repository, utf8, wait_for};

/// The arguments by which a README's own line builds its component.
fn written_arguments(readme: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(readme).expect("the README");
    let line = text.lines().find_map(|line| line.strip_prefix("build/venv/bin/componentize-py "));
    line.expect("it says how to build it").split(' ').map(str::to_owned).collect()
}

/// Puts a component into the tree, with the digest that `config check` tells.
fn commit(world: &World, name: &str, component: &Path, more: &str) {
    let file = world.path(&format!("tree/plugins/{name}.wasm"));
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    // As git does: a daemon that looks sees the old one or the new one.
    let new = file.with_file_name(".new.wasm");
    std::fs::copy(component, &new).expect("copied");
    std::fs::rename(&new, &file).expect("renamed");
    let source = format!("source = \"plugins/{name}.wasm\"\n");
    world.write(&format!("plugins/{name}.toml"), &format!("{source}{more}"));
    let told = world.run(&["config", "check", utf8(&world.path("tree"))]).expect_code(1).stderr;
    let digest = told.split("`sha256 = \"").nth(1).and_then(|rest| rest.get(..64)).expect("the hint names it");
    world.write(&format!("plugins/{name}.toml"), &format!("{source}sha256 = \"{digest}\"\n{more}"));
}

#[test]
fn a_plugin_in_python_is_built_committed_and_run() {
    let world = World::new();
    let example = repository().join("examples/plugin-python");
    let built = world.path("disk-space.wasm");
    // As its README says, but for where the component goes: the example's own folder stays as it is.
    let mut arguments = written_arguments(&example.join("README.md"));
    let place = arguments.last_mut().expect("its last word is where the component goes");
    assert_eq!(std::mem::replace(place, utf8(&built).to_owned()), "plugins/disk-space.wasm");
    let output = Command::new(made_by("componentize-py").join("componentize-py"))
        .current_dir(&example)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(arguments)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What the example's own file says, but for the digest, which is the builder's.
    let written = std::fs::read_to_string(example.join("plugins/disk-space.toml")).expect("the example's plugin");
    let (before, more) = written.split_once("\n\n").expect("a head and the rest");
    assert!(before.starts_with("source = \"plugins/disk-space.wasm\"\nsha256 = "), "{before}");
    commit(&world, "disk-space", &built, more);
    let template = |name: &str, params: &str| {
        let text = format!("executor = \"disk-space\"\n[params]\n{params}\n");
        world.write(&format!("projects/shop/templates/{name}.toml"), &text);
    };
    template("look", "paths = [\"/\"]\npercent_max = 100");
    template("gone", "paths = [\"/no-such-folder\"]");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");

    let done = world.ask(&daemon, &["run", "shop/look", "--output", "json"]).expect_code(0).json();
    let summary = &done["summary"];
    assert_eq!(summary["percent_max"], json!(100), "{done}");
    assert!(summary["percent_used"].as_object().is_some_and(|used| used.len() == 1), "{done}");
    assert!(summary["text"].as_str().is_some_and(|text| text.ends_with(" %")), "{done}");
    assert_eq!(done["exit_code"], json!(0));

    let failed = world.ask(&daemon, &["run", "shop/gone", "--output", "json"]).expect_code(1);
    let log = failed.stderr.clone();
    assert_eq!(failed.json()["reason"], json!("df ended with exit code 1"));
    assert!(log.contains("df: /no-such-folder: No such file or directory"), "{log}");

    template("wrong", "paths = \"/\"");
    let told = world.run(&["config", "check", utf8(&world.path("tree"))]).expect_code(1).stderr;
    assert!(told.contains("templates/wrong.toml:3:9"), "the plugin's own schema finds the mistake: {told}");
}

/// Waits until the daemon serves what lies in the tree.
fn wait_served(world: &World, daemon: &Daemon) {
    wait_for("the tree is served", || {
        let diff = world.ask(daemon, &["config", "diff", "live", utf8(&world.path("tree"))]);
        diff.status.success().then_some(())
    });
}

/// The components in a folder of the daemon's or a runner's, by digest.
pub(crate) fn digests(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder");
    let names = files.filter_map(|file| file.expect("listed").file_name().into_string().ok());
    let mut digests: Vec<String> = names.filter(|name| name.contains('.')).map(|name| name[..64].to_owned()).collect();
    digests.sort();
    digests
}

#[test]
fn a_running_task_keeps_its_revision_of_a_plugin_and_a_new_one_gets_the_next() {
    let world = World::new();
    let (go, pid) = (world.path("go"), world.path("pid"));
    let text = |script: &str| format!("executor = \"tool\"\n[params]\nscript = \'\'\'\n{script}\n\'\'\'\n");
    let daemon = world.daemon();
    let [shell] = digests(&world.path("data/plugins")).try_into().expect("the one of the tree");
    let shell = std::fs::read(world.path(&format!("data/plugins/{shell}.wasm"))).expect("a component");
    let component = |revision: &[u8]| {
        // The same code under another digest: with a custom section that nobody reads.
        let length = u8::try_from(1 + 8 + revision.len()).expect("short");
        let path = world.path("component.wasm");
        std::fs::write(&path, [&shell, &[0, length, 8][..], b"revision", revision].concat()).expect("written");
        path
    };
    let allow = "[allow]\nprograms = [\"bash\"]\n";
    commit(&world, "tool", &component(b"one"), allow);
    let wait = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.02; done; echo over",
        pid.display(),
        go.display()
    );
    world.write("projects/shop/templates/wait.toml", &text(&wait));
    world.write("projects/shop/templates/quick.toml", &text("echo quick"));
    wait_served(&world, &daemon);
    let runner = world.runner(&daemon, "ny-1", "");
    let running = world.start_task(&daemon, "wait");
    pids_in(&pid);
    let compiled = world.path("ny-1/tmp/plugins");
    let [one] = digests(&compiled).try_into().expect("the one that runs");

    commit(&world, "tool", &component(b"two"), allow);
    wait_served(&world, &daemon);
    world.ask(&daemon, &["run", "shop/quick"]).expect_code(0);
    let both = digests(&compiled);
    assert!(both.len() == 2 && both.contains(&one), "side by side: {both:?}");
    assert_eq!(world.task(&daemon, running)["state"], "running");
    std::fs::write(&go, "").expect("written");
    world.wait_state(&daemon, running, "succeeded");
    assert!(String::from_utf8_lossy(&world.log(&daemon, running)).contains("over"));
    assert!(runner.stop().success());

    // A rollback in git is a rollback of the plugin; a runner that has neither gets it from the daemon.
    commit(&world, "tool", &component(b"one"), allow);
    wait_served(&world, &daemon);
    let _runner = world.runner(&daemon, "ny-2", "");
    world.ask(&daemon, &["run", "shop/quick"]).expect_code(0);
    assert_eq!(digests(&world.path("ny-2/tmp/plugins")), [one]);
}
