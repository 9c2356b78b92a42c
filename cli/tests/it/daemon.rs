//! The daemon as an operator meets it: where it listens, how it stops, what it refuses to start on.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::process::Command;

use crate::harness::{Process, World, get, wait_for};

#[test]
fn it_writes_where_it_listens_drains_on_sigterm_and_leaves_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    let addresses = world.path("data/addresses.json");
    let text = std::fs::read_to_string(&addresses).expect("addresses.json");
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let keys: Vec<&str> = found.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 4, "{text}");
    assert!(found["api"].as_str().expect("api").starts_with("https://127.0.0.1:"), "{text}");
    assert!(found["metrics"].as_str().expect("metrics").starts_with("http://127.0.0.1:"), "{text}");
    // A parked runner must not delay the end.
    let runner = world.runner(&daemon, "ny-1", "");
    world.wait_runner(&daemon, "ny-1", "online");
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!addresses.exists());
    drop(runner);
}

#[test]
fn a_daemon_that_still_starts_is_stopped_in_good_order_too() {
    let world = World::new();
    // Its start waits for whoever writes the token into this.
    let token = world.path("registration-token");
    std::fs::remove_file(&token).expect("removed");
    assert!(Command::new("mkfifo").arg(&token).status().expect("mkfifo").success());
    let command = world.forge(&["daemon", "--config", "forge.toml"]);
    let mut process = Process::start(command, &world.path("out"), "daemon");
    let without_waiting = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a flag");
    let mut writer = wait_for("the daemon reads its token", || {
        std::fs::OpenOptions::new().write(true).custom_flags(without_waiting).open(&token).ok()
    });
    process.signal("HUP");
    process.signal("TERM");
    writeln!(writer, "{}", world.registration_token()).expect("the token is read");
    drop(writer);
    assert_eq!(process.wait("the daemon stops").code(), Some(0), "{}", process.stderr());
    assert!(!world.path("data/addresses.json").exists());
}

#[test]
fn the_operator_socket_answers_without_a_token_to_the_owner_alone() {
    let world = World::new();
    let daemon = world.daemon();
    let socket = world.path("data/forge.sock");
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json();
    assert!(!status["revision"].as_str().expect("a revision").is_empty());
    assert_eq!(daemon.stop().code(), Some(0));
    let gone = world.run(&["config", "status", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(gone.contains("running"), "{gone}");
}

#[test]
fn a_second_daemon_on_one_data_folder_is_refused_and_harms_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    let refused = world.run(&["daemon", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(refused.contains(&daemon.process.pid().to_string()), "it names the other: {refused}");
    world.ask(&daemon, &["task", "list"]).expect_code(0);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    world.daemon_settings_on(port);
    let refused = world.run(&["daemon", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(refused.contains(&format!("127.0.0.1:{port}")) && refused.contains("listens there already"), "{refused}");
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let world = World::new();
    std::fs::write(world.path("data"), "a file where the folder should be").expect("a file");
    let refused = world.run(&["daemon", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(refused.contains(&world.path("data").display().to_string()), "{refused}");
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_not_touched() {
    let world = World::new();
    assert_eq!(world.daemon().stop().code(), Some(0));
    let database = world.path("data/forge.db");
    let connection = rusqlite::Connection::open(&database).expect("a database");
    connection.pragma_update(None, "user_version", 9_999).expect("a newer version");
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").expect("a checkpoint");
    drop(connection);
    let before = std::fs::read(&database).expect("bytes");
    let refused = world.run(&["daemon", "--config", "forge.toml"]).expect_code(1).stderr;
    assert!(refused.contains("9999") && refused.contains("newer"), "{refused}");
    assert_eq!(std::fs::read(&database).expect("bytes"), before);
}

#[test]
fn mistakes_in_forge_toml_are_shown_on_their_lines() {
    let world = World::new();
    std::fs::write(
        world.path("forge.toml"),
        "data_dir = 5\n[listn]\napi = \"x\"\n[source]\npath = \"a\"\ngit = \"b\"\n",
    )
    .expect("settings");
    let refused = world.run(&["daemon", "--config", "forge.toml"]).expect_code(1).stderr;
    for expected in
        ["forge.toml:1:12", "forge.toml:2:2", "did you mean `listen`", "`source.path` and `source.git` are both set"]
    {
        assert!(refused.contains(expected), "{expected:?} is missing:\n{refused}");
    }
}

#[test]
fn the_log_is_json_when_asked() {
    let world = World::new();
    let addresses = world.path("data/addresses.json");
    let process = Process::start(
        world.forge(&["daemon", "--config", "forge.toml", "--log-format", "json"]),
        &world.path("out"),
        "daemon",
    );
    wait_for("the daemon serves", || addresses.exists().then_some(()));
    let log = process.stderr();
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{line}");
    }
    assert!(!log.is_empty());
}

#[test]
fn health_and_metrics_are_plain_and_on_loopback() {
    let world = World::new();
    let _daemon = world.daemon();
    let text = std::fs::read_to_string(world.path("data/addresses.json")).expect("addresses.json");
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let metrics = found["metrics"].as_str().expect("metrics").to_owned();
    for (path, expected) in [("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", "forge_tasks")] {
        let answer = get(metrics.strip_prefix("http://").expect("plain HTTP"), path);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(expected), "{path}: {answer}");
    }
}
