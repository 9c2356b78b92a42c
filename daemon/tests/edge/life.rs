//! A daemon's beginning and end: addresses, locks, ports, certificates, the operator socket, and the drain.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{Place, REGISTRATION_TOKEN, client, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_written_while_it_serves_and_the_data_folder_is_private() {
    let place = Place::new();
    let daemon = place.start().await;
    let file = place.data().join("addresses.json");
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    assert_eq!(addresses["api"], daemon.addresses.api);
    assert_eq!(addresses["pid"], std::process::id());
    assert!(daemon.addresses.api.starts_with("https://127.0.0.1:") && !daemon.addresses.api.ends_with(":0"));
    assert!(daemon.addresses.metrics.starts_with("http://127.0.0.1:"));
    let mode = |path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(place.data()), 0o700);
    assert_eq!(mode(place.data().join("forge.sock")), 0o600);
    daemon.stop().await;
    assert!(!file.exists());
    assert!(!place.data().join("forge.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_listener_and_the_operator_socket_answer() {
    let place = Place::new();
    let daemon = place.start().await;
    for path in ["healthz", "readyz", "metrics"] {
        let url = format!("{}/{path}", daemon.addresses.metrics);
        assert_eq!(client(None).get(url).send().await.expect("an answer").status(), 200, "{path}");
    }
    for (path, status) in [("/healthz", 200), ("/status", 200), ("/metrics", 200), ("/config", 200), ("/other", 404)] {
        let answer = daemon.local(&place, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    assert!(daemon.local(&place, "/status").await.contains(&daemon.addresses.api));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_one_data_folder_is_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    let error = place.try_start().await.err().expect("refused").to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert!(place.data().join("addresses.json").exists(), "the first one's file stays");
    daemon.assert_well().await;
    daemon.stop().await;
    place.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("an address");
    let mut place = Place::new();
    place.listen = format!("api = \"{address}\"\nmetrics = \"127.0.0.1:0\"");
    let error = place.try_start().await.err().expect("refused");
    let said = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(said.contains(&address.to_string()) && said.contains("another process listens there"), "{said}");
    assert!(!place.data().join("addresses.json").exists());
    drop(taken);
    place.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_webhook_targets_that_cannot_be_read_are_told_at_the_start() {
    let mut place = Place::new();
    let file = place.folder().join("webhook-ca.pem");
    place.extra = format!("[webhooks]\nca_file = {file:?}\n");
    for text in [None, Some("no PEM")] {
        if let Some(text) = text {
            std::fs::write(&file, text).expect("written");
        }
        let error = place.try_start().await.err().expect("refused");
        let said = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(
            said.contains("`webhooks.ca_file`") && said.contains("webhook-ca.pem") && said.contains("in PEM"),
            "{said}"
        );
    }
    let ca = rcgen::generate_simple_self_signed(vec!["hooks.example.com".to_owned()]).expect("a certificate");
    std::fs::write(&file, ca.cert.pem()).expect("written");
    place.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_served_on_loopback_when_asked_for() {
    let mut place = Place::new();
    place.listen = "api = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\ninsecure_http = true".to_owned();
    let daemon = place.start().await;
    assert!(daemon.addresses.api.starts_with("http://"));
    assert_eq!((daemon.addresses.ca_file.as_ref(), daemon.fingerprint.as_ref()), (None, None));
    daemon.assert_well().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_certificate_is_replaced_without_a_restart() {
    let mut place = Place::new();
    let (certificate, key) = (place.folder().join("cert.pem"), place.folder().join("key.pem"));
    let issue = || {
        let names = ["localhost", "127.0.0.1", "forge.internal", "*.ops.example.com"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("made");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        std::fs::write(&certificate, made.cert.pem()).expect("written");
    };
    issue();
    place.extra = format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}");
    let daemon = place.start().await;
    assert_eq!(daemon.addresses.ca_file, None);
    let url = format!("{}/api/v1/projects", daemon.addresses.api);
    let before = client(Some(&certificate));
    assert_eq!(before.get(&url).send().await.expect("an answer").status(), 401);
    // What the certificate calls the daemon it answers to, though no `web_host` says so.
    for (host, status) in [("forge.internal", 401), ("a.ops.example.com:8443", 401), ("evil.example.com", 421)] {
        let answer = before.get(&url).header("host", host).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
    }
    // A key that is another's is not taken.
    let other = rcgen::KeyPair::generate().expect("made");
    std::fs::write(&key, other.serialize_pem()).expect("written");
    issue();
    let after = client(Some(&certificate));
    wait_for("the new certificate", || async { after.get(&url).send().await.ok() }).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_parked_polls() {
    let place = Place::new();
    let daemon = place.start().await;
    let public_key = age::x25519::Identity::generate();
    let body = json!({"name": "ny-1", "public_key": public_key.to_public().to_string(), "version": "0.1.0"});
    let registered = daemon.request(Method::POST, "/runners", REGISTRATION_TOKEN).json(&body).send().await;
    let registered = registered.expect("an answer");
    assert_eq!(registered.status(), 201, "{}", registered.text().await.unwrap_or_default());
    let registered: forge_api::RegisterResponse = registered.json().await.expect("a registration");
    let sealed = registered.sealed_token_bytes().expect("base64");
    let token = String::from_utf8(age::decrypt(&public_key, &sealed).expect("sealed to us")).expect("text");

    let claim = json!({"session": "s1", "wait_ms": 30_000, "slots": 1, "max_parallel_tasks": 0, "held": [], "version": "0.1.0"});
    let parked = daemon.request(Method::POST, "/runner/claim", &token).json(&claim).send();
    let began = Instant::now();
    let stop = async {
        wait_for("the parked claim", || async { (daemon.metric("forge_parked_claims").await == 1).then_some(()) })
            .await;
        daemon.begin_stop();
    };
    let (answer, ()) = tokio::join!(parked, stop);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200);
    let claim: forge_api::ClaimResponse = answer.json().await.expect("a claim");
    assert!(claim.jobs.is_empty());
    daemon.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(20), "answered long before its 30 s");
}
