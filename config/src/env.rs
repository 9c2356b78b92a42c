//! The environment variables that Forge reads, each a documented constant. Other `FORGE_` variables are ignored, and so is
//! an empty one.

/// Declares the variables and the list of them.
macro_rules! variables {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// Every variable with what it is for.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc),+).trim_ascii())),+];
    };
}

variables! {
    /// `data_dir` of forge.toml.
    DATA_DIR = "FORGE_DATA_DIR";
    /// `web_host` of forge.toml.
    WEB_HOST = "FORGE_WEB_HOST";
    /// `use_remote_runner` of forge.toml: `true` or `false`.
    USE_REMOTE_RUNNER = "FORGE_USE_REMOTE_RUNNER";
    /// `runner_registration_token_file` of forge.toml.
    RUNNER_REGISTRATION_TOKEN_FILE = "FORGE_RUNNER_REGISTRATION_TOKEN_FILE";
    /// `runner_registration_token` of forge.toml; for a runner, the token that it registers with.
    RUNNER_REGISTRATION_TOKEN = "FORGE_RUNNER_REGISTRATION_TOKEN";
    /// `[listen] api` of forge.toml.
    LISTEN_API = "FORGE_LISTEN_API";
    /// `[listen] insecure_http` of forge.toml: `true` or `false`.
    LISTEN_INSECURE_HTTP = "FORGE_LISTEN_INSECURE_HTTP";
    /// `[listen] metrics` of forge.toml.
    LISTEN_METRICS = "FORGE_LISTEN_METRICS";
    /// `[tls] certificate_file` of forge.toml.
    TLS_CERTIFICATE_FILE = "FORGE_TLS_CERTIFICATE_FILE";
    /// `[tls] key_file` of forge.toml.
    TLS_KEY_FILE = "FORGE_TLS_KEY_FILE";
    /// `[source] path` of forge.toml.
    SOURCE_PATH = "FORGE_SOURCE_PATH";
    /// `[source] git` of forge.toml.
    SOURCE_GIT = "FORGE_SOURCE_GIT";
    /// `[source] branch` of forge.toml.
    SOURCE_BRANCH = "FORGE_SOURCE_BRANCH";
    /// `[source] directory` of forge.toml.
    SOURCE_DIRECTORY = "FORGE_SOURCE_DIRECTORY";
    /// `[source] hook_secret_file` of forge.toml.
    SOURCE_HOOK_SECRET_FILE = "FORGE_SOURCE_HOOK_SECRET_FILE";
    /// `[source] poll_interval` of forge.toml.
    SOURCE_POLL_INTERVAL = "FORGE_SOURCE_POLL_INTERVAL";
    /// `[source] allowed_signers_file` of forge.toml.
    SOURCE_ALLOWED_SIGNERS_FILE = "FORGE_SOURCE_ALLOWED_SIGNERS_FILE";
    /// `[source] ssh_key_file` of forge.toml.
    SOURCE_SSH_KEY_FILE = "FORGE_SOURCE_SSH_KEY_FILE";
    /// `[source] known_hosts_file` of forge.toml.
    SOURCE_KNOWN_HOSTS_FILE = "FORGE_SOURCE_KNOWN_HOSTS_FILE";
    /// `[source] username` of forge.toml.
    SOURCE_USERNAME = "FORGE_SOURCE_USERNAME";
    /// `[source] password_file` of forge.toml.
    SOURCE_PASSWORD_FILE = "FORGE_SOURCE_PASSWORD_FILE";
    /// `[source] ca_file` of forge.toml.
    SOURCE_CA_FILE = "FORGE_SOURCE_CA_FILE";
    /// `[secrets] identity_file` of forge.toml. `FORGE_SECRETS_ALLOW_<PROJECT>_FILES`, `_ENV` and `_CREDENTIALS` are the lists of
    /// `[secrets.allow.<project>]`, with commas between the values and `_` for each `-` of the project's name.
    SECRETS_IDENTITY_FILE = "FORGE_SECRETS_IDENTITY_FILE";
    /// `[logs] max_bytes` of forge.toml.
    LOGS_MAX_BYTES = "FORGE_LOGS_MAX_BYTES";
    /// `[logs] disk_reserve` of forge.toml.
    LOGS_DISK_RESERVE = "FORGE_LOGS_DISK_RESERVE";
    /// `[limits] requests_per_second` of forge.toml.
    LIMITS_REQUESTS_PER_SECOND = "FORGE_LIMITS_REQUESTS_PER_SECOND";
    /// `[audit] retention` of forge.toml.
    AUDIT_RETENTION = "FORGE_AUDIT_RETENTION";
    /// `[webhooks] ca_file` of forge.toml.
    WEBHOOKS_CA_FILE = "FORGE_WEBHOOKS_CA_FILE";
    /// `[store] url` of forge.toml.
    STORE_URL = "FORGE_STORE_URL";

    /// `web_host` of runner.toml.
    WEB_ROOT = "FORGE_WEB_ROOT";
    /// `tmp_path` of runner.toml.
    TMP_PATH = "FORGE_TMP_PATH";
    /// `ssh_config_path` of runner.toml.
    SSH_CONFIG_PATH = "FORGE_SSH_CONFIG_PATH";
    /// `git_client` of runner.toml.
    GIT_CLIENT = "FORGE_GIT_CLIENT";
    /// `run_as` of runner.toml.
    RUN_AS = "FORGE_RUN_AS";
    /// `keep_failed_workspaces` of runner.toml: `true` or `false`.
    KEEP_FAILED_WORKSPACES = "FORGE_KEEP_FAILED_WORKSPACES";
    /// `disk_reserve` of runner.toml.
    DISK_RESERVE = "FORGE_DISK_RESERVE";
    /// `ca_file` of runner.toml; the client reads it too.
    CA_FILE = "FORGE_CA_FILE";
    /// `ca_fingerprint` of runner.toml.
    CA_FINGERPRINT = "FORGE_CA_FINGERPRINT";
    /// `[runner] name` of runner.toml.
    RUNNER_NAME = "FORGE_RUNNER_NAME";
    /// `[runner] token_file` of runner.toml.
    RUNNER_TOKEN_FILE = "FORGE_RUNNER_TOKEN_FILE";
    /// The runner's token itself, instead of its file.
    RUNNER_TOKEN = "FORGE_RUNNER_TOKEN";
    /// `[runner] private_key_file` of runner.toml.
    RUNNER_PRIVATE_KEY_FILE = "FORGE_RUNNER_PRIVATE_KEY_FILE";
    /// `[runner] max_parallel_tasks` of runner.toml.
    RUNNER_MAX_PARALLEL_TASKS = "FORGE_RUNNER_MAX_PARALLEL_TASKS";
    /// `[runner] one_off` of runner.toml: `true` or `false`.
    RUNNER_ONE_OFF = "FORGE_RUNNER_ONE_OFF";
}

/// What the variables of `[secrets.allow.<project>]` begin with.
pub(crate) const SECRETS_ALLOW_PREFIX: &str = "FORGE_SECRETS_ALLOW_";
