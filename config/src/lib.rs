//! The TOML that people write for Forge: read, checked and resolved. It does no I/O: text comes in, a tree or its mistakes go out.
//!
//! Two layers: `written` is what people type, with spans; [`meant`] is what Forge reads, defaults applied and references
//! resolved. [`check_tree`] leads from one to the other and collects every mistake on the way. The settings of a daemon and of a
//! runner go the same way: [`daemon_settings`] and [`runner_settings`].

mod address;
mod age_texts;
pub mod answers;
mod catalog;
mod cron;
mod diagnostic;
mod diff;
pub mod env;
mod git;
mod host_grant;
mod json_path;
pub mod meant;
mod name;
mod objects;
mod place;
pub mod reference;
mod resolve;
mod schema;
mod secret;
mod settings;
mod suggest;
mod tree;
mod units;
mod written;

pub use age_texts::{AgeText, age_texts};
pub use answers::{AnswerError, Answers};
pub use catalog::{PluginCatalog, PluginFacts, Wants};
pub use cron::{Cron, CronError};
pub use diagnostic::{Code, Colour, Diagnostic, Severity};
pub use diff::{ChangeKind, FieldChange, ObjectChange, PluginChange, TreeDiff};
pub use git::{
    BRANCH_BYTES_MAX, BranchError, RepositoryUrl, Transport, URL_BYTES_MAX, UrlError, branch_name, repository_url,
};
pub use host_grant::{GrantedHost, HostGrant, HostGrantError, Network};
pub use json_path::{JSON_PATH_BYTES_MAX, JsonPath, JsonPathError};
pub use name::{Digest, DigestError, NAME_CHARS_MAX, Name, NameError};
pub use objects::{Fields, Objects, objects};
pub use schema::schema_mistake;
pub use secret::{
    AgeCause, AgeRefusal, AgeValues, PLUGIN_SECRETS, RecipientError, SecretText, SecretValue, SecretsAllow,
    WEBHOOK_SECRETS, check_recipient,
};
pub use settings::{
    DaemonListen, DaemonLogs, DaemonSecrets, DaemonSettings, DaemonSource, DaemonTls, DaemonWebhooks,
    RegistrationTokenSource, RunAs, RunnerIdentity, RunnerSettings, SourceAccess, SourceLocation, StoreKind, Trust,
    daemon_settings, runner_settings,
};
pub use tree::{CheckOptions, Checked, Files, check_tree, tree_recipients};
pub use units::{DURATION_MS_MAX, UnitError, duration_ms, size_bytes};
pub use written::TOML_FILE_BYTES_MAX;
