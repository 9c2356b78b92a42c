//! A configuration's repository behind a lock: over ssh against a real sshd, and over https with a login.

use crate::git::git;
use crate::git_keys::{https_server, key_pair, sshd, user};
use crate::gitops::{apply, code, commit, source_settings, status};
use crate::harness::{World, free_port, wait_for};

fn committed(world: &World) -> String {
    let tree = world.path("tree");
    git(&tree, &["init", "--quiet", "--initial-branch=main"]);
    commit(&tree, "Begin")
}

#[test]
fn the_tree_comes_over_ssh_with_a_key_and_a_changed_host_is_refused() {
    let world = World::new();
    let first = committed(&world);
    let (host, key, stranger) =
        (key_pair(&world, "host", ""), key_pair(&world, "key", ""), key_pair(&world, "eve", ""));
    let port = free_port();
    let mut server = sshd(&world, port, &host, &[&key]);
    let url = format!("ssh://{}@127.0.0.1:{port}{}", user(), world.path("tree").display());
    let source = |more: &str| source_settings(&world, &format!("git = {url:?}\npoll_interval = \"24h\"\n{more}"));

    source(&format!("ssh_key_file = {stranger:?}\n"));
    let daemon = world.daemon();
    let shown = world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json();
    assert_eq!(code(&shown), "FORGE-S001");
    let said = shown["last_error"]["diagnostics"][0].to_string();
    assert!(said.contains("Permission denied") && said.contains("ssh_key_file"), "{said}");
    assert_eq!(daemon.stop().code(), Some(0));

    source(&format!("ssh_key_file = {key:?}\n"));
    let daemon = world.daemon();
    assert_eq!(status(&world, &daemon)["revision"], first.as_str());
    let second = commit(&world.path("tree"), "Go on");
    apply(&world, &daemon, &[]).expect_code(0);
    assert_eq!(status(&world, &daemon)["revision"], second.as_str());

    // Another host at the same address is refused, and what serves stays.
    server.kill_hard();
    let impostor = key_pair(&world, "impostor", "");
    let mut server = sshd(&world, port, &impostor, &[&key]);
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains("Host key verification failed"), "{}", refused.stderr);
    assert_eq!(status(&world, &daemon)["revision"], second.as_str());
    assert_eq!(daemon.stop().code(), Some(0));

    // With a file of known hosts that file alone decides.
    let known = world.path("known");
    let public = std::fs::read_to_string(impostor.with_extension("pub")).expect("a public key");
    std::fs::write(&known, format!("[127.0.0.1]:{port} {public}")).expect("a file");
    source(&format!("ssh_key_file = {key:?}\nknown_hosts_file = {known:?}\n"));
    let daemon = world.daemon();
    apply(&world, &daemon, &[]).expect_code(0);
    server.kill_hard();
    let _server = sshd(&world, port, &host, &[&key]);
    let refused = apply(&world, &daemon, &[]).expect_code(1);
    assert!(refused.stderr.contains("known_hosts_file"), "{}", refused.stderr);
}

#[test]
fn the_tree_comes_over_https_with_a_login_that_may_be_exchanged() {
    let world = World::new();
    let first = committed(&world);
    let password = "pass:word with \"quotes\", 'more' and $(touch oops)";
    let served = world.path("tree").parent().expect("a folder").to_owned();
    let (_server, port, certificate) = https_server(&world, &served, &format!("robot:{password}"));
    let file = world.path("password");
    std::fs::write(&file, "wrong\n").expect("a file");
    let url = format!("https://127.0.0.1:{port}/tree/.git");
    let source = |ca: &str| {
        source_settings(
            &world,
            &format!("git = {url:?}\npoll_interval = \"200ms\"\nusername = \"robot\"\npassword_file = {file:?}\n{ca}"),
        );
    };
    let local = || world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json();
    source("");
    let daemon = world.daemon();
    let said = local()["last_error"]["diagnostics"][0].to_string();
    assert!(said.contains("certificate") && said.contains("ca_file"), "{said}");
    assert_eq!(daemon.stop().code(), Some(0));

    source(&format!("ca_file = {certificate:?}\n"));
    let daemon = world.daemon();
    let said = local()["last_error"]["diagnostics"][0].to_string();
    assert!(said.contains("Authentication failed") && said.contains("password_file"), "{said}");
    // The right one counts without a restart.
    std::fs::write(&file, format!("{password}\n")).expect("a file");
    wait_for("the tree serves", || (local()["revision"] == first.as_str()).then_some(()));
    assert!(!world.path("oops").exists() && !world.path("data/source/oops").exists());
    let written = std::fs::read_to_string(world.path("data/source/gitconfig")).expect("git's settings");
    assert!(!written.contains("pass:word") && !daemon.process.stderr().contains("pass:word"), "{written}");
    let second = commit(&world.path("tree"), "Go on");
    wait_for("the push serves", || (status(&world, &daemon)["revision"] == second.as_str()).then_some(()));
}
