//! A git server over HTTPS: `git http-backend` behind a few lines of axum, with one user and password.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) const LOGIN: &str = "robot";
pub(crate) const PASSWORD: &str = "a \"quoted\" pass'word";

/// Serves the bare repositories of a folder.
pub(crate) struct GitServer {
    pub(crate) url: String,
    pub(crate) certificate: PathBuf,
    /// Every `Authorization` that came.
    pub(crate) credentials: Arc<Mutex<Vec<String>>>,
    _task: tokio::task::JoinSet<()>,
}

#[derive(Clone)]
struct Served {
    root: PathBuf,
    backend: PathBuf,
    credentials: Arc<Mutex<Vec<String>>>,
}

struct Tls(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.expect("a connection");
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// The program of git that serves.
fn backend() -> PathBuf {
    let output = std::process::Command::new("git").arg("--exec-path").output().expect("git runs");
    let backend = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("git-http-backend");
    let missing = "this story runs git's own HTTP server: install a git that has it (Debian: apt-get install git)";
    assert!(backend.is_file(), "{} is not there; {missing}", backend.display());
    backend
}

impl GitServer {
    pub(crate) async fn start(root: &Path, certificate: &Path) -> Self {
        let backend = backend();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(certificate, made.cert.pem()).expect("written");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der())),
            )
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let credentials: Arc<Mutex<Vec<String>>> = Arc::default();
        let served = Served { root: root.to_owned(), backend, credentials: Arc::clone(&credentials) };
        let routes = Router::new().fallback(serve).with_state(served);
        let mut task = tokio::task::JoinSet::new();
        let listener = Tls(listener, TlsAcceptor::from(Arc::new(config)));
        task.spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { url, certificate: certificate.to_owned(), credentials, _task: task }
    }
}

async fn serve(State(served): State<Served>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let given = header("authorization");
    if !given.is_empty() {
        served.credentials.lock().expect("free").push(given.clone());
    }
    if given != format!("Basic {}", STANDARD.encode(format!("{LOGIN}:{PASSWORD}"))) {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"git\"")]).into_response();
    }
    let mut child = tokio::process::Command::new(&served.backend)
        .env("GIT_PROJECT_ROOT", &served.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeding = async move { stdin.write_all(&body).await };
    let (fed, output) = tokio::join!(feeding, child.wait_with_output());
    fed.expect("fed");
    answer(&output.expect("an end").stdout)
}

/// Turns what a CGI program prints into an answer.
fn answer(printed: &[u8]) -> Response {
    let end = printed.windows(4).position(|four| four == b"\r\n\r\n").expect("headers");
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&printed[..end]).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().expect("a status")),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(printed[end + 4..].to_vec())).expect("an answer")
}
