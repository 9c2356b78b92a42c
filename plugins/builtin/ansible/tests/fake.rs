//! The executor against the sdk's fake host: what it runs for which params, and how each ending reads.

use forge_plugin::fake::{Answer, FakeHost};
use forge_plugin::{Command, Done, Executor, Exit, Failure, HostError, Job, Outcome, Pair};
use forge_plugin_ansible::Ansible;
use serde_json::{Value, json};

const RECAP: &str = r#"{"hosts": {"web-1": {"ok": 2, "changed": 1, "unreachable": 0, "failed": 0, "skipped": 0, "rescued": 0, "ignored": 0},
    "web-2": {"ok": 1, "changed": 0, "unreachable": 0, "failed": 1, "skipped": 0, "rescued": 0, "ignored": 0}}}"#;

fn job(params: &Value) -> Job {
    Job { params_json: params.to_string(), checkout: Some("repository".to_owned()), ..Job::default() }
}

fn site() -> FakeHost {
    FakeHost::new().file("repository/site.yml", "- hosts: all")
}

fn only_command(job: Job, mut host: FakeHost) -> Command {
    Ansible::execute(job, &mut host).expect("it ends well");
    assert_eq!(host.commands.len(), 1, "{:?}", host.commands);
    host.commands.remove(0)
}

fn variable<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
    command.env.iter().find(|pair| pair.key == name).map(|pair| pair.value.as_str())
}

fn keys(pairs: &[(&str, &str)]) -> Vec<Pair> {
    pairs.iter().map(|&pair| pair.into()).collect()
}

#[test]
fn a_bare_playbook_is_a_bare_command() {
    let command = only_command(job(&json!({ "playbook": "site.yml" })), site());
    assert_eq!((command.program.as_str(), command.args), ("ansible-playbook", vec!["./site.yml".to_owned()]));
}

#[test]
fn every_param_and_file_has_its_option() {
    let params = json!({
        "playbook": "site.yml", "limit": "web*", "tags": ["a", "b"], "skip_tags": ["c"], "become": true,
        "become_user": "deploy", "check": true, "diff": true, "forks": 20, "verbosity": 3, "arguments": ["--step"]
    });
    let job = Job {
        inventory: Some("/w/inventory/inventory.ini".to_owned()),
        variables_file: "/private/variables.json".to_owned(),
        key_files: keys(&[
            ("ssh", "/k/0-key"),
            ("become", "/k/1-password"),
            ("vault:prod", "/k/2-password"),
            ("vault:prod:login", "/k/2-login"),
            ("vault:dev", "/k/3-value"),
        ]),
        arguments: vec!["--start-at-task=x y".to_owned()],
        ..job(&params)
    };
    let command = only_command(job, site());
    let expected = [
        "--inventory=/w/inventory/inventory.ini",
        "--extra-vars=@/private/variables.json",
        "--private-key=/k/0-key",
        "--become-password-file=/k/1-password",
        "--vault-id=prod@/k/2-password",
        "--vault-id=dev@/k/3-value",
        "--limit=web*",
        "--tags=a,b",
        "--skip-tags=c",
        "--become-user=deploy",
        "--forks=20",
        "--become",
        "--check",
        "--diff",
        "-vvv",
        "./site.yml",
        "--step",
        "--start-at-task=x y",
    ];
    assert_eq!(command.args, expected);
}

#[test]
fn ansible_s_own_files_lie_in_the_workspace_and_host_keys_are_checked() {
    let host = site().file("repository/ansible.cfg", "[defaults]\ncallback_plugins = ./mine\n");
    let command = only_command(job(&json!({ "playbook": "site.yml" })), host);
    assert_eq!(command.cwd.as_deref(), Some("repository"));
    assert_eq!(variable(&command, "ANSIBLE_HOME"), Some("../home/.ansible"));
    assert_eq!(variable(&command, "ANSIBLE_LOCAL_TEMP"), Some("../tmp/ansible"));
    assert_eq!(variable(&command, "ANSIBLE_CALLBACK_PLUGINS"), Some("../forge-ansible/callback:./mine"));
    assert_eq!(variable(&command, "ANSIBLE_HOST_KEY_CHECKING"), None, "Ansible's default is to check");
    assert_eq!(variable(&command, "ANSIBLE_FORCE_COLOR"), Some("1"));
    let plain = only_command(job(&json!({ "playbook": "site.yml", "color": false })), site());
    assert_eq!(variable(&plain, "ANSIBLE_FORCE_COLOR"), None);
    assert_eq!(variable(&plain, "ANSIBLE_NOCOLOR"), Some("1"));
}

#[test]
fn a_password_for_the_hosts_is_no_private_key() {
    let job = Job {
        key_files: keys(&[("ssh", "/k/0"), ("ssh:password", "/k/0")]),
        ..job(&json!({ "playbook": "site.yml" }))
    };
    assert_eq!(only_command(job, site()).args, ["--connection-password-file=/k/0", "./site.yml"]);
}

#[test]
fn a_passphrase_is_read_by_ssh_and_never_on_the_command_line() {
    let run = |pairs: &[(&str, &str)]| {
        let mut host = site();
        let job = Job { key_files: keys(pairs), ..job(&json!({ "playbook": "site.yml" })) };
        Ansible::execute(job, &mut host).expect("it ends well");
        (host.commands.remove(0), host.files.contains_key("forge-ansible/callback/forge_askpass.py"))
    };
    let (command, has_callback) = run(&[("ssh", "/k/0-key"), ("ssh:passphrase", "/k/0-passphrase")]);
    assert_eq!(command.args, ["--private-key=/k/0-key", "./site.yml"]);
    assert_eq!(variable(&command, "ANSIBLE_FORGE_PASSPHRASE"), Some("/k/0-passphrase"));
    assert!(has_callback);
    let (command, has_callback) = run(&[("ssh", "/k/0-key")]);
    assert_eq!((variable(&command, "ANSIBLE_FORGE_PASSPHRASE"), has_callback), (None, false));
}

#[test]
fn a_login_is_looked_up_by_ansible_and_never_on_the_command_line() {
    let job = Job {
        key_files: keys(&[("ssh", "/k/it's"), ("ssh:login", "/k/it's-login"), ("become:login", "/k/1-login")]),
        inventory: Some("/w/hosts".to_owned()),
        ..job(&json!({ "playbook": "site.yml" }))
    };
    let mut host = site();
    Ansible::execute(job, &mut host).expect("it ends well");
    assert_eq!(host.commands[0].args[..2], ["--inventory=/w/hosts", "--inventory=../forge-ansible/logins.yml"]);
    let text = String::from_utf8_lossy(&host.files["forge-ansible/logins.yml"]).into_owned();
    let expected = r#"all:
  vars:
    ansible_user: "{{ lookup('ansible.builtin.file', '/k/it' ~ \"'\" ~ 's-login') }}"
    ansible_become_user: "{{ lookup('ansible.builtin.file', '/k/1-login') }}"
"#;
    assert_eq!(text, expected);
}

fn with_requirements() -> FakeHost {
    FakeHost::new()
        .file("repository/plays/site.yml", "x")
        .file("repository/roles/requirements.yml", "x")
        .file("repository/requirements.yaml", "x")
        .file("repository/plays/collections/requirements.yml", "x")
}

#[test]
fn requirements_are_installed_first_where_they_are() {
    let run = |params: Value| {
        let mut host = with_requirements();
        Ansible::execute(job(&params), &mut host).expect("it ends well");
        host.commands
            .iter()
            .map(|command| format!("{} {}", command.program, command.args.join(" ")))
            .collect::<Vec<_>>()
    };
    let expected = [
        "ansible-galaxy role install -r ./roles/requirements.yml",
        "ansible-galaxy install -r ./requirements.yaml",
        "ansible-galaxy collection install -r ./plays/collections/requirements.yml",
        "ansible-playbook ./plays/site.yml",
    ];
    assert_eq!(run(json!({ "playbook": "plays/site.yml" })), expected);
    assert_eq!(run(json!({ "playbook": "plays/site.yml", "galaxy": false })), expected[3..]);

    let mut host = with_requirements().answer(Answer::code(1));
    let error =
        Ansible::execute(job(&json!({ "playbook": "plays/site.yml" })), &mut host).expect_err("it is not there");
    let Failure::Failed(failed) = error else { panic!("{error:?}") };
    assert!(
        failed.message.starts_with("ansible-galaxy did not install roles/requirements.yml: exit code 1"),
        "{}",
        failed.message
    );
    assert_eq!(host.commands.len(), 1, "the playbook was not run");
}

/// What is run for a playbook with one requirements file in a job with a cache, and what the log says.
fn with_cache(mut host: FakeHost) -> (Vec<Command>, String) {
    let job = Job { cache: Some("/cache".to_owned()), ..job(&json!({ "playbook": "site.yml" })) };
    Ansible::execute(job, &mut host).expect("it ends well");
    let log = host.log.iter().map(|(_, line)| format!("{line}\n")).collect();
    (host.commands, log)
}

fn lines(commands: &[Command]) -> Vec<String> {
    commands.iter().map(|command| format!("{} {}", command.program, command.args.join(" "))).collect()
}

const LOOK: &str = "ansible-playbook --inventory=localhost, ../forge-ansible/galaxy/empty.yml";
const INSTALL: &str = "ansible-galaxy install -r ./requirements.yml";
const PLAY: &str = "ansible-playbook ./site.yml";

#[test]
fn what_was_installed_is_kept_in_the_cache_and_taken_from_there() {
    let host = || site().file("repository/requirements.yml", "x");
    let told = |is_kept: bool| {
        json!({ "folder": "/cache/galaxy/x", "key": "k", "is_kept": is_kept, "roles": ["/mine", "/all"], "collections": [] })
            .to_string()
    };
    let (look, keep) = ("forge-ansible/galaxy/look-outcome.json", "forge-ansible/galaxy/keep-outcome.json");
    let (commands, log) = with_cache(host().file(look, told(true)));
    assert_eq!(lines(&commands), [LOOK, PLAY], "nothing is installed");
    assert_eq!(variable(&commands[1], "ANSIBLE_ROLES_PATH"), Some("/cache/galaxy/x/roles:/mine:/all"));
    assert_eq!(variable(&commands[1], "ANSIBLE_COLLECTIONS_PATH"), Some("/cache/galaxy/x/collections"));
    assert!(log.contains("that an earlier task installed"), "{log}");

    let (commands, _) = with_cache(host().file(look, told(false)).file(keep, r#"{"folder": "/cache/galaxy/k"}"#));
    assert_eq!(lines(&commands), [LOOK, INSTALL, LOOK, PLAY]);
    assert_eq!(variable(&commands[1], "ANSIBLE_ROLES_PATH"), Some("/cache/galaxy/x/roles"), "alone");
    assert_eq!(variable(&commands[3], "ANSIBLE_ROLES_PATH"), Some("/cache/galaxy/k/roles:/mine:/all"));

    // It could not become the set: this attempt has it all the same.
    let (commands, log) = with_cache(host().file(look, told(false)).file(keep, r#"{"not_kept": "the disk is full"}"#));
    assert_eq!(variable(&commands[3], "ANSIBLE_ROLES_PATH"), Some("/cache/galaxy/x/roles:/mine:/all"));
    assert!(log.contains("the disk is full"), "{log}");

    // Not fixed, or Ansible said nothing: as without a cache.
    for told in [r#"{"not_kept": "no version"}"#, "{"] {
        let (commands, log) = with_cache(host().file(look, told));
        assert_eq!(lines(&commands), [LOOK, INSTALL, PLAY]);
        assert_eq!(variable(&commands[2], "ANSIBLE_ROLES_PATH"), None);
        assert!(log.contains("for this attempt alone: "), "{log}");
    }
    // What is half installed goes again, and the failure is that of the installation.
    let mut failing = host().file(look, told(false)).answer(Answer::code(0)).answer(Answer::code(3));
    let with_cache_too = Job { cache: Some("/cache".to_owned()), ..job(&json!({ "playbook": "site.yml" })) };
    let Err(Failure::Failed(failed)) = Ansible::execute(with_cache_too, &mut failing) else { panic!("it fails") };
    assert!(failed.message.starts_with("ansible-galaxy did not install requirements.yml: exit code 3"), "{failed:?}");
    assert_eq!(lines(&failing.commands), [LOOK, INSTALL, LOOK]);
    let plan = String::from_utf8_lossy(&failing.files["forge-ansible/galaxy/drop.json"]).into_owned();
    assert!(plan.contains("\"folder\":\"/cache/galaxy/x\""), "{plan}");

    let (commands, _) = with_cache(site());
    assert_eq!(lines(&commands), [PLAY], "without requirements nothing is looked for");
}

#[test]
fn the_recap_is_the_summary_also_of_a_failure() {
    let recap: Value = serde_json::from_str(RECAP).expect("it is JSON");
    let mut host = site().file("tmp/forge-recap.json", RECAP);
    let done = Ansible::execute(job(&json!({ "playbook": "site.yml" })), &mut host);
    let text = "2 hosts: 3 ok, 1 changed, 1 failed";
    let outcome = Outcome::new(text).exit_code(0).output(&recap).expect("it is JSON");
    let Ok(Done::Finished(finished)) = done else { panic!("{done:?}") };
    assert_eq!(finished.summary, outcome.summary);
    assert_eq!(serde_json::from_str::<Value>(&finished.output_json.expect("a recap")).expect("it is JSON"), recap);

    let mut host = site().file("tmp/forge-recap.json", RECAP).answer(Answer::code(2));
    let Err(Failure::Failed(failed)) = Ansible::execute(job(&json!({ "playbook": "site.yml" })), &mut host) else {
        panic!("2 is a failure");
    };
    assert_eq!(
        (failed.message.as_str(), failed.exit_code),
        ("failed: web-2 (2 hosts: 3 ok, 1 changed, 1 failed)", Some(2))
    );
    assert_eq!(serde_json::from_str::<Value>(&failed.output_json.expect("a recap")).expect("it is JSON"), recap);
}

#[test]
fn endings_without_a_recap() {
    let ended = |host: FakeHost| {
        let mut host = host;
        match Ansible::execute(job(&json!({ "playbook": "site.yml" })), &mut host) {
            Err(Failure::Failed(failed)) => {
                assert_eq!(failed.output_json, None);
                failed.message
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ended(site().answer(Answer::code(4))),
        "ansible-playbook ended with exit code 4 before it worked on a host: the log says why"
    );
    let killed = Answer { exit: Exit::Signal(9), ..Answer::code(0) };
    assert_eq!(ended(site().answer(killed)), "ansible-playbook was ended by SIGKILL (signal 9)");
    assert_eq!(
        ended(site().deny("ansible-playbook")),
        "denied: ansible-playbook is not in [allow].programs of plugins/fake.toml"
    );
    let missing = HostError::NotFound("not on PATH".to_owned());
    let message = ended(site().refuse(missing));
    assert!(
        message.starts_with("ansible-playbook is not on this runner (not on PATH): install ansible-core"),
        "{message}"
    );
    assert!(ended(site().file("tmp/forge-recap.json", "{")).contains("is not what Forge's callback writes"));

    let mut canceled = site();
    canceled.canceled = true;
    assert_eq!(Ansible::execute(job(&json!({ "playbook": "site.yml" })), &mut canceled), Err(Failure::Canceled));
}

#[test]
fn what_makes_no_sense_runs_nothing() {
    let invalid = |job: Job| {
        let mut host = site();
        match Ansible::execute(job, &mut host) {
            Err(Failure::Invalid(message)) if host.commands.is_empty() => message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        invalid(job(&json!({ "playbook": "gone.yml" }))),
        "[params].playbook = \"gone.yml\" is not in the repository at this commit"
    );
    assert!(invalid(job(&json!({ "playbook": "../../x.yml" }))).contains("leaves the workspace"));
    assert!(invalid(Job { checkout: None, ..job(&json!({ "playbook": "site.yml" })) }).contains("set `repository`"));
}

#[test]
fn the_schema_says_plainly_what_is_wrong() {
    let schema: Value =
        serde_json::from_str(&Ansible::describe().params_schema.expect("it has one")).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let mistakes = |params: Value| -> Vec<String> {
        validator.iter_errors(&params).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(mistakes(json!({ "playbook": "site.yml", "become": true, "tags": ["a"], "verbosity": 4 })), none);
    assert_eq!(mistakes(json!({})), [": \"playbook\" is a required property"]);
    assert_eq!(mistakes(json!({ "playbook": "a", "tags": "b" })), ["/tags: \"b\" is not of type \"array\""]);
    assert_eq!(mistakes(json!({ "playbook": "a", "forks": 0 })), ["/forks: 0 is less than the minimum of 1"]);
    assert_eq!(
        mistakes(json!({ "playbook": "a", "verbosity": 5 })),
        ["/verbosity: 5 is greater than the maximum of 4"]
    );
    assert_eq!(
        mistakes(json!({ "playbook": "a", "skip-tags": [] })),
        [": Additional properties are not allowed ('skip-tags' was unexpected)"]
    );
    // What the schema takes, the plugin reads.
    for name in schema["properties"].as_object().expect("an object").keys() {
        let mut params = json!({ "playbook": "site.yml" });
        params[name] = match schema["properties"][name]["type"].as_str().expect("a type") {
            "string" => json!("site.yml"),
            "array" => json!(["x"]),
            "boolean" => json!(true),
            _ => json!(1),
        };
        assert_eq!(mistakes(params.clone()), none);
        Ansible::execute(job(&params), &mut site()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}
