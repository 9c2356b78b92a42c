//! Where Ansible's material comes from: inventories that are files of a repository, vaults with several passwords, and roles and
//! collections that stay in the runner's cache. A real daemon, a real runner, the real Ansible.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::ansible::{commit, counts, git, start_runner};
use crate::ansible_core;
use crate::harness::{Daemon, World, utf8};
use crate::secrets::{encrypted, identity};

/// Says what the inventory says of each host.
const PLACES: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ inventory_hostname }} is {{ color }} in {{ place }}"
"#;

/// Looks whether each vault holds what it should, and prints none of it.
const VAULTS: &str = r#"
- hosts: all
  gather_facts: false
  vars_files: [common.yml, staging.yml, production.yml]
  tasks:
    - ansible.builtin.assert:
        that: (common + staging + production) | hash('sha1') == 'COMMON-STAGING-PRODUCTION' | hash('sha1')
"#;

/// Uses a role and a filter of requirements.
const GALAXY: &str = r#"
- hosts: all
  gather_facts: false
  roles: [announce]
  tasks:
    - ansible.builtin.debug:
        msg: "{{ 'the filter ran' | acme.tools.shout }}"
"#;

/// An inventory in YAML.
const EAST: &str = r#"
all:
  hosts: { east-1: { color: red }, east-2: { color: blue } }
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
"#;

/// An inventory that is a program.
const ASKED: &str = r#"#!/bin/sh
echo '{"all": {"hosts": ["asked-1"]}, "_meta": {"hostvars": {"asked-1": {"color": "white", "place": "an answer",
    "ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}}}}'
"#;

/// What lets a tree run playbooks.
pub(crate) const PLUGIN: &str =
    "source = \"builtin:ansible\"\n[allow]\nprograms = [\"ansible-playbook\", \"ansible-galaxy\"]\n";

/// Hosts of an inventory work on the runner itself.
const HERE: &str = "[all:vars]\nansible_connection=local\nansible_python_interpreter={{ ansible_playbook_python }}\n";

/// A git repository with `files` in the folder `name` of the world, which the tree names `name`.
pub(crate) fn repository(world: &World, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = origin(world, name, files);
    let url = format!("url = \"file://{}\"\nbranch = \"main\"\n", folder.display());
    world.write(&format!("projects/shop/repositories/{name}.toml"), &url);
    folder
}

/// The same, which the tree does not know.
fn origin(world: &World, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = world.path(name);
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    commit(&folder);
    folder
}

/// Writes a template that runs `site.yml` of the repository `plays`; `more` goes before `[params]`.
pub(crate) fn template(world: &World, name: &str, more: &str, params: &str) {
    world.write(
        &format!("projects/shop/templates/{name}.toml"),
        &format!("executor = \"ansible\"\nrepository = \"plays\"\n{more}\n[params]\nplaybook = \"site.yml\"\ncolor = false\n{params}\n"),
    );
}

/// Runs a template of the project `shop` to its end; answers the task and its log.
pub(crate) fn run(world: &World, daemon: &Daemon, template: &str, code: i32) -> (Value, String) {
    let template = format!("shop/{template}");
    let done = world.ask(daemon, &["run", &template, "--output", "json"]).expect_code(code);
    (done.json(), done.stderr)
}

#[test]
fn an_inventory_is_a_file_of_the_template_s_repository_or_of_its_own() {
    let world = World::new();
    world.write("plugins/ansible.toml", PLUGIN);
    let hosts = |name: &str| format!("{name}\n{HERE}");
    repository(
        &world,
        "plays",
        &[
            ("site.yml", PLACES),
            ("hosts/own.ini", &hosts("own-1")),
            // What lies beside an inventory belongs to it.
            ("hosts/group_vars/all.yml", "color: green\nplace: the plays\n"),
        ],
    );
    let fleet =
        repository(&world, "fleet", &[("east/hosts.yml", EAST), ("east/group_vars/all.yml", "place: the fleet\n")]);
    // One that is asked.
    let script = fleet.join("ask.sh");
    std::fs::write(&script, ASKED).expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its own file");
    let inventory = |name: &str, text: &str| world.write(&format!("projects/shop/inventories/{name}.toml"), text);
    inventory("own", "type = \"file\"\npath = \"hosts/own.ini\"\n");
    inventory("east", "type = \"file\"\nrepository = \"fleet\"\npath = \"east/hosts.yml\"\n");
    // A folder is an inventory, too.
    inventory("folder", "type = \"file\"\nrepository = \"fleet\"\npath = \"east\"\n");
    inventory("asked", "type = \"file\"\nrepository = \"fleet\"\npath = \"ask.sh\"\n");
    inventory("gone", "type = \"file\"\npath = \"hosts/gone.ini\"\n");
    inventory("out", "type = \"file\"\nrepository = \"fleet\"\npath = \"out\"\n");
    for name in ["own", "east", "folder", "asked", "gone", "out"] {
        template(&world, name, &format!("inventory = \"{name}\""), "");
    }
    std::os::unix::fs::symlink("/etc/hosts", fleet.join("out")).expect("a link");
    commit(&fleet);
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "ny-1", ansible_core::path());

    let (task, log) = run(&world, &daemon, "own", 0);
    assert_eq!(task["summary"]["hosts"], json!({ "own-1": counts(1, 0, 0) }));
    assert!(log.contains("own-1 is green in the plays"), "{log}");
    for name in ["east", "folder"] {
        let (task, log) = run(&world, &daemon, name, 0);
        assert_eq!(task["summary"]["hosts"], json!({ "east-1": counts(1, 0, 0), "east-2": counts(1, 0, 0) }));
        assert!(log.contains("east-1 is red in the fleet") && log.contains("east-2 is blue in the fleet"), "{log}");
    }
    let (_, log) = run(&world, &daemon, "asked", 0);
    assert!(log.contains("asked-1 is white in an answer"), "{log}");
    // The branch of the inventory's repository moves on without the template's.
    std::fs::write(fleet.join("east/group_vars/all.yml"), "place: the new fleet\n").expect("a file");
    commit(&fleet);
    assert!(run(&world, &daemon, "east", 0).1.contains("east-1 is red in the new fleet"));

    for (name, path) in [("gone", "hosts/gone.ini"), ("out", "out")] {
        let (task, log) = run(&world, &daemon, name, 1);
        let reason = task["reason"].as_str().expect("a reason");
        assert!(
            reason.contains(&format!("the inventory {name:?} is the file {path:?}, which is not in")),
            "{reason}\n{log}"
        );
    }
}

/// Encrypts a file of a repository with the real ansible-vault.
fn encrypt(world: &World, file: &Path, id: &str, password: &str) {
    let password_file = world.path("vault-password");
    std::fs::write(&password_file, password).expect("a file");
    let output = Command::new("ansible-vault")
        .args([
            "encrypt",
            "--encrypt-vault-id",
            id,
            "--vault-id",
            &format!("{id}@{}", password_file.display()),
            utf8(file),
        ])
        .env("PATH", ansible_core::path())
        .env("HOME", world.path(""))
        .output()
        .expect("ansible-vault starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(password_file).expect("removed");
}

#[test]
fn each_vault_opens_with_the_password_of_its_id() {
    let world = World::new();
    identity(&world, "");
    world.write("plugins/ansible.toml", PLUGIN);
    let folder = repository(
        &world,
        "plays",
        &[
            ("site.yml", VAULTS),
            ("common.yml", "common: COMMON-\n"),
            ("staging.yml", "staging: STAGING-\n"),
            ("production.yml", "production: PRODUCTION\n"),
        ],
    );
    // Without an id, as `default` is; a password that is text, and one with a login beside it.
    let passwords = [
        ("default", "common", "hunter two"),
        ("staging", "staging", "staging's own"),
        ("production", "production", "PRODUCTION's \"own\""),
    ];
    for (id, name, password) in passwords {
        encrypt(&world, &folder.join(format!("{name}.yml")), id, password);
        let sealed = encrypted(&world, "shop", password);
        let key = if id == "staging" {
            format!("type = \"login_password\"\nlogin = \"vault\"\npassword = {sealed}\n")
        } else {
            format!("type = \"string\"\nvalue = {sealed}\n")
        };
        world.write(&format!("projects/shop/keys/{name}.toml"), &key);
    }
    commit(&folder);
    world
        .write("projects/shop/inventories/here.toml", &format!("type = \"static\"\ncontent = '''\nweb-1\n{HERE}'''\n"));
    let keys = |keys: &str| format!("inventory = \"here\"\nvault_keys = {{ {keys} }}");
    let all = "default = \"common\", staging = \"staging\", production = \"production\"";
    template(&world, "all", &keys(all), "verbosity = 4");
    template(&world, "two", &keys("default = \"common\", staging = \"staging\""), "");
    template(&world, "wrong", &keys(&all.replace("\"production\"", "\"staging\"")), "");
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "ny-1", ansible_core::path());

    let (task, log) = run(&world, &daemon, "all", 0);
    assert_eq!(task["summary"]["hosts"], json!({ "web-1": counts(1, 0, 0) }), "{log}");
    for (_, _, password) in passwords {
        assert!(!log.contains(password) && !task.to_string().contains(password), "{log}");
    }
    for (name, words) in [("two", "no vault secrets"), ("wrong", "ecryption failed")] {
        let (task, log) = run(&world, &daemon, name, 1);
        assert_eq!(task["state"], "failed", "{log}");
        assert!(log.contains(words), "{name}: {log}");
    }
}

#[test]
fn roles_and_collections_stay_in_the_runner_s_cache() {
    let world = World::new();
    world.write("plugins/ansible.toml", PLUGIN);
    let role = origin(
        &world,
        "role",
        &[
            ("tasks/main.yml", "- ansible.builtin.debug:\n    msg: the role ran\n"),
            ("meta/main.yml", "dependencies: []\n"),
        ],
    );
    git(&role, &["tag", "v1.0.0"]);
    let galaxy = "namespace: acme\nname: tools\nversion: 1.0.0\nreadme: README.md\nauthors: [Ada]\nrepository: \"\"\n";
    let filter = "class FilterModule:\n    def filters(self):\n        return {'shout': lambda text: text.upper()}\n";
    let collection = origin(
        &world,
        "collection",
        &[("galaxy.yml", galaxy), ("README.md", "A filter.\n"), ("plugins/filter/shout.py", filter)],
    );
    git(&collection, &["tag", "1.0.0"]);
    let requirements = format!(
        "roles:\n- name: announce\n  src: file://{}\n  scm: git\n  version: v1.0.0\ncollections:\n- name: file://{}\n  type: git\n  version: 1.0.0\n",
        role.display(),
        collection.display()
    );
    repository(&world, "plays", &[("site.yml", GALAXY), ("requirements.yml", &requirements)]);
    world
        .write("projects/shop/inventories/here.toml", &format!("type = \"static\"\ncontent = '''\nweb-1\n{HERE}'''\n"));
    template(&world, "deploy", "inventory = \"here\"", "");
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "ny-1", ansible_core::path());

    let (_, log) = run(&world, &daemon, "deploy", 0);
    assert!(log.contains("installing requirements.yml with ansible-galaxy"), "{log}");
    assert!(log.contains("the role ran") && log.contains("THE FILTER RAN"), "{log}");
    // Nothing can be fetched any more.
    for folder in [role, collection] {
        std::fs::remove_dir_all(folder).expect("removed");
    }
    let (_, log) = run(&world, &daemon, "deploy", 0);
    assert!(log.contains("taking roles and collections that an earlier task installed"), "{log}");
    assert!(!log.contains("installing requirements.yml"), "{log}");
    assert!(log.contains("the role ran") && log.contains("THE FILTER RAN"), "{log}");
}
