//! A daemon of this process with a folder of its own, and clients for it: a decent one, and one that sends whatever bytes a test likes.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use forge_api::{ConfigStatus, Problem};
use forge_daemon::{Addresses, Daemon, StartError, TokenKind, new_token};
use reqwest::{Method, Response};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A fact that has not come true by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The single registration token of every daemon here.
pub(crate) const REGISTRATION_TOKEN: &str = "registration-token-of-the-tests";

/// Waits until `look` answers.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "it never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The folders of a daemon; they outlive it, so that it can be started again.
pub(crate) struct Place {
    folder: TempDir,
    /// Appended to forge.toml.
    pub(crate) extra: String,
    /// `[listen]` of forge.toml.
    pub(crate) listen: String,
    /// `[source]` of forge.toml.
    pub(crate) source: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join("tree")).expect("a tree");
        let listen = "api = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"".to_owned();
        let source = format!("path = {:?}", folder.path().join("tree"));
        Self { folder, extra: String::new(), listen, source }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the tree.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.tree().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Puts an access token into the tree and answers it.
    pub(crate) fn token(&self, name: &str, rest: &str) -> String {
        let (token, hash) = new_token(TokenKind::Access).expect("randomness");
        self.put(&format!("access/{name}.toml"), &format!("hash = \"{hash}\"\n{rest}\n"));
        token.reveal().to_owned()
    }

    pub(crate) fn settings(&self) -> forge_config::DaemonSettings {
        let text = format!(
            "data_dir = {:?}\nweb_host = \"https://forge.example.com\"\nrunner_registration_token = {REGISTRATION_TOKEN:?}\n\
             [listen]\n{}\n[source]\n{}\n{}\n",
            self.data(),
            self.listen,
            self.source,
            self.extra
        );
        match forge_config::daemon_settings("forge.toml", Some(&text), &BTreeMap::new()) {
            Ok((settings, _warnings)) => settings,
            Err(mistakes) => panic!("forge.toml is wrong: {mistakes:?}\n{text}"),
        }
    }

    pub(crate) async fn try_start(&self) -> Result<Running, StartError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider().install_default().expect("the first one");
        });
        Ok(Running::of(forge_daemon::start(self.settings()).await?))
    }

    pub(crate) async fn start(&self) -> Running {
        self.try_start().await.expect("it starts")
    }
}

/// Runs git with nothing of the machine's configuration; answers what it prints.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A daemon that serves until it is stopped or dropped.
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    pub(crate) fingerprint: Option<String>,
    pub(crate) reloader: forge_daemon::Reloader,
    shutdown: CancellationToken,
    task: JoinSet<Result<(), forge_daemon::StopError>>,
    http: reqwest::Client,
}

impl Running {
    fn of(daemon: Daemon) -> Self {
        let addresses = daemon.addresses().clone();
        let (fingerprint, reloader) = (daemon.ca_fingerprint(), daemon.reloader());
        let http = client(addresses.ca_file.as_deref());
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(daemon.run_until(shutdown.clone()));
        Self { addresses, fingerprint, reloader, shutdown, task, http }
    }

    /// Asks it to stop; [`Self::stopped`] waits for it.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    pub(crate) async fn stopped(mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.task.join_next()).await.expect("it stops in time");
        ended.expect("one task").expect("no panic").expect("a clean end");
    }

    pub(crate) async fn stop(self) {
        self.begin_stop();
        self.stopped().await;
    }

    /// A request under `/api/v1`.
    pub(crate) fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/v1{path}", self.addresses.api);
        let request = self.http.request(method, url);
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    /// What a browser asks with: it follows nothing by itself, so that a test sees where it is sent.
    pub(crate) fn browser(&self) -> reqwest::Client {
        let trusting = trusting(self.addresses.ca_file.as_deref());
        trusting.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
    }

    /// A request to a path of the daemon's own, beside the API.
    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.addresses.api))
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Response {
        self.request(Method::GET, path, token).send().await.expect("an answer")
    }

    pub(crate) async fn get_json(&self, path: &str, token: &str) -> Value {
        let answer = self.get(path, token).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    pub(crate) async fn config(&self, token: &str) -> ConfigStatus {
        serde_json::from_value(self.get_json("/config", token).await).expect("a status")
    }

    /// What the operator socket says of the configuration, which needs no token of the tree.
    pub(crate) async fn local(&self, place: &Place, path: &str) -> String {
        let mut stream = tokio::net::UnixStream::connect(place.data().join("forge.sock")).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    pub(crate) async fn local_config(&self, place: &Place) -> ConfigStatus {
        let answer = self.local(place, "/config").await;
        let (_head, body) = answer.split_once("\r\n\r\n").expect("a body");
        // tiny_http may send it in chunks: the JSON begins and ends with braces.
        let json = &body[body.find('{').expect("JSON")..=body.rfind('}').expect("JSON")];
        serde_json::from_str(json).expect("a status")
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.http.get(format!("{}/metrics", self.addresses.metrics)).send().await.expect("an answer");
        let text = text.text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    /// Still answers, and soon.
    pub(crate) async fn assert_well(&self) {
        let answer = tokio::time::timeout(Duration::from_secs(5), self.get("/projects", "")).await;
        assert_eq!(answer.expect("soon").status(), 401);
    }

    pub(crate) fn socket_address(&self) -> String {
        self.addresses.api.split_once("://").expect("a URL").1.to_owned()
    }

    /// A connection that has said nothing yet.
    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.socket_address()).await.expect("connected")
    }

    /// A TLS connection of one version, for bytes of the test's own.
    pub(crate) async fn tls(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let ca = std::fs::read(self.addresses.ca_file.as_ref().expect("a CA")).expect("readable");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca).expect("a certificate")).expect("a root");
        let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, self.tcp().await).await.expect("a handshake")
    }

    /// Sends bytes over TLS and reads the answer until the daemon closes or the answer's head is there.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.tls(&rustls::version::TLS13).await;
        // The daemon may refuse before it has taken everything: then writing fails, and the answer is what counts.
        let _ = stream.write_all(bytes).await;
        read_head(&mut stream).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Reads until the end of an answer's head, or the end of the connection.
pub(crate) async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let read = async {
        while let Ok(length @ 1..) = stream.read(&mut part).await {
            answer.extend_from_slice(&part[..length]);
            if answer.windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer or an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A client that trusts one CA.
pub(crate) fn client(ca_file: Option<&Path>) -> reqwest::Client {
    trusting(ca_file).build().expect("a client")
}

pub(crate) fn trusting(ca_file: Option<&Path>) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().no_proxy();
    match ca_file {
        Some(path) => {
            let ca = std::fs::read(path).expect("readable");
            builder.tls_certs_only([reqwest::Certificate::from_pem(&ca).expect("a certificate")])
        }
        None => builder,
    }
}

/// The problem that an answer carries.
pub(crate) async fn problem(answer: Response) -> Problem {
    let status = answer.status().as_u16();
    let media_type = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert_eq!(media_type, "application/problem+json", "status {status}");
    let problem: Problem = answer.json().await.expect("a problem");
    assert_eq!(problem.status, status);
    problem
}
