//! forge.toml: the daemon's own settings, which stand on its host and not in git.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use crate::address::{self, WebAddress};
use crate::diagnostic::{Code, Diagnostic};
use crate::env;
use crate::name::Name;
use crate::resolve::{list, or_default};
use crate::secret::{SecretText, SecretsAllow};
use crate::settings::source::{self, DaemonSource, WrittenSource};
use crate::settings::{Outcome, read_settings};
use crate::written::declare::written;
use crate::written::reader::{Count, Duration, Environment, Named, Place, Shape, Size, Whole, Written, hide_leaves};
use crate::written::sheet::{At, Sheet, Span};

/// The daemon's settings with defaults applied. Paths are as written: a relative one is the daemon's to resolve.
#[derive(Clone, Debug)]
pub struct DaemonSettings {
    /// Where database, logs, plugin cache and TLS material lie.
    pub data_dir: PathBuf,
    /// The public URL without a slash at its end; `None` is the address that `listen.api` is bound to.
    pub web_host: Option<String>,
    /// False: the daemon runs jobs itself too.
    pub use_remote_runner: bool,
    /// The single token that registers any runner.
    pub runner_registration_token: Option<RegistrationTokenSource>,
    /// What it listens on.
    pub listen: DaemonListen,
    /// The operator's own certificate; `None` makes a CA and a certificate in the data folder.
    pub tls: Option<DaemonTls>,
    /// Where the watched tree lives.
    pub source: DaemonSource,
    /// What opens the tree's secrets.
    pub secrets: DaemonSecrets,
    /// Limits on logs.
    pub logs: DaemonLogs,
    /// Limits on who asks.
    pub limits: DaemonLimits,
    /// How long the audit log is kept, in milliseconds; 0 is for ever.
    pub audit_retention_ms: u64,
    /// How webhook targets are reached.
    pub webhooks: DaemonWebhooks,
    /// Where tasks are kept.
    pub store: StoreKind,
}

/// Where the single registration token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationTokenSource {
    /// A file that holds it.
    File(PathBuf),
    /// It stands in the settings.
    Inline(SecretText),
}

/// What the daemon listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonListen {
    /// The HTTPS API and the dashboard: `address:port` or `localhost:port`; port 0 takes a free one.
    pub api: String,
    /// Plain HTTP on `api`, for a proxy in front; only ever true for a loopback or private address.
    pub insecure_http: bool,
    /// `/healthz /readyz /metrics`, plain.
    pub metrics: String,
}

/// The operator's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonTls {
    /// The certificate chain in PEM.
    pub certificate_file: PathBuf,
    /// Its private key in PEM.
    pub key_file: PathBuf,
}

/// What opens the tree's secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSecrets {
    /// The age identity.
    pub identity_file: Option<PathBuf>,
    /// What each project may name on this host; nothing for a project that is not here.
    pub allow: BTreeMap<Name, SecretsAllow>,
}

/// Limits on logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonLogs {
    /// How many bytes the log of one attempt may have.
    pub max_bytes: u64,
    /// How many bytes of the disk stay free.
    pub disk_reserve_bytes: u64,
}

/// Limits on who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonLimits {
    /// How many requests a second one access token may send in the long run; 0 is unlimited.
    pub requests_per_second: u32,
}

/// How webhook targets are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonWebhooks {
    /// Authorities that are believed beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where tasks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// `data_dir/forge.db`.
    Sqlite,
}

/// Defaults, each decided here only.
const DATA_DIR: &str = "/var/lib/forge";
const LISTEN_API: &str = "0.0.0.0:8443";
const LISTEN_METRICS: &str = "127.0.0.1:9464";
const LOGS_MAX_BYTES: u64 = 1 << 30;
const LOGS_DISK_RESERVE_BYTES: u64 = 1 << 30;
const REQUESTS_PER_SECOND: i64 = 200;
const AUDIT_RETENTION_MS: u64 = 400 * 24 * 60 * 60 * 1000;

/// The least that a log may have: room for Forge's own lines.
const LOGS_MAX_BYTES_MIN: u64 = 1 << 10;

/// A registration token with fewer characters is likely one that a person made up.
const REGISTRATION_TOKEN_CHARS_MIN: usize = 20;

written! {
    /// forge.toml: the daemon's own settings.
    hidden WrittenDaemon {
        /// Where database, logs, plugin cache and TLS material lie. Default: `/var/lib/forge`.
        optional data_dir: String => env::DATA_DIR,
        /// The public URL. Absent: the address that `api` listens on.
        optional web_host: String => env::WEB_HOST,
        /// False: the daemon also runs jobs itself, through the same runner code. Default: true.
        optional use_remote_runner: bool => env::USE_REMOTE_RUNNER,
        /// A file with the single token that registers runners of any name.
        optional runner_registration_token_file: String => env::RUNNER_REGISTRATION_TOKEN_FILE,
        /// The same token in place; a file is safer.
        optional runner_registration_token: Hidden => env::RUNNER_REGISTRATION_TOKEN,
        /// What it listens on.
        optional listen: WrittenListen,
        /// The operator's own certificate. Absent: a CA and a certificate are made in `data_dir/tls`.
        optional tls: WrittenTls,
        /// Where the watched tree lives.
        optional source: WrittenSource,
        /// What opens the tree's secrets.
        optional secrets: WrittenSecrets,
        /// Limits on logs.
        optional logs: WrittenLogs,
        /// Limits on who asks.
        optional limits: WrittenLimits,
        /// The log of who did what.
        optional audit: WrittenAudit,
        /// How webhook targets are reached.
        optional webhooks: WrittenWebhooks,
        /// Where tasks are kept.
        optional store: WrittenStore,
    }
}

written! {
    /// What the daemon listens on.
    shown WrittenListen {
        /// HTTPS, on loopback too. Default: `0.0.0.0:8443`.
        optional api: String => env::LISTEN_API,
        /// Plain HTTP on `api`, for a proxy in front; refused on an address that is neither loopback nor private. Default: false.
        optional insecure_http: bool => env::LISTEN_INSECURE_HTTP,
        /// `/healthz /readyz /metrics`, plain. Default: `127.0.0.1:9464`.
        optional metrics: String => env::LISTEN_METRICS,
    }
}

written! {
    /// The operator's own certificate; both files are read again when they change.
    shown WrittenTls {
        /// The certificate chain in PEM.
        optional certificate_file: String => env::TLS_CERTIFICATE_FILE,
        /// Its private key in PEM.
        optional key_file: String => env::TLS_KEY_FILE,
    }
}

written! {
    /// What opens the tree's secrets.
    shown WrittenSecrets {
        /// The age identity that decrypts age values in the tree.
        optional identity_file: String => env::SECRETS_IDENTITY_FILE,
        /// What `file`, `env` and `credential` values of a project may name; nothing by default.
        optional allow: AllowByProject,
    }
}

written! {
    /// What one project may name on the daemon's host.
    shown WrittenAllow {
        /// Absolute paths; `*` stands for any text within one part.
        optional files: Vec<At<String>>,
        /// Names of the daemon's variables.
        optional env: Vec<At<String>>,
        /// Names of systemd credentials.
        optional credentials: Vec<At<String>>,
    }
}

written! {
    /// Limits on logs.
    shown WrittenLogs {
        /// Of one attempt: then the attempt fails, and says so. Default: `"1GiB"`.
        optional max_bytes: Size => env::LOGS_MAX_BYTES,
        /// Below it no new work is accepted, and running work is not lost. Default: `"1GiB"`.
        optional disk_reserve: Size => env::LOGS_DISK_RESERVE,
    }
}

written! {
    /// Limits on who asks.
    shown WrittenLimits {
        /// Of one access token and the sessions begun with it, in the long run; five times as many at once. What is beyond is answered 429, and
        /// when to come back. 0 is unlimited. Default: 200.
        optional requests_per_second: Count => env::LIMITS_REQUESTS_PER_SECOND,
    }
}

written! {
    /// The log of who did what.
    shown WrittenAudit {
        /// How long its rows are kept; no row goes before. `"0s"` is for ever. Default: `"400d"`.
        optional retention: Duration => env::AUDIT_RETENTION,
    }
}

written! {
    /// How webhook targets are reached; what they are told stands in the tree.
    shown WrittenWebhooks {
        /// The CA certificates, in PEM, of targets in your own network: believed beside the system's. Read when the daemon starts.
        optional ca_file: String => env::WEBHOOKS_CA_FILE,
    }
}

written! {
    /// Where tasks are kept.
    shown WrittenStore {
        /// `sqlite` is `data_dir/forge.db`. Default: `sqlite`.
        optional url: String => env::STORE_URL,
    }
}

/// A text that is hidden wherever it stands.
#[derive(Clone, Debug)]
pub(crate) struct Hidden(SecretText);

impl Written for Hidden {
    fn shape() -> Shape {
        Shape::Text
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        hide_leaves(value, place);
        String::read(value, place).map(|text| Self(SecretText::new(text)))
    }
}

/// `[secrets.allow.<project>]`, whose variables carry the project's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowByProject(Named<WrittenAllow>);

impl Written for AllowByProject {
    fn shape() -> Shape {
        Named::<WrittenAllow>::shape()
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        Named::read(value, place).map(Self)
    }

    fn overridden(
        slot: &mut Option<At<Self>>,
        key: &str,
        _variable: Option<&str>,
        environment: &Environment,
        sheet: &Sheet,
    ) {
        for (variable, text) in environment {
            let Some(rest) = variable.strip_prefix(env::SECRETS_ALLOW_PREFIX) else { continue };
            let Some((project, list)) = rest.rsplit_once('_') else { continue };
            if !["FILES", "ENV", "CREDENTIALS"].contains(&list) {
                continue;
            }
            if text.is_empty() {
                continue;
            }
            let project = project.to_ascii_lowercase().replace('_', "-");
            let source = sheet.add_override(variable, text);
            let Some(values) = Vec::read_override(text, Place { sheet, source, key }) else { continue };
            let span = Span { start: 0, end: text.len(), source };
            let projects = &mut slot.get_or_insert_with(|| At { value: Self::default(), span }).value.0.0;
            let index = projects.iter().position(|(name, _)| name.value == project).unwrap_or_else(|| {
                projects.push((At { value: project, span }, At { value: WrittenAllow::default(), span }));
                projects.len() - 1
            });
            let allow = &mut projects[index].1.value;
            let values = Some(At { value: values, span });
            match list {
                "FILES" => allow.files = values,
                "ENV" => allow.env = values,
                _ => allow.credentials = values,
            }
        }
    }
}

/// Reads forge.toml. `text` is `None` when there is no file: then the environment and the defaults say everything. `environment` is the
/// process's; only the variables of [`mod@env`] are looked at. The second part of the answer is warnings.
pub fn daemon_settings(
    file_name: &str,
    text: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<(DaemonSettings, Vec<Diagnostic>), Vec<Diagnostic>> {
    let sheet = Sheet::new(file_name, text.unwrap_or_default());
    let settings = read_settings(&sheet, environment).and_then(|written| resolve(written, &sheet));
    Outcome { settings, sheet }.into_result()
}

fn resolve(written: WrittenDaemon, sheet: &Sheet) -> Option<DaemonSettings> {
    // Each part notes its own mistakes before the first `?` gives up.
    let data_dir = path("data_dir", written.data_dir, sheet).map(|path| path.unwrap_or_else(|| DATA_DIR.into()));
    let web_host = web_host(written.web_host, sheet);
    let token = registration_token(written.runner_registration_token_file, written.runner_registration_token, sheet);
    let listen = listen(written.listen.unwrap_or_default().value, sheet);
    let tls = written.tls.map(|tls| self::tls(tls, sheet));
    let source = source::read(written.source, sheet);
    let secrets = secrets(written.secrets.unwrap_or_default().value, sheet);
    let logs = logs(written.logs.unwrap_or_default().value, sheet);
    let audit = written.audit.unwrap_or_default().value;
    let limits = written.limits.unwrap_or_default().value;
    let webhooks = path("webhooks.ca_file", written.webhooks.unwrap_or_default().value.ca_file, sheet);
    let store = store(written.store.unwrap_or_default().value, sheet);
    Some(DaemonSettings {
        data_dir: data_dir?,
        web_host: web_host?,
        use_remote_runner: or_default(written.use_remote_runner, true),
        runner_registration_token: token?,
        listen: listen?,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        source: source?,
        secrets: secrets?,
        logs: logs?,
        audit_retention_ms: or_default(audit.retention, Duration(AUDIT_RETENTION_MS)).0,
        limits: DaemonLimits {
            requests_per_second: or_default(limits.requests_per_second, Whole(REQUESTS_PER_SECOND)).count(),
        },
        webhooks: DaemonWebhooks { ca_file: webhooks? },
        store: store?,
    })
}

/// A path of this host: anything but nothing.
pub(super) fn path(key: &str, written: Option<At<String>>, sheet: &Sheet) -> Option<Option<PathBuf>> {
    match written {
        Some(At { value, span }) if value.is_empty() || value.contains('\0') => {
            sheet.error(span, Code::Path, format!("`{key}` must be a path, and it is empty"), None);
            None
        }
        written => Some(written.map(|path| path.value.into())),
    }
}

fn web_host(written: Option<At<String>>, sheet: &Sheet) -> Option<Option<String>> {
    let Some(At { value, span }) = written else { return Some(None) };
    match value.parse::<WebAddress>() {
        // A proxy in front may speak HTTP to browsers of a closed network; what Forge itself serves is decided by `listen`.
        Ok(address) => Some(Some(address.to_string())),
        Err(error) => {
            let message = format!("`web_host` is refused: {error}");
            sheet.error(span, Code::Address, message, Some("write it as \"https://forge.example.com\"".to_owned()));
            None
        }
    }
}

fn registration_token(
    file: Option<At<String>>,
    inline: Option<At<Hidden>>,
    sheet: &Sheet,
) -> Option<Option<RegistrationTokenSource>> {
    match (file, inline) {
        (Some(_), Some(inline)) => {
            let message = "`runner_registration_token` and `runner_registration_token_file` are both set";
            sheet.error(inline.span, Code::Conflict, message, Some("keep the file and take the other out".to_owned()));
            None
        }
        (None, Some(inline)) => {
            if inline.value.0.reveal().trim().is_empty() {
                sheet.error(inline.span, Code::BadValue, "`runner_registration_token` is empty", None);
                return None;
            }
            if inline.value.0.reveal().trim().chars().count() < REGISTRATION_TOKEN_CHARS_MIN {
                let message = format!(
                    "`runner_registration_token` has less than {REGISTRATION_TOKEN_CHARS_MIN} characters: anyone who guesses it registers runners"
                );
                let hint = "make a random one with `forge token new --kind registration`".to_owned();
                sheet.warning(inline.span, Code::Unprotected, message, Some(hint));
            }
            let hint =
                "put it into a file of mode 0600 and write `runner_registration_token_file = \"...\"`".to_owned();
            let message = "`runner_registration_token` stands in the settings, where backups and other users see it";
            sheet.warning(inline.span, Code::InlineSecret, message, Some(hint));
            Some(Some(RegistrationTokenSource::Inline(SecretText::new(inline.value.0.reveal().trim()))))
        }
        (file, None) => {
            path("runner_registration_token_file", file, sheet).map(|file| file.map(RegistrationTokenSource::File))
        }
    }
}

fn listen(written: WrittenListen, sheet: &Sheet) -> Option<DaemonListen> {
    let api_span = written.api.as_ref().map_or(Span::FILE, |api| api.span);
    let api = listen_address("listen.api", written.api, LISTEN_API, sheet);
    let metrics = listen_address("listen.metrics", written.metrics, LISTEN_METRICS, sheet);
    let insecure = written.insecure_http.unwrap_or_default();
    let (api, metrics) = (api?, metrics?);
    if insecure.value && !is_near(&api) {
        let message = format!("`insecure_http` is refused on `{api}`: tokens would cross the network in clear");
        let hint =
            "listen on a loopback or private address, such as \"127.0.0.1:8443\", with the proxy in front".to_owned();
        let span = if api_span == Span::FILE { insecure.span } else { api_span };
        sheet.error(span, Code::Address, message, Some(hint));
        return None;
    }
    Some(DaemonListen { api, insecure_http: insecure.value, metrics })
}

fn listen_address(key: &str, written: Option<At<String>>, default: &str, sheet: &Sheet) -> Option<String> {
    let Some(At { value, span }) = written else { return Some(default.to_owned()) };
    if address::is_listen_address(&value) {
        return Some(value);
    }
    let message = format!("`{key}` must be an address and a port, not `{value}`");
    sheet.error(span, Code::Address, message, Some(format!("write it as \"{default}\"; IPv6 as \"[::1]:8443\"")));
    None
}

/// Whether an address is one that only this host or a private network reaches.
fn is_near(address: &str) -> bool {
    match address.parse::<SocketAddr>().map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        // Names other than this one are not resolved here, and a name may come to mean another address.
        Err(_) => address.starts_with("localhost:"),
    }
}

fn tls(written: At<WrittenTls>, sheet: &Sheet) -> Option<DaemonTls> {
    let missing = |key: &str, other: &str| {
        let message = format!("`tls.{key}` is missing, and `tls.{other}` needs it");
        sheet.error(written.span, Code::MissingKey, message, Some("without [tls] Forge makes its own".to_owned()));
    };
    match (&written.value.certificate_file, &written.value.key_file) {
        (Some(_), None) => missing("key_file", "certificate_file"),
        (None, Some(_)) => missing("certificate_file", "key_file"),
        (None, None) => {
            let hint =
                "write `certificate_file` and `key_file`, or take [tls] out: then Forge makes its own".to_owned();
            sheet.error(written.span, Code::MissingKey, "`[tls]` names no certificate", Some(hint));
        }
        (Some(_), Some(_)) => {}
    }
    let certificate_file = path("tls.certificate_file", written.value.certificate_file, sheet);
    let key_file = path("tls.key_file", written.value.key_file, sheet);
    Some(DaemonTls { certificate_file: certificate_file??, key_file: key_file?? })
}

fn secrets(written: WrittenSecrets, sheet: &Sheet) -> Option<DaemonSecrets> {
    let mut whole = true;
    let mut allow = BTreeMap::new();
    for (project, rule) in written.allow.unwrap_or_default().value.0.0 {
        let name = match project.value.parse::<Name>() {
            Ok(name) => name,
            Err(error) => {
                let message = format!("`secrets.allow.{}` names no project: {error}", project.value);
                sheet.error(project.span, Code::BadName, message, None);
                whole = false;
                continue;
            }
        };
        for file in rule.value.files.iter().flat_map(|files| &files.value) {
            let climbs = file.value.split('/').any(|part| part == ".." || part == ".");
            if !file.value.starts_with('/') || climbs {
                let message = format!("`{}` must be an absolute path without `..`", file.value);
                let hint = "write it as \"/etc/forge/shop/*\"".to_owned();
                sheet.error(file.span, Code::Path, message, Some(hint));
                whole = false;
            }
        }
        let rule = rule.value;
        let rule = SecretsAllow { files: list(rule.files), env: list(rule.env), credentials: list(rule.credentials) };
        allow.insert(name, rule);
    }
    let identity_file = path("secrets.identity_file", written.identity_file, sheet)?;
    whole.then_some(DaemonSecrets { identity_file, allow })
}

fn logs(written: WrittenLogs, sheet: &Sheet) -> Option<DaemonLogs> {
    if let Some(size) = written.max_bytes.as_ref().filter(|size| size.value.0 < LOGS_MAX_BYTES_MIN) {
        let message = format!("`logs.max_bytes` must be at least {LOGS_MAX_BYTES_MIN}B");
        sheet.error(size.span, Code::BadValue, message, None);
        return None;
    }
    Some(DaemonLogs {
        max_bytes: or_default(written.max_bytes, Size(LOGS_MAX_BYTES)).0,
        disk_reserve_bytes: or_default(written.disk_reserve, Size(LOGS_DISK_RESERVE_BYTES)).0,
    })
}

fn store(written: WrittenStore, sheet: &Sheet) -> Option<StoreKind> {
    match written.url {
        None => Some(StoreKind::Sqlite),
        Some(url) if url.value == "sqlite" => Some(StoreKind::Sqlite),
        Some(url) => {
            // A database's URL may carry a password.
            sheet.hide(url.span);
            let message = "`store.url` is no store that this version of Forge knows";
            sheet.error(
                url.span,
                Code::BadValue,
                message,
                Some("write \"sqlite\": the file is data_dir/forge.db".to_owned()),
            );
            None
        }
    }
}
