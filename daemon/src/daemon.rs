//! Build, bind, spawn, drain: from settings to a daemon that serves, and back to nothing.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forge_api::Secret;
use forge_config::{
    CheckOptions, DaemonSettings, DaemonSource, DaemonWebhooks, RegistrationTokenSource, SourceAccess, SourceLocation,
};
use forge_plugin_host::{Host, HostOptions, Memory};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::{Addresses, AddressesFile, base_url};
use crate::check::check_options;
use crate::clock::Clock;
use crate::core::{Core, CoreOptions, CoreStartError, CoreTasks, FreeSpace, LogLimits, SecretsAllow};
use crate::dispatch::{Dispatcher, TargetOptions};
use crate::files::{self, FileError};
use crate::gitops::{Acceptance, ApplyOptions, GitOps, GitOpsHandle, GitOptions, SourceOptions};
use crate::http::auth::FailedAuthentications;
use crate::http::hosts::KnownHosts;
use crate::http::limits;
use crate::http::metrics::{self, Vitals};
use crate::http::places::Places;
use crate::http::rate::Rates;
use crate::http::requests::Requests;
use crate::http::routes::{self, Api, Shared};
use crate::http::serve::{self, BindError, Server, Speech};
use crate::http::streams::Streams;
use crate::http::surface::Insistence;
use crate::local::{LocalError, LocalSocket};
use crate::plugins::Catalog;
use crate::settings::{self, SettingsError};
use crate::tls::{CertificateSource, Certificates, Refreshed, TlsError};
use crate::webhooks::{PLUGIN_CALLS_MAX, Sender, SenderError, SenderOptions};

/// How often the operator's certificate files are looked at.
const GIVEN_CERTIFICATE_LOOK: Duration = Duration::from_secs(5);

/// How often the self-made certificate is looked at: it is renewed a month before its end.
const MADE_CERTIFICATE_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the core may take to end what it runs after the listeners are drained.
const CORE_DRAIN_MAX: Duration = Duration::from_secs(5);

/// Calls that describe plugins for a check of the tree, beside those of webhook targets.
const CHECK_CALLS_MAX: u32 = 8;

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings do not go with this machine.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file of the registration token holds none.
    #[error("{path} holds no registration token", path = path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The file of the webhooks' secret holds none.
    #[error("{path} holds no secret, and `source.hook_secret_file` names it", path = path.display())]
    NoHookSecret {
        /// The file.
        path: PathBuf,
    },
    /// What webhook targets are to be believed by cannot be read.
    #[error("`webhooks.ca_file`: {0}")]
    Webhooks(#[from] SenderError),
    /// The plugin host does not start.
    #[error("the plugin host does not start: {0}")]
    PluginHost(#[from] forge_plugin_host::HostError),
    /// Store, keys or logs do not open.
    #[error(transparent)]
    Core(#[from] CoreStartError),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The operator socket cannot be made.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The system does not say something that it always says.
    #[error("the system does not say {what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

impl StartError {
    /// What to do about it, where the error does not say so itself.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => Some(error.hint()),
            Self::NoToken { .. } => {
                Some("write the token into it as its only line; `forge token new` makes one".to_owned())
            }
            Self::NoHookSecret { .. } => {
                Some("write a random text into it as its only line, and give the same to the git server".to_owned())
            }
            Self::Webhooks(_) => Some(
                "write the CA certificates of your webhook targets into it, in PEM, or take the key out".to_owned(),
            ),
            Self::File(_) => Some("let the daemon's user read and write it".to_owned()),
            Self::Tls(error) => error.hint().map(str::to_owned),
            Self::Bind(error) => Some(error.hint()),
            Self::Local(_) => Some("set `data_dir` to a shorter path: a socket's has 107 bytes at most".to_owned()),
            Self::PluginHost(_) | Self::Core(_) | Self::System { .. } => None,
        }
    }
}

/// Why a daemon's end was not clean.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Something that was to run until the end had ended.
    #[error("the daemon's {0} ended before the daemon did: this is a bug in Forge, and its log has the cause")]
    EndedEarly(&'static str),
}

/// Has the tree looked at now, as SIGHUP asks.
#[derive(Clone)]
pub struct Reloader(GitOpsHandle);

impl std::fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Reloader")
    }
}

impl Reloader {
    /// Looks at the tree now, and waits for it; what is there is applied when it is new and good. What an admin has to accept is not.
    pub async fn reload(&self) {
        // A daemon that stops answers nothing and needs not reload either.
        let _newest = self.0.apply(Acceptance::default()).await;
    }
}

/// Proves that a daemon works, for whoever would restart it otherwise.
#[derive(Clone, Debug)]
pub struct Liveness(Core);

impl Liveness {
    /// Waits until each part without which nothing goes on has done a turn: the store's writer committed and the reconciler looked.
    /// The serving's own threads run this. One that hangs leaves it waiting for ever.
    pub async fn proved(&self) {
        self.0.work_a_turn().await;
    }
}

/// A daemon that serves.
pub struct Daemon {
    addresses: Addresses,
    ca_fingerprint: Option<String>,
    core: Core,
    core_tasks: CoreTasks,
    vitals: Vitals,
    local: LocalSocket,
    reloader: Reloader,
    /// Ends accepting, and tells connections to answer what they have begun.
    draining: CancellationToken,
    /// Ends what works beside the serving: gitops, certificates, metrics.
    stopping: CancellationToken,
    serving: TaskTracker,
    beside: TaskTracker,
    /// Before every other part is gone: its removal is the last that is seen of the daemon.
    addresses_file: AddressesFile,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Daemon").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Starts a daemon; when this returns, it serves.
///
/// # Errors
/// Something of the machine or the settings does not go: the error says what, its hint what to do.
pub async fn start(settings: DaemonSettings) -> Result<Daemon, StartError> {
    let plan = Plan::of(settings)?;
    settings::prepare_data_folder(&plan.data_dir)?;
    let descriptors = settings::raise_descriptor_limit();
    let clock = Clock::system();

    let plugin_dir = plan.data_dir.join("plugins");
    files::make_private_folder(&plugin_dir)?;
    let host = Host::new(HostOptions {
        cache_dir: Some(plugin_dir.join("compiled")),
        memory: Memory::Pool { calls: PLUGIN_CALLS_MAX + CHECK_CALLS_MAX },
        ..HostOptions::default()
    })?;
    let (draining, stopping) = (CancellationToken::new(), CancellationToken::new());
    let catalog = Arc::new(Catalog::new(host.clone()));
    let options = ApplyOptions {
        data_dir: plan.data_dir.clone(),
        plugin_dir: plugin_dir.clone(),
        catalog: Arc::clone(&catalog),
        check: plan.check.clone(),
        identity_file: plan.identity_file.clone(),
        clock: clock.clone(),
    };
    let gitops = GitOps::start(options, plan.source(stopping.clone())?, plan.poll_interval).await;
    let (core, core_tasks) = Core::start(plan.core_options(plugin_dir.clone(), &gitops, clock.clone())).await?;
    let dispatcher =
        Dispatcher::new(core.clone(), clock.clone(), plan.sender.clone(), TargetOptions { host, plugin_dir });

    let names = plan.names();
    let certificates = plan.certificates(&names, &clock)?;
    let speech = match &certificates {
        Some(certificates) => Speech::Tls(TlsAcceptor::from(Arc::new(certificates.server_config()?))),
        None => Speech::Plain,
    };
    let api_listener = serve::bind("listen.api", plan.api)?;
    let metrics_listener = serve::bind("listen.metrics", plan.metrics)?;
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let ca = certificates.as_ref().and_then(Certificates::ca).cloned();
    let addresses = Addresses {
        api: base_url(scheme, bound(&api_listener)?),
        metrics: base_url("http", bound(&metrics_listener)?),
        ca_file: ca.as_ref().map(|ca| ca.file.clone()),
        pid: std::process::id(),
    };

    let api = Api::new(Shared {
        core: core.clone(),
        config: gitops.applied(),
        view: gitops.view(),
        catalog,
        gitops: gitops.handle(),
        web_host: plan.web_host.clone(),
        speaks_tls: certificates.is_some(),
        ca_fingerprint: ca.as_ref().map(|ca| ca.fingerprint.clone()),
        hook_secret_file: plan.hook_secret_file.clone(),
        clock: clock.clone(),
        integration_bodies: Places::new(limits::INTEGRATION_BODIES_MAX, limits::INTEGRATION_BODIES_OF_ADDRESS_MAX),
        failures: FailedAuthentications::default(),
        rates: Rates::new(plan.requests_per_second),
        failed_registrations: FailedAuthentications::default(),
        event_streams: Streams::new(limits::EVENT_STREAMS_PER_TOKEN_MAX),
        log_streams: Streams::new(limits::LOG_STREAMS_PER_TOKEN_MAX),
        shutdown: draining.clone(),
    });
    let insistence =
        if plan.given_certificate.is_some() && certificates.is_some() { Insistence::Tls } else { Insistence::Nothing };
    let requests = Requests::default();
    let vitals = Vitals::new(core.clone(), gitops.view(), requests.clone());
    let known_hosts = KnownHosts::Only {
        names: names.into_iter().collect(),
        certificate: certificates.as_ref().map(Certificates::served_names),
    };
    let api_server = Server {
        listener: api_listener,
        speech,
        answerer: serve::answerer(routes::router(api, requests), known_hosts, insistence),
        connections_max: serve::connections_max(descriptors),
    };
    let metrics_server = Server {
        listener: metrics_listener,
        speech: Speech::Plain,
        answerer: serve::answerer(metrics::router(vitals.clone()), KnownHosts::Any, Insistence::Nothing),
        connections_max: limits::METRICS_CONNECTIONS_MAX,
    };
    let local = LocalSocket::start(&plan.data_dir, vitals.clone(), addresses.clone())?;
    let reloader = Reloader(gitops.handle());

    let (serving, beside) = (TaskTracker::new(), TaskTracker::new());
    serving.spawn(api_server.serve(draining.clone()));
    beside.spawn(metrics_server.serve(stopping.clone()));
    beside.spawn(gitops.run(core.clone(), stopping.clone()));
    beside.spawn(dispatcher.run(stopping.clone()));
    if let Some(certificates) = certificates {
        beside.spawn(keep_fresh(certificates, clock, stopping.clone()));
    }

    let addresses_file = AddressesFile::write(&plan.data_dir, &addresses)?;
    tracing::info!(api = addresses.api, metrics = addresses.metrics, "the daemon serves");
    let ca_fingerprint = ca.map(|ca| ca.fingerprint);
    if let (Some(fingerprint), Some(file)) = (&ca_fingerprint, &addresses.ca_file) {
        tracing::info!(fingerprint, file = %file.display(), "the certificate is from the daemon's own CA: runners and clients trust its file or pin its fingerprint");
    }
    Ok(Daemon {
        addresses,
        ca_fingerprint,
        core,
        core_tasks,
        vitals,
        local,
        reloader,
        draining,
        stopping,
        serving,
        beside,
        addresses_file,
    })
}

impl Daemon {
    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// `sha256:` and the hex SHA-256 of the self-made CA's certificate; `None` with a certificate of one's own.
    pub fn ca_fingerprint(&self) -> Option<String> {
        self.ca_fingerprint.clone()
    }

    /// What looks at the tree when SIGHUP asks.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// What proves that it works.
    pub fn liveness(&self) -> Liveness {
        Liveness(self.core.clone())
    }

    /// Serves until `shutdown`, then drains: parked polls are answered, requests under way finished, at most ten seconds long.
    ///
    /// # Errors
    /// A part ended before it was told to.
    pub async fn run_until(self, shutdown: CancellationToken) -> Result<(), StopError> {
        self.serving.close();
        self.beside.close();
        let ended_early = tokio::select! {
            () = shutdown.cancelled() => None,
            () = self.serving.wait() => Some("listener"),
        };
        tracing::info!("the daemon drains");
        self.vitals.begin_drain();
        self.draining.cancel();
        self.core.drain();
        self.serving.wait().await;
        self.stopping.cancel();
        self.beside.wait().await;
        let local = self.local;
        if let Err(error) = tokio::task::spawn_blocking(move || local.stop()).await {
            tracing::error!(%error, "the operator socket did not end well");
        }
        if tokio::time::timeout(CORE_DRAIN_MAX, self.core_tasks.join()).await.is_err() {
            tracing::warn!(
                "the core did not end in time; what it holds is in the store and is taken up by the next start"
            );
        }
        drop(self.addresses_file);
        tracing::info!("the daemon has stopped");
        match ended_early {
            None => Ok(()),
            Some(part) => Err(StopError::EndedEarly(part)),
        }
    }
}

/// How webhook targets are sent to: by the authorities of the system and of `[webhooks] ca_file`.
fn sender_options(settings: &DaemonWebhooks) -> Result<SenderOptions, StartError> {
    let ca_file = settings.ca_file.as_deref().map(absolute).transpose()?;
    let options = SenderOptions { ca_file, ..SenderOptions::default() };
    if options.ca_file.is_some() {
        // Told now, and not at the first event.
        Sender::new(options.clone())?;
    }
    Ok(options)
}

/// The settings with what the machine adds.
struct Plan {
    data_dir: PathBuf,
    source: DaemonSource,
    poll_interval: Duration,
    hook_secret_file: Option<PathBuf>,
    api: SocketAddr,
    metrics: SocketAddr,
    web_host: Option<String>,
    insecure_http: bool,
    given_certificate: Option<(PathBuf, PathBuf)>,
    registration_token: Option<Secret>,
    identity_file: Option<PathBuf>,
    secrets_allow: std::collections::BTreeMap<String, SecretsAllow>,
    check: CheckOptions,
    log_limits: LogLimits,
    requests_per_second: u32,
    audit_retention_ms: u64,
    sender: SenderOptions,
}

impl Plan {
    fn of(settings: DaemonSettings) -> Result<Self, StartError> {
        let hook_secret_file = settings.source.hook_secret_file.as_deref().map(absolute).transpose()?;
        if let Some(path) = &hook_secret_file {
            one_line(path, || StartError::NoHookSecret { path: path.clone() })?;
        }
        let api = settings::address("listen.api", &settings.listen.api)?;
        if settings.listen.insecure_http {
            settings::check_insecure_address(api)?;
        }
        let sender = sender_options(&settings.webhooks)?;
        let secrets_allow = settings.secrets.allow.iter();
        Ok(Self {
            data_dir: absolute(&settings.data_dir)?,
            poll_interval: Duration::from_millis(settings.source.poll_interval_ms),
            hook_secret_file,
            source: settings.source,
            api,
            metrics: settings::address("listen.metrics", &settings.listen.metrics)?,
            web_host: settings.web_host,
            insecure_http: settings.listen.insecure_http,
            given_certificate: settings.tls.map(|tls| (tls.certificate_file, tls.key_file)),
            registration_token: settings.runner_registration_token.map(registration_token).transpose()?,
            identity_file: settings.secrets.identity_file.clone(),
            secrets_allow: secrets_allow.map(|(name, allow)| (name.as_str().to_owned(), allow.clone())).collect(),
            check: check_options(&settings.secrets),
            log_limits: LogLimits {
                attempt_bytes_max: settings.logs.max_bytes,
                disk_reserve_bytes: settings.logs.disk_reserve_bytes,
            },
            requests_per_second: settings.limits.requests_per_second,
            audit_retention_ms: settings.audit_retention_ms,
            sender,
        })
    }

    fn source(&self, stopping: CancellationToken) -> Result<SourceOptions, StartError> {
        let DaemonSource { location, directory, access, allowed_signers_file, .. } = &self.source;
        // git runs in another folder than the daemon, and would take a relative path to mean another file.
        let file = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        Ok(match location {
            SourceLocation::Path(path) => SourceOptions::Folder(absolute(path)?),
            SourceLocation::Git { url, branch } => SourceOptions::Git(Box::new(GitOptions {
                url: url.clone(),
                branch: branch.clone(),
                directory: directory.clone(),
                access: SourceAccess {
                    ssh_key_file: file(&access.ssh_key_file)?,
                    known_hosts_file: file(&access.known_hosts_file)?,
                    username: access.username.clone(),
                    password_file: file(&access.password_file)?,
                    ca_file: file(&access.ca_file)?,
                },
                allowed_signers_file: file(allowed_signers_file)?,
                folder: self.data_dir.join("source"),
                stopping,
            })),
        })
    }

    fn core_options(&self, plugin_dir: PathBuf, gitops: &GitOps, clock: Clock) -> CoreOptions {
        CoreOptions {
            data_dir: self.data_dir.clone(),
            plugin_dir,
            config: gitops.applied(),
            registration_token: self.registration_token.clone(),
            identity_file: self.identity_file.clone(),
            secrets_allow: self.secrets_allow.clone(),
            clock,
            log_limits: self.log_limits,
            audit_retention_ms: self.audit_retention_ms,
            free_space: FreeSpace::Measured,
        }
    }

    /// The names that the daemon goes by: in its certificate, and in the Host header of requests.
    fn names(&self) -> Vec<String> {
        let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let mut add = |name: String| {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        };
        // A name that no certificate can hold (a container's with an underscore, say) must not keep the daemon from starting.
        let uname = rustix::system::uname();
        let host_name = uname.nodename().to_string_lossy().to_ascii_lowercase();
        if host_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
            add(host_name);
        }
        let web_host = self.web_host.as_deref().and_then(|url| url.parse::<::http::Uri>().ok());
        if let Some(host) = web_host.as_ref().and_then(::http::Uri::host) {
            add(host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase());
        }
        if !self.api.ip().is_unspecified() {
            add(IpAddr::to_string(&self.api.ip()));
        }
        names
    }

    fn certificates(&self, names: &[String], clock: &Clock) -> Result<Option<Certificates>, TlsError> {
        if self.insecure_http {
            return Ok(None);
        }
        let source = match &self.given_certificate {
            Some((certificate_file, key_file)) => {
                CertificateSource::Given { certificate_file: certificate_file.clone(), key_file: key_file.clone() }
            }
            None => CertificateSource::Made { folder: self.data_dir.join("tls"), names: names.to_vec() },
        };
        Certificates::open(source, clock.now()).map(Some)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, StartError> {
    std::path::absolute(path).map_err(|source| StartError::System { what: "its working folder", source })
}

fn bound(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::System { what: "which address was bound", source })
}

fn registration_token(source: RegistrationTokenSource) -> Result<Secret, StartError> {
    match source {
        RegistrationTokenSource::Inline(token) => Ok(Secret::new(token.reveal())),
        RegistrationTokenSource::File(path) => one_line(&path, || StartError::NoToken { path: path.clone() }),
    }
}

/// The secret that is a file's only line.
fn one_line(path: &Path, empty: impl FnOnce() -> StartError) -> Result<Secret, StartError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::new("read", path, error))?;
    match text.trim() {
        "" => Err(empty()),
        secret => Ok(Secret::new(secret)),
    }
}

/// Looks at the certificate's source now and then. A failure is said once until it changes, and what serves keeps serving.
async fn keep_fresh(certificates: Certificates, clock: Clock, stopping: CancellationToken) {
    let look = if certificates.ca().is_some() { MADE_CERTIFICATE_LOOK } else { GIVEN_CERTIFICATE_LOOK };
    let certificates = Arc::new(certificates);
    let mut said = String::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(look) => {}
        }
        let (source, now) = (Arc::clone(&certificates), clock.now());
        let Ok(outcome) = tokio::task::spawn_blocking(move || source.refresh(now)).await else { continue };
        match outcome {
            Ok(Refreshed::Unchanged) => said.clear(),
            Ok(Refreshed::Replaced) => {
                said.clear();
                tracing::info!("another certificate is served from now on");
            }
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::warn!(error, "the certificate cannot be read again: the one before keeps serving");
                    said = error;
                }
            }
        }
    }
}
