//! What a newcomer meets: README's settings on a machine that holds nothing yet, one shell for client and runner, a full disk.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Finished, World, utf8};

#[test]
fn a_runner_registers_in_a_folder_that_is_not_there_yet_from_the_clients_shell() {
    let world = World::new();
    let daemon = world.daemon();
    let folder = world.path("var/lib/forge-runner");
    let settings = format!(
        "web_host = {:?}\ntmp_path = {folder:?}\nca_fingerprint = \"sha256:{}\"\n[runner]\nname = \"ny-1\"\ntoken_file = {:?}\nprivate_key_file = {:?}\n",
        daemon.api,
        "00".repeat(32),
        folder.join("token"),
        folder.join("private.key"),
    );
    std::fs::write(world.path("runner.toml"), settings).expect("written");
    // The fingerprint is wrong, and the client's FORGE_CA_FILE decides: a variable wins over the file.
    let command = world.client(
        &daemon,
        &["runner", "register", "--stdin-registration-token", "--config", utf8(&world.path("runner.toml"))],
    );
    Finished::of(command, world.registration_token().as_bytes()).expect_code(0);
    let mode = std::fs::metadata(&folder).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(folder.join("token").exists());
}

#[test]
fn a_listing_that_does_not_fit_on_the_disk_fails() {
    let world = World::new();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = world.forge(&["token", "new"]);
    let output = command.stdout(full).output().expect("forge ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: stdout cannot be written: No space left on device"), "{told}");
    assert_eq!(told.matches("error:").count(), 1, "told once: {told}");
}

#[test]
fn a_token_over_two_lines_is_told_of_as_a_token() {
    let world = World::new();
    let mut command = world.forge(&["task", "list"]);
    command.env("FORGE_URL", "https://127.0.0.1:1").env("FORGE_TOKEN", "token: a\nhash: b");
    let told = Finished::of(command, b"").expect_code(2).stderr;
    assert!(told.contains("the access token holds a character") && told.contains("FORGE_TOKEN"), "{told}");
}

#[test]
fn a_check_of_what_is_no_tree_says_so() {
    let world = World::new();
    let missing = world.run(&["config", "check", "nowhere"]).expect_code(1).stderr;
    assert!(
        missing.contains("nowhere") && missing.contains("projects/") && !missing.contains("source.path"),
        "{missing}"
    );
    std::fs::create_dir(world.path("empty")).expect("a folder");
    let empty = world.run(&["config", "check", "empty"]).expect_code(0).stderr;
    assert!(empty.contains("warning:") && empty.contains("projects/"), "{empty}");
}

#[test]
fn a_url_copied_with_the_api_s_path_works_and_what_is_no_url_is_refused() {
    let world = World::new();
    let daemon = world.daemon();
    let mut command = world.client(&daemon, &["task", "list"]);
    command.env("FORGE_URL", format!("{}/api/v1/", daemon.api));
    Finished::of(command, b"").expect_code(0);
    let mut command = world.client(&daemon, &["task", "list"]);
    command.env("FORGE_URL", "https://");
    let refused = Finished::of(command, b"").expect_code(2).stderr;
    assert!(refused.contains("https://HOST:PORT"), "{refused}");
    let mut command = world.client(&daemon, &["task", "list"]);
    command.env_remove("FORGE_CA_FILE");
    let refused = Finished::of(command, b"").expect_code(1).stderr;
    assert!(refused.contains("FORGE_CA_FILE"), "{refused}");
}
