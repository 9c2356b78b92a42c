//! `forge runner setup`, at a terminal, down a pipe and with flags alone; a runner without any file; and every override of the environment.

use std::process::Command;

use crate::harness::{Finished, Process, World, utf8, wait_for};

/// The line that setup ends with, as a shell would run it.
fn last_line(done: &Finished) -> String {
    done.text().lines().last().expect("a last line").to_owned()
}

/// Starts the runner with exactly the line that setup ended with.
fn start(world: &World, line: &str, name: &str) -> Process {
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words.first(), Some(&"forge"), "{line}");
    Process::start(world.forge(words.get(1..).expect("arguments")), &world.path("out"), name)
}

#[test]
fn with_flags_alone_it_asks_nothing_registers_and_its_last_line_starts_the_runner() {
    let world = World::new();
    world.template("hello", "", "echo hello from $FORGE_RUNNER");
    let daemon = world.daemon();
    let file = world.path("etc/runner.toml");
    std::fs::create_dir_all(world.path("etc")).expect("a folder");
    let [tmp, token_file, key_file] = ["ny-1/tmp", "ny-1/secret/token", "ny-1/secret/key"].map(|path| world.path(path));
    let arguments = [
        "runner",
        "setup",
        "--yes",
        "--stdin-registration-token",
        "--web-host",
        &daemon.api,
        "--ca-file",
        utf8(&daemon.ca_file),
        "--name",
        "ny-1",
        "--tmp-path",
        utf8(&tmp),
        "--token-file",
        utf8(&token_file),
        "--private-key-file",
        utf8(&key_file),
        "--max-parallel-tasks",
        "2",
        "--config",
        utf8(&file),
    ];
    let token = format!("{}\n", world.registration_token());
    let done = Finished::of(world.forge(&arguments), token.as_bytes()).expect_code(0);
    assert!(!format!("{}{}", done.text(), done.stderr).contains(world.registration_token()), "{}", done.stderr);
    let text = std::fs::read_to_string(&file).expect("runner.toml");
    assert!(text.lines().filter(|line| line.starts_with("# ")).count() >= 6, "it is commented:\n{text}");
    assert!(!text.contains(world.registration_token()), "the token is not written down:\n{text}");
    let _runner = start(&world, &last_line(&done), "ny-1");
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "hello from ny-1\n");
    let shown = world.ask(&daemon, &["runners", "show", "ny-1", "--output", "json"]).json();
    assert_eq!(shown["max_parallel_tasks"], 2);

    let refused = Finished::of(world.forge(&arguments), token.as_bytes()).expect_code(1).stderr;
    assert!(refused.contains("--force"), "a file that is there stays: {refused}");
    assert_eq!(std::fs::read_to_string(&file).expect("runner.toml"), text);
}

#[test]
fn down_a_pipe_each_line_is_an_answer_and_an_empty_one_the_default() {
    let world = World::new();
    let daemon = world.daemon();
    let answers = format!(
        "{}\n{}\nny-2\n{}\n\n\n3\n{}\n",
        daemon.api,
        utf8(&daemon.ca_file),
        utf8(&world.path("ny-2")),
        world.registration_token()
    );
    let done = Finished::of(world.forge(&["runner", "setup"]), answers.as_bytes()).expect_code(0);
    assert!(!done.stderr.contains(world.registration_token()), "{}", done.stderr);
    for expected in ["The daemon's URL", "fingerprint", "[0]", "ny-2/token]"] {
        assert!(done.stderr.contains(expected), "{expected:?} is missing:\n{}", done.stderr);
    }
    assert!(world.path("ny-2/token").exists() && world.path("ny-2/private.key").exists(), "beside the workspaces");
    let _runner = start(&world, &last_line(&done), "ny-2");
    let shown = world.wait_runner(&daemon, "ny-2", "online");
    assert_eq!(shown["max_parallel_tasks"], 3);
}

#[test]
fn a_bad_answer_down_a_pipe_ends_it_and_an_answer_that_is_missing_is_named() {
    let world = World::new();
    let bad = Finished::of(world.forge(&["runner", "setup"]), b"forge.example.com\n").expect_code(2).stderr;
    assert!(bad.contains("https://forge.example.com"), "{bad}");
    let missing = Finished::of(world.forge(&["runner", "setup"]), b"").expect_code(2).stderr;
    assert!(missing.contains("web_host") && missing.contains("--web-host"), "{missing}");
    let missing = world.run(&["runner", "setup", "--yes"]).expect_code(2).stderr;
    assert!(missing.contains("--web-host"), "{missing}");
    let both = ["runner", "setup", "--stdin-registration-token"];
    let both = Finished::of(world.forge(&both), b"token\n").expect_code(2).stderr;
    assert!(both.contains("--yes"), "{both}");
    assert!(!world.path("runner.toml").exists());
}

#[test]
fn at_a_terminal_a_bad_answer_is_asked_for_again_and_the_token_is_not_shown() {
    let world = World::new();
    let daemon = world.daemon();
    // `script` gives the program a terminal of its own and writes down everything that it shows.
    let typescript = world.path("typescript");
    let forge = format!("{} runner setup --config {}", env!("CARGO_BIN_EXE_forge"), utf8(&world.path("runner.toml")));
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--flush", "--return", "--echo", "always", "--command", &forge, utf8(&typescript)])
        .current_dir(world.path(""))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
        .env("HOME", world.path(""))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let mut child = command.spawn().expect("script runs");
    let mut keyboard = child.stdin.take().expect("a keyboard");
    let shown = || String::from_utf8_lossy(&std::fs::read(&typescript).unwrap_or_default()).into_owned();
    let answers = [
        ("The daemon's URL", "http://forge.example.com".to_owned()),
        // Again: the first answer was no HTTPS.
        ("The daemon's URL", daemon.api.clone()),
        ("Its CA", utf8(&daemon.ca_file).to_owned()),
        ("The runner's name", "typed".to_owned()),
        ("A folder", utf8(&world.path("typed")).to_owned()),
        ("its token will lie", String::new()),
        ("its private key", String::new()),
        ("at a time", String::new()),
        ("registration token", world.registration_token().to_owned()),
    ];
    let mut seen = 0;
    for (question, answer) in answers {
        let asked = |text: &str| text.get(seen..).and_then(|rest| rest.find(question)).map(|at| seen + at);
        seen = wait_for(question, || asked(&shown())) + question.len();
        if question == "registration token" {
            wait_for("the whole question", || shown().get(seen..)?.contains("later: ").then_some(()));
        }
        std::io::Write::write_all(&mut keyboard, format!("{answer}\n").as_bytes()).expect("typed");
    }
    let status = child.wait().expect("setup ends");
    let shown = shown();
    assert!(status.success(), "{shown}");
    assert!(shown.contains("HTTPS only") && shown.contains("forge runner --config"), "{shown}");
    assert!(shown.contains(&daemon.api), "what is no secret is shown as it is typed: {shown}");
    assert!(!shown.contains(world.registration_token()), "the token was shown: {shown}");
    assert!(world.path("typed/token").exists(), "it registered: {shown}");
}

#[test]
fn a_wrong_token_leaves_the_settings_and_says_how_to_go_on() {
    let world = World::new();
    let daemon = world.daemon();
    let mut command = world.forge(&[
        "runner",
        "setup",
        "--yes",
        "--web-host",
        &daemon.api,
        "--ca-file",
        utf8(&daemon.ca_file),
        "--name",
        "ny-1",
        "--tmp-path",
        utf8(&world.path("ny-1")),
    ]);
    command.env("FORGE_RUNNER_REGISTRATION_TOKEN", "not-the-token");
    let refused = Finished::of(command, b"").expect_code(1).stderr;
    assert!(refused.contains("registration token") && refused.contains("forge runner register"), "{refused}");
    assert!(!refused.contains("not-the-token"), "{refused}");
    let settings = world.path("runner.toml");
    world.register(&settings).expect_code(0);
}

#[test]
fn without_any_file_a_runner_registers_starts_and_runs_a_task() {
    let world = World::new();
    world.template("hello", "", "echo hello from $FORGE_RUNNER");
    let daemon = world.daemon();
    let mut command = world.forge(&["runner"]);
    command
        .env("FORGE_WEB_ROOT", &daemon.api)
        .env("FORGE_CA_FILE", &daemon.ca_file)
        .env("FORGE_RUNNER_NAME", "pod-1")
        .env("FORGE_TMP_PATH", world.path("pod"))
        .env("FORGE_RUNNER_PRIVATE_KEY_FILE", world.path("pod-key"))
        .env("FORGE_RUNNER_REGISTRATION_TOKEN", world.registration_token());
    let runner = Process::start(command, &world.path("out"), "pod-1");
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "hello from pod-1\n");
    assert!(!world.path("runner.toml").exists() && world.path("pod-key").exists());
    drop(runner);

    // Later, with the token itself in the environment and no file of it.
    let token = std::fs::read_to_string(world.path("pod/token")).expect("a token");
    std::fs::remove_file(world.path("pod/token")).expect("removed");
    let mut command = world.forge(&["runner"]);
    command
        .env("FORGE_WEB_ROOT", &daemon.api)
        .env("FORGE_CA_FILE", &daemon.ca_file)
        .env("FORGE_RUNNER_NAME", "pod-1")
        .env("FORGE_TMP_PATH", world.path("pod"))
        .env("FORGE_RUNNER_TOKEN", token.trim())
        .env("FORGE_RUNNER_PRIVATE_KEY_FILE", world.path("pod-key"));
    let _runner = Process::start(command, &world.path("out"), "pod-1-again");
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "hello from pod-1\n");
    assert!(!world.path("pod/token").exists());
}
