//! A stand-in for the daemon: the runner's routes in memory, over plain HTTP on loopback, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{delete, get, patch, post, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{
    AttemptId, AttemptResult, CARRY_MISSING, ClaimRequest, ClaimResponse, ContentRange, HeartbeatRequest,
    HeartbeatResponse, Job, LOG_DIFFERS, LogAccepted, Problem, RegisterRequest, RegisterResponse, ResultAccepted,
    SIGNED_JOB_CONTEXT, SealedJob, StartRequest, StartResponse, TaskState,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::sync::Notify;

pub(crate) const REGISTRATION_TOKEN: &str = "let-me-in";
pub(crate) const RUNNER_TOKEN: &str = "forge_runner_token";

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) public_key: String,
    pub(crate) queue: VecDeque<SealedJob>,
    pub(crate) cancels: Vec<AttemptId>,
    pub(crate) logs: BTreeMap<AttemptId, Vec<u8>>,
    pub(crate) commits: BTreeMap<AttemptId, String>,
    pub(crate) results: BTreeMap<AttemptId, AttemptResult>,
    pub(crate) previous_sessions: Vec<String>,
    /// Of the newest claim: one of an older session may still be parked here, and is given nothing.
    pub(crate) session: String,
    /// From this length on, the tail of a log is lost once after it was acknowledged, as by a power cut.
    pub(crate) lose_at: Option<usize>,
    /// The first byte of the next log that comes is written wrongly.
    pub(crate) damages: bool,
    /// What every claim is answered with.
    pub(crate) refusal: Option<Problem>,
    /// What it says of its own version.
    pub(crate) version: String,
    /// No start is answered.
    pub(crate) starts_are_down: bool,
    /// How often a start was refused so.
    pub(crate) starts_refused: u32,
    /// Every attempt that wants to start is another runner's by now.
    pub(crate) starts_are_gone: bool,
    /// How often a start was answered.
    pub(crate) starts: u32,
    /// No heartbeat is answered.
    pub(crate) beats_are_down: bool,
    /// What heartbeats are answered to be lost.
    pub(crate) lost: Vec<AttemptId>,
    /// The plugin is sent once this is over.
    pub(crate) plugin_waits: bool,
    /// What is taken is not on the disk yet.
    pub(crate) unsynced: bool,
    /// How often a log was not whole when its result came.
    pub(crate) damaged: u32,
    /// How often a gap was refused.
    pub(crate) gaps: u32,
    /// Processes that must be gone when a result comes, and those that were not.
    pub(crate) watched: Vec<u32>,
    pub(crate) alive_at_result: Vec<u32>,
    /// How many claims came.
    pub(crate) claims: u32,
    /// When heartbeats came.
    pub(crate) heartbeats: Vec<Instant>,
    /// What goes wrong with the next downloads of the plugin, first one first.
    pub(crate) plugin_faults: Vec<PluginFault>,
    /// How often the plugin was asked for.
    pub(crate) plugin_requests: u32,
    /// What attempts that await approval left.
    pub(crate) carries: BTreeMap<AttemptId, Vec<u8>>,
    /// What an approved attempt gets of them.
    pub(crate) approved: Vec<u8>,
    /// What happens to what attempts leave.
    pub(crate) carry_fault: Option<CarryFault>,
    /// How often something was to be left.
    pub(crate) carry_requests: u32,
    /// What a proxy makes of pieces of logs and of results.
    pub(crate) log_fault: Option<LogFault>,
    /// The lengths of the pieces that it refused.
    pub(crate) pieces_refused: Vec<usize>,
    /// How often other bytes were refused than are held.
    pub(crate) differed: u32,
}

/// What goes wrong with a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PluginFault {
    /// Other bytes come, as many.
    Changed,
    /// The connection ends in the middle.
    Cut,
}

/// What a proxy makes of a body that is too large for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarryFault {
    /// It says so, reading nothing of it.
    Refused,
    /// It breaks off.
    BrokenOff,
}

/// What a proxy makes of a log and a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFault {
    /// It takes no body of more bytes, and says so.
    LongerThan(usize),
    /// It takes none of more bytes, and shows a page of its own instead.
    Garbled(usize),
}

pub(crate) struct Daemon {
    pub(crate) seen: Mutex<Seen>,
    pub(crate) changed: Notify,
    pub(crate) is_down: AtomicBool,
    /// How many connections were accepted.
    pub(crate) connections: Arc<AtomicU32>,
    pub(crate) key: Ed25519KeyPair,
    pub(crate) plugin: Vec<u8>,
    pub(crate) address: String,
    server: Mutex<tokio::task::JoinSet<()>>,
}

type Shared = State<Arc<Daemon>>;

/// A listener that counts what it accepts.
struct Counting(tokio::net::TcpListener, Arc<AtomicU32>);

impl axum::serve::Listener for Counting {
    type Io = tokio::net::TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let accepted = self.0.accept().await.expect("a connection");
        self.1.fetch_add(1, Ordering::SeqCst);
        accepted
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

pub(crate) fn guest() -> Vec<u8> {
    let text = format!("(module $guest\n{}\n)", include_str!("guest.wat"));
    let mut module = wat::parse_str(text).expect("the guest is a module");
    let mut resolve = wit_parser::Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/wit");
    let (package, _) = resolve.push_dir(wit).expect("the contract parses");
    let world = resolve.select_world(&[package], Some("executor-plugin")).expect("the world is there");
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8)
        .expect("it takes metadata");
    wit_component::ComponentEncoder::default().module(&module).expect("it fits").encode().expect("it is a component")
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Daemon {
    pub(crate) async fn start() -> Arc<Self> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let daemon = Arc::new(Self {
            seen: Mutex::default(),
            changed: Notify::new(),
            is_down: AtomicBool::new(false),
            connections: Arc::default(),
            key: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key"),
            plugin: guest(),
            address,
            server: Mutex::default(),
        });
        let counting = Counting(listener, Arc::clone(&daemon.connections));
        let routes = Router::new()
            .route("/api/v1/runners", post(register))
            .route("/api/v1/runner", delete(|| async { StatusCode::NO_CONTENT }))
            .route("/api/v1/runner/claim", post(claim))
            .route("/api/v1/runner/heartbeat", post(heartbeat))
            .route("/api/v1/plugins/{sha256}", get(plugin))
            .route("/api/v1/attempts/{id}/start", post(start))
            .route("/api/v1/attempts/{id}/log", patch(log))
            .route("/api/v1/attempts/{id}/result", put(result))
            .route("/api/v1/attempts/{id}/carry", put(carry).get(approved))
            .layer(axum::extract::DefaultBodyLimit::max(4 << 20))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&daemon), down))
            .with_state(Arc::clone(&daemon));
        daemon
            .server
            .lock()
            .expect("free")
            .spawn(async move { axum::serve(counting, routes).await.expect("it serves") });
        daemon
    }

    pub(crate) fn seal(&self, job: &Job) -> SealedJob {
        let json = serde_json::to_vec(job).expect("json");
        let signature = self.key.sign(&[SIGNED_JOB_CONTEXT, &json].concat());
        let public_key = self.seen.lock().expect("free").public_key.clone();
        SealedJob {
            attempt: job.attempt,
            sealed: STANDARD.encode(seal_to(&public_key, &json)),
            signature: STANDARD.encode(signature.as_ref()),
        }
    }

    pub(crate) fn queue(&self, job: &Job) {
        let sealed = self.seal(job);
        self.seen.lock().expect("free").queue.push_back(sealed);
        self.changed.notify_waiters();
    }

    pub(crate) fn cancel(&self, attempt: AttemptId) {
        self.seen.lock().expect("free").cancels.push(attempt);
        self.changed.notify_waiters();
    }

    /// Waits until `fact` answers something.
    pub(crate) async fn wait<T>(&self, what: &str, fact: impl Fn(&Seen) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = fact(&self.seen.lock().expect("free")) {
                    return found;
                }
                // Also looks by itself: a notification may come between the look and the wait.
                let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    pub(crate) async fn result(&self, attempt: AttemptId) -> (AttemptResult, String) {
        self.wait("a result with its log", |seen| {
            let result = seen.results.get(&attempt)?.clone();
            let log = seen.logs.get(&attempt).cloned().unwrap_or_default();
            (log.len() as u64 == result.log_length).then(|| {
                assert_eq!(sha256_hex(&log), result.log_sha256, "the log is whole");
                (result, String::from_utf8_lossy(&log).into_owned())
            })
        })
        .await
    }
}

pub(crate) fn seal_to(public_key: &str, bytes: &[u8]) -> Vec<u8> {
    let recipient: age::x25519::Recipient = public_key.parse().expect("an age recipient");
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).expect("one");
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).expect("it writes");
    writer.write_all(bytes).expect("it writes");
    writer.finish().expect("it ends");
    sealed
}

fn problem(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).expect("a status");
    (status, Json(problem)).into_response()
}

async fn down(State(daemon): Shared, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    if daemon.is_down.load(Ordering::SeqCst) {
        return problem(Problem::new(503, "down", "Down", "the daemon is being restarted"));
    }
    next.run(request).await
}

async fn register(State(daemon): Shared, headers: HeaderMap, Json(request): Json<RegisterRequest>) -> Response {
    if headers["authorization"] != format!("Bearer {REGISTRATION_TOKEN}") {
        return problem(Problem::new(401, "unauthorized", "Unauthorized", "the registration token is not known"));
    }
    let mut seen = daemon.seen.lock().expect("free");
    if !seen.public_key.is_empty() && seen.public_key != request.public_key {
        let taken = Problem::new(409, "name-taken", "Name taken", format!("the name {} is taken", request.name));
        return problem(taken.with_hint(format!("run `forge runners remove {}`", request.name)));
    }
    seen.public_key = request.public_key.clone();
    Json(RegisterResponse {
        disabled: None,
        name: request.name,
        sealed_token: STANDARD.encode(seal_to(&request.public_key, RUNNER_TOKEN.as_bytes())),
        signing_key: STANDARD.encode(daemon.key.public_key().as_ref()),
        project: None,
        tags: vec!["east".to_owned()],
        key_changes: Vec::new(),
    })
    .into_response()
}

async fn claim(State(daemon): Shared, headers: HeaderMap, Json(request): Json<ClaimRequest>) -> Response {
    if headers["authorization"] != format!("Bearer {RUNNER_TOKEN}") {
        return problem(Problem::new(401, "unauthorized", "Unauthorized", "the runner's token is not known"));
    }
    {
        let mut seen = daemon.seen.lock().expect("free");
        seen.claims += 1;
        seen.previous_sessions.extend(request.previous_sessions.clone());
        seen.session.clone_from(&request.session);
        if let Some(refusal) = seen.refusal.clone() {
            return problem(refusal);
        }
    }
    let parked = async {
        loop {
            let changed = daemon.changed.notified();
            {
                let mut seen = daemon.seen.lock().expect("free");
                if seen.session != request.session {
                    return ClaimResponse::default();
                }
                let cancels: Vec<AttemptId> =
                    seen.cancels.iter().copied().filter(|attempt| request.held.contains(attempt)).collect();
                let take = (request.slots as usize).min(seen.queue.len());
                if take > 0 || !cancels.is_empty() {
                    seen.cancels.retain(|attempt| !cancels.contains(attempt));
                    let jobs = seen.queue.drain(..take).collect();
                    return ClaimResponse {
                        jobs,
                        cancels,
                        daemon_version: seen.version.clone(),
                        ..ClaimResponse::default()
                    };
                }
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), parked).await.unwrap_or_default();
    Json(answer).into_response()
}

async fn heartbeat(State(daemon): Shared, Json(request): Json<HeartbeatRequest>) -> Response {
    let mut seen = daemon.seen.lock().expect("free");
    seen.heartbeats.push(Instant::now());
    let is_down = seen.beats_are_down;
    let lost = seen.lost.iter().copied().filter(|attempt| request.held.contains(attempt)).collect();
    drop(seen);
    daemon.changed.notify_waiters();
    if is_down {
        return problem(Problem::new(503, "down", "Down", "the daemon is being restarted"));
    }
    Json(HeartbeatResponse { lost, ..HeartbeatResponse::default() }).into_response()
}

async fn plugin(State(daemon): Shared, UrlPath(sha256): UrlPath<String>) -> Response {
    assert_eq!(sha256, sha256_hex(&daemon.plugin));
    let mut bytes = daemon.plugin.clone();
    daemon.wait("the plugin may go", |seen| (!seen.plugin_waits).then_some(())).await;
    let fault = {
        let mut seen = daemon.seen.lock().expect("free");
        seen.plugin_requests += 1;
        if seen.plugin_faults.is_empty() { None } else { Some(seen.plugin_faults.remove(0)) }
    };
    match fault {
        None => bytes.into_response(),
        Some(PluginFault::Changed) => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes.into_response()
        }
        Some(PluginFault::Cut) => {
            let length = [(axum::http::header::CONTENT_LENGTH, bytes.len().to_string())];
            bytes.truncate(bytes.len() / 2);
            let pieces = [Ok(bytes), Err(std::io::Error::other("the connection ends"))];
            (length, axum::body::Body::from_stream(futures_util::stream::iter(pieces))).into_response()
        }
    }
}

async fn start(State(daemon): Shared, UrlPath(id): UrlPath<AttemptId>, Json(request): Json<StartRequest>) -> Response {
    let mut seen = daemon.seen.lock().expect("free");
    if seen.starts_are_gone {
        return problem(Problem::new(410, "attempt_gone", "Attempt gone", "it is another runner's"));
    }
    if seen.starts_are_down {
        seen.starts_refused += 1;
        return problem(Problem::new(503, "down", "Down", "the daemon is being restarted"));
    }
    if let Some(commit) = request.commit {
        seen.commits.insert(id, commit);
    } else {
        seen.starts += 1;
    }
    Json(StartResponse { cancel: false }).into_response()
}

async fn log(State(daemon): Shared, UrlPath(id): UrlPath<AttemptId>, headers: HeaderMap, body: Bytes) -> Response {
    let range: ContentRange = headers["content-range"].to_str().expect("text").parse().expect("a range");
    assert_eq!(range.length(), body.len() as u64);
    let mut seen = daemon.seen.lock().expect("free");
    let refusal = match seen.log_fault {
        Some(LogFault::LongerThan(most)) if body.len() > most => Some(StatusCode::PAYLOAD_TOO_LARGE),
        Some(LogFault::Garbled(most)) if body.len() > most => Some(StatusCode::OK),
        Some(_) | None => None,
    };
    if let Some(status) = refusal {
        seen.pieces_refused.push(body.len());
        return (status, "<html>\nnot here\n</html>\n").into_response();
    }
    let damages = std::mem::take(&mut seen.damages);
    let (lose_at, unsynced) = (seen.lose_at, seen.unsynced);
    let log = seen.logs.entry(id).or_default();
    let length = log.len() as u64;
    if range.first > length {
        seen.gaps += 1;
        let mut gap = Problem::new(416, "range", "Range", "a gap");
        gap.log_length = Some(length);
        return problem(gap);
    }
    let known = usize::try_from(length - range.first).expect("small").min(body.len());
    let first = usize::try_from(range.first).expect("small");
    if log[first..first + known] != body[..known] {
        seen.differed += 1;
        drop(seen);
        daemon.changed.notify_waiters();
        return problem(Problem::new(409, LOG_DIFFERS, "Log differs", "other bytes are held"));
    }
    log.extend_from_slice(&body[known..]);
    let length = log.len() as u64;
    if damages {
        log[0] ^= 1;
    }
    if lose_at.is_some_and(|at| log.len() >= at) {
        log.truncate(log.len() / 2);
        seen.lose_at = None;
    }
    drop(seen);
    daemon.changed.notify_waiters();
    Json(LogAccepted { length, synced: if unsynced { 0 } else { length } }).into_response()
}

async fn carry(State(daemon): Shared, UrlPath(id): UrlPath<AttemptId>, request: axum::extract::Request) -> Response {
    let fault = {
        let mut seen = daemon.seen.lock().expect("free");
        seen.carry_requests += 1;
        seen.carry_fault
    };
    match fault {
        None => {
            let body = axum::body::to_bytes(request.into_body(), 64 << 20).await.expect("a body");
            daemon.seen.lock().expect("free").carries.insert(id, body.to_vec());
            StatusCode::NO_CONTENT.into_response()
        }
        Some(CarryFault::Refused) => {
            let page = "<html>\n<head><title>413 Request Entity Too Large</title></head>\n</html>\n";
            (StatusCode::PAYLOAD_TOO_LARGE, [(axum::http::header::CONNECTION, "close")], page).into_response()
        }
        Some(CarryFault::BrokenOff) => {
            let pieces = [Ok("<html>"), Err(std::io::Error::other("the connection ends"))];
            let body = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
            (StatusCode::BAD_GATEWAY, body).into_response()
        }
    }
}

async fn approved(State(daemon): Shared) -> Vec<u8> {
    daemon.seen.lock().expect("free").approved.clone()
}

async fn result(State(daemon): Shared, UrlPath(id): UrlPath<AttemptId>, body: Bytes) -> Response {
    let mut seen = daemon.seen.lock().expect("free");
    if let Some(LogFault::LongerThan(most)) = seen.log_fault
        && body.len() > most
    {
        return (StatusCode::PAYLOAD_TOO_LARGE, "<html>\nnot here\n</html>\n").into_response();
    }
    let result: AttemptResult = serde_json::from_slice(&body).expect("a result");
    let summary_bytes = result.summary.as_ref().map_or(0, |summary| summary.to_string().len());
    let is_long = result.reason.as_ref().is_some_and(|reason| reason.len() > forge_api::RESULT_REASON_BYTES_MAX);
    if is_long || summary_bytes > forge_api::RESULT_SUMMARY_BYTES_MAX {
        return problem(Problem::new(400, "invalid", "Invalid request", "it is too long"));
    }
    let is_missed =
        |carry: &forge_api::Carry| seen.carries.get(&id).is_none_or(|bytes| sha256_hex(bytes) != carry.sha256);
    if result.carry.as_ref().is_some_and(is_missed) {
        return problem(Problem::new(409, CARRY_MISSING, "Carry missing", "what the attempt carries is not here"));
    }
    let is_there = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
    seen.alive_at_result = seen.watched.iter().filter(is_there).copied().collect();
    let log = seen.logs.get(&id).cloned().unwrap_or_default();
    if log.len() as u64 > result.log_length {
        // What was acknowledged stays.
        seen.damaged += 1;
    } else if log.len() as u64 == result.log_length && sha256_hex(&log) != result.log_sha256 {
        seen.damaged += 1;
        seen.logs.remove(&id);
    }
    let log = seen.logs.get(&id).cloned().unwrap_or_default();
    let answer = ResultAccepted {
        state: TaskState::Succeeded,
        counted: true,
        log_length: log.len() as u64,
        log_whole: sha256_hex(&log) == result.log_sha256,
    };
    seen.results.insert(id, result);
    drop(seen);
    daemon.changed.notify_waiters();
    Json(answer).into_response()
}
