//! How a runner becomes known, and every way in which that is refused.
//!
//! Complaint 8 (registering fails in confusing ways): one command that can be said again, files for the owner alone, and a
//! story for each refusal, whose words say what to do.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Finished, Process, World, pids_in, utf8, wait_for};

#[test]
fn registering_writes_the_token_and_the_key_for_the_owner_alone() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let done = world.register(&settings).expect_code(0);
    assert!(
        done.stderr.contains("ny-1") && done.stderr.contains("forge runner"),
        "it says how to start: {}",
        done.stderr
    );
    for file in ["token", "private.key"] {
        let mode = std::fs::metadata(world.path("ny-1").join(file)).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let shown = world.ask(&daemon, &["runners", "show", "ny-1", "--output", "json"]).expect_code(0).json();
    assert_eq!(shown["status"], "never_connected");
    assert!(shown["public_key"].as_str().expect("a key").starts_with("age1"), "{shown}");
    // Again, for the same runner: a new token, the same key.
    let key = std::fs::read(world.path("ny-1/private.key")).expect("a key");
    world.register(&settings).expect_code(0);
    assert_eq!(std::fs::read(world.path("ny-1/private.key")).expect("a key"), key);
}

/// Complaint 9 (a registered runner is disabled): its own file alone does that, and who registers it is told.
#[test]
fn a_runner_that_its_file_disables_is_told_so_as_it_registers() {
    let world = World::new();
    world.write("runners/ny-1.toml", "enabled = false\n");
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let said = world.register(&settings).expect_code(0).stderr;
    assert!(said.contains("it takes no work: enabled = false in runners/ny-1.toml"), "{said}");
    world.write("runners/ny-1.toml", "");
    world.wait_runner(&daemon, "ny-1", "never_connected");
    let said = world.register(&settings).expect_code(0).stderr;
    assert!(!said.contains("takes no work"), "{said}");
}

/// Complaint 8 (registering fails in confusing ways): each documented way is one command that works.
#[test]
fn every_way_to_hand_the_registration_token_over_works() {
    let world = World::new();
    let daemon = world.daemon();
    let token_file = world.path("registration-token");
    let by_file = world.runner_settings(&daemon, "by-file", "");
    world
        .run(&["runner", "register", "--registration-token-file", utf8(&token_file), "--config", utf8(&by_file)])
        .expect_code(0);
    let by_environment = world.runner_settings(&daemon, "by-environment", "");
    let mut command = world.forge(&["runner", "register", "--config", utf8(&by_environment)]);
    command.env("FORGE_RUNNER_REGISTRATION_TOKEN", world.registration_token());
    Finished::of(command, b"").expect_code(0);
    // Start registers first when there is a registration token and no token file.
    let by_start = world.runner_settings(&daemon, "by-start", "");
    let mut command = world.forge(&["runner", "start", "--config", utf8(&by_start)]);
    command.env("FORGE_RUNNER_REGISTRATION_TOKEN", world.registration_token());
    let _runner = Process::start(command, &world.path("out"), "by-start");
    world.wait_runner(&daemon, "by-start", "online");
    let none = world.runner_settings(&daemon, "none", "");
    let refused = world.run(&["runner", "register", "--config", utf8(&none)]).expect_code(2).stderr;
    assert!(refused.contains("--stdin-registration-token"), "{refused}");
}

#[test]
fn a_token_of_the_tree_registers_names_without_a_file_and_those_bound_to_it() {
    let world = World::new();
    let (token, hash) = world.new_token();
    world.write("registration-tokens/east.toml", &format!("hash = \"{hash}\"\ntags = [\"from-token\"]\n"));
    world.write("runners/bound.toml", "tags = [\"from-file\"]\nregistration_token = \"east\"\n");
    world.write("runners/unbound.toml", "tags = [\"vault\"]\n");
    let daemon = world.daemon();
    let register = |name: &str| {
        let settings = world.runner_settings(&daemon, name, "");
        let command = world.forge(&["runner", "register", "--stdin-registration-token", "--config", utf8(&settings)]);
        Finished::of(command, token.as_bytes())
    };
    let tags = |name: &str| world.ask(&daemon, &["runners", "show", name, "--output", "json"]).json()["tags"].clone();
    register("bound").expect_code(0);
    assert_eq!(tags("bound"), serde_json::json!(["from-file"]));
    register("anyone").expect_code(0);
    assert_eq!(tags("anyone"), serde_json::json!(["from-token"]));
    let refused = register("unbound").expect_code(1).stderr;
    assert!(refused.contains("the registration token east is not bound to unbound, which has a file"), "{refused}");
    let remedy = "write `registration_token = \"east\"` into runners/unbound.toml";
    assert!(refused.contains(remedy), "the daemon's remedy is shown: {refused}");
    assert!(!world.path("unbound/token").exists());
    // A runner whose file names its token is registered by that one only.
    let settings = world.runner_settings(&daemon, "bound-2", "");
    world.write("runners/bound-2.toml", "registration_token = \"east\"\n");
    wait_for("the new runner is declared", || {
        world.ask(&daemon, &["runners", "show", "bound-2"]).status.success().then_some(())
    });
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains("bound-2"), "{refused}");
}

#[test]
fn a_token_that_is_used_up_expired_or_anothers_is_refused_with_the_daemons_remedy() {
    let world = World::new();
    let tokens = [
        ("once", "uses = 1", "is used up", "raise `uses` in its file"),
        (
            "old",
            "expires = 2020-01-31T00:00:00Z",
            "the registration token old has expired",
            "old.toml a later `expires`",
        ),
        ("bound", "runner = \"ny-9\"", "registers only the runner ny-9", "register as ny-9, or use another token"),
    ];
    let secrets = tokens.map(|(name, rule, _, _)| {
        let (token, hash) = world.new_token();
        world.write(&format!("registration-tokens/{name}.toml"), &format!("hash = \"{hash}\"\n{rule}\n"));
        token
    });
    let daemon = world.daemon();
    let register = |name: &str, token: &str| {
        let settings = world.runner_settings(&daemon, name, "");
        let command = world.forge(&["runner", "register", "--stdin-registration-token", "--config", utf8(&settings)]);
        Finished::of(command, token.as_bytes())
    };
    register("first", &secrets[0]).expect_code(0);
    for ((name, _, why, remedy), token) in tokens.iter().zip(&secrets) {
        let runner = format!("by-{name}");
        let refused = register(&runner, token).expect_code(1).stderr;
        assert!(refused.contains(why) && refused.contains(remedy), "{name}: {refused}");
        assert!(!refused.contains(token.as_str()), "{name}: the token is not shown: {refused}");
        assert!(!world.path(&runner).join("token").exists(), "{name}: nothing is written");
    }
}

#[test]
fn a_removed_runner_is_told_to_register_and_its_task_ends() {
    let world = World::new();
    let pid_file = world.path("pid");
    world.template(
        "forever",
        "runner_grace = \"2s\"\n",
        &format!("echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 100000", pid = pid_file.display()),
    );
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "forever");
    let pid: u32 = wait_for("the job's process", || std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    world.ask(&daemon, &["runners", "remove", "ny-1"]).expect_code(0);
    let task = world.wait_state(&daemon, number, "lost");
    assert!(task["reason"].as_str().expect("a reason").contains("ny-1 was removed"), "{task}");
    assert_eq!(runner.process.wait("the removed runner ends").code(), Some(1));
    let said = runner.process.stderr();
    assert!(said.contains("forge runner register"), "it says what to run: {said}");
    wait_for("no process of the job is left", || (!crate::harness::is_alive(pid)).then_some(()));
    let mut again = world.start_runner("ny-1");
    assert_eq!(again.process.wait("its old token is refused").code(), Some(1));
}

#[test]
fn the_old_token_of_a_runner_that_registered_again_is_refused_with_what_to_run() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let token = world.path("ny-1/token");
    let old = std::fs::read(&token).expect("a token");
    world.register(&settings).expect_code(0);
    let new = std::fs::read(&token).expect("a token");
    assert_ne!(old, new);
    // The old one ends with the first use of the new one.
    let mut runner = world.start_runner("ny-1");
    world.wait_runner(&daemon, "ny-1", "online");
    runner.process.signal("TERM");
    assert_eq!(runner.process.wait("the runner ends").code(), Some(0), "{}", runner.process.stderr());
    std::fs::write(&token, old).expect("the old token");
    let mut runner = world.start_runner("ny-1");
    assert_eq!(runner.process.wait("its old token is refused").code(), Some(1));
    let said = runner.process.stderr();
    assert!(said.contains("forge runner register"), "it says what to run: {said}");
}

#[test]
fn a_wrong_token_is_refused_and_nothing_is_written() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let command = world.forge(&["runner", "register", "--stdin-registration-token", "--config", utf8(&settings)]);
    let refused = Finished::of(command, b"not-the-token\n").expect_code(1).stderr;
    assert!(refused.contains("registration token"), "{refused}");
    assert!(!refused.contains("not-the-token"), "the token is not shown: {refused}");
    assert!(!world.path("ny-1/token").exists());
}

#[test]
fn a_stranger_under_a_taken_name_is_refused_and_told_of_remove() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    std::fs::remove_file(world.path("ny-1/private.key")).expect("there was a key");
    std::fs::remove_file(world.path("ny-1/token")).expect("there was a token");
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains("ny-1") && refused.contains("forge runners remove ny-1"), "{refused}");
    world.ask(&daemon, &["runners", "remove", "ny-1"]).expect_code(0);
    world.register(&settings).expect_code(0);
}

#[test]
fn a_fingerprint_that_does_not_match_is_refused_and_the_right_one_works() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let ca_line = text.lines().find(|line| line.starts_with("ca_file")).expect("a CA").to_owned();
    let with = |fingerprint: &str| {
        std::fs::write(&settings, text.replace(&ca_line, &format!("ca_fingerprint = \"sha256:{fingerprint}\"")))
            .expect("settings");
    };
    with(&"0".repeat(64));
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains("fingerprint"), "{refused}");
    assert!(!world.path("ny-1/token").exists());

    let pem = std::fs::read_to_string(&daemon.ca_file).expect("the CA's certificate");
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(base64).expect("PEM")
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    with(&hex);
    world.register(&settings).expect_code(0);
    assert!(daemon.process.stderr().contains(&hex), "the daemon prints its CA's fingerprint");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_with_what_to_set() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let without: String =
        text.lines().filter(|line| !line.starts_with("ca_file")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&settings, without).expect("settings");
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains("ca_file") && refused.contains("ca_fingerprint"), "{refused}");
}

#[test]
fn a_plain_http_url_is_refused() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    let text = std::fs::read_to_string(&settings).expect("settings").replace("https://", "http://");
    std::fs::write(&settings, text).expect("settings");
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains("https://"), "{refused}");
}

#[test]
fn a_runner_waits_for_a_daemon_that_is_not_there_and_says_so_once() {
    let world = World::new();
    let port = crate::harness::free_port();
    world.daemon_settings_on(port);
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    assert_eq!(daemon.stop().code(), Some(0));
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains(&format!("127.0.0.1:{port}")) && refused.contains("running"), "{refused}");

    let mut runner = world.start_runner("ny-1");
    wait_for("the runner says that it waits", || {
        runner.process.stderr().contains("waiting for the daemon").then_some(())
    });
    assert!(runner.process.exited().is_none());
    let daemon = world.daemon();
    world.wait_runner(&daemon, "ny-1", "online");
    assert_eq!(runner.process.stderr().matches("waiting for the daemon").count(), 1, "{}", runner.process.stderr());
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "hello\n");
}

#[test]
fn unregistering_ends_the_token() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let token = std::fs::read(world.path("ny-1/token")).expect("a token");
    world.run(&["runner", "unregister", "--config", utf8(&settings)]).expect_code(0);
    assert!(!world.path("ny-1/token").exists());
    std::fs::write(world.path("ny-1/token"), token).expect("a token");
    std::fs::set_permissions(world.path("ny-1/token"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let mut runner = world.start_runner("ny-1");
    assert_eq!(runner.process.wait("the runner ends").code(), Some(1));
    assert!(runner.process.stderr().contains("forge runner register"), "{}", runner.process.stderr());
}

#[test]
fn a_one_off_runner_exits_0_after_its_first_task() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "once", "one_off = true");
    let number = world.start_task(&daemon, "hello");
    world.wait_state(&daemon, number, "succeeded");
    assert_eq!(runner.process.wait("the one-off runner ends").code(), Some(0), "{}", runner.process.stderr());
}

#[test]
fn sigterm_drains_a_runner_its_task_ends_first() {
    let world = World::new();
    let go = world.path("go");
    world.template("wait", "", &format!("echo begun; until [ -e {} ]; do sleep 0.02; done; echo ended", go.display()));
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "wait");
    world.wait_state(&daemon, number, "running");
    runner.process.signal("TERM");
    let second = world.start_task(&daemon, "wait");
    std::fs::write(&go, "").expect("go");
    assert_eq!(runner.process.wait("the runner ends").code(), Some(0), "{}", runner.process.stderr());
    assert_eq!(world.task(&daemon, number)["state"], "succeeded");
    assert_eq!(world.log(&daemon, number), b"begun\nended\n");
    assert_eq!(world.task(&daemon, second)["state"], "queued");
}

#[test]
fn sigquit_ends_what_a_runner_runs_as_lost() {
    let world = World::new();
    let pids = world.path("pids");
    world.template(
        "forever",
        "",
        &format!(
            "setsid sleep 100000 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait",
            pids = pids.display()
        ),
    );
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "forever");
    let found = pids_in(&pids);
    assert!(found.len() == 2 && found.iter().all(|pid| crate::harness::is_alive(*pid)), "{found:?}");
    runner.process.signal("QUIT");
    assert_eq!(runner.process.wait("the runner ends").code(), Some(0), "{}", runner.process.stderr());
    // It has handed the end in before it left.
    let task = world.task(&daemon, number);
    assert_eq!(task["state"], "lost", "{task}");
    assert!(task["reason"].as_str().expect("a reason").contains("the runner was stopped"), "{task}");
    assert!(found.iter().all(|pid| !crate::harness::is_alive(*pid)), "{found:?}");
}

#[test]
fn a_drained_runner_takes_nothing_until_it_is_resumed() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    world.wait_runner(&daemon, "ny-1", "online");
    world.ask(&daemon, &["runners", "drain", "ny-1"]).expect_code(0);
    world.wait_runner(&daemon, "ny-1", "draining");
    let number = world.start_task(&daemon, "hello");
    let why = world.ask(&daemon, &["task", "why", &number.to_string()]).expect_code(0).text();
    assert!(why.contains("ny-1 is draining"), "{why}");
    // A task is assigned in the step that creates it, where a runner is eligible.
    assert_eq!(world.task(&daemon, number)["state"], "queued");
    world.ask(&daemon, &["runners", "resume", "ny-1"]).expect_code(0);
    world.wait_state(&daemon, number, "succeeded");
    assert_eq!(world.log(&daemon, number), b"hello\n");
}
