//! runner.toml: what a runner is told on its own host. What it may do is said in the tree, not here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::address::{Scheme, WebAddress};
use crate::diagnostic::{Code, Diagnostic};
use crate::env;
use crate::name::{Digest, Name};
use crate::resolve::or_default;
use crate::secret::SecretText;
use crate::settings::daemon::path;
use crate::settings::{Outcome, read_settings};
use crate::written::declare::written;
use crate::written::reader::{Count, Size};
use crate::written::sheet::{At, Sheet, Span};

/// A runner's settings with defaults applied. Paths are as written: a relative one is the runner's to resolve.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// The daemon's URL, always https, without a slash at its end.
    pub web_host: String,
    /// Workspaces, git cache and log spool.
    pub tmp_path: PathBuf,
    /// ssh's own configuration for checkouts.
    pub ssh_config_path: Option<PathBuf>,
    /// The git program.
    pub git_client: String,
    /// The user that jobs run as; `None` is the runner's own.
    pub run_as: Option<RunAs>,
    /// Whether the workspaces of failed attempts are kept.
    pub keep_failed_workspaces: bool,
    /// Below this much free space where `tmp_path` lies it takes no new work, in bytes.
    pub disk_reserve_bytes: u64,
    /// Whom to believe to be the daemon.
    pub trust: Trust,
    /// Who it is.
    pub runner: RunnerIdentity,
    /// The runner's token, from the environment only; it wins over the token's file.
    pub token: Option<SecretText>,
    /// The token to register with, from the environment only.
    pub registration_token: Option<SecretText>,
}

/// The user that jobs run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// One user by name.
    User(String),
    /// User ids, one an attempt.
    Range {
        /// The first.
        first: u32,
        /// The last, included.
        last: u32,
    },
}

/// Whom to believe to be the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whom this host believes.
    System,
    /// The CAs in this file.
    CaFile(PathBuf),
    /// The CA whose certificate has this SHA-256.
    Fingerprint(Digest),
}

/// Who a runner is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerIdentity {
    /// Its name; `None` is the host's own.
    pub name: Option<Name>,
    /// Where its token lies, or will.
    pub token_file: PathBuf,
    /// Where its private key lies, or will.
    pub private_key_file: PathBuf,
    /// How many tasks it runs at a time; 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// Whether it ends after the first task.
    pub one_off: bool,
}

/// Defaults, each decided here only. Token and key lie beside the workspaces unless the settings say otherwise.
const TMP_PATH: &str = "/var/lib/forge-runner";
const GIT_CLIENT: &str = "git";
const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
const TOKEN_FILE: &str = "token";
const PRIVATE_KEY_FILE: &str = "private.key";

written! {
    /// runner.toml: a runner's own settings.
    hidden WrittenRunner {
        /// The daemon's URL; always https.
        optional web_host: String => env::WEB_ROOT,
        /// Workspaces, git cache and log spool. Default: `/var/lib/forge-runner`.
        optional tmp_path: String => env::TMP_PATH,
        /// ssh's own configuration for checkouts.
        optional ssh_config_path: String => env::SSH_CONFIG_PATH,
        /// The git program. Default: `git`.
        optional git_client: String => env::GIT_CLIENT,
        /// The jobs' user, or a range of user ids such as `"70000-70099"`, one an attempt.
        optional run_as: String => env::RUN_AS,
        /// True: the workspaces of the ten newest attempts that failed, timed out or were lost are kept, under `kept` in `tmp_path`. Default: false.
        optional keep_failed_workspaces: bool => env::KEEP_FAILED_WORKSPACES,
        /// Below this much free space where `tmp_path` lies it takes no new work. Default: `256MiB`.
        optional disk_reserve: Size => env::DISK_RESERVE,
        /// A file with the CA to believe.
        optional ca_file: String => env::CA_FILE,
        /// The SHA-256 of the CA to believe, as the daemon prints it.
        optional ca_fingerprint: String => env::CA_FINGERPRINT,
        /// Who it is.
        optional runner: WrittenIdentity,
    }
}

written! {
    /// Who a runner is.
    hidden WrittenIdentity {
        /// Its name. Default: the host's own.
        optional name: String => env::RUNNER_NAME,
        /// Where its token lies, written 0600. Default: `token` in `tmp_path`.
        optional token_file: String => env::RUNNER_TOKEN_FILE,
        /// Where its private key lies; it is made here and never leaves. Default: `private.key` in `tmp_path`.
        optional private_key_file: String => env::RUNNER_PRIVATE_KEY_FILE,
        /// How many tasks it runs at a time; 0 is unlimited. The smaller of this and the tree's counts. Default: 0.
        optional max_parallel_tasks: Count => env::RUNNER_MAX_PARALLEL_TASKS,
        /// True: exit 0 after the first task's end is acknowledged. Default: false.
        optional one_off: bool => env::RUNNER_ONE_OFF,
    }
}

/// Reads runner.toml. `text` is `None` when there is no file: then the environment and the defaults say everything. `environment` is the
/// process's; only the variables of [`mod@env`] are looked at. The second part of the answer is warnings.
pub fn runner_settings(
    file_name: &str,
    text: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<(RunnerSettings, Vec<Diagnostic>), Vec<Diagnostic>> {
    let sheet = Sheet::new(file_name, text.unwrap_or_default());
    let settings = read_settings(&sheet, environment).and_then(|written| resolve(written, environment, &sheet));
    Outcome { settings, sheet }.into_result()
}

fn resolve(written: WrittenRunner, environment: &BTreeMap<String, String>, sheet: &Sheet) -> Option<RunnerSettings> {
    // Each part notes its own mistakes before the first `?` gives up.
    let web_host = web_host(written.web_host, sheet);
    let tmp_path = path("tmp_path", written.tmp_path, sheet).map(|path| path.unwrap_or_else(|| TMP_PATH.into()));
    let ssh_config_path = path("ssh_config_path", written.ssh_config_path, sheet);
    let git_client = path("git_client", written.git_client.clone(), sheet);
    let run_as = run_as(written.run_as, sheet);
    let trust = trust(written.ca_file, written.ca_fingerprint, sheet);
    let beside = tmp_path.clone().unwrap_or_default();
    let runner = identity(written.runner.unwrap_or_default().value, &beside, sheet);
    let secret = |name: &str| environment.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    Some(RunnerSettings {
        web_host: web_host?,
        tmp_path: tmp_path?,
        ssh_config_path: ssh_config_path?,
        git_client: git_client.map(|_| or_default(written.git_client, GIT_CLIENT.to_owned()))?,
        run_as: run_as?,
        keep_failed_workspaces: or_default(written.keep_failed_workspaces, false),
        disk_reserve_bytes: or_default(written.disk_reserve, Size(DISK_RESERVE_BYTES)).0,
        trust: trust?,
        runner: runner?,
        token: secret(env::RUNNER_TOKEN).map(SecretText::new),
        registration_token: secret(env::RUNNER_REGISTRATION_TOKEN).map(SecretText::new),
    })
}

fn web_host(written: Option<At<String>>, sheet: &Sheet) -> Option<String> {
    let Some(At { value, span }) = written else {
        let hint = format!("write `web_host = \"https://forge.example.com\"`, or set {}", env::WEB_ROOT);
        sheet.error(Span::FILE, Code::MissingKey, "`web_host` is missing: the URL of the daemon", Some(hint));
        return None;
    };
    let (message, hint) = match value.parse::<WebAddress>() {
        Ok(address) if address.scheme == Scheme::Https => return Some(address.to_string()),
        Ok(address) => {
            let https = WebAddress { scheme: Scheme::Https, ..address };
            ("`web_host` is refused: Forge's API is HTTPS only".to_owned(), format!("write \"{https}\""))
        }
        Err(error) => {
            (format!("`web_host` is refused: {error}"), "write it as \"https://forge.example.com\"".to_owned())
        }
    };
    sheet.error(span, Code::Address, message, Some(hint));
    None
}

fn run_as(written: Option<At<String>>, sheet: &Sheet) -> Option<Option<RunAs>> {
    let Some(At { value, span }) = written else { return Some(None) };
    let parsed = match value.split_once('-') {
        Some((first, last)) if value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            match (first.parse::<u32>(), last.parse::<u32>()) {
                (Ok(0), _) => Err("user 0 is root: a job must not run as root"),
                // The highest id means "no user" to the kernel.
                (Ok(first), Ok(last)) if first <= last && last < u32::MAX => Ok(RunAs::Range { first, last }),
                _ => Err("the range must begin with its lower end"),
            }
        }
        _ if value == "root" || value == "0" => Err("a job must not run as root"),
        _ if !value.is_empty()
            && !value.starts_with('-')
            && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-$".contains(c)) =>
        {
            Ok(RunAs::User(value))
        }
        _ => Err("that is no user's name"),
    };
    match parsed {
        Ok(run_as) => Some(Some(run_as)),
        Err(why) => {
            let hint = "write a user such as \"forge-job\", or a range of user ids such as \"70000-70099\"".to_owned();
            sheet.error(span, Code::BadValue, format!("`run_as` is refused: {why}"), Some(hint));
            None
        }
    }
}

fn trust(file: Option<At<String>>, fingerprint: Option<At<String>>, sheet: &Sheet) -> Option<Trust> {
    match (file, fingerprint) {
        // A variable overrides the file: in the shell of a person who also uses the client FORGE_CA_FILE is set anyway.
        (Some(file), Some(fingerprint)) if file.span.is_override() != fingerprint.span.is_override() => {
            let is_file = file.span.is_override();
            trust(Some(file).filter(|_| is_file), Some(fingerprint).filter(|_| !is_file), sheet)
        }
        (Some(_), Some(fingerprint)) => {
            let message = "`ca_file` and `ca_fingerprint` are both set, and one of them decides";
            sheet.error(fingerprint.span, Code::Conflict, message, Some("take one of them out".to_owned()));
            None
        }
        (Some(file), None) => path("ca_file", Some(file), sheet).flatten().map(Trust::CaFile),
        (None, Some(fingerprint)) => match fingerprint.value.parse() {
            Ok(digest) => Some(Trust::Fingerprint(digest)),
            Err(error) => {
                let hint = "copy it from the daemon's start, or from `forge doctor` on its host".to_owned();
                sheet.error(
                    fingerprint.span,
                    Code::BadValue,
                    format!("`ca_fingerprint` is refused: {error}"),
                    Some(hint),
                );
                None
            }
        },
        (None, None) => Some(Trust::System),
    }
}

fn identity(written: WrittenIdentity, beside: &Path, sheet: &Sheet) -> Option<RunnerIdentity> {
    let name = match written.name {
        None => Some(None),
        Some(name) => match name.value.parse::<Name>() {
            Ok(name) => Some(Some(name)),
            Err(error) => {
                let hint = Name::nearest_to(&name.value).map(|near| format!("write \"{near}\""));
                sheet.error(name.span, Code::BadName, format!("`runner.name` is refused: {error}"), hint);
                None
            }
        },
    };
    let token_file = path("runner.token_file", written.token_file, sheet);
    let private_key_file = path("runner.private_key_file", written.private_key_file, sheet);
    Some(RunnerIdentity {
        name: name?,
        token_file: token_file?.unwrap_or_else(|| beside.join(TOKEN_FILE)),
        private_key_file: private_key_file?.unwrap_or_else(|| beside.join(PRIVATE_KEY_FILE)),
        max_parallel_tasks: or_default(written.max_parallel_tasks, Count::default()).count(),
        one_off: or_default(written.one_off, false),
    })
}
