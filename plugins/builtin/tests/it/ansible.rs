//! `builtin:ansible`, from its component, with the real ansible-playbook.

use std::path::Path;
use std::sync::OnceLock;

use forge_plugin_host::{
    Capability, Done, ExecuteError, ExecuteRequest, Grants, Host, HostOptions, Job, Limits, Outcome, Plugin,
};
use serde_json::{Value, json};

use crate::ansible_core;
use crate::processes::Seen;

const INVENTORY: &str = "[all]\nweb-1\nweb-2\n[all:vars]\nansible_connection=local\n\
                         ansible_python_interpreter={{ ansible_playbook_python }}\n";

const PLAYBOOK: &str = "
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: \"{{ inventory_hostname }} gets {{ version }} as {{ ansible_user | default('nobody') }}\"
    - ansible.builtin.fail:
        msg: out of service
      when: inventory_hostname in broken | default([])
";

/// Compiled once for all tests.
pub(crate) fn ansible() -> &'static Plugin {
    static ANSIBLE: OnceLock<Plugin> = OnceLock::new();
    ANSIBLE.get_or_init(|| {
        let host = Host::new(HostOptions::default()).expect("the engine starts");
        let builtin = forge_plugin_builtins::get("ansible").expect("it is built in");
        host.load(builtin.wasm).expect("it is a plugin")
    })
}

pub(crate) fn programs() -> Vec<String> {
    ["ansible-playbook", "ansible-galaxy"].map(str::to_owned).to_vec()
}

/// A workspace as the runner makes it, and the request to run its playbook.
fn request(workspace: &Path, params: Value, variables: &Value) -> ExecuteRequest {
    for folder in ["home", "tmp"] {
        std::fs::create_dir(workspace.join(folder)).expect("a folder");
    }
    for (name, text) in [
        ("repository/site.yml", PLAYBOOK),
        ("inventory/inventory.ini", INVENTORY),
        ("private/variables.json", &variables.to_string()),
    ] {
        let file = workspace.join(name);
        std::fs::create_dir_all(file.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    }
    ExecuteRequest {
        job: Job {
            id: "7".to_owned(),
            attempt: 1,
            params,
            config: json!({}),
            checkout: Some("repository".to_owned()),
            inventory: Some(workspace.join("inventory/inventory.ini").display().to_string()),
            variables_file: workspace.join("private/variables.json").display().to_string(),
            ..Job::default()
        },
        workspace: workspace.to_owned(),
        grants: Grants { plugin_name: "ansible".to_owned(), programs: programs() },
        limits: Limits::default(),
        file_user: None,
    }
}

fn counts(ok: u64, failed: u64) -> Value {
    json!({ "ok": ok, "changed": 0, "unreachable": 0, "failed": failed, "skipped": 1 - failed, "rescued": 0, "ignored": 0 })
}

#[test]
fn says_what_it_is() {
    let info = ansible().describe().expect("it describes itself");
    assert_eq!(info.name, "ansible");
    assert_eq!(info.wants, [Capability::Process(programs())]);
    assert_eq!(info.params_schema.expect("it has params")["required"], json!(["playbook"]));
}

#[test]
fn the_recap_of_a_real_run_comes_by_host() {
    let workspace = tempfile::tempdir().expect("a folder");
    let seen = Seen { path: Some(ansible_core::path().clone()), ..Seen::default() };
    let request =
        request(workspace.path(), json!({ "playbook": "site.yml", "color": false }), &json!({ "version": "v7" }));
    let done = ansible().execute(request, seen.services()).unwrap_or_else(|error| panic!("{error}\n{}", seen.log()));
    let outcome = Outcome {
        summary: "2 hosts: 2 ok, 0 changed, 0 failed".to_owned(),
        output: Some(json!({ "hosts": { "web-1": counts(1, 0), "web-2": counts(1, 0) } })),
        exit_code: Some(0),
    };
    assert_eq!(done, Done::Finished(outcome));
    assert!(seen.log().contains("web-2 gets v7 as nobody"), "{}", seen.log());
    assert!(!seen.log().contains("WARNING"), "the callback loads without a word: {}", seen.log());
    // What Ansible keeps lies in the workspace.
    assert!(workspace.path().join("tmp/ansible").is_dir());
}

#[test]
fn a_failed_host_is_named_and_the_recap_is_kept() {
    let workspace = tempfile::tempdir().expect("a folder");
    let seen = Seen { path: Some(ansible_core::path().clone()), ..Seen::default() };
    let variables = json!({ "version": "v7", "broken": ["web-2"] });
    let request = request(workspace.path(), json!({ "playbook": "site.yml" }), &variables);
    let error = ansible().execute(request, seen.services()).expect_err("a host fails");
    let expected = ExecuteError::Failed {
        message: "failed: web-2 (2 hosts: 2 ok, 0 changed, 1 failed)".to_owned(),
        exit_code: Some(2),
        output: Some(json!({ "hosts": { "web-1": counts(1, 0), "web-2": counts(1, 1) } })),
    };
    assert_eq!(error, expected, "{}", seen.log());
    assert!(seen.log().contains("\u{1b}["), "colors are on unless the template says otherwise: {}", seen.log());
}

#[test]
fn a_key_s_login_is_the_user_of_hosts_whose_inventory_names_none() {
    let workspace = tempfile::tempdir().expect("a folder");
    let seen = Seen { path: Some(ansible_core::path().clone()), ..Seen::default() };
    let mut request = request(workspace.path(), json!({ "playbook": "site.yml" }), &json!({ "version": "v7" }));
    // A folder whose name would leave its quotes, if anything could.
    let keys = workspace.path().join("it's {{ keys }}");
    std::fs::create_dir(&keys).expect("a folder");
    for (role, name, text) in
        [("ssh", "0-key", "no key"), ("ssh:login", "0-login", "jane"), ("become", "1-password", "x")]
    {
        std::fs::write(keys.join(name), text).expect("a file");
        request.job.key_files.push((role.to_owned(), keys.join(name).display().to_string()));
    }
    let inventory = INVENTORY.replace("web-2\n", "web-2 ansible_user=own\n");
    std::fs::write(workspace.path().join("inventory/inventory.ini"), inventory).expect("a file");
    ansible().execute(request, seen.services()).unwrap_or_else(|error| panic!("{error}\n{}", seen.log()));
    assert!(seen.log().contains("web-1 gets v7 as jane"), "{}", seen.log());
    assert!(seen.log().contains("web-2 gets v7 as own"), "{}", seen.log());
}

#[test]
fn a_runner_without_ansible_says_what_to_install() {
    let workspace = tempfile::tempdir().expect("a folder");
    let seen = Seen { path: Some(workspace.path().into()), ..Seen::default() };
    let request = request(workspace.path(), json!({ "playbook": "site.yml" }), &json!({}));
    let error = ansible().execute(request, seen.services()).expect_err("it is not there").to_string();
    assert!(error.starts_with("ansible-playbook is not on this runner"), "{error}");
    assert!(error.contains("install ansible-core there"), "{error}");
}
