//! Sends one planned request: granted, looked up, checked, and only then connected, to the addresses that were checked and no others.
//!
//! There is one look-up. The HTTP client gets its result and cannot ask again, so a name that changes its answer in between gains
//! nothing. No redirect is followed, no proxy is asked, no connection is kept; an answer is read up to its bound and no further.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forge_plugin_host::{HttpRequest, HttpResponse};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::dns::{Name, Resolve, Resolving};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::limits::{
    ADDRESSES_MAX, ANSWER_BODY_BYTES_MAX, ANSWER_HEADER_BYTES_MAX, CONNECT_TIME_MAX, REQUEST_TIME_MAX,
};
use super::policy::{Host, Refusal};
use super::prepare::{Context, Prepared, prepare};

/// Looks names up.
pub trait Resolver: Send + Sync {
    /// All addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The system's own way.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The bounds of a request, for tests to lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimits {
    /// Until a connection stands.
    pub connect_time: Duration,
    /// All of it.
    pub request_time: Duration,
    /// Of an answer's body.
    pub answer_body_bytes: usize,
}

impl Default for SendLimits {
    fn default() -> Self {
        Self {
            connect_time: CONNECT_TIME_MAX,
            request_time: REQUEST_TIME_MAX,
            answer_body_bytes: ANSWER_BODY_BYTES_MAX,
        }
    }
}

/// How a sender is made.
#[derive(Clone)]
pub struct SenderOptions {
    /// Further authorities that are believed beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Who looks names up.
    pub resolver: Arc<dyn Resolver>,
    /// The bounds.
    pub limits: SendLimits,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self { ca_file: None, resolver: Arc::new(SystemResolver), limits: SendLimits::default() }
    }
}

/// Why no sender can be made.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The authorities cannot be read.
    #[error("{}, whose authorities webhook targets are to be believed by: {why}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is not sent, now or later.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its host's name leads nowhere.
    #[error("{host} has no address: {why}")]
    Unresolved {
        /// The host.
        host: String,
        /// What the look-up said.
        why: String,
    },
    /// No connection, or one that broke.
    #[error("{host} gave no answer: {why}")]
    Broken {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("{host} gave no whole answer within {} ms", time.as_millis())]
    TimedOut {
        /// The host.
        host: String,
        /// How long it was waited for.
        time: Duration,
    },
}

/// Sends requests.
pub struct Sender {
    tls: rustls::ClientConfig,
    resolver: Arc<dyn Resolver>,
    limits: SendLimits,
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What stands for a host that comes out of a secret.
const HIDDEN_HOST: &str = "the host of the secret URL";

impl Sender {
    /// A sender that believes the system's authorities, and those of the options.
    ///
    /// # Errors
    /// The file of authorities cannot be read or holds none.
    pub fn new(options: SenderOptions) -> Result<Self, SenderError> {
        let SenderOptions { ca_file, resolver, limits } = options;
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 && ca_file.is_none() {
            tracing::warn!("the system has no certificate authorities: no webhook target is believed over https");
        }
        if let Some(path) = &ca_file {
            add_authorities(&mut roots, path).map_err(|why| SenderError::CaFile { path: path.clone(), why })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls, resolver, limits })
    }

    /// Sends a request and hands back the answer, whatever its status.
    ///
    /// # Errors
    /// It is refused, or there is no whole answer in time.
    pub async fn send(
        &self,
        request: &HttpRequest,
        context: &Context,
        now: Timestamp,
    ) -> Result<HttpResponse, SendError> {
        let prepared = prepare(request, context, now)?;
        let host = if prepared.is_hidden { HIDDEN_HOST.to_owned() } else { prepared.destination.granted_as.clone() };
        let asked = request.timeout_ms.map(|timeout_ms| Duration::from_millis(timeout_ms.into()));
        let time = asked.map_or(self.limits.request_time, |asked| asked.min(self.limits.request_time));
        match tokio::time::timeout(time, self.exchange(request, prepared, context, &host)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(SendError::TimedOut { host, time }),
        }
    }

    async fn exchange(
        &self,
        request: &HttpRequest,
        prepared: Prepared,
        context: &Context,
        host: &str,
    ) -> Result<HttpResponse, SendError> {
        let Prepared { destination, is_hidden, headers, body } = prepared;
        let hide = |refusal: Refusal| if is_hidden { refusal.hidden() } else { refusal };
        let fixed = match &destination.host {
            // The client takes an address from the URL itself and looks nothing up.
            Host::Address(_) => Fixed { name: String::new(), addresses: Vec::new() },
            Host::Name(name, _) => {
                let unresolved = |why: String| SendError::Unresolved { host: host.to_owned(), why };
                let mut addresses = self.resolver.resolve(name).await.map_err(|error| unresolved(error.to_string()))?;
                if addresses.is_empty() {
                    return Err(unresolved("its name has none".to_owned()));
                }
                destination.check(&addresses).map_err(hide)?;
                addresses.truncate(ADDRESSES_MAX);
                Fixed { name: name.clone(), addresses }
            }
        };
        let broken =
            |error: reqwest::Error| SendError::Broken { host: host.to_owned(), why: explain(&error, is_hidden) };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(fixed)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(0)
            .connect_timeout(self.limits.connect_time)
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(broken)?;
        let method = match request.method {
            forge_plugin_host::Method::Get => reqwest::Method::GET,
            forge_plugin_host::Method::Post => reqwest::Method::POST,
            forge_plugin_host::Method::Put => reqwest::Method::PUT,
            forge_plugin_host::Method::Patch => reqwest::Method::PATCH,
            forge_plugin_host::Method::Delete => reqwest::Method::DELETE,
        };
        let mut answer =
            client.request(method, destination.url).headers(headers).body(body).send().await.map_err(broken)?;
        let headers = answer_headers(answer.headers(), context);
        let status = answer.status().as_u16();
        let bytes_max = self.limits.answer_body_bytes;
        let enough = bytes_max.saturating_add(context.secrets.longest_bytes());
        let mut body = Vec::new();
        while body.len() < enough
            && let Some(chunk) = answer.chunk().await.map_err(broken)?
        {
            body.extend_from_slice(chunk.get(..enough - body.len()).unwrap_or(&chunk));
        }
        Ok(HttpResponse { status, headers, body: context.secrets.mask(&body, bytes_max) })
    }
}

fn answer_headers(headers: &http::HeaderMap, context: &Context) -> Vec<(String, String)> {
    let mut bytes_left = ANSWER_HEADER_BYTES_MAX;
    let mut kept = Vec::new();
    for (name, value) in headers {
        let Some(left) = bytes_left.checked_sub(name.as_str().len() + value.len()) else { continue };
        bytes_left = left;
        let masked = context.secrets.mask(value.as_bytes(), usize::MAX);
        kept.push((name.as_str().to_owned(), String::from_utf8_lossy(&masked).into_owned()));
    }
    kept
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let mut added = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        added += 1;
    }
    if added == 0 { Err("it holds no certificate".to_owned()) } else { Ok(()) }
}

/// The innermost cause, which names no URL; of a hidden host not even that, since a certificate's error names it.
fn explain(error: &reqwest::Error, is_hidden: bool) -> String {
    if is_hidden {
        let what = if error.is_connect() { "no connection stands" } else { "the exchange broke off" };
        return what.to_owned();
    }
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    loop {
        // An io::Error made from another error shows it only through get_ref, not as its source.
        let inside = innermost.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let next = match inside {
            Some(inside) => Some(inside as &(dyn std::error::Error + 'static)),
            None => innermost.source(),
        };
        match next {
            Some(next) => innermost = next,
            None => break,
        }
    }
    if innermost.is::<reqwest::Error>() {
        // It would print the URL, secrets and all.
        return if error.is_timeout() { "it took too long".to_owned() } else { "the exchange broke off".to_owned() };
    }
    innermost.to_string()
}

/// Answers with what was checked, and knows nothing else.
struct Fixed {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Resolve for Fixed {
    fn resolve(&self, name: Name) -> Resolving {
        let known = name.as_str().eq_ignore_ascii_case(&self.name);
        // Port 0 stands for the URL's own.
        let addresses: Vec<_> = self.addresses.iter().map(|&address| SocketAddr::new(address, 0)).collect();
        Box::pin(async move {
            if known {
                Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
            } else {
                Err(io::Error::other("only the name that was checked is looked up").into())
            }
        })
    }
}
