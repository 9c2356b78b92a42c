//! Sends one planned request: granted, looked up, checked, and only then connected, to the addresses that were checked and no others.
//!
//! There is one look-up, and the connection gets its result and cannot ask again, so a name that changes its answer in between gains
//! nothing. A connection is used again only when it leads to an address that this request's own look-up gave and that was checked.
//! No redirect is followed, no proxy is asked; an answer is read up to its bound and no further.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use forge_plugin_host::{HttpRequest, HttpResponse};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use jiff::Timestamp;
use reqwest::Url;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::Semaphore;

use super::limits::{
    ADDRESSES_MAX, ANSWER_BODY_BYTES_MAX, ANSWER_HEADER_BYTES_MAX, CONNECT_TIME_MAX, LOOK_UPS_MAX, REQUEST_TIME_MAX,
};
use super::policy::{Destination, Host, Refusal};
use super::pool::{ConnectError, Connection, Pool};
use super::prepare::{Context, Prepared, prepare};

/// What stands in `User-Agent`.
const USER_AGENT: &str = concat!("forge/", env!("CARGO_PKG_VERSION"));

/// Looks names up.
pub trait Resolver: Send + Sync {
    /// All addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The system's own way. So many names at a time, each on a thread that may block: a name server that is silent must not take the threads
/// that read the store.
#[derive(Clone, Debug)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(LOOK_UPS_MAX)) }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let looked_up = tokio::task::spawn_blocking(move || {
                // It is given back by the thread, which goes on when nobody waits for it any more.
                let _place = place;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            });
            looked_up.await.map_err(io::Error::other)?
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
        Self { ca_file: None, resolver: Arc::new(SystemResolver::default()), limits: SendLimits::default() }
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
    tls: Arc<rustls::ClientConfig>,
    pool: Pool,
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
        Ok(Self { tls: Arc::new(tls), pool: Pool::default(), resolver, limits })
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
        match tokio::time::timeout(time, self.exchange(request, prepared, context, &host, now)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(SendError::TimedOut { host, time }),
        }
    }

    /// Closes connections that have rested for long; answers whether any is left.
    pub(crate) fn sweep(&self) -> bool {
        self.pool.sweep()
    }

    async fn exchange(
        &self,
        request: &HttpRequest,
        prepared: Prepared,
        context: &Context,
        host: &str,
        now: Timestamp,
    ) -> Result<HttpResponse, SendError> {
        let Prepared { destination, is_hidden, headers, body } = prepared;
        let addresses = self.addresses(&destination, is_hidden, host).await?;
        let broken = |why: String| SendError::Broken { host: host.to_owned(), why };
        let asked = Asked::new(request, &destination.url, headers, body).map_err(broken)?;
        let (mut connection, answer) = self.ask(&asked, &addresses, is_hidden).await.map_err(broken)?;
        let (head, mut incoming) = answer.into_parts();
        let headers = answer_headers(&head.headers, context, now);
        let bytes_max = self.limits.answer_body_bytes;
        let enough = bytes_max.saturating_add(context.secrets.longest_bytes());
        let read = connection.drive(body_of(&mut incoming, enough)).await;
        let (body, is_whole) = read.map_err(|error| broken(explain_http(&error, is_hidden)))?;
        drop(incoming);
        if is_whole {
            self.pool.put(connection);
        }
        Ok(HttpResponse { status: head.status.as_u16(), headers, body: context.secrets.mask(&body, bytes_max) })
    }

    /// Where the request may go: looked up now, and checked.
    async fn addresses(
        &self,
        destination: &Destination,
        is_hidden: bool,
        host: &str,
    ) -> Result<Vec<SocketAddr>, SendError> {
        // What was granted has one.
        let port = destination.url.port_or_known_default().unwrap_or_default();
        let addresses = match &destination.host {
            Host::Address(address) => vec![*address],
            Host::Name(name, _) => {
                let unresolved = |why: String| SendError::Unresolved { host: host.to_owned(), why };
                let mut found = self.resolver.resolve(name).await.map_err(|error| unresolved(error.to_string()))?;
                if found.is_empty() {
                    return Err(unresolved("its name has none".to_owned()));
                }
                destination.check(&found).map_err(|refusal| if is_hidden { refusal.hidden() } else { refusal })?;
                found.truncate(ADDRESSES_MAX);
                found
            }
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// Sends it over a connection that rests, or over a new one; an error is in words.
    async fn ask(
        &self,
        asked: &Asked,
        addresses: &[SocketAddr],
        is_hidden: bool,
    ) -> Result<(Connection, http::Response<Incoming>), String> {
        if let Some(mut connection) = self.pool.take(asked.is_tls, &asked.host, addresses) {
            match connection.ask(asked.request()).await {
                Ok(answer) => return Ok((connection, answer)),
                // It was hung up on while it rested: a new one shows whether more is wrong.
                Err(error) => tracing::debug!(%error, "a connection that rested was gone"),
            }
        }
        let tls = asked.is_tls.then_some(&self.tls);
        let opened = Connection::open(&asked.host, addresses, tls, self.limits.connect_time).await;
        let mut connection = opened.map_err(|error| explain_connect(&error, is_hidden))?;
        let answer = connection.ask(asked.request()).await.map_err(|error| explain_http(&error, is_hidden))?;
        Ok((connection, answer))
    }
}

/// A request that can be sent more than once.
struct Asked {
    is_tls: bool,
    host: String,
    method: http::Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn new(request: &HttpRequest, url: &Url, mut headers: HeaderMap, body: Vec<u8>) -> Result<Self, String> {
        let method = match request.method {
            forge_plugin_host::Method::Get => http::Method::GET,
            forge_plugin_host::Method::Post => http::Method::POST,
            forge_plugin_host::Method::Put => http::Method::PUT,
            forge_plugin_host::Method::Patch => http::Method::PATCH,
            forge_plugin_host::Method::Delete => http::Method::DELETE,
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        // None of it is repeated: a secret may stand in it.
        let wrong = || "its URL cannot be written into a request".to_owned();
        let mut path = url.path().to_owned();
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(query);
        }
        let uri = Uri::try_from(path).map_err(|_| wrong())?;
        headers.insert(header::HOST, HeaderValue::try_from(authority).map_err(|_| wrong())?);
        for (name, value) in [(header::USER_AGENT, USER_AGENT), (header::ACCEPT, "*/*")] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        Ok(Self { is_tls: url.scheme() == "https", host, method, uri, headers, body: body.into() })
    }

    fn request(&self) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

/// The body up to so many bytes, and whether that was all of it.
async fn body_of(incoming: &mut Incoming, enough: usize) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut body = Vec::new();
    while body.len() < enough {
        let Some(frame) = incoming.frame().await else { return Ok((body, true)) };
        // What stands behind a body is of no use here.
        let Ok(part) = frame?.into_data() else { continue };
        body.extend_from_slice(part.get(..enough - body.len()).unwrap_or(&part));
    }
    Ok((body, false))
}

fn answer_headers(headers: &HeaderMap, context: &Context, now: Timestamp) -> Vec<(String, String)> {
    let mut bytes_left = ANSWER_HEADER_BYTES_MAX;
    let mut kept = Vec::new();
    for (name, value) in headers {
        let Some(left) = bytes_left.checked_sub(name.as_str().len() + value.len()) else { continue };
        bytes_left = left;
        let masked = context.secrets.mask(value.as_bytes(), usize::MAX);
        let mut value = String::from_utf8_lossy(&masked).into_owned();
        if *name == header::RETRY_AFTER
            && let Some(seconds) = seconds_until(&value, now)
        {
            value = seconds.to_string();
        }
        kept.push((name.as_str().to_owned(), value));
    }
    kept
}

/// How long a date is away: a guest has no clock that would tell it.
fn seconds_until(date: &str, now: Timestamp) -> Option<i64> {
    let moment = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(i64::try_from(moment.as_secs()).ok()?.saturating_sub(now.as_second()).max(0))
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

/// Why no connection stands; of a hidden host not even that, since a certificate's error names it.
fn explain_connect(error: &ConnectError, is_hidden: bool) -> String {
    if is_hidden { "no connection stands".to_owned() } else { innermost(error) }
}

fn explain_http(error: &hyper::Error, is_hidden: bool) -> String {
    if is_hidden { "the exchange broke off".to_owned() } else { innermost(error) }
}

/// The innermost cause.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
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
    innermost.to_string()
}
