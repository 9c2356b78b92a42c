//! The operator socket, `data_dir/forge.sock`: what `forge doctor` and `curl --unix-socket` ask on the daemon's own host, without a token.
//!
//! Mode 0600 in a folder of mode 0700: who reaches it may read the database, too. GET only, one thread. tiny_http is fit for
//! this and unfit for a network (docs/decisions), so it never gets anything but this socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use forge_api::{ConfigStatus, PROBLEM_MEDIA_TYPE, Problem};
use serde::Serialize;
use tiny_http::{Header, Method, Request, Response, Server};
use tokio::runtime::Handle;

use crate::addresses::Addresses;
use crate::http::metrics::Vitals;

/// The socket's name in the data folder.
pub const LOCAL_SOCKET: &str = "forge.sock";

/// How long the store may take to count for an answer here.
const COUNT_MAX: Duration = Duration::from_secs(5);

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}: {source}", path = path.display())]
pub struct LocalError {
    path: PathBuf,
    source: io::Error,
}

/// What `/status` answers.
#[derive(Debug, Serialize)]
struct Status<'a> {
    version: &'static str,
    ready: bool,
    addresses: &'a Addresses,
    tasks: std::collections::BTreeMap<&'static str, u64>,
    runners: std::collections::BTreeMap<&'static str, u64>,
    parked_claims: u64,
    config: ConfigStatus,
}

/// The socket and its thread; [`Self::stop`] ends both.
pub(crate) struct LocalSocket {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl LocalSocket {
    /// Binds the socket and begins to answer. The data folder is ours: a socket that lies there is a dead daemon's.
    pub(crate) fn start(data_dir: &Path, vitals: Vitals, addresses: Addresses) -> Result<Self, LocalError> {
        let path = data_dir.join(LOCAL_SOCKET);
        let failed = |source| LocalError { path: path.clone(), source };
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let server =
            Server::from_listener(listener, None).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let server = Arc::new(server);
        let (answering, runtime) = (Arc::clone(&server), Handle::current());
        let thread = std::thread::Builder::new()
            .name("forge-local".to_owned())
            .spawn(move || {
                // `recv` fails when `stop` unblocks it, and when the listener is broken: both are its end.
                while let Ok(request) = answering.recv() {
                    answer(request, &vitals, &addresses, &runtime);
                }
            })
            .map_err(failed)?;
        Ok(Self { server, thread: Some(thread), path })
    }

    /// Ends the thread and removes the socket. It blocks for as long as one answer takes.
    pub(crate) fn stop(mut self) {
        self.server.unblock();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the operator socket's thread panicked: this is a bug in Forge");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the operator socket could not be removed");
        }
    }
}

fn answer(request: Request, vitals: &Vitals, addresses: &Addresses, runtime: &Handle) {
    let path = request.url().split('?').next().unwrap_or_default().to_owned();
    let (status, media_type, body) = match (request.method(), path.as_str()) {
        (Method::Get, "/healthz") => (200, "text/plain", "ok\n".to_owned()),
        (Method::Get, "/config") => json(&vitals.view().status()),
        (Method::Get, "/metrics") => match in_time(runtime, vitals.metrics()) {
            Ok(text) => (200, "text/plain; version=0.0.4", text),
            Err(problem) => refused(&problem),
        },
        (Method::Get, "/status") => match in_time(runtime, vitals.counters()) {
            Ok(counters) => json(&Status {
                version: env!("CARGO_PKG_VERSION"),
                ready: vitals.is_ready(),
                addresses,
                tasks: counters.tasks.iter().map(|(state, count)| (state.as_str(), *count)).collect(),
                runners: counters.runners.iter().map(|(status, count)| (status.as_str(), *count)).collect(),
                parked_claims: counters.parked_claims,
                config: vitals.view().status(),
            }),
            Err(problem) => refused(&problem),
        },
        (Method::Get, _) => {
            let problem = Problem::new(404, "not-found", "Not found", format!("there is nothing at {path:?}"));
            refused(&problem.with_hint("this socket has /status, /healthz, /metrics and /config"))
        }
        (method, _) => {
            let detail = format!("this socket answers GET and not {method}");
            let problem = Problem::new(405, "method-not-allowed", "Method not allowed", detail);
            refused(&problem.with_hint("change things through the API, with a token"))
        }
    };
    let mut response = Response::from_string(body).with_status_code(status);
    if let Ok(header) = Header::from_bytes("Content-Type", media_type) {
        response.add_header(header);
    }
    if let Err(error) = request.respond(response) {
        tracing::debug!(%error, "an answer on the operator socket was not taken");
    }
}

fn in_time<T>(runtime: &Handle, work: impl Future<Output = Result<T, crate::core::CoreError>>) -> Result<T, Problem> {
    match runtime.block_on(async { tokio::time::timeout(COUNT_MAX, work).await }) {
        Ok(outcome) => outcome.map_err(|error| error.problem()),
        Err(_) => Err(Problem::new(
            504,
            "slow",
            "Too slow",
            format!("the store did not answer within {} s", COUNT_MAX.as_secs()),
        )),
    }
}

fn json(value: &impl Serialize) -> (u16, &'static str, String) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => (200, "application/json", text + "\n"),
        Err(error) => refused(&Problem::new(500, "internal", "Internal error", error.to_string())),
    }
}

fn refused(problem: &Problem) -> (u16, &'static str, String) {
    // A problem holds nothing but texts and numbers, which are always JSON.
    (problem.status, PROBLEM_MEDIA_TYPE, serde_json::to_string(problem).unwrap_or_default() + "\n")
}
