//! Sending against real servers on loopback: those that answer well, and those that would like to be reached or to keep Forge busy.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender as ChannelSender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_api::Secret;
use forge_plugin_host::{
    Disposition, Host, HostOptions, HttpRequest, HttpResponse, Limits, Method, Sent, Signing, TargetCall, TargetError,
    Trap, TrapCause, WebhookEvent,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::limits::{THEN_ROUNDS_MAX, TRY_REQUESTS_MAX};
use super::policy::Refusal;
use super::{
    Calls, Context, Guest, PluginGuest, Report, Resolver, SendError, SendLimits, Sender, SenderOptions, TargetSecrets,
    Verdict, deliver,
};

#[path = "../../../plugins/host/tests/it/packed.rs"]
mod packed;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server whose requests can be read.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each connection's one request by `answer`, on a thread that lives as long as the process.
    fn start(answer: impl Fn(&mut dyn Stream) -> io::Result<()> + Send + 'static) -> Self {
        Self::start_with(move |stream, seen| {
            seen.lock().expect("nobody panics with it").push(read_request(stream)?);
            answer(stream)
        })
    }

    fn start_with(serve: impl Fn(&mut TcpStream, &Mutex<Vec<String>>) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // What a client breaks off is the test's own business.
                let _ = stream.and_then(|mut stream| serve(&mut stream, &shared));
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn named(&self, name: &str) -> String {
        format!("http://{name}:{}", self.address.port())
    }
}

trait Stream: io::Read + io::Write {}

impl<S: io::Read + io::Write> Stream for S {}

fn read_request(stream: &mut dyn Stream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut one = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one)?;
        bytes.push(one[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length =
        head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).and_then(|n| n.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    bytes.extend(body);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One name and its addresses; it counts how often it is asked, and says something else from the second time on.
struct Table {
    name: &'static str,
    says: [Vec<IpAddr>; 2],
    asked: AtomicUsize,
}

impl Table {
    fn new(name: &'static str) -> Self {
        Self { name, says: [Vec::new(), addresses(&["192.0.2.1"])], asked: AtomicUsize::new(0) }
    }
}

impl Resolver for Table {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let known = name == self.name;
        Box::pin(async move {
            match known {
                true => Ok(self.says[asked.min(1)].clone()),
                false => Err(io::Error::other("no such name")),
            }
        })
    }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("it is an address")).collect()
}

fn table(name: &'static str, first: &[&str]) -> Arc<Table> {
    let table = Table::new(name);
    let [_, later] = table.says;
    Arc::new(Table { says: [addresses(first), later], ..Table::new(name) })
}

fn context(grants: &[String]) -> Context {
    let fields = BTreeMap::from([("token".to_owned(), Secret::new("s3cr3t-token"))]);
    Context {
        target: "ops".to_owned(),
        plugin: "chat".to_owned(),
        grants: grants.iter().map(|grant| grant.parse().expect("it is a grant")).collect(),
        secrets: TargetSecrets::new(fields, Some(Secret::new("own"))).expect("there is randomness"),
        event: "task.finished".to_owned(),
        delivery: "d-1".to_owned(),
    }
}

fn post(url: &str) -> HttpRequest {
    HttpRequest {
        method: Method::Post,
        url: url.to_owned(),
        headers: Vec::new(),
        body: b"{}".to_vec(),
        timeout_ms: None,
        signing: Signing::None,
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("it is a moment")
}

fn sender(options: SenderOptions) -> Sender {
    Sender::new(options).expect("it can be made")
}

fn short() -> SendLimits {
    SendLimits { request_time: Duration::from_millis(400), ..SendLimits::default() }
}

#[tokio::test]
async fn a_request_arrives_with_its_secrets_and_none_comes_back() {
    let server = Server::start(|stream| {
        stream.write_all(
            b"HTTP/1.1 201 Created\r\nX-Echo: s3cr3t-token\r\nContent-Length: 20\r\n\r\nyou are s3cr3t-token",
        )
    });
    let context = context(&[server.url("")]);
    let token = context.secrets.placeholder("token");
    let request = HttpRequest {
        headers: vec![("Authorization".to_owned(), format!("Bearer {token}"))],
        signing: Signing::Forge,
        ..post(&server.url("/hook?a=b"))
    };
    let answer = sender(SenderOptions::default()).send(&request, &context, now()).await.expect("it arrives");
    assert_eq!((answer.status, answer.body.as_slice()), (201, &b"you are ***"[..]));
    assert!(answer.headers.contains(&("x-echo".to_owned(), "***".to_owned())), "{:?}", answer.headers);
    let [seen] = &*server.seen() else { panic!("one request") };
    let head = seen.to_ascii_lowercase();
    assert!(seen.starts_with("POST /hook?a=b HTTP/1.1\r\n") && seen.ends_with("\r\n\r\n{}"), "{seen}");
    for line in [
        "authorization: bearer s3cr3t-token",
        "forge-event: task.finished",
        "forge-delivery: d-1",
        "forge-signature: t=1700000000,v1=",
        &format!("host: {}", server.address),
    ] {
        assert!(head.contains(line), "{line}: {seen}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let inner = Server::start(|stream| stream.write_all(OK));
    let location = inner.url("/admin");
    let server = Server::start(move |stream| {
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    });
    let context = context(&[server.url("")]);
    let answer = sender(SenderOptions::default()).send(&post(&server.url("/")), &context, now()).await;
    let answer = answer.expect("it is an answer");
    assert_eq!(answer.status, 302);
    assert!(answer.headers.iter().any(|(name, _)| name == "location"), "judge sees where it would lead");
    assert!(inner.seen().is_empty(), "nobody went there");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let server = Server::start(|stream| stream.write_all(OK));
    let url = server.named("chat.example.com");
    for inside in [&["127.0.0.1"][..], &["8.8.8.8", "127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"]] {
        let resolver = table("chat.example.com", inside);
        let sender = sender(SenderOptions { resolver, ..SenderOptions::default() });
        let refused = sender.send(&post(&url), &context(std::slice::from_ref(&url)), now()).await;
        assert!(matches!(refused, Err(SendError::Refused(Refusal::NotPublic { .. }))), "{inside:?}: {refused:?}");
    }
    assert!(server.seen().is_empty(), "nobody connected");
}

#[tokio::test]
async fn the_connection_goes_where_the_one_look_up_led() {
    let server = Server::start(|stream| stream.write_all(OK));
    let url = server.named("chat.example.com");
    let resolver = table("chat.example.com", &["127.0.0.1"]);
    let sender =
        sender(SenderOptions { resolver: Arc::clone(&resolver) as Arc<dyn Resolver>, ..SenderOptions::default() });
    let context = context(&[format!("{url} in 127.0.0.0/8")]);
    let answer = sender.send(&post(&url), &context, now()).await.expect("the network is granted");
    assert_eq!(answer.status, 200);
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1, "a second answer would lead elsewhere");
    let again = sender.send(&post(&url), &context, now()).await;
    assert!(
        matches!(again, Err(SendError::Refused(Refusal::NotPublic { .. }))),
        "each request is looked up: {again:?}"
    );
}

/// A server that answers each request of a connection, until `last` says that it hangs up without a word; the number of connections.
fn keeping(last: impl Fn(usize) -> bool + Send + 'static) -> (Server, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = Server::start_with(move |stream, seen| {
        counted.fetch_add(1, Ordering::SeqCst);
        for number in 1.. {
            // Not under the lock, which the test takes while this waits.
            let request = read_request(stream)?;
            seen.lock().expect("nobody panics with it").push(request);
            stream.write_all(OK)?;
            if last(number) {
                break;
            }
        }
        Ok(())
    });
    (server, connections)
}

#[tokio::test]
async fn a_connection_is_used_again_where_the_look_up_still_leads() {
    let (server, connections) = keeping(|_| false);
    let sender = sender(SenderOptions::default());
    let context = context(&[server.url("")]);
    for _ in 0..3 {
        assert_eq!(sender.send(&post(&server.url("/")), &context, now()).await.expect("it arrives").status, 200);
    }
    assert_eq!((server.seen().len(), connections.load(Ordering::SeqCst)), (3, 1));

    let (server, connections) = keeping(|_| false);
    let url = server.named("chat.example.com");
    let resolver = Arc::new(Table {
        says: ["127.0.0.1", "127.0.0.2"].map(|said| addresses(&[said])),
        ..Table::new("chat.example.com")
    });
    let sender = self::sender(SenderOptions { resolver, ..SenderOptions::default() });
    let context = self::context(&[format!("{url} in 127.0.0.0/8")]);
    let first = sender.send(&post(&url), &context, now()).await.expect("it is granted");
    assert_eq!(first.status, 200);
    let moved = sender.send(&post(&url), &context, now()).await;
    assert!(matches!(moved, Err(SendError::Broken { .. })), "nobody listens where the name leads now: {moved:?}");
    assert_eq!((server.seen().len(), connections.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_connection_that_was_hung_up_on_costs_no_answer() {
    let (server, connections) = keeping(|number| number == 2);
    let sender = sender(SenderOptions::default());
    let context = context(&[server.url("")]);
    for _ in 0..5 {
        assert_eq!(sender.send(&post(&server.url("/")), &context, now()).await.expect("it arrives").status, 200);
    }
    assert_eq!((server.seen().len(), connections.load(Ordering::SeqCst)), (5, 3));
}

#[tokio::test]
async fn a_date_to_wait_for_is_told_in_seconds() {
    for (said, told) in
        [("Tue, 14 Nov 2023 22:13:23 GMT", "3"), ("Tue, 14 Nov 2023 22:13:19 GMT", "0"), ("7", "7"), ("soon", "soon")]
    {
        let server = Server::start(move |stream| {
            write!(stream, "HTTP/1.1 503 Busy\r\nRetry-After: {said}\r\nContent-Length: 0\r\n\r\n")
        });
        let context = context(&[server.url("")]);
        let answer = sender(SenderOptions::default()).send(&post(&server.url("/")), &context, now()).await;
        let headers = answer.expect("it is an answer").headers;
        assert!(headers.contains(&("retry-after".to_owned(), told.to_owned())), "{said}: {headers:?}");
    }
}

#[tokio::test]
async fn what_gives_no_answer_says_why() {
    let resolver = table("chat.example.com", &[]);
    let named = sender(SenderOptions { resolver, ..SenderOptions::default() });
    let grants = ["chat.example.com".to_owned(), "other.example.com".to_owned()];
    let nowhere =
        named.send(&post("https://chat.example.com/"), &context(&grants), now()).await.expect_err("no address");
    assert_eq!(nowhere.to_string(), "chat.example.com has no address: its name has none");
    let unknown = named.send(&post("https://other.example.com/"), &context(&grants), now()).await.expect_err("no name");
    assert_eq!(unknown.to_string(), "other.example.com has no address: no such name");

    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port was free");
    let url = format!("http://{closed}");
    let refused = sender(SenderOptions::default()).send(&post(&url), &context(std::slice::from_ref(&url)), now()).await;
    let Err(SendError::Broken { host, why }) = refused else { panic!("nobody listens: {refused:?}") };
    assert!(host == url && why.contains("refused"), "{host}: {why}");

    let silent = Server::start(|_| Ok(()));
    let url = silent.url("/{{secret:token}}");
    let context = context(&[silent.url("")]);
    let url = url.replace("{{secret:token}}", &context.secrets.placeholder("token"));
    let broken = sender(SenderOptions::default()).send(&post(&url), &context, now()).await.expect_err("it hangs up");
    assert!(matches!(broken, SendError::Broken { .. }) && !broken.to_string().contains("s3cr3t"), "{broken:?}");
}

#[tokio::test]
async fn a_server_that_answers_byte_by_byte_is_waited_for_no_longer() {
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "HTTP/1.1 200 OK\r\nX-Endless: "] {
        let server = Server::start(move |stream| {
            stream.write_all(head.as_bytes())?;
            loop {
                stream.write_all(b"x")?;
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        let context = context(&[server.url("")]);
        let sender = sender(SenderOptions { limits: short(), ..SenderOptions::default() });
        let late = sender.send(&post(&server.url("/")), &context, now()).await;
        assert!(matches!(late, Err(SendError::TimedOut { .. })), "{late:?}");
        let asked = HttpRequest { timeout_ms: Some(50), ..post(&server.url("/")) };
        let late = sender.send(&asked, &context, now()).await.expect_err("it is late");
        assert_eq!(late.to_string(), format!("{} gave no whole answer within 50 ms", server.url("")));
    }
}

// The test waits for the server on its own thread, so the connection needs another one to be dropped on.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_without_end_is_cut() {
    let (told, written): (ChannelSender<usize>, Receiver<usize>) = channel();
    let server = Server::start(move |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")?;
        let block = [b'x'; 64 * 1024];
        let mut written = 0;
        while written < 1 << 30 && stream.write_all(&block).is_ok() {
            written += block.len();
        }
        told.send(written).map_err(io::Error::other)
    });
    let context = context(&[server.url("")]);
    let answer = sender(SenderOptions::default()).send(&post(&server.url("/")), &context, now()).await;
    assert_eq!(answer.expect("its begin is an answer").body.len(), SendLimits::default().answer_body_bytes);
    let written = written.recv_timeout(Duration::from_secs(20)).expect("the server is hung up on");
    assert!(written < 1 << 28, "{written} bytes went over the wire");
}

#[tokio::test]
async fn over_tls_only_who_is_believed_is_told_anything() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["chat.example.com".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
        .map(Arc::new)
        .expect("the server's side stands");
    let server = Server::start_with(move |stream, seen| {
        let connection = rustls::ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(connection, stream);
        seen.lock().expect("nobody panics with it").push(read_request(&mut stream)?);
        stream.write_all(OK)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certificate.pem()).expect("it is ours");
    let send = async |name: &'static str, ca_file: Option<PathBuf>| {
        let resolver = table(name, &["127.0.0.1"]);
        let sender = sender(SenderOptions { ca_file, resolver, ..SenderOptions::default() });
        let host = format!("{name}:{}", server.address.port());
        let context = context(&[format!("{host} in 127.0.0.1")]);
        sender.send(&post(&format!("https://{host}/")), &context, now()).await
    };
    let stranger = send("chat.example.com", None).await.expect_err("nobody vouches for it").to_string();
    assert!(stranger.contains("invalid peer certificate"), "{stranger}");
    let other = send("other.example.com", Some(ca_file.clone())).await.expect_err("it is another's").to_string();
    assert!(other.contains("invalid peer certificate"), "{other}");
    assert!(server.seen().is_empty(), "nothing was said to either");
    let answer = send("chat.example.com", Some(ca_file)).await.expect("it is believed");
    assert_eq!(answer.body, b"ok");
    let missing =
        Sender::new(SenderOptions { ca_file: Some(folder.path().join("none.pem")), ..SenderOptions::default() });
    assert!(missing.is_err());
}

type Judge = fn(&Sent, &HttpResponse) -> Disposition;

/// Plans what it was given, and judges by a function.
struct Scripted {
    plan: Result<Vec<HttpRequest>, TargetError>,
    judge: Judge,
}

impl Guest for Scripted {
    fn plan(&self, _event: &WebhookEvent, _over: &CancellationToken) -> Result<Vec<HttpRequest>, TargetError> {
        self.plan.clone()
    }

    fn judge(
        &self,
        _event: &WebhookEvent,
        sent: &Sent,
        response: &HttpResponse,
        _over: &CancellationToken,
    ) -> Result<Disposition, TargetError> {
        Ok((self.judge)(sent, response))
    }
}

fn calls() -> Calls {
    Calls { of_target: Arc::new(Semaphore::new(1)), of_all: Arc::new(Semaphore::new(1)) }
}

async fn tried(context: &Context, plan: Result<Vec<HttpRequest>, TargetError>, judge: Judge) -> Report {
    let sender = sender(SenderOptions::default());
    let guest = Arc::new(Scripted { plan, judge });
    deliver(guest, WebhookEvent::default(), context, &sender, &calls(), now).await
}

#[tokio::test]
async fn a_try_ends_as_its_answers_say() {
    let server = Server::start(|stream| stream.write_all(OK));
    let context = context(&[server.url("")]);
    let one = || Ok(vec![post(&server.url("/a"))]);
    let done: Judge = |_, _| Disposition::Done;
    let report = tried(&context, one(), done).await;
    assert_eq!(report.verdict, Verdict::Delivered);
    assert_eq!(report.exchanges[0].outcome, Ok(200));
    assert_eq!(
        tried(&context, one(), |_, _| Disposition::Skip("old".to_owned())).await.verdict,
        Verdict::Skipped("old".to_owned())
    );
    let later = |_: &Sent, _: &HttpResponse| Disposition::Retry { message: "busy".to_owned(), after_ms: Some(7) };
    assert_eq!(
        tried(&context, one(), later).await.verdict,
        Verdict::Retry { message: "busy".to_owned(), after_ms: Some(7) }
    );
    let never = |_: &Sent, _: &HttpResponse| Disposition::GiveUp("no".to_owned());
    assert_eq!(tried(&context, one(), never).await.verdict, Verdict::GaveUp("no".to_owned()));
    assert!(matches!(tried(&context, Ok(Vec::new()), done).await.verdict, Verdict::Skipped(_)));
    let refused = tried(&context, Err(TargetError::Refused("no room".to_owned())), done).await;
    assert_eq!(refused.verdict, Verdict::GaveUp("no room".to_owned()));

    let inside = tried(&context, Ok(vec![post("http://169.254.169.254/latest/meta-data/")]), done).await;
    let words = "denied: http://169.254.169.254 is not in [allow].hosts of plugins/chat.toml";
    assert_eq!(inside.verdict, Verdict::GaveUp(words.to_owned()));
    assert_eq!(inside.exchanges[0].outcome, Err(words.to_owned()));

    let hung_up = Server::start(|_| Ok(()));
    let context = self::context(&[hung_up.url("")]);
    let url = hung_up.url(&format!("/{}", context.secrets.placeholder("token")));
    let report = tried(&context, Ok(vec![post(&url)]), done).await;
    assert!(matches!(report.verdict, Verdict::Retry { .. }), "{:?}", report.verdict);
    assert_eq!(report.exchanges[0].url, hung_up.url("/{{secret:token}}"));
    assert!(!format!("{report:?}").contains("s3cr3t"), "{report:?}");
}

#[tokio::test]
async fn then_is_followed_and_never_for_ever() {
    let server = Server::start(|stream| stream.write_all(OK));
    let context = context(&[server.url("")]);
    let plan = || Ok(vec![post(&server.url("/"))]);
    let once: Judge = |sent, _| match sent.round {
        0 => Disposition::Then(vec![sent.request.clone(), sent.request.clone()]),
        _ => Disposition::Done,
    };
    let report = tried(&context, plan(), once).await;
    assert_eq!(report.verdict, Verdict::Delivered);
    let places: Vec<_> = report.exchanges.iter().map(|exchange| (exchange.round, exchange.index)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 1)]);

    let again: Judge = |sent, _| Disposition::Then(vec![sent.request.clone()]);
    let report = tried(&context, plan(), again).await;
    assert!(matches!(&report.verdict, Verdict::GaveUp(why) if why.contains("`then`")), "{:?}", report.verdict);
    assert_eq!(report.exchanges.len(), THEN_ROUNDS_MAX as usize + 1);

    let flood: Judge = |sent, _| Disposition::Then(vec![sent.request.clone(); 16]);
    let report = tried(&context, plan(), flood).await;
    assert!(
        matches!(&report.verdict, Verdict::GaveUp(why) if why.contains("more than 32 requests")),
        "{:?}",
        report.verdict
    );
    assert_eq!(report.exchanges.len(), TRY_REQUESTS_MAX);
}

/// What a real component gets for planning a GET of `url`, where `grants` are granted.
async fn asked_for(url: &str, grants: &[String]) -> Verdict {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let host = Host::new(HostOptions::default()).expect("the engine starts");
    let plugin = host.load(&packed::component(&root, "webhook-anywhere")).expect("it loads");
    let call = TargetCall { plugin_name: "chat".to_owned(), limits: Limits::default() };
    let event = WebhookEvent { kind: url.to_owned(), ..WebhookEvent::default() };
    let sender = sender(SenderOptions::default());
    deliver(Arc::new(PluginGuest { plugin, call }), event, &context(grants), &sender, &calls(), now).await.verdict
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_component_reaches_granted_places_and_nothing_else() {
    let inner = Server::start(|stream| stream.write_all(OK));
    let location = inner.url("/admin");
    let granted = Server::start(move |stream| {
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    });
    let grants = [granted.url("")];
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        &format!("http://{}@169.254.169.254/", granted.address),
        &inner.url("/admin"),
    ] {
        let verdict = asked_for(url, &grants).await;
        assert!(matches!(verdict, Verdict::GaveUp(_)), "{url}: {verdict:?}");
    }
    // A redirect is an answer, which this guest finds good: nobody follows it.
    assert_eq!(asked_for(&granted.url("/hook"), &grants).await, Verdict::Delivered);
    assert_eq!((granted.seen().len(), inner.seen().len()), (1, 0));
}

/// A guest whose first call computes until nobody waits for it, and tells that it has begun and that it ended.
struct Computes {
    begun: tokio::sync::mpsc::UnboundedSender<&'static str>,
}

impl Guest for Computes {
    fn plan(&self, _event: &WebhookEvent, over: &CancellationToken) -> Result<Vec<HttpRequest>, TargetError> {
        self.begun.send("begun").expect("the test listens");
        while !over.is_cancelled() {
            std::thread::yield_now();
        }
        self.begun.send("over").expect("the test listens");
        Err(TargetError::Canceled)
    }

    fn judge(
        &self,
        _event: &WebhookEvent,
        _sent: &Sent,
        _response: &HttpResponse,
        _over: &CancellationToken,
    ) -> Result<Disposition, TargetError> {
        Ok(Disposition::Done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_plugin_computes_holds_its_own_places_and_leaves_them_when_nobody_waits() {
    let server = Server::start(|stream| stream.write_all(OK));
    let context = Arc::new(context(&[server.url("")]));
    let sender = Arc::new(sender(SenderOptions::default()));
    let of_all = Arc::new(Semaphore::new(2));
    let slow = Calls { of_target: Arc::new(Semaphore::new(1)), of_all: Arc::clone(&of_all) };
    let (begun, mut told) = tokio::sync::mpsc::unbounded_channel();
    let guest: Arc<dyn Guest> = Arc::new(Computes { begun });
    let mut computing = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (guest, context, sender, slow) =
            (Arc::clone(&guest), Arc::clone(&context), Arc::clone(&sender), slow.clone());
        computing.spawn(async move { deliver(guest, WebhookEvent::default(), &context, &sender, &slow, now).await });
    }
    assert_eq!(told.recv().await, Some("begun"));
    let quick = Calls { of_target: Arc::new(Semaphore::new(1)), of_all };
    let plan = Ok(vec![post(&server.url("/"))]);
    let guest = Arc::new(Scripted { plan, judge: |_, _| Disposition::Done });
    let report = deliver(guest, WebhookEvent::default(), &context, &sender, &quick, now).await;
    assert_eq!(report.verdict, Verdict::Delivered, "another target has a place");
    assert!(told.try_recv().is_err(), "and the two that wait hold none");
    computing.shutdown().await;
    assert_eq!(told.recv().await, Some("over"), "it computes for nobody");
}

#[tokio::test]
async fn without_room_for_its_plugin_a_delivery_was_not_tried() {
    let busy = TargetError::Trapped(Trap { cause: TrapCause::Busy, frames: Vec::new() });
    let report = tried(&context(&[]), Err(busy), |_, _| Disposition::Done).await;
    assert!(matches!(report.verdict, Verdict::Postponed(_)), "{:?}", report.verdict);
}
