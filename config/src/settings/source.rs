//! `[source]` of forge.toml: where the watched tree lives, how often it is looked at, and what opens and signs it.

use std::path::PathBuf;

use super::daemon::path;
use crate::diagnostic::Code;
use crate::env;
use crate::git::{self, Transport};
use crate::resolve::{or_default, reference_path};
use crate::written::declare::written;
use crate::written::reader::Duration;
use crate::written::sheet::{At, Sheet, Span};

/// Where the watched tree lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSource {
    /// A folder or a repository.
    pub location: SourceLocation,
    /// A folder inside the repository; empty is its root.
    pub directory: String,
    /// The HMAC key of `POST /hooks/config`.
    pub hook_secret_file: Option<PathBuf>,
    /// How often it is looked at, in milliseconds.
    pub poll_interval_ms: u64,
    /// The keys that commits must be signed by.
    pub allowed_signers_file: Option<PathBuf>,
    /// What opens the repository.
    pub access: SourceAccess,
}

/// What opens the configuration's repository; a folder needs none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAccess {
    /// The private key for ssh; `None` leaves the choice to ssh itself.
    pub ssh_key_file: Option<PathBuf>,
    /// The ssh hosts that are trusted; `None` trusts a host when it is first met.
    pub known_hosts_file: Option<PathBuf>,
    /// The user for https.
    pub username: Option<String>,
    /// The password or token for https.
    pub password_file: Option<PathBuf>,
    /// The CA of the https server; `None` is the system's.
    pub ca_file: Option<PathBuf>,
}

/// A folder or a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// A folder on the daemon's host.
    Path(PathBuf),
    /// A git repository.
    Git {
        /// Its URL, checked as repositories' are.
        url: String,
        /// The branch.
        branch: String,
    },
}

/// Defaults, each decided here only.
const SOURCE_BRANCH: &str = "main";
const POLL_INTERVAL_MS: u64 = 30_000;

/// The shortest poll: a shorter one would only be load.
const POLL_INTERVAL_MS_MIN: u64 = 100;

written! {
    /// Where the watched tree lives: exactly one of `path` and `git`.
    shown WrittenSource {
        /// A folder on the daemon's host.
        optional path: String => env::SOURCE_PATH,
        /// A git repository.
        optional git: String => env::SOURCE_GIT,
        /// Its branch. Default: `main`.
        optional branch: String => env::SOURCE_BRANCH,
        /// A folder inside the repository. Default: its root.
        optional directory: String => env::SOURCE_DIRECTORY,
        /// The HMAC key of `POST /hooks/config`.
        optional hook_secret_file: String => env::SOURCE_HOOK_SECRET_FILE,
        /// How often it is looked at. Default: `"30s"`.
        optional poll_interval: Duration => env::SOURCE_POLL_INTERVAL,
        /// Apply only commits signed by these keys, in git's allowed-signers format.
        optional allowed_signers_file: String => env::SOURCE_ALLOWED_SIGNERS_FILE,
        /// The private key that opens the repository over ssh. Absent: what ssh finds by itself.
        optional ssh_key_file: String => env::SOURCE_SSH_KEY_FILE,
        /// The ssh hosts that are trusted. Absent: a host is trusted when it is first met, and held to its key from then on.
        optional known_hosts_file: String => env::SOURCE_KNOWN_HOSTS_FILE,
        /// The user for https. Absent: that of the URL, else `git`.
        optional username: String => env::SOURCE_USERNAME,
        /// A file with the password or token for https, read anew at each fetch.
        optional password_file: String => env::SOURCE_PASSWORD_FILE,
        /// The CA of the https server in PEM. Absent: the system's.
        optional ca_file: String => env::SOURCE_CA_FILE,
    }
}

/// Reads `[source]`; each part notes its own mistakes.
pub(super) fn read(written: Option<At<WrittenSource>>, sheet: &Sheet) -> Option<DaemonSource> {
    let span = written.as_ref().map_or(Span::FILE, |source| source.span);
    let written = written.unwrap_or_default().value;
    let transport =
        written.git.as_ref().and_then(|url| git::repository_url(&url.value).ok()).map(|url| url.transport());
    let access = read_access(&written, transport, sheet);
    let poll = written.poll_interval.as_ref();
    if let Some(poll) = poll.filter(|poll| poll.value.0 < POLL_INTERVAL_MS_MIN) {
        let message = format!("`source.poll_interval` must be at least {POLL_INTERVAL_MS_MIN}ms");
        sheet.error(poll.span, Code::BadValue, message, None);
    }
    let poll_interval_ms = or_default(written.poll_interval, Duration(POLL_INTERVAL_MS)).0;
    let directory_span = written.directory.as_ref().filter(|folder| !folder.value.is_empty()).map(|folder| folder.span);
    let directory = match written.directory {
        Some(directory) if !directory.value.is_empty() => reference_path("source.directory", &directory, sheet),
        _ => Some(String::new()),
    };
    let hook_secret_file = path("source.hook_secret_file", written.hook_secret_file, sheet);
    let signers_span = written.allowed_signers_file.as_ref().map(|file| file.span);
    let allowed_signers_file = path("source.allowed_signers_file", written.allowed_signers_file, sheet);
    let branch = git::branch("source.branch", written.branch.as_ref(), sheet);
    let location = match (written.path, written.git) {
        (Some(folder), None) => {
            let unused = [("branch", written.branch.as_ref().map(|branch| branch.span)), ("directory", directory_span)];
            for (key, span) in unused {
                if let Some(span) = span {
                    let message =
                        format!("`source.{key}` has no effect with `source.path`: a folder is taken as it is");
                    sheet.warning(span, Code::Unused, message, None);
                }
            }
            if let Some(signers) = signers_span {
                // Not only a warning: whoever wrote it relies on it.
                let message = "`source.allowed_signers_file` needs `source.git`: a folder has no signed commits";
                let hint = "let the daemon fetch the repository itself, with `git = \"...\"`, or take the key out";
                sheet.error(signers, Code::Conflict, message, Some(hint.to_owned()));
            }
            path("source.path", Some(folder), sheet).flatten().map(SourceLocation::Path)
        }
        (None, Some(url)) => git::checked_url("source.git", &url, sheet).map(|url| SourceLocation::Git {
            url,
            branch: branch.clone().flatten().unwrap_or_else(|| SOURCE_BRANCH.to_owned()),
        }),
        (Some(_), Some(git)) => {
            let message = "`source.path` and `source.git` are both set, and the tree lives in one place";
            sheet.error(git.span, Code::Conflict, message, Some("take one of them out".to_owned()));
            None
        }
        (None, None) => {
            let hint =
                format!("write `[source]` and below it `path = \"/etc/forge/config\"`, or set {}", env::SOURCE_PATH);
            sheet.error(span, Code::MissingKey, "`source.path` or `source.git` is missing", Some(hint));
            None
        }
    };
    Some(DaemonSource {
        location: location.filter(|_| branch.is_some())?,
        directory: directory?,
        hook_secret_file: hook_secret_file?,
        poll_interval_ms,
        allowed_signers_file: allowed_signers_file?,
        access: access?,
    })
}

/// `transport` is `None` for a folder, and for a URL that is refused anyway.
fn read_access(written: &WrittenSource, transport: Option<Transport>, sheet: &Sheet) -> Option<SourceAccess> {
    let WrittenSource { ssh_key_file, known_hosts_file, username, password_file, ca_file, .. } = written;
    let (over_ssh, over_https) = (Some(Transport::Ssh), Some(Transport::Https));
    for (key, needed, value) in [
        ("ssh_key_file", over_ssh, ssh_key_file),
        ("known_hosts_file", over_ssh, known_hosts_file),
        ("username", over_https, username),
        ("password_file", over_https, password_file),
        ("ca_file", over_https, ca_file),
    ] {
        if let Some(value) = value.as_ref().filter(|_| transport != needed) {
            let scheme = if needed == over_ssh { "ssh" } else { "https" };
            let message = format!("`source.{key}` has no effect: it is for a repository over {scheme}");
            sheet.warning(value.span, Code::Unused, message, None);
        }
    }
    let strange = |text: &str| text.is_empty() || text.chars().any(char::is_control);
    if let Some(username) = username.as_ref().filter(|username| strange(&username.value)) {
        sheet.error(username.span, Code::BadValue, "`source.username` must be one line of text", None);
        return None;
    }
    if let Some(username) = username.as_ref().filter(|_| password_file.is_none() && transport == over_https) {
        let message = "`source.username` has no effect without `source.password_file`";
        sheet.warning(username.span, Code::Unused, message, None);
    }
    let ssh_key_file = path("source.ssh_key_file", ssh_key_file.clone(), sheet);
    let known_hosts_file = path("source.known_hosts_file", known_hosts_file.clone(), sheet);
    let password_file = path("source.password_file", password_file.clone(), sheet);
    let ca_file = path("source.ca_file", ca_file.clone(), sheet);
    Some(SourceAccess {
        ssh_key_file: ssh_key_file?,
        known_hosts_file: known_hosts_file?,
        username: username.as_ref().map(|username| username.value.clone()),
        password_file: password_file?,
        ca_file: ca_file?,
    })
}
