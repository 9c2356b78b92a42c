//! The certificate that the API shows: the operator's own, or one from a CA that the daemon makes for itself.
//!
//! Either is replaced without a restart: connections ask a resolver, and the resolver's answer is swapped. TLS 1.3 and 1.2,
//! nothing older. It refuses a certificate whose key is another's, and keeps serving the one before.

mod given;
mod made;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use forge_api::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::files::FileError;

/// What goes wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{path} holds no usable {what}: {cause}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// A certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
    /// The TLS library refused.
    #[error("TLS could not be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    /// What to do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unusable { path: _, what: _, cause: _, hint } => Some(hint),
            Self::File(_) => Some("let the daemon's user read it, or write the folder that it lies in"),
            Self::Making(_) | Self::Library(_) => None,
        }
    }
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub(crate) enum CertificateSource {
    /// A CA of the daemon's own in this folder, and a certificate for these names.
    Made {
        /// `data_dir/tls`.
        folder: PathBuf,
        /// DNS names and addresses.
        names: Vec<String>,
    },
    /// The operator's files.
    Given {
        /// PEM, the leaf first.
        certificate_file: PathBuf,
        /// PEM.
        key_file: PathBuf,
    },
}

/// What a look at the source found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The certificate that is served is still the right one.
    Unchanged,
    /// Another one is served from now on.
    Replaced,
}

/// The certificate that is served, and where the next one comes from.
#[derive(Debug)]
pub(crate) struct Certificates {
    source: CertificateSource,
    served: Arc<Served>,
    provider: Arc<CryptoProvider>,
    ca: Option<MadeCa>,
}

/// The self-made CA, for those who must trust it.
#[derive(Clone, Debug)]
pub(crate) struct MadeCa {
    /// Its certificate in PEM.
    pub(crate) file: PathBuf,
    /// `sha256:` and the hex SHA-256 of its DER form: what runners pin.
    pub(crate) fingerprint: String,
}

/// A resolver whose answer can be swapped while connections come in.
#[derive(Debug)]
struct Served(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The names in the certificate that is shown at the moment.
#[derive(Clone, Debug)]
pub(crate) struct ServedNames(Arc<Served>);

impl ServedNames {
    /// Whether a client that asks for `host` would take the certificate as that host's: wildcards and addresses count as they do there.
    pub(crate) fn hold(&self, host: &str) -> bool {
        let served = Arc::clone(&self.0.0.read().unwrap_or_else(PoisonError::into_inner));
        let (Some(certificate), Ok(host)) = (served.cert.first(), ServerName::try_from(host)) else { return false };
        ParsedCertificate::try_from(certificate)
            .is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, &host).is_ok())
    }
}

impl Certificates {
    /// Reads or makes the certificate.
    pub(crate) fn open(source: CertificateSource, now: Timestamp) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (key, ca) = load(&source, now, &provider)?;
        Ok(Self { source, served: Arc::new(Served(RwLock::new(Arc::new(key)))), provider, ca })
    }

    /// The names in whatever certificate is shown when they are asked.
    pub(crate) fn served_names(&self) -> ServedNames {
        ServedNames(Arc::clone(&self.served))
    }

    /// The self-made CA, where there is one.
    pub(crate) fn ca(&self) -> Option<&MadeCa> {
        self.ca.as_ref()
    }

    /// Looks at the source again. An error leaves what is served as it is.
    pub(crate) fn refresh(&self, now: Timestamp) -> Result<Refreshed, TlsError> {
        let (key, _ca) = load(&self.source, now, &self.provider)?;
        let mut served = self.served.0.write().unwrap_or_else(PoisonError::into_inner);
        if served.cert == key.cert {
            return Ok(Refreshed::Unchanged);
        }
        *served = Arc::new(key);
        Ok(Refreshed::Replaced)
    }

    /// What connections are accepted with.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Served>::clone(&self.served);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(config)
    }
}

fn load(
    source: &CertificateSource,
    now: Timestamp,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Option<MadeCa>), TlsError> {
    match source {
        CertificateSource::Made { folder, names } => {
            let (key, ca) = made::load_or_make(folder, names, now, provider)?;
            Ok((key, Some(ca)))
        }
        CertificateSource::Given { certificate_file, key_file } => {
            Ok((given::load(certificate_file, key_file, provider)?, None))
        }
    }
}

/// `sha256:` and the hex SHA-256 of a certificate's DER form.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    format!("sha256:{}", crate::hex::sha256(certificate))
}
