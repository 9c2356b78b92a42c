//! `builtin:powershell`, from its component, with a stand-in for PowerShell: the bash script `pwsh-stand-in`, which takes the command
//! line of the executor and of nobody else. What the real program makes of it is not proven here.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

use forge_plugin_host::{
    Capability, Done, ExecuteError, ExecuteRequest, Grants, Host, HostOptions, Job, Limits, Outcome, Plugin,
};
use serde_json::{Value, json};

use crate::processes::Seen;

/// Compiled once for all tests.
fn plugin() -> &'static Plugin {
    static POWERSHELL: OnceLock<Plugin> = OnceLock::new();
    POWERSHELL.get_or_init(|| {
        let host = Host::new(HostOptions::default()).expect("the engine starts");
        let builtin = forge_plugin_builtins::get("powershell").expect("it is built in");
        host.load(builtin.wasm).expect("it is a plugin")
    })
}

/// A PATH whose `pwsh` is the stand-in.
fn stand_in(folder: &Path) -> OsString {
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).expect("a folder");
    let script = programs.join("pwsh");
    std::fs::write(&script, include_bytes!("pwsh-stand-in")).expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let path = std::env::var_os("PATH").expect("tests have a PATH");
    std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).expect("a PATH")
}

fn request(workspace: &Path, params: Value) -> ExecuteRequest {
    ExecuteRequest {
        job: Job { id: "7".to_owned(), attempt: 1, params, config: json!({}), ..Job::default() },
        workspace: workspace.to_owned(),
        grants: Grants { plugin_name: "powershell".to_owned(), programs: vec!["pwsh".to_owned()] },
        limits: Limits::default(),
        file_user: None,
    }
}

/// Runs a script with the stand-in; what comes of it, and the log.
fn run(params: Value) -> (Result<Done, ExecuteError>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let workspace = folder.path().join("workspace");
    std::fs::create_dir(&workspace).expect("a folder");
    let seen = Seen { path: Some(stand_in(folder.path())), ..Seen::default() };
    let done = plugin().execute(request(&workspace, params), seen.services());
    (done, seen.log())
}

fn failed(code: i32) -> Result<Done, ExecuteError> {
    Err(ExecuteError::Failed {
        message: format!("exit code {code}"),
        exit_code: Some(code),
        output: Some(json!({ "exit_code": code })),
    })
}

#[test]
fn says_what_it_is() {
    let info = plugin().describe().expect("it describes itself");
    assert_eq!(info.name, "powershell");
    assert_eq!(info.wants, [Capability::Process(vec!["pwsh".to_owned()])]);
    assert_eq!(info.params_schema.expect("it has params")["properties"]["error_action"]["default"], "stop");
}

#[test]
fn a_stand_in_runs_an_inline_script_with_its_arguments() {
    let script = "param($Name)\nWrite-Output 'größe'\n$args\n$env:POWERSHELL_UPDATECHECK";
    let (done, log) = run(json!({ "script": script, "arguments": ["-Name", "one two", "-Verbose:$false", ""] }));
    let outcome =
        Outcome { summary: "exit code 0".to_owned(), output: Some(json!({ "exit_code": 0 })), exit_code: Some(0) };
    assert_eq!(done, Ok(Done::Finished(outcome)), "{log}");
    assert_eq!(log, "größe\n-Name\none two\n-Verbose:$false\n\nOff\n");
}

#[test]
fn a_stand_in_tells_every_way_to_fail() {
    let (done, log) = run(json!({ "script": "Write-Output 'a'\nexit 5\nWrite-Output 'b'" }));
    assert_eq!((done, log.as_str()), (failed(5), "a\n"));
    let (done, log) = run(json!({ "script": "native 3\nWrite-Output 'on'" }));
    assert_eq!((done, log.as_str()), (failed(3), "on\n"), "the last program's exit code");
    let (done, log) = run(json!({ "script": "throw 'no'" }));
    assert_eq!((done, log.as_str()), (failed(1), "Exception: ./forge-powershell/script.ps1: 'no'\n"));

    let script = "Write-Error 'odd'\nWrite-Output 'on'";
    let (done, log) = run(json!({ "script": script }));
    assert_eq!(done, failed(1), "an error ends the script: {log}");
    assert!(!log.contains("on\n"), "{log}");
    let (done, log) = run(json!({ "script": script, "error_action": "continue" }));
    assert!(done.is_ok() && log.contains("on\n"), "{done:?} {log}");
}

#[test]
fn a_stand_in_runs_a_file_of_the_checkout_in_the_checkout() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkout = folder.path().join("workspace/repository");
    std::fs::create_dir_all(checkout.join("it's")).expect("a folder");
    std::fs::write(checkout.join("it's/-deploy.ps1"), "$args\n$PWD").expect("a file");
    let mut request = request(&folder.path().join("workspace"), json!({ "file": "it's/-deploy.ps1" }));
    request.job.checkout = Some("repository".to_owned());
    request.job.arguments = vec!["-Force".to_owned()];
    let seen = Seen { path: Some(stand_in(folder.path())), ..Seen::default() };
    plugin().execute(request, seen.services()).unwrap_or_else(|error| panic!("{error}\n{}", seen.log()));
    let here = checkout.canonicalize().expect("it is there");
    assert_eq!(seen.log(), format!("-Force\n{}\n", here.display()));
    let left: Vec<_> = std::fs::read_dir(&checkout).expect("a folder").collect();
    assert_eq!(left.len(), 1, "the checkout stays clean: {left:?}");
}

#[test]
fn a_runner_without_powershell_says_what_to_install() {
    let workspace = tempfile::tempdir().expect("a folder");
    let seen = Seen { path: Some(workspace.path().into()), ..Seen::default() };
    let error = plugin().execute(request(workspace.path(), json!({ "script": "exit 0" })), seen.services());
    let error = error.expect_err("it is not there").to_string();
    assert!(error.starts_with("pwsh is not on this runner") && error.contains("install PowerShell 7"), "{error}");
}
