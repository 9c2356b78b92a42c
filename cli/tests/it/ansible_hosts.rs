//! Hosts that Ansible reaches over ssh with the key of the tree, and where it becomes root with the password of the tree: a real sshd,
//! a real sudo, a real daemon and runner.
//!
//! A host with users of its own is an sshd in a mount namespace, whose passwd, shadow and sudoers are the story's: nothing of the machine
//! changes. That needs root, and a machine that allows namespaces.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::ansible::{commit, counts, start_runner};
use crate::ansible_core;
use crate::ansible_sources::{PLUGIN, repository, run, template};
use crate::git_keys::{key_pair, sshd, user};
use crate::harness::{Process, SSHD, World, free_port, need, wait_for};
use crate::secrets::{encrypted, identity, key_files_in_memory, refuse_in_files};

/// Where a host's Python is; Ansible's modules run with it.
const PYTHON: &str = "/usr/bin/python3";

/// The settings of the playbook's repository: its own file says which hosts are known.
const SETTINGS: &str =
    "[ssh_connection]\nssh_common_args = -o UserKnownHostsFile=known_hosts -o GlobalKnownHostsFile=none\n";

/// Shows the connection, and the private key itself.
const KEY: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.command: printenv SSH_CONNECTION
      register: connection
      changed_when: false
    - ansible.builtin.debug:
        msg: "came by {{ connection.stdout }}"
    - ansible.builtin.debug:
        msg: "{{ lookup('ansible.builtin.pipe', command) }}"
      vars:
        command: cat "$(tr '\0' '\n' < /proc/$PPID/cmdline | sed -n 's/^--private-key=//p')"
"#;

/// Says as whom a module runs.
const WHO: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.command: id -un
      register: who
      changed_when: false
    - ansible.builtin.debug:
        msg: "it is {{ who.stdout }}"
"#;

/// The line of a `known_hosts`.
fn known(port: u16, host_key: &Path) -> String {
    let public = std::fs::read_to_string(host_key.with_extension("pub")).expect("a public key");
    format!("[127.0.0.1]:{port} {public}")
}

/// A key of the tree that logs in as `login`, encrypted; answers the private key.
fn ssh_key(world: &World, name: &str, login: &str, file: &Path) -> String {
    let private = std::fs::read_to_string(file).expect("a key");
    let sealed = encrypted(world, "shop", &private);
    world.write(
        &format!("projects/shop/keys/{name}.toml"),
        &format!("type = \"ssh\"\nlogin = {login:?}\nprivate_key = {sealed}\n"),
    );
    private
}

#[test]
fn a_playbook_works_on_a_host_over_ssh_with_the_key_of_the_tree() {
    need(PYTHON, "python3");
    let world = World::new();
    identity(&world, "");
    world.write("plugins/ansible.toml", PLUGIN);
    let (host, own, stranger) =
        (key_pair(&world, "host", ""), key_pair(&world, "own", ""), key_pair(&world, "stranger", ""));
    let passphrase = "it's \"locked\" up";
    let locked = key_pair(&world, "locked", passphrase);
    let login = user();
    let private = ssh_key(&world, "own", &login, &own);
    ssh_key(&world, "stranger", &login, &stranger);
    ssh_key(&world, "locked", &login, &locked);
    let file = world.path("tree/projects/shop/keys/locked.toml");
    let text = std::fs::read_to_string(&file).expect("the key");
    let sealed = encrypted(&world, "shop", passphrase);
    world.write("projects/shop/keys/locked.toml", &format!("{text}passphrase = {sealed}\n"));
    let port = free_port();
    // Whoever writes the playbook can have the key: what runs it is native code. The log has it masked.
    let folder = repository(
        &world,
        "plays",
        &[("site.yml", KEY), ("ansible.cfg", SETTINGS), ("known_hosts", &known(port, &host))],
    );
    for key in ["own", "stranger", "locked"] {
        let text = format!(
            "web-1 ansible_host=127.0.0.1 ansible_port={port} ansible_python_interpreter={PYTHON} ansible_remote_tmp={}\n",
            world.path("remote").display()
        );
        world.write(
            &format!("projects/shop/inventories/{key}.toml"),
            &format!("type = \"static\"\ncontent = '''\n{text}'''\nssh_key = {key:?}\n"),
        );
        template(&world, key, &format!("inventory = {key:?}"), "verbosity = 4");
    }
    let _server = sshd(&world, port, &host, &[&own, &locked]);
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "ny-1", ansible_core::path());

    let (task, log) = run(&world, &daemon, "own", 0);
    assert_eq!(task["summary"]["hosts"], json!({ "web-1": counts(3, 0, 0) }), "{log}");
    assert!(log.contains("came by 127.0.0.1"), "{log}");
    assert!(!log.contains("StrictHostKeyChecking=no"), "{log}");
    let lines: Vec<String> = private.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect();
    for line in &lines {
        assert!(!log.contains(line), "a line of the key: {log}");
    }
    assert!(log.contains("[masked]"), "the playbook did print it: {log}");
    assert_eq!(key_files_in_memory(private.trim_end()), 0, "it went with the attempt");
    for place in ["data", "ny-1", "out"] {
        refuse_in_files(&world.path(place), &lines);
    }

    // A key with a passphrase, which nobody is asked for.
    let (task, log) = run(&world, &daemon, "locked", 0);
    assert_eq!(task["summary"]["hosts"], json!({ "web-1": counts(3, 0, 0) }), "{log}");
    assert!(!log.contains(passphrase), "{log}");
    refuse_in_files(&world.path("ny-1"), &[passphrase.to_owned()]);

    // A key that the host does not know, and a host that nobody knows.
    let (task, log) = run(&world, &daemon, "stranger", 1);
    assert!(task["reason"].as_str().is_some_and(|reason| reason.starts_with("unreachable: web-1")), "{task}");
    assert!(log.contains("Permission denied"), "{log}");
    let impostor = key_pair(&world, "impostor", "");
    for (known_hosts, words) in [
        (known(port, &impostor), "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        (String::new(), "Host key verification failed"),
    ] {
        std::fs::write(folder.join("known_hosts"), known_hosts).expect("a file");
        commit(&folder);
        let (task, log) = run(&world, &daemon, "own", 1);
        assert_eq!(task["summary"]["hosts"]["web-1"]["unreachable"], 1, "{log}");
        assert!(log.contains(words), "{words}: {log}");
    }
}

/// Makes a host of this process: a user `deploy` that the key in `$KEYS` lets in, with a password for sudo. Then it is sshd.
const HOST: &str = r#"
set -eu
mount -t tmpfs -o mode=0755 tmpfs /home
mkdir -p /home/deploy /home/etc /run/sshd
printf 'root:x:0:0::/root:/bin/sh\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\ndeploy:x:4711:4711::/home/deploy:/bin/sh\n' > /home/etc/passwd
printf 'root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\ndeploy:%s:19000:0:99999:7:::\n' "$PASSWORD_HASH" > /home/etc/shadow
printf 'root ALL=(ALL) ALL\ndeploy ALL=(ALL) ALL\n' > /home/etc/sudoers
chmod 0600 /home/etc/shadow
chmod 0440 /home/etc/sudoers
cp "$KEYS" /home/etc/keys
chown 4711:4711 /home/deploy
for file in passwd shadow sudoers; do mount --bind "/home/etc/$file" "/etc/$file"; done
exec "$SSHD" -D -e -f "$CONFIG"
"#;

/// The host of [`HOST`]; nothing where the machine does not let one be made, which is said loudly.
fn host_with_sudo(world: &World, port: u16, host_key: &Path, key: &Path, password: &str) -> Option<Process> {
    let allowed = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/home"]).output();
    if user() != "root" || !allowed.is_ok_and(|output| output.status.success()) {
        let line = "\nNOT TESTED: becoming root on a host: this needs root, and a machine that lets it make a mount namespace\n";
        // Printed by hand, so that it is seen when the test passes.
        drop(std::io::stderr().write_all(line.as_bytes()));
        return None;
    }
    need("sudo", "sudo");
    need(SSHD, "openssh-server");
    need("openssl", "openssl");
    let hash = Command::new("openssl").args(["passwd", "-6", password]).output().expect("openssl runs");
    let hash = String::from_utf8(hash.stdout).expect("text");
    let config = world.path("sshd_config");
    let text = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile /home/etc/keys\nPidFile none\nUsePAM no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n",
        host_key.display()
    );
    std::fs::write(&config, text).expect("a file");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", HOST])
        .env("PASSWORD_HASH", hash.trim())
        .env("KEYS", key.with_extension("pub"))
        .env("SSHD", SSHD)
        .env("CONFIG", &config);
    let mut process = Process::start(command, &world.path("out"), "sshd");
    wait_for("sshd listens", || {
        assert!(process.exited().is_none(), "the host ended: {}", process.stderr());
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Some(process)
}

#[test]
fn a_playbook_becomes_root_with_the_password_of_the_tree() {
    need(PYTHON, "python3");
    let world = World::new();
    let port = free_port();
    let (host, own) = (key_pair(&world, "host", ""), key_pair(&world, "own", ""));
    let password = "open sesame, please";
    let Some(_server) = host_with_sudo(&world, port, &host, &own, password) else { return };
    identity(&world, "");
    world.write("plugins/ansible.toml", PLUGIN);
    ssh_key(&world, "own", "deploy", &own);
    for (name, password) in [("sudo", password), ("wrong", "not this one")] {
        let sealed = encrypted(&world, "shop", password);
        world.write(&format!("projects/shop/keys/{name}.toml"), &format!("type = \"string\"\nvalue = {sealed}\n"));
    }
    // The one with a login says whom to become, too.
    let sealed = encrypted(&world, "shop", password);
    world.write(
        "projects/shop/keys/as-deploy.toml",
        &format!("type = \"login_password\"\nlogin = \"deploy\"\npassword = {sealed}\n"),
    );
    repository(&world, "plays", &[("site.yml", WHO), ("ansible.cfg", SETTINGS), ("known_hosts", &known(port, &host))]);
    for become_key in ["sudo", "wrong", "as-deploy", "none"] {
        let key = if become_key == "none" { String::new() } else { format!("become_key = {become_key:?}\n") };
        world.write(
            &format!("projects/shop/inventories/{become_key}.toml"),
            &format!(
                "type = \"static\"\ncontent = '''\nweb-1 ansible_host=127.0.0.1 ansible_port={port} ansible_python_interpreter={PYTHON}\n'''\nssh_key = \"own\"\n{key}"
            ),
        );
        template(&world, become_key, &format!("inventory = {become_key:?}"), "become = true\nverbosity = 4\n");
    }
    template(&world, "plain", "inventory = \"none\"", "");
    // A password opens the host too, where it is asked for one.
    world.write(
        "projects/shop/inventories/by-password.toml",
        &format!(
            "type = \"static\"\ncontent = '''\nweb-1 ansible_host=127.0.0.1 ansible_port={port} ansible_python_interpreter={PYTHON} ansible_ssh_extra_args='-o PubkeyAuthentication=no'\n'''\nssh_key = \"as-deploy\"\nbecome_key = \"sudo\"\n"
        ),
    );
    template(&world, "by-password", "inventory = \"by-password\"", "become = true\nverbosity = 4\n");
    let daemon = world.daemon();
    let _runner = start_runner(&world, &daemon, "ny-1", ansible_core::path());

    for (name, who) in [("plain", "deploy"), ("sudo", "root"), ("as-deploy", "deploy"), ("by-password", "root")] {
        let (task, log) = run(&world, &daemon, name, 0);
        assert_eq!(task["summary"]["hosts"], json!({ "web-1": counts(2, 0, 0) }), "{log}");
        assert!(log.contains(&format!("it is {who}")), "{name}: {log}");
        assert!(!log.contains(password), "{log}");
    }
    for (name, words) in [("wrong", "Incorrect sudo password"), ("none", "issing sudo password")] {
        let (task, log) = run(&world, &daemon, name, 1);
        assert!(task["reason"].as_str().is_some_and(|reason| reason.starts_with("failed: web-1")), "{task}\n{log}");
        assert!(log.contains(words) && !log.contains("it is root") && !log.contains("not this one"), "{name}: {log}");
    }
    for place in ["data", "ny-1", "out"] {
        refuse_in_files(&world.path(place), &[password.to_owned()]);
    }
}
