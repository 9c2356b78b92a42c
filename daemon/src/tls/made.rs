//! A CA of the daemon's own and a certificate from it, for who has none: encrypted from the first minute, on loopback too.
//!
//! The CA lives ten years and never leaves the folder; clients trust its certificate or pin its fingerprint. The
//! certificate lives 397 days and is made anew when fewer than 30 are left or when the names that it must hold have changed.
//! A certificate's dates are kept beside it, in the daemon's own words, so that nothing here has to parse X.509.

use std::path::Path;
use std::time::Duration;

use forge_api::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::{MadeCa, TlsError, fingerprint, given};
use crate::files::{self, MODE_PRIVATE, MODE_PUBLIC};
use crate::hex;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long the CA lives.
const CA_DAYS: i64 = 3_652;

/// How long a certificate lives: what browsers take at most is 398 days.
const CERTIFICATE_DAYS: i64 = 397;

/// With fewer days left a certificate is made anew.
const RENEW_DAYS: i64 = 30;

/// A certificate is valid from a day before it was made, for clients whose clocks are behind.
const BACKDATED_DAYS: i64 = 1;

/// What the daemon notes of the certificate that it made.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    names: Vec<String>,
    not_after: Timestamp,
    sha256: String,
    ca_sha256: String,
}

/// The certificate in `folder`, made anew where it must be, with the CA's own behind it in the chain.
pub(super) fn load_or_make(
    folder: &Path,
    names: &[String],
    now: Timestamp,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, MadeCa), TlsError> {
    files::make_private_folder(folder)?;
    let (ca_certificate, ca_key) = load_or_make_ca(folder, now)?;
    let ca = MadeCa { file: folder.join("ca.pem"), fingerprint: fingerprint(&ca_certificate) };
    if let Some(key) = load_certificate(folder, names, now, &ca, &ca_certificate, provider)? {
        return Ok((key, ca));
    }
    let key = make_certificate(folder, names, now, &ca, &ca_certificate, ca_key, provider)?;
    Ok((key, ca))
}

/// The CA, made when there is none. A half-made one (a key without its certificate) is made anew: nobody trusts it yet.
fn load_or_make_ca(folder: &Path, now: Timestamp) -> Result<(CertificateDer<'static>, KeyPair), TlsError> {
    let (certificate_file, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
    let unusable = |path: &Path, what: &'static str, cause: String| TlsError::Unusable {
        path: path.to_owned(),
        what,
        cause,
        hint: "restore it from a backup; or remove the folder `tls` in the data folder, and have every runner and client trust the new CA",
    };
    match (files::read_optional(&certificate_file)?, files::read_optional(&key_file)?) {
        (Some(certificate), Some(key)) => {
            let certificate = given::certificates(&certificate)
                .map_err(|cause| unusable(&certificate_file, "certificate", cause))?
                .swap_remove(0);
            let key = std::str::from_utf8(&key)
                .map_err(|error| error.to_string())
                .and_then(|key| KeyPair::from_pem(key).map_err(|error| error.to_string()))
                .map_err(|cause| unusable(&key_file, "private key", cause))?;
            Ok((certificate, key))
        }
        (Some(_), None) => Err(unusable(&key_file, "private key", "the file is missing".to_owned())),
        (None, _) => {
            let key = KeyPair::generate()?;
            let certificate = ca_params(&key, now)?.self_signed(&key)?;
            files::write_atomic(&key_file, key.serialize_pem().as_bytes(), MODE_PRIVATE)?;
            files::write_atomic(&certificate_file, certificate.pem().as_bytes(), MODE_PUBLIC)?;
            Ok((certificate.der().clone(), key))
        }
    }
}

/// The certificate on disk; `None` when it must be made anew.
fn load_certificate(
    folder: &Path,
    names: &[String],
    now: Timestamp,
    ca: &MadeCa,
    ca_certificate: &CertificateDer<'static>,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, TlsError> {
    let read = |name: &str| files::read_optional(&folder.join(name));
    let (Some(note), Some(certificate), Some(key)) =
        (read("certificate.json")?, read("certificate.pem")?, read("certificate.key")?)
    else {
        return Ok(None);
    };
    // Whatever is wrong with these files, the answer is the same: make new ones from the CA.
    let (Ok(note), Ok(mut chain), Ok(key)) =
        (serde_json::from_slice::<Note>(&note), given::certificates(&certificate), PrivateKeyDer::from_pem_slice(&key))
    else {
        return Ok(None);
    };
    let leaf = chain.swap_remove(0);
    let fresh = note.sha256 == hex::sha256(&leaf)
        && note.ca_sha256 == ca.fingerprint
        && note.names == names
        && now.plus_millis(RENEW_DAYS * DAY_MS) < note.not_after;
    if !fresh {
        return Ok(None);
    }
    Ok(CertifiedKey::from_der(vec![leaf, ca_certificate.clone()], key, provider).ok())
}

fn make_certificate(
    folder: &Path,
    names: &[String],
    now: Timestamp,
    ca: &MadeCa,
    ca_certificate: &CertificateDer<'static>,
    ca_key: KeyPair,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let issuer = Issuer::new(ca_params(&ca_key, now)?, ca_key);
    let key = KeyPair::generate()?;
    let not_after = now.plus_millis(CERTIFICATE_DAYS * DAY_MS - BACKDATED_DAYS * DAY_MS);
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = name("Forge daemon");
    set_dates(&mut params, now, not_after);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    let note = Note {
        names: names.to_vec(),
        not_after,
        sha256: hex::sha256(certificate.der()),
        ca_sha256: ca.fingerprint.clone(),
    };
    let note_file = folder.join("certificate.json");
    let note = serde_json::to_vec_pretty(&note)
        .map_err(|error| files::FileError::new("write", &note_file, std::io::Error::other(error)))?;
    files::write_atomic(&folder.join("certificate.key"), key.serialize_pem().as_bytes(), MODE_PRIVATE)?;
    files::write_atomic(&folder.join("certificate.pem"), certificate.pem().as_bytes(), MODE_PUBLIC)?;
    files::write_atomic(&note_file, &note, MODE_PRIVATE)?;
    tracing::info!(names = names.join(" "), until = %not_after, "a certificate was made");
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(|error| TlsError::Unusable {
        path: folder.join("certificate.key"),
        what: "private key",
        cause: error.to_string(),
        hint: "this is a bug in Forge",
    })?;
    Ok(CertifiedKey::from_der(vec![certificate.der().clone(), ca_certificate.clone()], key, provider)?)
}

/// The CA's parameters follow from its key alone, so that its certificate need not be parsed to sign with it.
fn ca_params(key: &KeyPair, now: Timestamp) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Two daemons' CAs must differ in name too: some clients look a CA up by it.
    let id: String = hex::sha256(key.der_bytes()).chars().take(16).collect();
    params.distinguished_name = name(&format!("Forge CA {id}"));
    set_dates(&mut params, now, now.plus_millis(CA_DAYS * DAY_MS));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn set_dates(params: &mut CertificateParams, now: Timestamp, not_after: Timestamp) {
    // rcgen's dates are the crate time's; its default is 1975, which is the one point of its that we can count from.
    let at = |moment: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_micros(u64::try_from(moment.unix_micros()).unwrap_or(0))
    };
    params.not_before = at(now.plus_millis(-BACKDATED_DAYS * DAY_MS));
    params.not_after = at(not_after);
}

#[cfg(test)]
mod tests {
    use super::super::{CertificateSource, Certificates, Refreshed};
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn names() -> Vec<String> {
        vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]
    }

    #[test]
    fn a_certificate_is_kept_until_it_is_old_or_its_names_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_unix_micros(1_800_000_000_000_000);
        let source = CertificateSource::Made { folder: folder.path().join("tls"), names: names() };
        let certificates = Certificates::open(source.clone(), now).expect("made");
        let pinned = certificates.ca().expect("a CA").fingerprint.clone();
        assert_eq!(certificates.refresh(now.plus_millis(300 * DAY_MS)).expect("looked at"), Refreshed::Unchanged);
        assert_eq!(certificates.refresh(now.plus_millis(380 * DAY_MS)).expect("renewed"), Refreshed::Replaced);

        let mut more = names();
        more.push("forge.example.com".to_owned());
        let source = CertificateSource::Made { folder: folder.path().join("tls"), names: more };
        let certificates = Certificates::open(source, now).expect("opened again");
        assert_eq!(certificates.ca().expect("a CA").fingerprint, pinned, "the CA stays");
        for private in ["ca.key", "certificate.key"] {
            let mode = std::fs::metadata(folder.path().join("tls").join(private)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{private}");
        }
    }

    #[test]
    fn a_ca_without_its_key_is_not_replaced_silently() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_unix_micros(1_800_000_000_000_000);
        let source = CertificateSource::Made { folder: folder.path().to_owned(), names: names() };
        drop(Certificates::open(source.clone(), now).expect("made"));
        std::fs::remove_file(folder.path().join("ca.key")).expect("removed");
        let error = Certificates::open(source, now).expect_err("no key");
        assert!(error.to_string().contains("ca.key") && error.hint().is_some(), "{error}");
    }
}
