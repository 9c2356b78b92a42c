//! Which certificates are believed, over real TLS.

use std::sync::Arc;

use forge_runner::trust::{Fingerprint, Trust, explain, http_client};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

struct Server {
    address: String,
    ca_pem: String,
    ca_fingerprint: Fingerprint,
    _tasks: tokio::task::JoinSet<()>,
}

async fn serve() -> Server {
    let mut params = CertificateParams::new(vec![]).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("params").signed_by(&key, &ca).expect("signed");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone(), ca.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a certificate");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    Server {
        address: format!("127.0.0.1:{port}"),
        ca_pem: ca.pem(),
        ca_fingerprint: Fingerprint::of(ca.der()),
        _tasks: tasks,
    }
}

async fn ask(trust: &Trust, host: &str) -> Result<String, String> {
    let base = format!("https://{host}");
    let client = http_client(trust).expect("a client");
    match client.get(&base).send().await {
        Ok(answer) => Ok(answer.text().await.expect("a body")),
        Err(error) => Err(explain(&error, &base)),
    }
}

#[tokio::test]
async fn only_what_was_chosen_is_believed() {
    let server = serve().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &server.ca_pem).expect("written");
    assert_eq!(ask(&Trust::CaFile(file.clone()), &server.address).await.as_deref(), Ok("ok"));
    let pinned = Trust::CaFingerprint(server.ca_fingerprint);
    assert_eq!(ask(&pinned, &server.address).await.as_deref(), Ok("ok"));

    let other = Fingerprint::of(b"another");
    let error = ask(&Trust::CaFingerprint(other), &server.address).await.expect_err("another fingerprint");
    let (expected, seen) = (other.to_string(), server.ca_fingerprint.to_string());
    assert!(error.contains(&expected) && error.contains(&seen), "{error}");

    let error = ask(&pinned, &server.address.replace("127.0.0.1", "localhost")).await.expect_err("another name");
    assert!(error.contains("another name"), "{error}");

    let stranger = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
    std::fs::write(&file, stranger.cert.pem()).expect("written");
    let error = ask(&Trust::CaFile(file), &server.address).await.expect_err("an unknown issuer");
    assert!(error.contains("ca_file or ca_fingerprint"), "{error}");
}

#[test]
fn a_ca_file_that_is_none_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "nothing").expect("written");
    let error = http_client(&Trust::CaFile(file)).expect_err("no certificate").to_string();
    assert!(error.contains("ca_file"), "{error}");
}
