//! One HTTPS connection to the daemon: requests one after the other, with as little of our own between as possible, since the
//! bench shares its machine with what it measures.

use std::sync::Arc;

use bytes::Bytes;
use forge_api::{API_PREFIX, Problem};
use forge_runner::trust::{self, Trust};
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::error::CliError;

/// Where a daemon is, and whom to believe there.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// Host and port.
    authority: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Endpoint {
    /// The daemon at an `https://` URL whose CA lies in a file.
    pub(super) fn new(url: &str, ca_file: &std::path::Path) -> Result<Self, CliError> {
        let wrong = || CliError::failed(format_args!("the daemon's address {url:?} is no https://HOST:PORT"));
        let authority = url.strip_prefix("https://").ok_or_else(wrong)?.to_owned();
        let (host, _port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        let config = trust::client_config(&Trust::CaFile(ca_file.to_owned())).map_err(CliError::failed)?;
        Ok(Self { authority, name, tls: TlsConnector::from(Arc::new(config)) })
    }
}

/// What a request carries.
pub(super) enum Body {
    Nothing,
    Json(Vec<u8>),
    /// A piece of a log and its `Content-Range`.
    Log(String, Bytes),
}

impl Body {
    /// A value as JSON.
    pub(super) fn json(value: &impl Serialize) -> Result<Self, CliError> {
        serde_json::to_vec(value).map(Self::Json).map_err(CliError::failed)
    }
}

/// One connection, opened when it is first needed and again when the daemon has closed it.
pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// What moves its bytes; it ends with this.
    driver: JoinSet<()>,
}

impl Connection {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: Arc::clone(endpoint), sender: None, driver: JoinSet::new() }
    }

    /// Opens the connection now, so that no measured request does.
    pub(super) async fn open(&mut self) -> Result<(), CliError> {
        self.sender().await.map(drop)
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, CliError> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(self.sender.insert(sender));
        }
        let Endpoint { authority, name, tls } = &*self.endpoint;
        let failed =
            |error: std::io::Error| CliError::unreachable(format_args!("no connection to {authority}: {error}"));
        let stream = TcpStream::connect(authority).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let stream = tls.connect(name.clone(), stream).await.map_err(failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(CliError::failed)?;
        self.driver.shutdown().await;
        self.driver.spawn(async move {
            // Its end shows in the next request.
            let _ended = connection.await;
        });
        Ok(self.sender.insert(sender))
    }

    /// Asks, and reads the whole answer; a problem is an error in its own words.
    pub(super) async fn ask(&mut self, method: Method, path: &str, token: &str, body: Body) -> Result<Bytes, CliError> {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{API_PREFIX}{path}"))
            .header(HOST, &self.endpoint.authority)
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let bytes = match body {
            Body::Nothing => Bytes::new(),
            Body::Json(json) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(json)
            }
            Body::Log(range, bytes) => {
                request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_RANGE, range);
                bytes
            }
        };
        let request = request.body(Full::new(bytes)).map_err(CliError::failed)?;
        let failed = |error: hyper::Error| CliError::failed(format_args!("{method} {path}: {error}"));
        let response = self.sender().await?.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(failed)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let detail = serde_json::from_slice::<Problem>(&body).map(|problem| problem.detail).unwrap_or_default();
        Err(CliError::failed(format_args!("{method} {path}: {status}: {detail}")))
    }

    /// The same for an answer in JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        token: &str,
        body: Body,
    ) -> Result<T, CliError> {
        let answer = self.ask(method, path, token, body).await?;
        serde_json::from_slice(&answer).map_err(|error| CliError::failed(format_args!("{path} answered: {error}")))
    }
}
