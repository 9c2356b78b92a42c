//! `forge doctor`: each thing that goes wrong on a host is found, and the finding says how to mend it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::harness::{Finished, Process, World, utf8, wait_for};

/// What doctor says of a file of settings.
fn doctor(world: &World, config: &str) -> Vec<Value> {
    findings(world.run(&["doctor", "--config", config, "--output", "json"]))
}

/// The findings, after a look at their shape and at what the exit code says of them.
fn findings(done: Finished) -> Vec<Value> {
    let found = done.json().as_array().expect("a list").clone();
    let is_bad = found.iter().any(|finding| finding["status"] == "error");
    assert_eq!(done.status.code(), Some(i32::from(is_bad)), "{found:#?}");
    for finding in &found {
        let needs_mend = finding["status"] != "ok";
        assert_eq!(finding["mend"].is_string(), needs_mend, "{finding}");
        assert!(finding["message"].is_string() && finding["check"].is_string(), "{finding}");
    }
    found
}

/// The finding that is an error of `check` and says `message` and, of how to mend it, `mend`; all else must be well.
fn only_error<'a>(found: &'a [Value], check: &str, message: &str, mend: &str) -> &'a Value {
    let errors: Vec<&Value> = found.iter().filter(|finding| finding["status"] == "error").collect();
    let [error] = errors.as_slice() else { panic!("one error is expected: {errors:#?}") };
    let says = |key: &str, text: &str| error[key].as_str().is_some_and(|said| said.contains(text));
    assert!(error["check"] == check && says("message", message) && says("mend", mend), "{error:#}");
    error
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn a_runner_and_a_daemon_in_good_order_have_nothing_to_mend() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    set_mode(&world.path("registration-token"), 0o600);
    for config in [utf8(&settings), "forge.toml"] {
        let found = doctor(&world, config);
        assert!(found.iter().all(|finding| finding["status"] != "error"), "{config}: {found:#?}");
        let text = world.run(&["doctor", "--config", config]).expect_code(0).text();
        assert_eq!(text.lines().count(), found.len(), "one line a finding:\n{text}");
    }
    // A client, and the files of this folder, without a flag.
    let mut command = world.client(&daemon, &["doctor", "--output", "json"]);
    command.current_dir(world.path("ny-1"));
    let found = findings(Finished::of(command, b""));
    for check in ["registration", "token", "clock", "programs", "disk"] {
        assert!(
            found.iter().any(|finding| finding["check"] == check && finding["status"] == "ok"),
            "{check}: {found:#?}"
        );
    }
    let mut command = world.client(&daemon, &["doctor", "--output", "json"]);
    command.current_dir(world.path("tree")).env("FORGE_TOKEN", "wrong");
    only_error(&findings(Finished::of(command, b"")), "token", "FORGE_TOKEN", "access/NAME.toml");
    // The fingerprint that it shows is the one that a runner may pin.
    let found = doctor(&world, "forge.toml");
    let pinned = found.iter().filter_map(|finding| finding["message"].as_str()?.split_once("pin sha256:"));
    let pinned = pinned.map(|(_, rest)| rest.get(..64).expect("a digest").to_owned()).next().expect("a fingerprint");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let text = text
        .replace("ca_file = ", "# ")
        .replace("[runner]", &format!("ca_fingerprint = \"sha256:{pinned}\"\n[runner]"));
    std::fs::write(&settings, text).expect("settings");
    let found = doctor(&world, utf8(&settings));
    assert!(found.iter().all(|finding| finding["status"] != "error"), "{found:#?}");
}

#[test]
fn files_that_others_may_read_are_named_with_the_command_that_closes_them() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    for (file, good, bad) in
        [("ny-1/token", 0o600, 0o640), ("ny-1/private.key", 0o600, 0o604), ("ny-1/tmp", 0o700, 0o755)]
    {
        set_mode(&world.path(file), bad);
        let found = doctor(&world, utf8(&settings));
        only_error(&found, "permissions", file, &format!("chmod {good:03o} {}", utf8(&world.path(file))));
        set_mode(&world.path(file), good);
    }
    set_mode(&world.path("registration-token"), 0o600);
    let files = [
        ("registration-token", 0o600, 0o644),
        ("data", 0o700, 0o750),
        ("data/keys/signing.key", 0o600, 0o644),
        ("data/tls/ca.key", 0o600, 0o644),
    ];
    for (file, good, bad) in files {
        set_mode(&world.path(file), bad);
        let found = doctor(&world, "forge.toml");
        only_error(&found, "permissions", file, &format!("chmod {good:03o} {}", utf8(&world.path(file))));
        set_mode(&world.path(file), good);
    }
    std::fs::remove_file(world.path("registration-token")).expect("there was one");
    only_error(&doctor(&world, "forge.toml"), "permissions", "registration-token is not there", "forge token new");
}

#[test]
fn a_runner_that_is_not_registered_or_not_any_more_is_told_how() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    only_error(&doctor(&world, utf8(&settings)), "registration", "not registered", "forge runner register --config");
    world.register(&settings).expect_code(0);
    world.ask(&daemon, &["runners", "remove", "ny-1"]).expect_code(0);
    only_error(&doctor(&world, utf8(&settings)), "registration", "does not know", "forge runner register --config");
    std::fs::remove_file(world.path("ny-1/private.key")).expect("there was one");
    only_error(&doctor(&world, utf8(&settings)), "registration", "no private key", "forge runners remove ny-1");
}

#[test]
fn a_daemon_that_is_away_or_not_believed_is_told_apart() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let text = std::fs::read_to_string(&settings).expect("settings");
    let other = World::new();
    let stranger = other.daemon();
    let with_ca = |line: &str| {
        let ca_line = text.lines().find(|line| line.starts_with("ca_file")).expect("a CA");
        std::fs::write(&settings, text.replace(ca_line, line)).expect("settings");
    };
    with_ca(&format!("ca_file = {:?}", stranger.ca_file));
    only_error(&doctor(&world, utf8(&settings)), "certificate", "authority", "ca_file or ca_fingerprint");
    with_ca(&format!("ca_fingerprint = \"sha256:{}\"", "0".repeat(64)));
    only_error(&doctor(&world, utf8(&settings)), "certificate", "fingerprint", "change ca_fingerprint");
    with_ca("ca_file = \"/nowhere/ca.pem\"");
    only_error(&doctor(&world, utf8(&settings)), "certificate", "/nowhere/ca.pem", "CA");
    with_ca(&format!("ca_file = {:?}", daemon.ca_file));
    assert_eq!(daemon.stop().code(), Some(0));
    only_error(&doctor(&world, utf8(&settings)), "daemon", "refused", "is the daemon running");
}

#[test]
fn missing_programs_are_named() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let mut command = world.forge(&["doctor", "--config", utf8(&settings), "--output", "json"]);
    command.env("PATH", world.path("tree"));
    let found = findings(Finished::of(command, b""));
    only_error(&found, "programs", "no program git", "install git");
    assert!(found.iter().any(|finding| finding["message"] == "there is no program ssh"), "{found:#?}");
}

#[test]
fn a_full_disk_is_named_on_either_side() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    set_mode(&world.path("registration-token"), 0o600);
    // A disk of its own with one megabyte, seen by this process alone.
    let tmp = world.path("ny-1/tmp");
    let script =
        "mount -t tmpfs -o size=1m,mode=0700 none \"$1\" && echo x > \"$1/daemon.key\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh", utf8(&tmp), env!("CARGO_BIN_EXE_forge")])
        .args(["doctor", "--output", "json", "--config", utf8(&settings)])
        .env_remove("FORGE_URL");
    only_error(&findings(Finished::of(command, b"")), "disk", utf8(&tmp), "free space");
    assert_eq!(daemon.stop().code(), Some(0));
    world.daemon_settings("[logs]\ndisk_reserve = \"1000000GiB\"\n");
    only_error(&doctor(&world, "forge.toml"), "disk", "are needed", "disk_reserve");
}

#[test]
fn a_clock_that_is_off_is_measured() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    assert_eq!(daemon.stop().code(), Some(0));
    // A server with the daemon's own certificate whose clock stands still: what a daemon with a wrong clock would answer.
    let tls = world.path("data/tls");
    let chain = CertificateDer::pem_file_iter(tls.join("certificate.pem")).expect("a chain");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(tls.join("certificate.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("TLS").with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("doctor connects");
        let connection = rustls::ServerConnection::new(Arc::new(config)).expect("a connection");
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.extend(byte);
        }
        let body = r#"{"type":"about:blank","title":"Not found","status":404,"detail":"there is no such plugin"}"#;
        let head = "HTTP/1.1 404 Not Found\r\nDate: Sat, 01 Jan 2022 00:00:00 GMT\r\nConnection: close\r\nContent-Type: application/problem+json";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("an answer");
        stream.flush().expect("sent");
    });
    let text = std::fs::read_to_string(&settings).expect("settings");
    let web_host = text.lines().find(|line| line.starts_with("web_host")).expect("a URL");
    std::fs::write(&settings, text.replace(web_host, &format!("web_host = \"https://127.0.0.1:{port}\"")))
        .expect("settings");
    let found = doctor(&world, utf8(&settings));
    server.join().expect("it answered");
    only_error(&found, "clock", "ahead of the daemon's", "NTP");
}

#[test]
fn an_expired_certificate_is_found_on_either_side() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params =
        rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(world.path("crt.pem"), certificate.pem()).expect("written");
    std::fs::write(world.path("key.pem"), key.serialize_pem()).expect("written");
    set_mode(&world.path("key.pem"), 0o600);
    set_mode(&world.path("registration-token"), 0o600);
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    assert_eq!(daemon.stop().code(), Some(0));

    let [crt, key] = ["crt.pem", "key.pem"].map(|file| world.path(file));
    world.daemon_settings(&format!("[tls]\ncertificate_file = {crt:?}\nkey_file = {key:?}\n"));
    only_error(&doctor(&world, "forge.toml"), "certificate", "has expired", "renew it");
    let addresses = world.path("data/addresses.json");
    let _daemon = Process::start(world.forge(&["daemon", "--config", "forge.toml"]), &world.path("out"), "expired");
    let api = wait_for("the daemon serves", || {
        let found: Value = serde_json::from_slice(&std::fs::read(&addresses).ok()?).ok()?;
        Some(found["api"].as_str()?.to_owned())
    });
    only_error(&doctor(&world, "forge.toml"), "certificate", "has expired", "renew it");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("web_host", _)) => format!("web_host = {api:?}\n"),
        Some(("ca_file", _)) => format!("ca_file = {crt:?}\n"),
        _ => format!("{line}\n"),
    });
    std::fs::write(world.path("runner.toml"), lines.collect::<String>()).expect("settings");
    only_error(&doctor(&world, "runner.toml"), "certificate", "has expired", "renew it");
}

#[test]
fn a_broken_tree_is_shown_by_its_lines_while_the_daemon_runs_and_when_it_does_not() {
    let world = World::new();
    set_mode(&world.path("registration-token"), 0o600);
    let daemon = world.daemon();
    world.write("projects/shop/templates/hello.toml", "executor = \"shel\"\n[params]\nscript = \"x\"\n");
    let found = wait_for("the daemon has seen it", || {
        let found = doctor(&world, "forge.toml");
        found.iter().any(|finding| finding["status"] == "error").then_some(found)
    });
    only_error(&found, "tree", "projects/shop/templates/hello.toml:1:12", "the last good revision serves");
    assert_eq!(daemon.stop().code(), Some(0));
    only_error(&doctor(&world, "forge.toml"), "tree", "projects/shop/templates/hello.toml:1:12", "shell");
    std::fs::rename(world.path("tree"), world.path("gone")).expect("moved");
    only_error(&doctor(&world, "forge.toml"), "tree", "is no folder", "[source]");
}

#[test]
fn a_daemon_that_died_and_a_port_that_is_taken_are_told() {
    let world = World::new();
    set_mode(&world.path("registration-token"), 0o600);
    let mut daemon = world.daemon();
    daemon.process.kill_hard();
    only_error(&doctor(&world, "forge.toml"), "daemon", "left without a word", "start it again");
    std::fs::remove_file(world.path("data/addresses.json")).expect("it was left");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    world.daemon_settings_on(listener.local_addr().expect("an address").port());
    only_error(&doctor(&world, "forge.toml"), "listen", "listen.api 127.0.0.1:", "another address");
}

#[test]
fn mistakes_of_settings_are_findings_and_the_kind_of_file_is_told_by_its_keys() {
    let world = World::new();
    for (text, message, mend) in [
        ("tmp_path = \"/x\"\n[runner]\nname = \"New York\"\nweb_host = \"x\"\n", "web_host", "https://"),
        ("data_dir = 5\n[source]\npath = \"x\"\n", "settings.toml:1:12", ""),
        ("[sauce]\npath = \"x\"\n", "neither a daemon's settings nor a runner's", "[source]"),
        ("[runner\n", "settings.toml:1", "correct"),
    ] {
        std::fs::write(world.path("settings.toml"), text).expect("settings");
        let found = doctor(&world, "settings.toml");
        let is_it =
            |finding: &Value, key: &str, part: &str| finding[key].as_str().is_some_and(|said| said.contains(part));
        let hit = found.iter().any(|finding| {
            finding["check"] == "settings" && is_it(finding, "message", message) && is_it(finding, "mend", mend)
        });
        assert!(hit, "{message:?} is missing in {found:#?}");
    }
    let mut command = world.forge(&["doctor"]);
    command.current_dir(world.path("tree"));
    let nothing = Finished::of(command, b"").expect_code(2).stderr;
    assert!(nothing.contains("--config FILE"), "{nothing}");
}
