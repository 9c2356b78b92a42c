//! `builtin:terraform`, from its component, with the real terraform. Its configurations need no provider that is downloaded.
//!
//! A machine without terraform says so and passes: its packages are no distribution's. Nothing here has met the real `tofu`; one
//! test runs a stand-in of that name.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use forge_plugin_host::{
    Capability, Done, ExecuteError, ExecuteRequest, Grants, Host, HostOptions, Job, Limits, Outcome, Plugin,
};
use serde_json::{Value, json};

use crate::processes::Seen;

/// No real secret, but it must not be seen.
const HUSH: &str = "hush-0815";

/// A state outside of the workspaces, two resources, an output of each kind.
const MODULE: &str = r#"
terraform {
  backend "local" {}
}
variable "release" { type = string }
variable "size" { default = "small" }
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "release" { input = var.release }
resource "terraform_data" "token" {
  input            = "${var.size} ${length(var.token)}"
  triggers_replace = var.size
}
output "release" { value = terraform_data.release.output }
output "token" {
  value     = var.token
  sensitive = true
}
"#;

/// Compiled once for all tests.
fn plugin() -> &'static Plugin {
    static TERRAFORM: OnceLock<Plugin> = OnceLock::new();
    TERRAFORM.get_or_init(|| {
        let host = Host::new(HostOptions::default()).expect("the engine starts");
        let builtin = forge_plugin_builtins::get("terraform").expect("it is built in");
        host.load(builtin.wasm).expect("it is a plugin")
    })
}

/// Where terraform is; without it a test says so, past the capture of its output, and has nothing to do.
fn terraform() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = std::env::var_os("PATH").expect("tests have a PATH");
            let found = std::env::split_paths(&path)
                .map(|folder| folder.join("terraform"))
                .find(|file| Command::new(file).arg("version").output().is_ok_and(|output| output.status.success()));
            if found.is_none() {
                let line = "\nNOT TESTED: there is no terraform on PATH, so no story of builtin:terraform was run\n";
                drop(std::io::stderr().write_all(line.as_bytes()));
            }
            found
        })
        .clone()
}

/// Leaves the test where terraform is missing.
macro_rules! needs_terraform {
    () => {
        match terraform() {
            Some(file) => file,
            None => return,
        }
    };
}

/// The place of a story: where the state is, and any number of workspaces.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A workspace as the runner makes it, with this module.
    fn workspace(&self, name: &str, module: &str) -> PathBuf {
        let workspace = self.path(name);
        for folder in ["home", "tmp", "repository", "private"] {
            std::fs::create_dir_all(workspace.join(folder)).expect("a folder");
        }
        std::fs::write(workspace.join("repository/main.tf"), module).expect("a file");
        let variables = json!({ "release": "v7 ${not} %{a template}", "token": HUSH });
        std::fs::write(workspace.join("private/variables.json"), variables.to_string()).expect("a file");
        workspace
    }

    /// Params that put the state here.
    fn params(&self, command: &str) -> Value {
        let backend =
            json!({ "path": self.path("state/main.tfstate"), "workspace_dir": self.path("state/workspaces") });
        json!({ "command": command, "backend_config": backend, "color": false })
    }
}

fn request(workspace: &Path, params: Value) -> ExecuteRequest {
    ExecuteRequest {
        job: Job {
            id: "7".to_owned(),
            attempt: 1,
            params,
            config: json!({}),
            checkout: Some("repository".to_owned()),
            variables_file: workspace.join("private/variables.json").display().to_string(),
            ..Job::default()
        },
        workspace: workspace.to_owned(),
        grants: Grants { plugin_name: "terraform".to_owned(), programs: vec!["terraform".to_owned()] },
        limits: Limits::default(),
        file_user: None,
    }
}

/// What happened, and the log. Nothing of it shows the secret.
fn execute(request: ExecuteRequest) -> (Result<Done, ExecuteError>, String) {
    let seen = Seen::default();
    let done = plugin().execute(request, seen.services());
    assert!(!seen.log().contains(HUSH), "the log shows it: {}", seen.log());
    assert!(!format!("{done:?}").contains(HUSH), "the answer shows it: {done:?}");
    (done, seen.log())
}

fn finished(request: ExecuteRequest) -> (String, Value, String) {
    let (done, log) = execute(request);
    let Ok(Done::Finished(Outcome { summary, output, exit_code: Some(0) })) = done else { panic!("{done:?}\n{log}") };
    (summary, output.expect("a summary"), log)
}

/// Plans in one workspace, and makes another one for the attempt that applies it: at another path, with what was carried.
fn plan_and_move(place: &Place, params: &Value, module: &str, to: &str) -> (Outcome, ExecuteRequest) {
    let planning = place.workspace("planning", module);
    let (done, log) = execute(request(&planning, params.clone()));
    let Ok(Done::Pending { outcome, carry }) = done else { panic!("{done:?}\n{log}") };
    let applying = place.workspace(to, module);
    for file in &carry {
        let target = applying.join(file);
        std::fs::create_dir_all(target.parent().expect("a file has a folder")).expect("a folder");
        std::fs::copy(planning.join(file), target).expect("what is carried is there");
    }
    std::fs::remove_dir_all(planning).expect("the first workspace is gone");
    let mut request = request(&applying, params.clone());
    (request.job.attempt, request.job.resume) = (2, true);
    (outcome, request)
}

#[test]
fn says_what_it_is() {
    let info = plugin().describe().expect("it describes itself");
    assert_eq!(info.name, "terraform");
    assert_eq!(info.wants, [Capability::Process(vec!["terraform".to_owned(), "tofu".to_owned()])]);
    assert_eq!(info.params_schema.expect("it has params")["required"], json!(["command"]));
}

#[test]
fn plans_applies_and_destroys() {
    needs_terraform!();
    let place = Place::new();
    let (summary, output, log) = finished(request(&place.workspace("one", MODULE), place.params("plan")));
    assert_eq!(summary, "2 to add, 0 to change, 0 to destroy");
    assert_eq!(output, json!({ "add": 2, "change": 0, "destroy": 0, "applied": false }));
    assert!(log.contains("# terraform_data.release will be created"), "the plan is for people: {log}");
    assert!(log.contains("v7 ${not} %{a template}"), "an answer is a text and no template: {log}");
    assert!(!place.path("state/main.tfstate").exists(), "nothing was done");

    let (summary, output, log) = finished(request(&place.workspace("two", MODULE), place.params("apply")));
    assert_eq!(summary, "2 added, 0 changed, 0 destroyed");
    let outputs = json!({ "release": "v7 ${not} %{a template}" });
    let expected = json!({
        "add": 2, "change": 0, "destroy": 0, "applied": true, "outputs": outputs, "sensitive_outputs": ["token"]
    });
    assert_eq!(output, expected);
    assert!(log.contains("Apply complete!") && log.contains("other runners do not see it"), "{log}");

    // The state stayed, and the template's variables lose against the task's own.
    let third = place.workspace("three", MODULE);
    std::fs::write(third.join("repository/large.tfvars"), "size = \"large\"\nrelease = \"v0\"\n").expect("a file");
    let mut params = place.params("apply");
    params["var_files"] = json!(["large.tfvars"]);
    let (summary, output, _) = finished(request(&third, params));
    assert_eq!(summary, "1 added, 0 changed, 1 destroyed", "one is replaced");
    assert_eq!(output["outputs"], outputs);

    let mut params = place.params("plan");
    params["arguments"] = json!(["-var=size=large"]);
    let (summary, output, log) = finished(request(&place.workspace("four", MODULE), params));
    assert_eq!((summary.as_str(), &output["add"]), ("no changes", &json!(0)));
    assert!(log.contains("No changes."), "{log}");

    let (summary, ..) = finished(request(&place.workspace("five", MODULE), place.params("destroy")));
    assert_eq!(summary, "0 added, 0 changed, 2 destroyed");
}

#[test]
fn what_was_approved_is_applied_in_another_workspace_and_only_once() {
    needs_terraform!();
    let place = Place::new();
    let mut params = place.params("plan-then-apply");
    params["workspace"] = json!("blue");
    let (outcome, approved) = plan_and_move(&place, &params, MODULE, "applying");
    assert_eq!(outcome.summary, "2 to add, 0 to change, 0 to destroy");
    assert_eq!(outcome.output.expect("a summary")["applied"], json!(false));

    // What the variables say by now does not count: the plan is applied.
    let later = json!({ "release": "v8", "token": HUSH }).to_string();
    std::fs::write(&approved.job.variables_file, later).expect("a file");
    let again = approved.clone();
    let (summary, output, log) = finished(approved);
    assert_eq!(summary, "2 added, 0 changed, 0 destroyed");
    assert_eq!(output["outputs"], json!({ "release": "v7 ${not} %{a template}" }));
    assert!(!log.contains("Terraform will perform the following actions"), "nothing is planned anew: {log}");
    assert!(place.path("state/workspaces/blue/terraform.tfstate").is_file(), "the workspace has its state");

    let (done, log) = execute(again);
    let Err(ExecuteError::Failed { message, output, .. }) = done else { panic!("{done:?}\n{log}") };
    assert!(message.starts_with("the plan is out of date") && message.contains("run the template again"), "{message}");
    assert_eq!(output.expect("what was planned")["applied"], json!(false));

    // With nothing to do nobody is asked.
    let (summary, ..) = finished(request(&place.workspace("third", MODULE), params.clone()));
    assert_eq!(summary, "no changes");

    params["command"] = json!("plan-then-destroy");
    let (outcome, approved) = plan_and_move(&place, &params, MODULE, "destroying");
    assert_eq!(outcome.summary, "0 to add, 0 to change, 2 to destroy");
    assert_eq!(finished(approved).0, "0 added, 0 changed, 2 destroyed");
}

#[test]
fn without_a_backend_a_plan_is_applied_too_and_the_state_s_end_is_told() {
    needs_terraform!();
    let place = Place::new();
    let module = MODULE.replace("backend \"local\" {}", "");
    let (outcome, approved) = plan_and_move(&place, &json!({ "command": "plan-then-apply" }), &module, "applying");
    assert_eq!(outcome.summary, "2 to add, 0 to change, 0 to destroy");
    let (summary, _, log) = finished(approved);
    assert_eq!(summary, "2 added, 0 changed, 0 destroyed");
    assert!(log.contains("it names no backend, and the state is thrown away when this task ends"), "{log}");
    assert!(log.contains("\u{1b}["), "colors are on unless the template says otherwise: {log}");
}

#[test]
fn an_ephemeral_variable_is_given_again_to_the_apply() {
    let terraform = needs_terraform!();
    let version = Command::new(terraform).args(["version", "-json"]).output().expect("it runs").stdout;
    let version: Value = serde_json::from_slice(&version).expect("it is JSON");
    let minor = version["terraform_version"].as_str().and_then(|text| text.split('.').nth(1)?.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 10) {
        drop(std::io::stderr().write_all(b"\nNOT TESTED: this terraform is older than ephemeral variables\n"));
        return;
    }
    let place = Place::new();
    let module = MODULE.replace("  sensitive = true\n}\nresource", "  ephemeral = true\n}\nresource");
    let module = module.replace(" ${length(var.token)}", "").replace("value     = var.token", "value     = var.size");
    let (_, approved) = plan_and_move(&place, &place.params("plan-then-apply"), &module, "applying");
    assert_eq!(finished(approved).0, "2 added, 0 changed, 0 destroyed");
}

#[test]
fn a_held_lock_names_its_holder() {
    let terraform = needs_terraform!();
    let place = Place::new();
    let fifo = |name: &str| {
        let path = place.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        path
    };
    let (started, go_on) = (fifo("started"), fifo("go-on"));
    // Another run, of a person at a desk, that holds the lock until it is told to go on.
    let desk = place.workspace("desk", MODULE);
    let holding = format!(
        "resource \"terraform_data\" \"hold\" {{\n  provisioner \"local-exec\" {{\n    command = \"echo > {}; cat {}\"\n  }}\n}}\n",
        started.display(),
        go_on.display()
    );
    std::fs::write(desk.join("repository/hold.tf"), holding).expect("a file");
    let state = place.path("state/main.tfstate");
    let command = |args: &[&str]| {
        let mut command = Command::new(&terraform);
        command.args(args).current_dir(desk.join("repository")).env_remove("TF_CLI_CONFIG_FILE").env("HOME", &desk);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    let backend = format!("-backend-config=path={}", state.display());
    assert!(command(&["init", "-input=false", &backend]).status().expect("it runs").success());
    let mut other = command(&["apply", "-auto-approve", "-input=false", "-var-file=../private/variables.json"])
        .spawn()
        .expect("it starts");
    let mut line = Vec::new();
    std::fs::File::open(&started)
        .and_then(|mut file| file.read_to_end(&mut line))
        .expect("it says that it holds the lock");

    let (done, log) = execute(request(&place.workspace("one", MODULE), place.params("apply")));
    let Err(ExecuteError::Retry { message, after_ms: None }) = done else { panic!("{done:?}\n{log}") };
    assert!(message.starts_with("the state is locked by ") && message.contains("@"), "{message}");
    assert!(message.contains(" since 20") && message.contains("(OperationTypeApply, lock "), "{message}");
    assert!(message.contains("`terraform force-unlock "), "{message}");
    assert!(log.contains("Lock Info:"), "{log}");

    std::fs::write(&go_on, "").expect("it goes on");
    assert!(other.wait().expect("it ends").success());
    let (summary, ..) = finished(request(&place.workspace("two", MODULE), place.params("apply")));
    assert_eq!(summary, "0 added, 0 changed, 1 destroyed", "what the desk held is gone");
}

#[test]
fn a_configuration_that_fails_fails_in_its_own_words() {
    needs_terraform!();
    let place = Place::new();
    let broken = format!("{MODULE}\noutput \"x\" {{ value = terraform_data.nothing.id }}\n");
    let (done, log) = execute(request(&place.workspace("one", &broken), place.params("plan")));
    let expected = ExecuteError::Failed {
        message: "terraform plan failed with exit code 1: Reference to undeclared resource; the log says where"
            .to_owned(),
        exit_code: Some(1),
        output: None,
    };
    assert_eq!(done, Err(expected), "{log}");
    assert!(log.contains("on main.tf line"), "{log}");

    // One that breaks in the middle keeps what was planned, and the state knows what was done.
    let fails = "\nresource \"terraform_data\" \"fails\" {\n  depends_on = [terraform_data.release, terraform_data.token]\n  \
                 provisioner \"local-exec\" {\n    command = \"exit 3\"\n  }\n}\n";
    let (done, log) = execute(request(&place.workspace("two", &format!("{MODULE}{fails}")), place.params("apply")));
    let Err(ExecuteError::Failed { message, exit_code: Some(1), output }) = done else { panic!("{done:?}\n{log}") };
    assert!(message.starts_with("terraform apply failed with exit code 1: local-exec provisioner error"), "{message}");
    assert_eq!(output, Some(json!({ "add": 3, "change": 0, "destroy": 0, "applied": false })));
    let (summary, ..) = finished(request(&place.workspace("three", MODULE), place.params("apply")));
    assert_eq!(summary, "0 added, 0 changed, 1 destroyed", "only what failed is left to clean up");

    let mut params = place.params("plan");
    params["backend_config"]["pth"] = json!("x");
    let (done, log) = execute(request(&place.workspace("four", MODULE), params));
    let message = done.expect_err("the backend takes no such setting").to_string();
    assert!(
        message.starts_with("terraform init failed with exit code 1: Invalid backend configuration"),
        "{message}\n{log}"
    );
}

/// A provider that init installs and nothing could start: what is proven is where it comes from.
#[test]
fn providers_come_from_the_runner_s_cache_only_with_a_lock_file() {
    let terraform = needs_terraform!();
    let place = Place::new();
    let version = Command::new(&terraform).args(["version", "-json"]).output().expect("it runs").stdout;
    let version: Value = serde_json::from_slice(&version).expect("it is JSON");
    let platform = version["platform"].as_str().expect("a platform").to_owned();
    let module = format!(
        "{MODULE}\nterraform {{\n  required_providers {{\n    ours = {{ source = \"example.com/ours/ours\" }}\n  }}\n}}\n"
    );
    // Where Terraform looks for providers by itself.
    let package =
        format!("repository/terraform.d/plugins/example.com/ours/ours/terraform-provider-ours_1.0.0_{platform}.zip");
    std::fs::write(place.path("terraform-provider-ours_v1.0.0"), "no program").expect("a file");
    let workspace = |name: &str| {
        let workspace = place.workspace(name, &module);
        let package = workspace.join(&package);
        std::fs::create_dir_all(package.parent().expect("a file has a folder")).expect("a folder");
        let mut zip = Command::new("python3");
        zip.args(["-m", "zipfile", "-c"]).arg(&package).arg(place.path("terraform-provider-ours_v1.0.0"));
        assert!(zip.status().expect("python3 runs").success());
        workspace
    };
    let cache = place.path("cache");
    std::fs::create_dir(&cache).expect("a folder");
    let run = |workspace: &Path, cache: &Path| {
        let mut request = request(workspace, place.params("plan"));
        request.job.cache = Some(cache.display().to_string());
        let (done, log) = execute(request);
        let message = done.expect_err("the provider cannot be started").to_string();
        assert!(message.starts_with("terraform plan failed with exit code 1: "), "init went well: {message}\n{log}");
        let installed = format!("forge-terraform/data/providers/example.com/ours/ours/1.0.0/{platform}");
        (std::fs::read_link(workspace.join(installed)).ok().filter(|link| link.starts_with(cache)), log)
    };
    let is_empty = || std::fs::read_dir(&cache).expect("a folder").next().is_none();

    let first = workspace("first");
    assert_eq!(run(&first, &cache).0, None);
    assert!(is_empty(), "without a lock file every init would write into the cache");
    let lock_file = std::fs::read(first.join("repository/.terraform.lock.hcl")).expect("init wrote it");

    let second = workspace("second");
    std::fs::write(second.join("repository/.terraform.lock.hcl"), &lock_file).expect("a file");
    assert!(run(&second, &cache).0.is_some(), "it is a link into the cache");
    assert!(!is_empty());

    let third = workspace("third");
    std::fs::write(third.join("repository/.terraform.lock.hcl"), &lock_file).expect("a file");
    // What cannot be written to, as a program that runs cannot.
    std::fs::write(place.path("in-the-way"), "").expect("a file");
    let (link, log) = run(&third, &place.path("in-the-way"));
    assert_eq!(link, None);
    assert!(log.contains("Failed to install provider") && log.contains("trying without it"), "{log}");
}

/// A stand-in for terraform: what it shows is larger than the guest's memory.
#[test]
fn a_huge_plan_of_a_stand_in_is_counted_within_the_plugin_s_limits() {
    use std::os::unix::fs::PermissionsExt as _;

    const SCRIPT: &str = r#"#!/bin/sh
case $1 in
  plan) exit 2 ;;
  show) awk 'BEGIN {
    value = sprintf("%2000s", ""); gsub(/ /, "x", value)
    printf "{\"resource_changes\":["
    for (i = 0; i < 40000; i++) {
      printf "%s{\"address\":\"a%d\",\"change\":{\"actions\":[\"create\"],\"after\":{\"v\":\"%s\",\"n\":[1,{}]}}}", (i ? "," : ""), i, value
    }
    print "]}"
  }' ;;
esac
"#;
    let place = Place::new();
    let program = place.path("programs/terraform");
    std::fs::create_dir(place.path("programs")).expect("a folder");
    std::fs::write(&program, SCRIPT).expect("a file");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let path = std::env::join_paths([place.path("programs"), "/usr/bin".into(), "/bin".into()]).expect("a PATH");
    let seen = Seen { path: Some(path), ..Seen::default() };
    let done = plugin().execute(request(&place.workspace("one", MODULE), place.params("plan")), seen.services());
    let Ok(Done::Finished(Outcome { summary, .. })) = done else { panic!("{done:?}\n{}", seen.log()) };
    assert_eq!(summary, "40000 to add, 0 to change, 0 to destroy");
    assert!(seen.log().len() < 1000, "it stays out of the log");
}

#[test]
fn a_runner_without_terraform_says_what_to_install() {
    let place = Place::new();
    let seen = Seen { path: Some(place.0.path().into()), ..Seen::default() };
    let request = request(&place.workspace("one", MODULE), place.params("plan"));
    let error = plugin().execute(request, seen.services()).expect_err("it is not there").to_string();
    assert!(error.starts_with("terraform is not on this runner"), "{error}");
}

/// A stand-in: a script of that name that runs terraform. It proves that `binary` chooses the program, not that OpenTofu works.
#[test]
fn a_stand_in_for_tofu_is_run_where_tofu_is_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;

    let terraform = needs_terraform!();
    let place = Place::new();
    let tofu = place.path("programs/tofu");
    std::fs::create_dir(place.path("programs")).expect("a folder");
    std::fs::write(&tofu, format!("#!/bin/sh\necho stand-in >&2\nexec '{}' \"$@\"\n", terraform.display()))
        .expect("a file");
    std::fs::set_permissions(&tofu, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let path: OsString =
        std::env::join_paths([place.path("programs"), "/usr/bin".into(), "/bin".into()]).expect("a PATH");

    let mut params = place.params("apply");
    params["binary"] = json!("tofu");
    let mut request = request(&place.workspace("one", MODULE), params);
    let seen = Seen { path: Some(path), ..Seen::default() };
    let denied = plugin().execute(request.clone(), seen.services()).expect_err("it is not granted").to_string();
    assert_eq!(denied, "denied: tofu is not in [allow].programs of plugins/terraform.toml");
    request.grants.programs = vec!["tofu".to_owned()];
    let done = plugin().execute(request, seen.services());
    let Ok(Done::Finished(Outcome { summary, .. })) = done else { panic!("{done:?}\n{}", seen.log()) };
    assert_eq!(summary, "2 added, 0 changed, 0 destroyed");
    assert!(seen.log().contains("stand-in"), "{}", seen.log());
}
