//! The clients of docs/decisions on the HTTP stack: each did harm to another server, and must do none here.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{PATIENCE, Place, REGISTRATION_TOKEN, problem, read_head};

/// The most bytes of a body that the daemon takes from a stranger.
const STRANGERS_BYTES_MAX: usize = 16 * 1024;

fn registration(head: &str) -> String {
    format!(
        "POST /api/v1/runners HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {REGISTRATION_TOKEN}\r\n\
         Content-Type: application/json\r\n{head}\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_content_length_is_refused_unread() {
    let place = Place::new();
    let daemon = place.start().await;
    let answer = daemon.raw(registration("Content-Length: 900000000000000000\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // The same where the body is ignored.
    let head = "POST /api/v1/tasks/1/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000000000000\r\n\r\n";
    let answer = daemon.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    daemon.assert_well().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_bounded_too() {
    let place = Place::new();
    let daemon = place.start().await;
    let body = vec![b' '; STRANGERS_BYTES_MAX + 1];
    let mut request = registration("Transfer-Encoding: chunked\r\n").into_bytes();
    request.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    request.extend_from_slice(&body);
    request.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = daemon.raw(&request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_proved_nothing_sends_little() {
    let place = Place::new();
    let daemon = place.start().await;
    let length = format!("Content-Length: {}\r\n", STRANGERS_BYTES_MAX + 1);
    let login = format!(
        "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n{length}\r\n"
    );
    for head in [registration(&length), login] {
        let request = [head.as_bytes(), &vec![b' '; STRANGERS_BYTES_MAX + 1]].concat();
        let answer = daemon.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    daemon.assert_well().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_hold_nobody_up_and_end() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = daemon.tls(&rustls::version::TLS13).await;
        stream.write_all(registration("Content-Length: 2000\r\n").as_bytes()).await.expect("sent");
        stream.write_all(b"{").await.expect("sent");
        stream.flush().await.expect("sent");
        slow.push(stream);
    }
    daemon.assert_well().await;
    for stream in &mut slow {
        let answer = read_head(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_and_never_read_hold_nobody_up() {
    let place = Place::new();
    let daemon = place.start().await;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut stream = daemon.tls(&rustls::version::TLS13).await;
        // Until the daemon takes no more: its answers find no reader.
        let flood = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
        let stuck = tokio::time::timeout(Duration::from_secs(3), flood).await;
        deaf.push((stream, stuck));
    }
    daemon.assert_well().await;
    // And a daemon that stops does not wait for them longer than its drain.
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_headers_are_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1024 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(2000));
    for flood in [long, many] {
        let answer = daemon.raw(flood.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    daemon.assert_well().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_the_tls_port_is_told_so() {
    let place = Place::new();
    let daemon = place.start().await;
    let url = daemon.addresses.api.replace("https://", "http://");
    let answer = crate::harness::client(None).get(format!("{url}/api/v1/projects")).send().await.expect("an answer");
    let problem = problem(answer).await;
    assert_eq!((problem.status, problem.slug()), (400, "plain-http"));
    assert!(problem.hint.expect("a hint").contains("https://"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_cost_little_and_are_closed() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(daemon.tcp().await);
    }
    daemon.assert_well().await;
    for stream in &mut silent {
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("closed in time");
        assert!(matches!(end, Ok(0) | Err(_)), "the daemon spoke first");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_are_spoken_and_the_ca_comes_along() {
    let place = Place::new();
    let daemon = place.start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = daemon.tls(version).await;
        let (_, session) = stream.get_ref();
        assert_eq!(session.protocol_version(), Some(version.version));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        let chain = session.peer_certificates().expect("a chain");
        let last = ring::digest::digest(&ring::digest::SHA256, chain.last().expect("a CA"));
        let hex: String = last.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(daemon.fingerprint, Some(format!("sha256:{hex}")));
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 404 "));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_another_name_are_misdirected() {
    let place = Place::new();
    let daemon = place.start().await;
    for (host, status) in
        [("evil.example.com", "421"), ("forge.example.com", "401"), ("127.0.0.1:1", "401"), ("", "400")]
    {
        let answer = daemon.raw(format!("GET /api/v1/projects HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_wrong_tokens_are_answered_429_and_right_ones_still_pass() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    let mut last = daemon.get("/projects", "wrong").await;
    for _ in 0..200 {
        if last.status() != 401 {
            break;
        }
        last = daemon.get("/projects", "wrong").await;
    }
    let seconds: u64 = last.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!((1..=60).contains(&seconds));
    assert_eq!(problem(last).await.status, 429);
    assert_eq!(daemon.get("/projects", &token).await.status(), 200, "a right token passes");
    let body = json!({"name": "a", "public_key": "age1"});
    // A runner whose token is worth nothing any more must not keep its host from registering.
    let registration = daemon.request(reqwest::Method::POST, "/runners", REGISTRATION_TOKEN).json(&body);
    assert_eq!(registration.send().await.expect("an answer").status(), 400, "its token is right, and its key is none");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_registration_tokens_is_soon_not_heard_any_more() {
    let place = Place::new();
    let daemon = place.start().await;
    let public_key = age::x25519::Identity::generate().to_public().to_string();
    let body = json!({"name": "ny-1", "public_key": public_key, "version": "0.1.0"});
    let register = |token: &str| daemon.request(reqwest::Method::POST, "/runners", token).json(&body).send();
    let mut refused = 0;
    let last = loop {
        let answer = register("wrong").await.expect("an answer");
        if answer.status() != 401 {
            break answer;
        }
        refused += 1;
        assert!(refused < 200, "it may guess for ever");
    };
    assert!(refused > 1, "a slip of the pen is forgiven");
    let seconds: u64 = last.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!((1..=60).contains(&seconds));
    assert_eq!(problem(last).await.status, 429);
    // The right one waits, too: otherwise the answer would tell it from a wrong one.
    assert_eq!(register(REGISTRATION_TOKEN).await.expect("an answer").status(), 429);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_gives_itself_nothing_when_it_registers() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    let body = json!({
        "name": "ny-1", "public_key": age::x25519::Identity::generate().to_public().to_string(), "version": "0.1.0",
        "tags": ["mars"], "project": "shop", "run_untagged": true, "enabled": true,
    });
    let answer = daemon.request(reqwest::Method::POST, "/runners", REGISTRATION_TOKEN).json(&body).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 201);
    let registered: forge_api::RegisterResponse = answer.json().await.expect("a registration");
    assert_eq!((registered.tags, registered.project), (Vec::new(), None));
    let shown = daemon.get_json("/runners/ny-1", &token).await;
    assert_eq!((&shown["tags"], &shown["project"]), (&json!([]), &json!(null)), "{shown}");
    daemon.stop().await;
}
