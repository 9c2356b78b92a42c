//! Which certificates of the daemon are believed, and the HTTP client that believes them; the command line uses it too.
//!
//! A pinned fingerprint is the SHA-256 of a CA's certificate: the chain that the daemon presents must contain that very
//! certificate, and the daemon's own certificate must chain to it and name the host. Nothing here can be told to skip a check.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: shorter than the daemon's own 75 s, so that a request never meets a closing one.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// Idle connections kept: a claim, a heartbeat and a few attempts at a time.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Hosts that are never reached through a proxy, besides those of `NO_PROXY`.
const NO_PROXY_ALWAYS: &str = "localhost,127.0.0.0/8,::1";

/// What makes a daemon's certificate believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The machine's own certificate authorities.
    #[default]
    SystemRoots,
    /// The authorities in this PEM file, and no others.
    CaFile(PathBuf),
    /// The authority whose certificate has this SHA-256, and no other.
    CaFingerprint(Fingerprint),
}

/// The SHA-256 of a certificate, written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", crate::files::hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        // Both what the daemon prints and what openssl prints (AB:CD:...) are accepted.
        let digits: String =
            text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|letter| *letter != ':').collect();
        let wrong = || TrustError::Fingerprint { text: text.to_owned() };
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = digits.get(index * 2..index * 2 + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// The certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A fingerprint that is none.
    #[error(
        "ca_fingerprint = {text:?} is no SHA-256 fingerprint: write \"sha256:\" and the 64 hex digits that the daemon prints when it starts"
    )]
    Fingerprint {
        /// As written.
        text: String,
    },
    /// The CA file.
    #[error(
        "ca_file = {path:?} cannot be used: {reason}; it must hold a CA certificate in PEM, such as data_dir/tls/ca.pem of the daemon"
    )]
    CaFile {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The machine has no authorities.
    #[error(
        "this machine has no certificate authorities ({reason}): install ca-certificates, or give ca_file or ca_fingerprint"
    )]
    NoSystemRoots {
        /// What was found.
        reason: String,
    },
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP library refuses.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
}

/// The presented chain does not hold the pinned certificate.
#[derive(Debug, thiserror::Error)]
#[error("the daemon's certificate does not match the pinned fingerprint: expected {expected}, presented {seen}")]
pub(crate) struct FingerprintMismatch {
    expected: Fingerprint,
    seen: Fingerprint,
}

/// The TLS side of a client that believes `trust`.
pub fn client_config(trust: &Trust) -> Result<rustls::ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match trust {
        Trust::SystemRoots => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
        Trust::CaFile(path) => builder.with_root_certificates(file_roots(path)?).with_no_client_auth(),
        Trust::CaFingerprint(expected) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedAuthority { expected: *expected, provider }))
            .with_no_client_auth(),
    };
    Ok(config)
}

/// An HTTP client that believes `trust`: HTTP/1.1 with kept connections, no proxy towards loopback.
pub fn http_client(trust: &Trust) -> Result<reqwest::Client, TrustError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(trust)?)
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = proxy_of_environment()? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| TrustError::Http(error.to_string()))
}

fn proxy_of_environment() -> Result<Option<reqwest::Proxy>, TrustError> {
    let read =
        |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let Some(address) = read(["HTTPS_PROXY", "https_proxy"]).or_else(|| read(["ALL_PROXY", "all_proxy"])) else {
        return Ok(None);
    };
    let except = match read(["NO_PROXY", "no_proxy"]) {
        Some(list) => format!("{list},{NO_PROXY_ALWAYS}"),
        None => NO_PROXY_ALWAYS.to_owned(),
    };
    let proxy = reqwest::Proxy::https(&address)
        .map_err(|error| TrustError::Http(format!("the environment's HTTPS_PROXY is no proxy's URL: {error}")))?;
    Ok(Some(proxy.no_proxy(reqwest::NoProxy::from_string(&except))))
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TrustError::NoSystemRoots { reason });
    }
    Ok(roots)
}

fn file_roots(path: &PathBuf) -> Result<RootCertStore, TrustError> {
    let wrong = |reason: String| TrustError::CaFile { path: path.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Believes what chains to the one certificate that has the expected fingerprint, found in the presented chain.
#[derive(Debug)]
struct PinnedAuthority {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates
            .iter()
            .chain(std::iter::once(end_entity))
            .find(|certificate| Fingerprint::of(certificate) == self.expected);
        let Some(authority) = pinned else {
            // The last of a chain is nearest to the root, so it is what the operator would have pinned.
            let seen = Fingerprint::of(intermediates.last().unwrap_or(end_entity));
            let mismatch = FingerprintMismatch { expected: self.expected, seen };
            return Err(rustls::Error::Other(rustls::OtherError(Arc::new(mismatch))));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// An error of the HTTP client in words that say what to do; `base` is where the daemon should be.
pub fn explain(error: &reqwest::Error, base: &str) -> String {
    let mut innermost = String::new();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(words) = explain_one(current, base) {
            return words;
        }
        innermost = current.to_string();
        // An io::Error made from another error shows it only through get_ref, not as its source.
        let inner = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = match inner {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    if error.is_timeout() {
        return format!(
            "no answer from {base} in time: is the daemon running there, and does a firewall let it through?"
        );
    }
    if error.is_connect() && innermost.contains("dns") || innermost.contains("lookup address") {
        return format!("the host of {base} has no address: is its name right? ({innermost})");
    }
    format!("{base} cannot be reached: {innermost}")
}

fn explain_one(error: &(dyn std::error::Error + 'static), base: &str) -> Option<String> {
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && io.kind() == std::io::ErrorKind::ConnectionRefused
    {
        return Some(format!("the connection was refused: is the daemon running at {base}?"));
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(explain_certificate(why, base)),
        rustls::Error::Other(other) if other.0.is::<FingerprintMismatch>() => Some(format!(
            "{}; if the daemon was set up anew, compare with what it prints when it starts and change ca_fingerprint",
            other.0
        )),
        rustls::Error::InvalidMessage(_) => {
            Some(format!("{base} does not speak TLS: is it plain HTTP (write http://, loopback only) or another port?"))
        }
        other => Some(format!("TLS with {base} failed: {other}")),
    }
}

fn explain_certificate(why: &rustls::CertificateError, base: &str) -> String {
    use rustls::CertificateError;
    match why {
        // Two daemons' self-made authorities bear the same name: then the signature is what does not fit.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {base} comes from an authority that this machine does not know: give ca_file or ca_fingerprint (the daemon prints it when it starts)"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the certificate of {base} is for another name: use a name that it holds, or add this one to the daemon's web_host or certificate"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {base} has expired: renew it, and check this machine's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {base} is not valid yet: check this machine's clock")
        }
        other => format!("the certificate of {base} is not accepted: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_writes_and_what_openssl_writes() {
        let print = Fingerprint::of(b"certificate");
        assert_eq!(print.to_string().parse::<Fingerprint>().ok(), Some(print));
        let pairs: Vec<String> = print.0.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(pairs.join(":").parse::<Fingerprint>().ok(), Some(print));
        for wrong in ["", "sha256:", "sha256:00", "md5:aa", &"é".repeat(32)] {
            let error = wrong.parse::<Fingerprint>().expect_err(wrong).to_string();
            assert!(error.contains("64 hex digits"), "{error}");
        }
    }
}
