//! `builtin:shell`, from its component.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use forge_plugin_host::{
    Capability, Done, ExecuteError, ExecuteRequest, Grants, Host, HostOptions, Job, Kind, Limits, Outcome, Plugin,
};
use serde_json::{Value, json};

use crate::processes::Seen;

/// Compiled once for all tests.
fn shell() -> &'static Plugin {
    static SHELL: OnceLock<Plugin> = OnceLock::new();
    SHELL.get_or_init(|| {
        let host = Host::new(HostOptions::default()).expect("the engine starts");
        let builtin = forge_plugin_builtins::get("shell").expect("it is built in");
        host.load(builtin.wasm).expect("it is a plugin")
    })
}

fn request(workspace: &Path, params: Value) -> ExecuteRequest {
    ExecuteRequest {
        job: Job { id: "7".to_owned(), attempt: 1, params, config: json!({}), ..Job::default() },
        workspace: workspace.to_owned(),
        grants: Grants { plugin_name: "shell".to_owned(), programs: vec!["bash".to_owned()] },
        limits: Limits::default(),
        file_user: None,
    }
}

#[test]
fn says_what_it_is() {
    let shell = shell();
    assert_eq!(shell.kind(), Kind::Executor);
    let info = shell.describe().expect("it describes itself");
    assert_eq!(info.name, "shell");
    assert_eq!(info.wants, [Capability::Process(vec!["bash".to_owned()])]);
    let schema = info.params_schema.expect("it has params");
    assert_eq!(schema["properties"]["interpreter"]["default"], "bash");
}

#[test]
fn runs_an_inline_script_and_keeps_the_workspace_tidy() {
    let workspace = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(workspace.path().join("checkout")).expect("a folder");
    let seen = Seen::default();
    let mut request = request(
        workspace.path(),
        json!({ "script": "set -e\necho \"$0 $1 $2\"\nbasename \"$PWD\"\nls\n", "arguments": ["one two"] }),
    );
    request.job.checkout = Some("checkout".to_owned());
    request.job.arguments = vec!["$(three)".to_owned()];
    let done = shell().execute(request, seen.services()).expect("it ends well");
    let outcome =
        Outcome { summary: "exit code 0".to_owned(), output: Some(json!({ "exit_code": 0 })), exit_code: Some(0) };
    assert_eq!(done, Done::Finished(outcome));
    assert_eq!(seen.log(), "../forge-script one two $(three)\ncheckout\n");
}

#[test]
fn a_failing_line_ends_a_strict_script_and_is_named() {
    let workspace = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let params = json!({ "script": "set -e\necho before\nno-such-command\necho after" });
    let error = shell().execute(request(workspace.path(), params), seen.services()).expect_err("it fails");
    let expected = ExecuteError::Failed {
        message: "exit code 127".to_owned(),
        exit_code: Some(127),
        output: Some(json!({ "exit_code": 127 })),
    };
    assert_eq!(error, expected);
    assert_eq!(seen.log(), "before\n./forge-script: line 3: no-such-command: command not found\n");
}

#[test]
fn runs_a_file_of_the_checkout() {
    let workspace = tempfile::tempdir().expect("a folder");
    let folder = workspace.path().join("checkout/scripts");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("deploy.sh"), "echo \"$0\"; kill -KILL $$").expect("a file");
    std::os::unix::fs::symlink("/etc/hostname", folder.join("outside")).expect("a link");
    let plugin = shell();
    let execute = |file: &str, seen: &Seen| {
        let mut request = request(workspace.path(), json!({ "file": file }));
        request.job.checkout = Some("checkout".to_owned());
        plugin.execute(request, seen.services()).expect_err("it does not end well").to_string()
    };
    let seen = Seen::default();
    assert_eq!(execute("scripts/deploy.sh", &seen), "the script was ended by SIGKILL (signal 9)");
    assert_eq!(seen.log(), "./scripts/deploy.sh\n");
    assert_eq!(
        execute("scripts/gone.sh", &seen),
        "[params].file = \"scripts/gone.sh\" is not in the repository at this commit"
    );
    assert_eq!(
        execute("scripts/outside", &seen),
        "[params].file: checkout/scripts/outside leaves the workspace through a symlink"
    );
}

#[test]
fn runs_only_what_is_granted_and_there() {
    let workspace = tempfile::tempdir().expect("a folder");
    let plugin = shell();
    let seen = Seen::default();
    let params = json!({ "script": "x", "interpreter": "no-such-interpreter" });
    let mut with = request(workspace.path(), params);
    let error = plugin.execute(with.clone(), seen.services()).expect_err("it is not granted");
    assert_eq!(error.to_string(), "denied: no-such-interpreter is not in [allow].programs of plugins/shell.toml");
    with.grants.programs.push("no-such-interpreter".to_owned());
    let error = plugin.execute(with, seen.services()).expect_err("it is not there");
    assert!(error.to_string().starts_with("the interpreter no-such-interpreter is not on this runner"), "{error}");

    seen.canceled.store(true, Ordering::Relaxed);
    let error = plugin.execute(request(workspace.path(), json!({ "script": "true" })), seen.services());
    assert_eq!(error, Err(ExecuteError::Canceled));
}

#[test]
fn is_free_of_paths_of_the_machine_that_built_it() {
    let here = env!("CARGO_MANIFEST_DIR").trim_end_matches("/plugins/builtin").as_bytes();
    for builtin in forge_plugin_builtins::all() {
        let shown = builtin.wasm.windows(here.len()).any(|window| window == here);
        assert!(!shown, "{builtin:?} holds the path of this checkout");
    }
}
