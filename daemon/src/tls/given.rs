//! The operator's own certificate: two PEM files, used as they are.

use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::files::FileError;

/// Reads both files and makes sure that they belong together.
pub(super) fn load(
    certificate_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| FileError::new("read", path, error));
    let chain = certificates(&read(certificate_file)?).map_err(|cause| TlsError::Unusable {
        path: certificate_file.to_owned(),
        what: "certificate",
        cause,
        hint: "`tls.certificate_file` is PEM, the server's own certificate first and then those that signed it",
    })?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?).map_err(|error| TlsError::Unusable {
        path: key_file.to_owned(),
        what: "private key",
        cause: error.to_string(),
        hint: "`tls.key_file` is one private key in PEM (PKCS#8, PKCS#1 or SEC1), without a passphrase",
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Unusable {
        path: key_file.to_owned(),
        what: "key for the certificate",
        cause: error.to_string(),
        hint: "`tls.certificate_file` and `tls.key_file` must belong together",
    })
}

/// Every certificate of a PEM text; an error when there is none.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}
