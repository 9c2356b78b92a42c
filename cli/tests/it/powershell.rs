//! `examples/powershell` through a real daemon and a real runner, **with a stand-in for PowerShell**: the bash script `pwsh-stand-in` of the
//! built-in's tests, which takes the command line of the executor and knows a handful of commands. The real one was never met.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::ansible::{commit, start_runner};
use crate::harness::World;
use crate::python::example;

const STAND_IN: &[u8] = include_bytes!("../../../plugins/builtin/tests/it/pwsh-stand-in");

#[test]
fn a_script_of_the_repository_and_one_in_place_run_with_a_stand_in() {
    let world = World::new();
    let origin = example(&world, "powershell", "windows/repositories/scripts");
    let programs = world.path("programs");
    std::fs::create_dir(&programs).expect("a folder");
    let stand_in = programs.join("pwsh");
    std::fs::write(&stand_in, STAND_IN).expect("a file");
    std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let path = std::env::var_os("PATH").expect("PATH is set");
    let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).expect("a PATH");
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "jump-1", &path);

    let announce = ["run", "windows/announce", "--var", "version=v7", "--arg=web-3", "--output", "json"];
    let done = world.ask(&daemon, &announce).expect_code(0);
    assert!(done.stderr.contains("rolling out\nv7\nto\nweb-1\nweb-2\nweb-3\n"), "{}", done.stderr);
    let task = done.json();
    assert_eq!(
        (&task["runner"], &task["summary"]),
        (&json!("jump-1"), &json!({ "exit_code": 0, "text": "exit code 0" }))
    );

    let done = world.ask(&daemon, &["run", "windows/check", "--output", "json"]).expect_code(1);
    assert!(done.stderr.contains("looking\n") && done.stderr.contains("the share is not mounted"), "{}", done.stderr);
    assert!(!done.stderr.contains("never reached"), "{}", done.stderr);
    assert_eq!((&done.json()["reason"], &done.json()["exit_code"]), (&json!("exit code 1"), &json!(1)));

    // A script's own exit code is the task's.
    std::fs::write(origin.join("Announce.ps1"), "Write-Output 'not today'\nexit 3\n").expect("a file");
    commit(&origin);
    let done = world.ask(&daemon, &announce).expect_code(1);
    assert!(done.stderr.contains("not today\n"), "{}", done.stderr);
    assert_eq!(done.json()["exit_code"], 3);
}

#[test]
fn a_runner_without_powershell_says_what_to_install() {
    let world = World::new();
    example(&world, "powershell", "windows/repositories/scripts");
    let programs = world.path("programs");
    std::fs::create_dir(&programs).expect("a folder");
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "jump-1", programs.as_os_str());
    let done = world.ask(&daemon, &["run", "windows/check", "--output", "json"]).expect_code(1);
    let reason = done.json()["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("pwsh is not on this runner") && reason.contains("install"), "{reason}");
}
