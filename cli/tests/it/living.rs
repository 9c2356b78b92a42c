//! Living with it: backup and restore under load, tokens that are revoked, limits on logs, certificates that change, completions and
//! man pages, every override of the environment.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::harness::{Finished, Process, World, utf8, wait_for};

#[test]
fn a_backup_under_load_holds_every_task_that_was_acknowledged_before_it() {
    let world = World::new();
    world.template("hello", "concurrency = \"parallel\"\n", "echo hello from $FORGE_TASK");
    let daemon = world.daemon();
    let runner = world.runner(&daemon, "ny-1", "max_parallel_tasks = 4");
    let first = world.start_task(&daemon, "hello");
    world.wait_state(&daemon, first, "succeeded");

    // Tasks go on being made, and acknowledged, while the backup is taken.
    let backup = world.path("backup.tar");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let newest = std::sync::atomic::AtomicU64::new(first);
    let (before, finished_before) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                newest.store(world.start_task(&daemon, "hello"), std::sync::atomic::Ordering::SeqCst);
            }
        });
        wait_for("some load", || (newest.load(std::sync::atomic::Ordering::SeqCst) > first + 5).then_some(()));
        let finished: Vec<u64> = numbers(&world, &daemon, "succeeded");
        let before = newest.load(std::sync::atomic::Ordering::SeqCst);
        let done = world.run(&["backup", utf8(&backup), "--config", "forge.toml"]).expect_code(0).stderr;
        assert!(done.contains("keys"), "it says what it holds: {done}");
        let after = newest.load(std::sync::atomic::Ordering::SeqCst);
        wait_for("load went on", || (newest.load(std::sync::atomic::Ordering::SeqCst) > after + 1).then_some(()));
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        load.join().expect("the load ends");
        (before, finished)
    });
    assert!(before > first && finished_before.contains(&first));
    let mode = std::fs::metadata(&backup).expect("a backup").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds keys");

    // The host is lost: its data folder is gone, and the backup is all there is.
    drop(runner);
    assert_eq!(daemon.stop().code(), Some(0));
    let occupied = world.run(&["restore", utf8(&backup), "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(occupied.contains("nothing is overwritten"), "{occupied}");
    std::fs::rename(world.path("data"), world.path("lost")).expect("lost");
    world.run(&["restore", utf8(&backup), "--config", "forge.toml"]).expect_code(0);
    let daemon = world.daemon();
    let known = numbers(&world, &daemon, "");
    for number in 1..=before {
        assert!(known.contains(&number), "task {number} was acknowledged before the backup: {known:?}");
    }
    for number in finished_before {
        assert_eq!(world.task(&daemon, number)["state"], "succeeded");
        assert_eq!(world.log(&daemon, number), format!("hello from {number}\n").into_bytes());
    }
    // The same keys and the same CA: the runner goes on with the registration that it has.
    let settings = world.path("ny-1/runner.toml");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let web_host = text.lines().find(|line| line.starts_with("web_host")).expect("a URL");
    std::fs::write(&settings, text.replace(web_host, &format!("web_host = {:?}", daemon.api))).expect("settings");
    let _runner = world.start_runner("ny-1");
    // A number that the lost daemon gave away later is given again, without a byte of its old log.
    let next = world.start_task(&daemon, "hello");
    world.wait_state(&daemon, next, "succeeded");
    assert_eq!(world.log(&daemon, next), format!("hello from {next}\n").into_bytes());
}

/// The numbers of all tasks in a state; in any with an empty one.
fn numbers(world: &World, daemon: &crate::harness::Daemon, state: &str) -> Vec<u64> {
    let mut arguments = vec!["task", "list", "--limit", "10000", "--output", "json"];
    if !state.is_empty() {
        arguments.extend(["--state", state]);
    }
    let page = world.ask(daemon, &arguments).expect_code(0).json();
    page["items"].as_array().expect("items").iter().filter_map(|task| task["number"].as_u64()).collect()
}

#[test]
fn what_is_no_backup_or_has_nothing_to_back_up_is_said() {
    let world = World::new();
    let nothing = world.run(&["backup", "b.tar", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(nothing.contains("holds no database") && !world.path("b.tar").exists(), "{nothing}");
    std::fs::write(world.path("b.tar"), vec![b'x'; 4_096]).expect("a file");
    let wrong = world.run(&["restore", "b.tar", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(wrong.contains("no backup of Forge") && !world.path("data/forge.db").exists(), "{wrong}");
    assert_eq!(world.daemon().stop().code(), Some(0));
    world.run(&["backup", "b.tar", "--config", "forge.toml"]).expect_code(0);
    // Cut short on its way: nothing of it is put in place.
    let whole = std::fs::read(world.path("b.tar")).expect("a backup");
    std::fs::write(world.path("b.tar"), whole.get(..whole.len() / 3).expect("a third")).expect("cut");
    std::fs::rename(world.path("data"), world.path("lost")).expect("lost");
    world.run(&["restore", "b.tar", "--config", "forge.toml"]).expect_code(1);
    assert_eq!(std::fs::read_dir(world.path("data")).expect("a folder").count(), 0, "nothing is left behind");
}

#[test]
fn completions_are_scripts_that_their_shells_take() {
    let world = World::new();
    let script = world.run(&["completions", "bash"]).expect_code(0).text();
    std::fs::write(world.path("forge.bash"), &script).expect("a script");
    let complete = "source forge.bash; COMP_WORDS=(forge do); COMP_CWORD=1; _forge forge do forge; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = std::process::Command::new("bash")
        .args(["--norc", "-c", complete])
        .current_dir(world.path(""))
        .output()
        .expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "doctor\n", "{}", String::from_utf8_lossy(&output.stderr));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]).expect_code(0).text();
        assert!(script.contains("runners"), "{shell}");
    }
    world.run(&["completions", "cmd"]).expect_code(2);
}

#[test]
fn man_pages_are_written_one_a_command() {
    let world = World::new();
    world.run(&["man", "pages"]).expect_code(0);
    for page in ["forge.1", "forge-runner-setup.1", "forge-doctor.1", "forge-task-log.1"] {
        let text = std::fs::read_to_string(world.path("pages").join(page)).expect(page);
        assert!(text.contains(".TH forge") && text.contains(".SH NAME"), "{page}: {text}");
    }
    assert!(!world.path("pages/forge-supervise.1").exists(), "what people do not call has no page");
}

#[test]
fn a_task_that_prints_without_end_fails_at_the_limit_and_says_so() {
    let world = World::new();
    world.daemon_settings("[logs]\nmax_bytes = \"1MiB\"\n");
    world.template("endless", "", "while :; do echo 0123456789012345678901234567890123456789; done");
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "endless");
    let task = world.wait_state(&daemon, number, "failed");
    let reason = task["reason"].as_str().expect("a reason");
    assert!(reason.contains("log") && (reason.contains("1048576") || reason.contains("1MiB")), "{reason}");
    let kept = world.log(&daemon, number).len();
    assert!((1..=1 << 20).contains(&kept), "{kept} bytes are kept");
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "hello\n", "nothing else is harmed");
}

#[test]
fn a_disk_below_the_reserve_stops_new_work_says_so_and_harms_nothing_that_runs() {
    let world = World::new();
    let go = world.path("go");
    world.template("wait", "", &format!("echo begun; until [ -e {} ]; do sleep 0.02; done; echo ended", go.display()));
    let port = crate::harness::free_port();
    world.daemon_settings_on(port);
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let running = world.start_task(&daemon, "wait");
    world.wait_state(&daemon, running, "running");
    let queued = world.start_task(&daemon, "wait");
    assert_eq!(daemon.stop().code(), Some(0));

    // The disk fills up: no disk has this reserve.
    let text = std::fs::read_to_string(world.path("forge.toml")).expect("settings");
    std::fs::write(world.path("forge.toml"), format!("{text}[logs]\ndisk_reserve = \"1000000GiB\"\n"))
        .expect("settings");
    let daemon = world.daemon();
    let refused = world.ask(&daemon, &["run", "shop/wait", "--detach"]).expect_code(1).stderr;
    assert!(refused.contains("disk_reserve"), "{refused}");
    wait_for("why says it", || {
        let why = world.ask(&daemon, &["task", "why", &queued.to_string()]).expect_code(0).text();
        why.contains("disk_reserve").then_some(())
    });
    std::fs::write(&go, "").expect("go");
    world.wait_state(&daemon, running, "succeeded");
    assert_eq!(world.log(&daemon, running), b"begun\nended\n");
    assert_eq!(world.task(&daemon, queued)["state"], "queued");
    assert_eq!(daemon.stop().code(), Some(0));

    // And there is space again.
    std::fs::write(world.path("forge.toml"), text).expect("settings");
    let daemon = world.daemon();
    world.wait_state(&daemon, queued, "succeeded");
}

#[test]
fn a_certificate_that_changes_is_served_without_a_restart() {
    let world = World::new();
    let [crt, key] = ["crt.pem", "key.pem"].map(|file| world.path(file));
    let write = || {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
        let made = params.self_signed(&pair).expect("a certificate");
        std::fs::write(&key, pair.serialize_pem()).expect("written");
        std::fs::write(&crt, made.pem()).expect("written");
    };
    write();
    world.daemon_settings(&format!("[tls]\ncertificate_file = {crt:?}\nkey_file = {key:?}\n"));
    let addresses = world.path("data/addresses.json");
    let daemon = Process::start(world.forge(&["daemon", "--config", "forge.toml"]), &world.path("out"), "daemon");
    let api = wait_for("the daemon serves", || {
        let found: Value = serde_json::from_slice(&std::fs::read(&addresses).ok()?).ok()?;
        assert!(found["ca_file"].is_null(), "{found}");
        Some(found["api"].as_str()?.to_owned())
    });
    let is_believed = |ca: &std::path::Path| {
        let mut command = world.forge(&["task", "list", "--url", &api, "--ca-file", utf8(ca)]);
        command.env("FORGE_TOKEN", "wrong");
        // An answer about the token comes from a daemon whose certificate was believed.
        let said = Finished::of(command, b"").expect_code(1).stderr;
        said.contains("token") && !said.contains("certificate")
    };
    let old = world.path("old.pem");
    std::fs::copy(&crt, &old).expect("copied");
    assert!(is_believed(&old));
    write();
    wait_for("the new certificate is served", || is_believed(&crt).then_some(()));
    assert!(!is_believed(&old), "the old one is not served any more");
    drop(daemon);
}

#[test]
fn a_revoked_token_is_refused_at_once_over_a_broken_tree_and_a_restart() {
    let world = World::new();
    let (leaked, leaked_hash) = world.new_token();
    world.write("access/leaked.toml", &format!("hash = \"{leaked_hash}\"\nrole = \"operator\"\n"));
    let (joining, joining_hash) = world.new_token();
    world.write("registration-tokens/joining.toml", &format!("hash = \"{joining_hash}\"\n"));
    let daemon = world.daemon();
    let list = |daemon: &crate::harness::Daemon, token: &str| {
        let mut command = world.client(daemon, &["task", "list"]);
        command.env("FORGE_TOKEN", token);
        Finished::of(command, b"")
    };
    list(&daemon, &leaked).expect_code(0);
    let mut by_operator = world.client(&daemon, &["token", "revoke", &joining_hash]);
    by_operator.env("FORGE_TOKEN", &leaked);
    let refused = Finished::of(by_operator, b"").expect_code(1).stderr;
    assert!(refused.contains("admin"), "{refused}");
    let wrong = world.ask(&daemon, &["token", "revoke", &leaked]).expect_code(2).stderr;
    assert!(wrong.contains("sha256:") && !wrong.contains(&leaked), "the token is not shown: {wrong}");

    // The tree cannot be mended just now.
    world.write("projects/shop/project.toml", "description = 5\n");
    wait_for("the tree is broken", || {
        let status = world.ask(&daemon, &["config", "status", "--output", "json"]).json();
        (!status["last_error"].is_null()).then_some(())
    });
    let done = world.ask(&daemon, &["token", "revoke", &leaked_hash]).expect_code(0).stderr;
    let unknown = format!("sha256:{}", "7".repeat(64));
    world.run(&["token", "revoke", &unknown, "--config", "forge.toml"]).expect_code(0);
    let audit = world.ask(&daemon, &["audit", "--action", "token.revoke", "--output", "json"]).expect_code(0).json();
    let by: Vec<_> = audit["items"].as_array().expect("rows").iter().map(|row| &row["actor_kind"]).collect();
    assert_eq!(by, ["host", "access", "access"], "newest first, the refused one last: {audit}");
    let table = world.ask(&daemon, &["audit", "--actor", "admin"]).expect_code(0).text();
    assert!(table.contains("token.revoke") && table.contains("127.0.0.1"), "{table}");
    assert!(done.contains("access/leaked.toml"), "it says what can go: {done}");
    let refused = list(&daemon, &leaked).expect_code(1).stderr;
    assert!(refused.contains("revoked"), "{refused}");
    let log = daemon.process.stderr();
    let audit = log.lines().find(|line| line.contains("a token was revoked")).expect("a line of it");
    assert!(audit.contains(&leaked_hash) && audit.contains("by=\"admin\""), "{audit}");
    // On the host, with the data folder alone, while the daemon runs.
    world.run(&["token", "revoke", &joining_hash, "--config", "forge.toml"]).expect_code(0);
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let register = ["runner", "register", "--stdin-registration-token", "--config", utf8(&settings)];
    let refused = Finished::of(world.forge(&register), joining.as_bytes()).expect_code(1).stderr;
    assert!(refused.contains("registration token"), "{refused}");

    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = world.daemon();
    list(&daemon, &leaked).expect_code(1);
    world.ask(&daemon, &["task", "list"]).expect_code(0);
}

#[test]
fn sighup_has_the_tree_looked_at_and_ends_nothing() {
    let world = World::new();
    world.template("hello", "", "echo one");
    // A tree that is not there cannot be watched, and the next look by itself is an hour away.
    let text = std::fs::read_to_string(world.path("forge.toml")).expect("settings");
    std::fs::write(world.path("forge.toml"), format!("{text}poll_interval = \"1h\"\n")).expect("settings");
    std::fs::rename(world.path("tree"), world.path("elsewhere")).expect("moved away");
    let daemon = world.daemon();
    let status =
        || world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json();
    assert_eq!(status()["revision"], "");
    std::fs::rename(world.path("elsewhere"), world.path("tree")).expect("moved back");
    daemon.process.signal("HUP");
    wait_for("the tree serves", || (status()["revision"] != "").then_some(()));
    let _runner = world.runner(&daemon, "ny-1", "");
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "one\n");
    assert_eq!(daemon.stop().code(), Some(0));
}
