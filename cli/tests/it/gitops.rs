//! The tree from a git repository: fetched, applied whole, kept over restarts, and never empty because something went wrong.

use std::path::Path;

use serde_json::Value;

use crate::git::git;
use crate::harness::{Daemon, Finished, World, is_alive, wait_for};

/// A poll that no story lives to see: what is fetched was asked for.
const NEVER: &str = "poll_interval = \"24h\"\n";

/// Makes the world's tree a repository on branch `main`, from which the daemon takes it; `source` adds keys to `[source]`.
pub(crate) fn repository(world: &World, source: &str) -> String {
    let tree = world.path("tree");
    git(&tree, &["init", "--quiet", "--initial-branch=main"]);
    git(&tree, &["config", "uploadpack.allowFilter", "true"]);
    source_settings(world, &format!("git = \"file://{}\"\n{NEVER}{source}", tree.display()));
    commit(&tree, "Begin")
}

/// Writes forge.toml with this `[source]`.
pub(crate) fn source_settings(world: &World, source: &str) {
    let text = format!(
        "data_dir = {data:?}\nrunner_registration_token_file = {token:?}\n[listen]\napi = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n[source]\n{source}",
        data = world.path("data"),
        token = world.path("registration-token"),
    );
    std::fs::write(world.path("forge.toml"), text).expect("forge.toml can be written");
}

/// Commits everything in `folder`; answers the commit.
pub(crate) fn commit(folder: &Path, subject: &str) -> String {
    commit_with(folder, subject, &[])
}

/// The same with more of git's options, such as those that sign.
pub(crate) fn commit_with(folder: &Path, subject: &str, options: &[&str]) -> String {
    git(folder, &["add", "--all"]);
    let who = ["-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.com"];
    let commit = ["commit", "--quiet", "--allow-empty", "-m", subject];
    git(folder, &[&who[..], options, &commit[..]].concat());
    git(folder, &["rev-parse", "HEAD"])
}

/// `forge config status` as JSON.
pub(crate) fn status(world: &World, daemon: &Daemon) -> Value {
    world.ask(daemon, &["config", "status", "--output", "json"]).expect_code(0).json()
}

/// `forge config apply` with these options.
pub(crate) fn apply(world: &World, daemon: &Daemon, options: &[&str]) -> Finished {
    world.ask(daemon, &[&["config", "apply"], options].concat())
}

/// The code of the first thing that is wrong.
pub(crate) fn code(status: &Value) -> &str {
    status["last_error"]["diagnostics"][0]["code"].as_str().unwrap_or_default()
}

fn description(world: &World, text: &str) {
    world.write("projects/shop/project.toml", &format!("description = {text:?}\n"));
}

#[test]
fn a_branch_serves_and_its_commits_say_who_made_them() {
    let world = World::new();
    world.template("hello", "", "echo \"hello from $FORGE_REVISION\"");
    std::fs::write(world.path("tree/unrelated.bin"), "before").expect("a file");
    let first = repository(&world, "");
    std::fs::write(world.path("tree/unrelated.bin"), "after").expect("a file");
    let second = commit(&world.path("tree"), "Roll the shop out\n\nWith more words.");
    let daemon = world.daemon();
    let shown = status(&world, &daemon);
    assert_eq!(shown["revision"], second.as_str());
    assert_eq!(shown["commit"]["author"], "Ada Lovelace <ada@example.com>");
    assert_eq!(shown["commit"]["subject"], "Roll the shop out");
    assert!(shown["source"].as_str().is_some_and(|source| source.contains("branch main")), "{shown}");
    assert!(shown["fetched_at"].is_string() && shown["last_error"].is_null(), "{shown}");
    let words = world.ask(&daemon, &["config", "status"]).expect_code(0).text();
    for part in [second.as_str(), "Ada Lovelace <ada@example.com>", "Roll the shop out", " ago)"] {
        assert!(words.contains(part), "{part} is missing:\n{words}");
    }

    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/hello"]).expect_code(0);
    assert_eq!(done.text(), format!("hello from {second}\n"));
    let task = world.task(&daemon, 1);
    assert_eq!(task["revision"], second.as_str());
    assert_eq!(task["revision_author"], "Ada Lovelace <ada@example.com>");
    assert_eq!(task["revision_subject"], "Roll the shop out");
    let words = world.ask(&daemon, &["task", "show", "1"]).expect_code(0).text();
    assert!(words.contains("Roll the shop out") && words.contains("Ada Lovelace"), "{words}");

    // The clone holds the whole history and no file that is not of the tree.
    let clone = world.path("data/source/repository.git");
    assert_eq!(git(&clone, &["rev-list", "--count", &second]), "2");
    let blob = git(&world.path("tree"), &["rev-parse", &format!("{first}:unrelated.bin")]);
    let held = git(&clone, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]);
    assert!(!held.contains(&blob), "the clone holds blobs of no use");
}

#[test]
fn a_push_is_found_by_polling_and_a_broken_one_changes_nothing_over_a_restart() {
    let world = World::new();
    repository(&world, "");
    let (tree, url) = (world.path("tree"), format!("file://{}", world.path("tree").display()));
    source_settings(&world, &format!("git = {url:?}\npoll_interval = \"200ms\"\n"));
    let daemon = world.daemon();
    description(&world, "better");
    let good = commit(&tree, "Better");
    wait_for("the push serves", || (status(&world, &daemon)["revision"] == good.as_str()).then_some(()));

    description(&world, "worse");
    world.write("projects/shop/templates/hello.toml", "executor = \"shel\"\n");
    let broken = commit(&tree, "Worse");
    let failed = wait_for("the broken push is shown", || {
        Some(status(&world, &daemon)).filter(|status| status["last_error"]["revision"] == broken.as_str())
    });
    assert_eq!(failed["revision"], good.as_str());
    assert_eq!(failed["last_error"]["diagnostics"][0]["source_line"], "executor = \"shel\"");
    assert_eq!(daemon.stop().code(), Some(0));

    let daemon = world.daemon();
    let after = status(&world, &daemon);
    assert_eq!((&after["revision"], &after["applied_at"]), (&failed["revision"], &failed["applied_at"]));
    assert_eq!(after["commit"]["subject"], "Better");
    wait_for("the broken push is shown again", || {
        (status(&world, &daemon)["last_error"]["revision"] == broken.as_str()).then_some(())
    });
    std::fs::remove_file(tree.join("projects/shop/templates/hello.toml")).expect("removed");
    let mended = commit(&tree, "Mend it");
    wait_for("the mended push serves", || (status(&world, &daemon)["revision"] == mended.as_str()).then_some(()));
    assert!(status(&world, &daemon)["last_error"].is_null());
}

/// The processes that fetch for the daemon of this world.
fn fetching(world: &World) -> Vec<u32> {
    let marked = format!("FORGE_SOURCE_FOLDER={}", world.path("data/source").display());
    let is_marked = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == marked.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
}

#[test]
fn a_fetch_that_outlives_its_killed_daemon_is_ended_by_the_next_one() {
    let world = World::new();
    let first = repository(&world, "");
    assert_eq!(world.daemon().stop().code(), Some(0));
    // A server that takes the connection and never says a word.
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    source_settings(&world, &format!("git = \"https://127.0.0.1:{port}/ops.git\"\n{NEVER}"));
    let mut daemon = world.daemon();
    assert_eq!(status(&world, &daemon)["revision"], first.as_str(), "what served serves");
    let left = wait_for("the fetch hangs", || Some(fetching(&world)).filter(|found| found.len() >= 2));
    daemon.process.kill_hard();
    assert!(left.iter().any(|pid| is_alive(*pid)), "else there is nothing to end");
    source_settings(&world, &format!("git = \"file://{}\"\n{NEVER}", world.path("tree").display()));
    let daemon = world.daemon();
    wait_for("the branch is fetched", || status(&world, &daemon).get("fetched_at").map(drop));
    assert_eq!(left.iter().filter(|pid| is_alive(**pid)).count(), 0, "a git of the killed daemon lives");
    assert!(status(&world, &daemon)["last_error"].is_null());
}

#[test]
fn a_server_that_is_away_and_a_branch_that_vanished_leave_what_serves() {
    let world = World::new();
    let good = repository(&world, "");
    let (tree, aside) = (world.path("tree"), world.path("aside"));
    let daemon = world.daemon();
    let serves = |daemon: &Daemon, wrong: &str| {
        let shown = status(&world, daemon);
        assert_eq!((shown["revision"].as_str(), code(&shown)), (Some(good.as_str()), wrong), "{shown:#}");
        world.ask(daemon, &["task", "list"]).expect_code(0);
    };
    std::fs::rename(&tree, &aside).expect("moved away");
    let away = apply(&world, &daemon, &[]).expect_code(1);
    assert!(away.stderr.contains("FORGE-S001") && away.stderr.contains("cannot be fetched"), "{}", away.stderr);
    serves(&daemon, "FORGE-S001");

    // Neither does it keep a daemon from starting.
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = world.daemon();
    wait_for("the failure is shown", || (code(&status(&world, &daemon)) == "FORGE-S001").then_some(()));
    serves(&daemon, "FORGE-S001");
    std::fs::rename(&aside, &tree).expect("moved back");
    git(&tree, &["branch", "--move", "main", "elsewhere"]);
    let gone = apply(&world, &daemon, &[]).expect_code(1);
    assert!(gone.stderr.contains("has no branch \"main\""), "{}", gone.stderr);
    serves(&daemon, "FORGE-S002");
    git(&tree, &["branch", "--move", "elsewhere", "main"]);
    apply(&world, &daemon, &[]).expect_code(0);
    serves(&daemon, "");
}

#[test]
fn a_folder_of_the_repository_is_the_tree_and_symlinks_stay_inside() {
    let world = World::new();
    let (tree, mono) = (world.path("tree"), world.path("mono"));
    std::fs::create_dir_all(mono.join("ops")).expect("a folder");
    std::fs::rename(&tree, mono.join("ops/forge")).expect("moved");
    let forge = mono.join("ops/forge");
    std::fs::write(mono.join("Cargo.toml"), "[not a tree]").expect("a file");
    std::fs::create_dir_all(forge.join(".github")).expect("a folder");
    std::fs::write(forge.join(".github/config.toml"), "not of the tree").expect("a file");
    std::fs::create_dir_all(forge.join("projects/shop/environments")).expect("a folder");
    std::fs::write(forge.join("projects/shop/environments/prod.toml"), "").expect("a file");
    std::os::unix::fs::symlink("prod.toml", forge.join("projects/shop/environments/stage.toml")).expect("linked");
    std::os::unix::fs::symlink("shop", forge.join("projects/bank")).expect("linked");
    git(&mono, &["init", "--quiet", "--initial-branch=live"]);
    let first = commit(&mono, "Begin");
    let url = format!("file://{}", mono.display());
    source_settings(&world, &format!("git = {url:?}\nbranch = \"live\"\ndirectory = \"ops/forge\"\n{NEVER}"));
    let daemon = world.daemon();
    let shown = status(&world, &daemon);
    assert_eq!((&shown["revision"], &shown["last_error"]), (&first.into(), &Value::Null), "{shown:#}");

    std::os::unix::fs::symlink("/etc/hostname", forge.join("projects/shop/environments/out.toml")).expect("linked");
    commit(&mono, "Leave the tree");
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains("projects/shop/environments/out.toml"), "{}", refused.stderr);
    assert!(refused.stderr.contains("the symlink leaves the tree"), "{}", refused.stderr);

    git(&mono, &["rm", "-r", "--quiet", "ops"]);
    commit(&mono, "Remove the folder");
    let gone = apply(&world, &daemon, &[]).expect_code(1);
    assert!(gone.stderr.contains("FORGE-S008") && gone.stderr.contains("source.directory"), "{}", gone.stderr);
    assert_eq!(status(&world, &daemon)["revision"], shown["revision"], "never an empty tree");
}

#[test]
fn a_repository_cannot_run_anything_on_the_daemons_host() {
    let world = World::new();
    repository(&world, "");
    let tree = world.path("tree");
    let trap = world.path("trapped");
    // Hooks and settings of the user that runs the daemon, each of which runs a program when git heeds it.
    for name in ["post-checkout", "reference-transaction", "post-merge", "pre-auto-gc", "fsmonitor-watchman"] {
        let path = world.path("template/hooks").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, format!("#!/bin/sh\ntouch {}\n", trap.display())).expect("a hook");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    }
    let touch = format!("touch {}", trap.display());
    let user = format!(
        "[init]\n\ttemplateDir = {template}\n[core]\n\thooksPath = {template}/hooks\n\tsshCommand = {touch}\n\tfsmonitor = {touch}\n\tpager = {touch}\n[gpg]\n\tprogram = {touch}\n[credential]\n\thelper = \"!{touch}\"\n[filter \"x\"]\n\tsmudge = {touch}\n[uploadpack]\n\tpackObjectsHook = {touch}\n",
        template = world.path("template").display()
    );
    std::fs::write(world.path(".gitconfig"), user).expect("a file");
    world.write(".gitattributes", "* filter=x\n");
    let head = commit(&tree, "Trap");
    let daemon = world.daemon();
    assert_eq!(status(&world, &daemon)["revision"], head.as_str());
    assert!(!trap.exists(), "something of the repository ran");
}
