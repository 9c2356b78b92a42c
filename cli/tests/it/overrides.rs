//! Every environment variable of forge.toml and runner.toml wins over its key: one row each, and no variable without a row.
//!
//! `forge doctor` is the witness, since it reads settings as a daemon and a runner do and says what it sees. Each variable gets a
//! value that shows; without the variable nothing of the kind is said.

use std::collections::BTreeSet;

use forge_config::env;

use crate::harness::{Finished, World, utf8};

/// A variable, its value, and what is said then.
type Row = (&'static str, String, &'static str);

fn rows_of_the_daemon(world: &World) -> Vec<Row> {
    let file = utf8(&world.path("registration-token")).to_owned();
    let row = |name, value: &str, says| (name, value.to_owned(), says);
    vec![
        (env::DATA_DIR, file, "registration-token is no folder"),
        row(env::WEB_HOST, "forge.example.com", "web_host"),
        row(env::USE_REMOTE_RUNNER, "perhaps", "FORGE_USE_REMOTE_RUNNER:1:1"),
        row(env::RUNNER_REGISTRATION_TOKEN_FILE, "/nowhere/registration", "/nowhere/registration is not there"),
        row(env::RUNNER_REGISTRATION_TOKEN, "inline", "`runner_registration_token_file` are both set"),
        row(env::LISTEN_API, "somewhere", "`listen.api` must be an address"),
        row(env::LISTEN_INSECURE_HTTP, "perhaps", "FORGE_LISTEN_INSECURE_HTTP:1:1"),
        row(env::LISTEN_METRICS, "somewhere", "`listen.metrics` must be an address"),
        row(env::TLS_CERTIFICATE_FILE, "/nowhere/crt", "`tls.key_file` is missing"),
        row(env::TLS_KEY_FILE, "/nowhere/key", "`tls.certificate_file` is missing"),
        row(env::SOURCE_PATH, "/nowhere/tree", "/nowhere/tree is no folder"),
        row(env::SOURCE_GIT, "https://git.example.com/tree.git", "`source.git` are both set"),
        row(env::SOURCE_BRANCH, "-x", "source.branch"),
        row(env::SOURCE_DIRECTORY, "../up", "source.directory"),
        row(env::SOURCE_HOOK_SECRET_FILE, "/nowhere/hook", "/nowhere/hook is not there"),
        row(env::SOURCE_POLL_INTERVAL, "soon", "FORGE_SOURCE_POLL_INTERVAL:1:1"),
        row(env::SOURCE_ALLOWED_SIGNERS_FILE, "/nowhere/signers", "`source.allowed_signers_file` needs `source.git`"),
        row(env::SOURCE_SSH_KEY_FILE, "/nowhere/ssh-key", "/nowhere/ssh-key is not there"),
        row(env::SOURCE_KNOWN_HOSTS_FILE, "/nowhere/hosts", "/nowhere/hosts cannot be read"),
        row(env::SOURCE_USERNAME, "robot", "`source.username` has no effect"),
        row(env::SOURCE_PASSWORD_FILE, "/nowhere/password", "/nowhere/password is not there"),
        row(env::SOURCE_CA_FILE, "/nowhere/git-ca", "/nowhere/git-ca cannot be read"),
        row(env::SECRETS_IDENTITY_FILE, "/nowhere/identity", "/nowhere/identity is not there"),
        row(env::LOGS_MAX_BYTES, "1B", "logs.max_bytes"),
        row(env::LOGS_DISK_RESERVE, "1000000GiB", "are needed"),
        row(env::LIMITS_REQUESTS_PER_SECOND, "-1", "FORGE_LIMITS_REQUESTS_PER_SECOND:1:1"),
        row(env::AUDIT_RETENTION, "long", "FORGE_AUDIT_RETENTION:1:1"),
        row(env::WEBHOOKS_CA_FILE, "/nowhere/webhook-ca", "/nowhere/webhook-ca cannot be read"),
        row(env::STORE_URL, "postgres://nowhere", "store.url"),
    ]
}

fn rows_of_the_runner(world: &World) -> Vec<Row> {
    let file = utf8(&world.path("registration-token")).to_owned();
    let row = |name, value: &str, says| (name, value.to_owned(), says);
    vec![
        row(env::WEB_ROOT, "http://forge.example.com", "HTTPS only"),
        (env::TMP_PATH, file, "registration-token is no folder"),
        row(env::SSH_CONFIG_PATH, "/nowhere/ssh", "ssh_config_path /nowhere/ssh"),
        row(env::GIT_CLIENT, "no-such-git", "no program no-such-git"),
        row(env::RUN_AS, "root", "`run_as` is refused"),
        row(env::KEEP_FAILED_WORKSPACES, "perhaps", "FORGE_KEEP_FAILED_WORKSPACES:1:1"),
        row(env::DISK_RESERVE, "1000000GiB", "are needed"),
        row(env::CA_FILE, "/nowhere/ca.pem", "/nowhere/ca.pem"),
        row(env::CA_FINGERPRINT, "sha256:ab", "`ca_fingerprint` is refused"),
        row(env::RUNNER_NAME, "New York", "`runner.name` is refused"),
        row(env::RUNNER_TOKEN_FILE, "/nowhere/token", "no token at /nowhere/token"),
        row(env::RUNNER_TOKEN, "given", "no private key at"),
        row(env::RUNNER_PRIVATE_KEY_FILE, "/etc/hostname", "private_key_file /etc/hostname"),
        row(env::RUNNER_MAX_PARALLEL_TASKS, "many", "FORGE_RUNNER_MAX_PARALLEL_TASKS:1:1"),
        row(env::RUNNER_ONE_OFF, "perhaps", "FORGE_RUNNER_ONE_OFF:1:1"),
        row(env::RUNNER_REGISTRATION_TOKEN, "given", "its first start registers it"),
    ]
}

#[test]
fn every_variable_wins_over_its_key() {
    let world = World::new();
    let runner =
        format!("web_host = \"https://127.0.0.1:1\"\ntmp_path = {:?}\n[runner]\nname = \"ny-1\"\n", world.path("tmp"));
    std::fs::write(world.path("runner.toml"), runner).expect("settings");
    let all = [("forge.toml", rows_of_the_daemon(&world)), ("runner.toml", rows_of_the_runner(&world))];
    for (config, rows) in &all {
        let said = |variable: Option<(&str, &str)>| {
            let mut command = world.forge(&["doctor", "--config", config]);
            command.envs(variable);
            Finished::of(command, b"").text()
        };
        let without = said(None);
        for (name, value, expected) in rows {
            assert!(!without.contains(expected), "{name}: {expected:?} is said without it:\n{without}");
            let with = said(Some((name, value)));
            assert!(with.contains(expected), "{name}={value}: {expected:?} is missing:\n{with}");
        }
    }
    let rows = all.iter().flat_map(|(_, rows)| rows.iter().map(|(name, ..)| *name));
    let listed: BTreeSet<&str> = env::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows.collect::<BTreeSet<_>>(), listed, "every variable has a row");
}

#[test]
fn the_guide_names_every_variable() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/install.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    for (name, _) in env::ALL {
        assert!(guide.contains(&format!("`{name}`")), "{name} is missing in docs/guides/install.md");
    }
}
