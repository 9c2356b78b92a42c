//! forge.toml and runner.toml, with and without the environment.

use std::collections::BTreeMap;
use std::path::Path;

use forge_config::{
    Colour, Diagnostic, RegistrationTokenSource, RunAs, SourceAccess, SourceLocation, Trust, daemon_settings, env,
    runner_settings,
};
use proptest::prelude::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn drawn(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|found| found.draw(Colour::Never) + "\n").collect()
}

const DAEMON: &str = r#"
data_dir          = "/srv/forge"
web_host          = "https://forge.example.com/"
use_remote_runner = false
runner_registration_token_file = "/etc/forge/registration-token"
[listen]
api     = "10.0.0.1:8443"
insecure_http = true
metrics = "127.0.0.1:0"
[tls]
certificate_file = "/etc/forge/tls.crt"
key_file         = "/etc/forge/tls.key"
[source]
git           = "https://git.example.com/ops/forge-config.git"
branch        = "live"
directory     = "forge"
hook_secret_file = "/etc/forge/hook"
poll_interval = "10s"
allowed_signers_file = "/etc/forge/signers"
username      = "robot"
password_file = "/etc/forge/git-token"
ca_file       = "/etc/forge/git-ca.pem"
[secrets]
identity_file = "/etc/forge/identity.age"
[secrets.allow.shop]
files = ["/etc/forge/shop/*"]
env = ["SHOP"]
credentials = []
[logs]
max_bytes = "2GiB"
disk_reserve = "512MiB"
[limits]
requests_per_second = 20
[audit]
retention = "30d"
[store]
url = "sqlite"
"#;

#[test]
fn every_key_of_the_daemon_is_read() {
    let (settings, warnings) = daemon_settings("forge.toml", Some(DAEMON), &environment(&[])).expect("settings");
    assert!(warnings.is_empty(), "{}", drawn(&warnings));
    assert_eq!(settings.data_dir, Path::new("/srv/forge"));
    assert_eq!(settings.web_host.as_deref(), Some("https://forge.example.com"));
    assert!(!settings.use_remote_runner && settings.listen.insecure_http);
    assert!(matches!(settings.runner_registration_token, Some(RegistrationTokenSource::File(_))));
    assert_eq!(settings.tls.expect("tls").key_file, Path::new("/etc/forge/tls.key"));
    let url = "https://git.example.com/ops/forge-config.git".to_owned();
    assert_eq!(settings.source.location, SourceLocation::Git { url, branch: "live".into() });
    assert_eq!((settings.source.directory.as_str(), settings.source.poll_interval_ms), ("forge", 10_000));
    assert_eq!(settings.source.access.username.as_deref(), Some("robot"));
    assert_eq!(settings.source.access.password_file.as_deref(), Some(Path::new("/etc/forge/git-token")));
    assert_eq!(settings.source.access.ca_file.as_deref(), Some(Path::new("/etc/forge/git-ca.pem")));
    assert_eq!(settings.secrets.allow["shop"].env, ["SHOP"]);
    assert_eq!((settings.logs.max_bytes, settings.logs.disk_reserve_bytes), (2 << 30, 512 << 20));
    assert_eq!(settings.limits.requests_per_second, 20);
    assert_eq!(settings.audit_retention_ms, 30 * 86_400_000);
}

#[test]
fn the_daemon_has_defaults_and_needs_no_file() {
    let only = environment(&[("FORGE_SOURCE_PATH", "/etc/forge/config"), ("FORGE_UNKNOWN", "x"), ("PATH", "/bin")]);
    let (settings, warnings) = daemon_settings("forge.toml", None, &only).expect("settings");
    assert!(warnings.is_empty());
    assert_eq!(settings.data_dir, Path::new("/var/lib/forge"));
    assert_eq!((settings.listen.api.as_str(), settings.listen.metrics.as_str()), ("0.0.0.0:8443", "127.0.0.1:9464"));
    assert!(settings.use_remote_runner && settings.tls.is_none() && settings.web_host.is_none());
    assert_eq!(settings.source.location, SourceLocation::Path("/etc/forge/config".into()));
    assert_eq!((settings.source.poll_interval_ms, settings.logs.max_bytes), (30_000, 1 << 30));
    assert_eq!(settings.limits.requests_per_second, 200);
    assert_eq!(settings.audit_retention_ms, 400 * 86_400_000);
}

#[test]
fn each_variable_overrides_its_key() {
    let all = environment(&[
        (env::DATA_DIR, "/data"),
        (env::WEB_HOST, "https://other.example.com"),
        (env::USE_REMOTE_RUNNER, "true"),
        (env::RUNNER_REGISTRATION_TOKEN_FILE, "/run/token"),
        (env::LISTEN_API, "127.0.0.1:0"),
        (env::LISTEN_INSECURE_HTTP, "false"),
        (env::LISTEN_METRICS, "localhost:1"),
        (env::TLS_CERTIFICATE_FILE, "/run/crt"),
        (env::TLS_KEY_FILE, "/run/key"),
        (env::SOURCE_GIT, "ssh://git@git.example.com/config.git"),
        (env::SOURCE_BRANCH, "next"),
        (env::SOURCE_DIRECTORY, "sub/folder"),
        (env::SOURCE_HOOK_SECRET_FILE, "/run/hook"),
        (env::SOURCE_POLL_INTERVAL, "1m"),
        (env::SOURCE_ALLOWED_SIGNERS_FILE, "/run/signers"),
        (env::SOURCE_SSH_KEY_FILE, "/run/key"),
        (env::SOURCE_KNOWN_HOSTS_FILE, "/run/hosts"),
        (env::SOURCE_USERNAME, "ci"),
        (env::SOURCE_PASSWORD_FILE, "/run/password"),
        (env::SOURCE_CA_FILE, "/run/ca"),
        (env::SECRETS_IDENTITY_FILE, "/run/identity"),
        ("FORGE_SECRETS_ALLOW_SHOP_FILES", "/run/a, /run/b/*"),
        ("FORGE_SECRETS_ALLOW_NEW_SHOP_CREDENTIALS", "one"),
        (env::LOGS_MAX_BYTES, "1MiB"),
        (env::LOGS_DISK_RESERVE, "2MiB"),
        (env::LIMITS_REQUESTS_PER_SECOND, "0"),
        (env::AUDIT_RETENTION, "0s"),
        (env::WEBHOOKS_CA_FILE, "/run/webhook-ca"),
        (env::STORE_URL, "sqlite"),
    ]);
    let (settings, _) = daemon_settings("forge.toml", Some(DAEMON), &all).expect("settings");
    assert_eq!(settings.data_dir, Path::new("/data"));
    assert_eq!(settings.web_host.as_deref(), Some("https://other.example.com"));
    assert!(settings.use_remote_runner && !settings.listen.insecure_http);
    assert_eq!((settings.listen.api.as_str(), settings.listen.metrics.as_str()), ("127.0.0.1:0", "localhost:1"));
    assert_eq!(settings.tls.expect("tls").certificate_file, Path::new("/run/crt"));
    let url = "ssh://git@git.example.com/config.git".to_owned();
    assert_eq!(settings.source.location, SourceLocation::Git { url, branch: "next".into() });
    assert_eq!((settings.source.directory.as_str(), settings.source.poll_interval_ms), ("sub/folder", 60_000));
    let access = SourceAccess {
        ssh_key_file: Some("/run/key".into()),
        known_hosts_file: Some("/run/hosts".into()),
        username: Some("ci".into()),
        password_file: Some("/run/password".into()),
        ca_file: Some("/run/ca".into()),
    };
    assert_eq!(settings.source.access, access);
    assert_eq!(settings.secrets.allow["shop"].files, ["/run/a", "/run/b/*"]);
    assert_eq!(settings.secrets.allow["shop"].env, ["SHOP"]);
    assert_eq!(settings.secrets.allow["new-shop"].credentials, ["one"]);
    assert_eq!((settings.logs.max_bytes, settings.logs.disk_reserve_bytes), (1 << 20, 2 << 20));
    assert_eq!(settings.limits.requests_per_second, 0);
    assert_eq!(settings.audit_retention_ms, 0);
    assert_eq!(settings.webhooks.ca_file.as_deref(), Some(Path::new("/run/webhook-ca")));
}

#[test]
fn the_daemons_mistakes_show_at_once() {
    let text = r#"
web_hots = "https://forge.example.com"
runner_registration_token = "hunter2"
runner_registration_token_file = "/etc/forge/token"
[listen]
api = "8443"
[tls]
key_file = "/etc/forge/tls.key"
[source]
path = "/a"
git = "https://me:hunter2@git.example.com/a.git"
poll_interval = "soon"
[secrets.allow.Shop]
files = ["relative"]
[store]
url = "postgres://me:hunter2@db/forge"
"#;
    let found =
        daemon_settings("forge.toml", Some(text), &environment(&[(env::LOGS_MAX_BYTES, "1GB")])).expect_err("wrong");
    let shown = drawn(&found);
    for part in [
        "forge.toml:2:1: error[FORGE-C004]: unknown key `web_hots`",
        "did you mean `web_host`?",
        "forge.toml:3:29: error[FORGE-C024]: `runner_registration_token` and `runner_registration_token_file` are both set",
        "forge.toml:6:7: error[FORGE-C028]: `listen.api` must be an address and a port",
        "error[FORGE-C006]: `tls.certificate_file` is missing",
        "`source.path` and `source.git` are both set",
        "`poll_interval` is no duration",
        "`secrets.allow.Shop` names no project",
        "`store.url` is no store",
        "FORGE_LOGS_MAX_BYTES:1:1: error[FORGE-C007]: `max_bytes` is no size: \"GB\" is no unit",
    ] {
        assert!(shown.contains(part), "{part}\n\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_opens_a_repository_must_go_with_where_it_is() {
    let of = |source: &str| daemon_settings("forge.toml", Some(&format!("[source]\n{source}")), &environment(&[]));
    let (_, warnings) = of("git = \"ssh://git@h/c\"\nssh_key_file = \"/k\"\nknown_hosts_file = \"/h\"").expect("fine");
    assert!(warnings.is_empty(), "{}", drawn(&warnings));
    let (_, warnings) = of("git = \"ssh://git@h/c\"\npassword_file = \"/p\"").expect("fine");
    assert!(drawn(&warnings).contains("forge.toml:3:17: warning[FORGE-C029]: `source.password_file` has no effect"));
    let (_, warnings) = of("git = \"https://h/c\"\nusername = \"me\"").expect("fine");
    assert!(drawn(&warnings).contains("without `source.password_file`"), "{}", drawn(&warnings));
    let refused = of("git = \"https://h/c\"\nusername = \"a\\nb\"\npassword_file = \"/p\"").expect_err("two lines");
    assert!(drawn(&refused).contains("one line of text"), "{}", drawn(&refused));
    // A folder cannot keep what the key promises.
    let refused = of("path = \"/a\"\nallowed_signers_file = \"/s\"").expect_err("a folder is not signed");
    assert!(drawn(&refused).contains("forge.toml:3:24: error[FORGE-C024]"), "{}", drawn(&refused));
}

#[test]
fn an_inline_token_is_taken_with_a_warning() {
    let text = "runner_registration_token = \"hunter2\"\n[source]\npath = \"/a\"";
    let (settings, warnings) = daemon_settings("forge.toml", Some(text), &environment(&[])).expect("settings");
    let shown = drawn(&warnings);
    assert!(shown.contains("forge.toml:1:29: warning[FORGE-C026]") && !shown.contains("hunter2"), "{shown}");
    assert!(!format!("{settings:?}").contains("hunter2"));
    match settings.runner_registration_token {
        Some(RegistrationTokenSource::Inline(token)) => assert_eq!(token.reveal(), "hunter2"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_http_stays_near() {
    for (api, accepted) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("localhost:1", true),
        ("192.168.1.1:1", true),
        ("[fd00::1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("8.8.8.8:1", false),
    ] {
        let text = format!("listen = {{ api = \"{api}\", insecure_http = true }}\nsource = {{ path = \"/a\" }}");
        let read = daemon_settings("forge.toml", Some(&text), &environment(&[]));
        assert_eq!(read.is_ok(), accepted, "{api}");
    }
}

#[test]
fn a_source_must_be_named() {
    let found = daemon_settings("forge.toml", Some(""), &environment(&[])).expect_err("no source");
    assert!(drawn(&found).contains("FORGE_SOURCE_PATH"), "{}", drawn(&found));
}

const RUNNER: &str = r#"
web_host        = "https://forge.example.com"
tmp_path        = "/srv/runner"
ssh_config_path = "/etc/ssh/config"
git_client      = "/usr/bin/git"
run_as          = "70000-70099"
keep_failed_workspaces = true
disk_reserve    = "2GiB"
ca_file         = "/etc/forge/ca.pem"
[runner]
name               = "new-york-1"
token_file         = "/srv/token"
private_key_file   = "/srv/private.key"
max_parallel_tasks = 4
one_off            = true
"#;

#[test]
fn every_key_of_a_runner_is_read() {
    let (settings, warnings) = runner_settings("runner.toml", Some(RUNNER), &environment(&[])).expect("settings");
    assert!(warnings.is_empty());
    assert_eq!(settings.web_host, "https://forge.example.com");
    assert_eq!(settings.run_as, Some(RunAs::Range { first: 70_000, last: 70_099 }));
    assert!(settings.keep_failed_workspaces);
    assert_eq!(settings.disk_reserve_bytes, 2 << 30);
    assert_eq!(settings.trust, Trust::CaFile("/etc/forge/ca.pem".into()));
    assert_eq!(settings.runner.name.as_ref().map(|name| name.as_str()), Some("new-york-1"));
    assert_eq!((settings.runner.max_parallel_tasks, settings.runner.one_off), (4, true));
    assert!(settings.token.is_none() && settings.registration_token.is_none());
}

#[test]
fn a_runner_needs_no_file() {
    let fingerprint = format!("sha256:{}", "ab".repeat(32));
    let all = environment(&[
        ("FORGE_WEB_ROOT", "https://127.0.0.1:8443/"),
        ("FORGE_TMP_PATH", "/tmp/runner"),
        ("FORGE_SSH_CONFIG_PATH", "/ssh"),
        ("FORGE_GIT_CLIENT", "git2"),
        ("FORGE_RUN_AS", "forge-job"),
        ("FORGE_KEEP_FAILED_WORKSPACES", "true"),
        ("FORGE_DISK_RESERVE", "1MiB"),
        ("FORGE_CA_FINGERPRINT", &fingerprint),
        ("FORGE_RUNNER_NAME", "one"),
        ("FORGE_RUNNER_TOKEN_FILE", "/t"),
        ("FORGE_RUNNER_TOKEN", "hunter2\n"),
        ("FORGE_RUNNER_REGISTRATION_TOKEN", "hunter3"),
        ("FORGE_RUNNER_MAX_PARALLEL_TASKS", "2"),
        ("FORGE_RUNNER_ONE_OFF", "true"),
        ("FORGE_LISTEN_API", "not a runner's"),
    ]);
    let (settings, _) = runner_settings("runner.toml", None, &all).expect("settings");
    assert_eq!((settings.web_host.as_str(), settings.git_client.as_str()), ("https://127.0.0.1:8443", "git2"));
    assert_eq!(settings.trust, Trust::Fingerprint(forge_config::Digest([0xab; 32])));
    assert_eq!(settings.run_as, Some(RunAs::User("forge-job".into())));
    assert!(settings.keep_failed_workspaces);
    assert_eq!(settings.disk_reserve_bytes, 1 << 20);
    assert_eq!(settings.runner.token_file, Path::new("/t"));
    assert_eq!(settings.runner.private_key_file, Path::new("/tmp/runner/private.key"));
    assert_eq!((settings.runner.max_parallel_tasks, settings.runner.one_off), (2, true));
    assert_eq!(settings.token.as_ref().map(|token| token.reveal()), Some("hunter2"));
    assert_eq!(settings.registration_token.as_ref().map(|token| token.reveal()), Some("hunter3"));
    assert!(!format!("{settings:?}").contains("hunter"));
}

#[test]
fn a_variable_that_says_whom_to_trust_wins_over_the_file() {
    let fingerprint = format!("sha256:{}", "ab".repeat(32));
    let text = format!("web_host = \"https://a\"\nca_fingerprint = \"{fingerprint}\"\n");
    fn read(text: &str, variables: &[(&str, &str)]) -> Result<forge_config::RunnerSettings, String> {
        let read = runner_settings("runner.toml", Some(text), &environment(variables));
        read.map(|(settings, _)| settings).map_err(|found| drawn(&found))
    }
    let settings = read(&text, &[("FORGE_CA_FILE", "/ca.pem")]).expect("settings");
    assert_eq!(settings.trust, Trust::CaFile("/ca.pem".into()));
    let text = "web_host = \"https://a\"\nca_file = \"/ca.pem\"\n";
    let settings = read(text, &[("FORGE_CA_FINGERPRINT", &fingerprint)]).expect("settings");
    assert_eq!(settings.trust, Trust::Fingerprint(forge_config::Digest([0xab; 32])));
    let both = [("FORGE_CA_FILE", "/ca.pem"), ("FORGE_CA_FINGERPRINT", fingerprint.as_str())];
    assert!(read("web_host = \"https://a\"\n", &both).expect_err("two").contains("are both set"));
}

#[test]
fn a_runners_mistakes_show_at_once() {
    let text = r#"
web_host = "http://forge.example.com"
ca_file = "/ca"
ca_fingerprint = "sha256:12"
run_as = "root"
token = "hunter2"
[runner]
name = "New York"
max_parallel_tasks = "many"
"#;
    let shown = drawn(&runner_settings("runner.toml", Some(text), &environment(&[])).expect_err("wrong"));
    for part in [
        "runner.toml:2:12: error[FORGE-C028]: `web_host` is refused: Forge's API is HTTPS only",
        "hint: write \"https://forge.example.com\"",
        "`ca_file` and `ca_fingerprint` are both set",
        "a job must not run as root",
        "unknown key `token`",
        "hint: write \"new-york\"",
        "must be an integer, not a string",
    ] {
        assert!(shown.contains(part), "{part}\n\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    let missing = drawn(&runner_settings("runner.toml", None, &environment(&[])).expect_err("no web_host"));
    assert!(missing.contains("FORGE_WEB_ROOT"), "{missing}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}", value in ".{0,40}", index in 0..env::ALL.len()) {
        let one = environment(&[(env::ALL[index].0, &value)]);
        let _ = daemon_settings("forge.toml", Some(&text), &one).map_err(|found| drawn(&found));
        let _ = runner_settings("runner.toml", Some(&text), &one).map_err(|found| drawn(&found));
        let _ = daemon_settings("forge.toml", None, &one).map_err(|found| drawn(&found));
    }
}
