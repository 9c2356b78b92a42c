//! What a daemon needs: its settings, a data folder and secrets for itself alone, space, a certificate that is good today, an address
//! that is free or its own, and a tree that can be applied.

use std::path::Path;

use forge_api::ConfigStatus;
use forge_config::{DaemonSettings, RegistrationTokenSource, SourceLocation};
use forge_daemon::{ADDRESSES_FILE, Addresses};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{Findings, host};
use crate::settings::Environment;

/// The most mistakes of a tree that are shown here; `forge config check` shows all.
const MISTAKES_MAX: usize = 10;

pub(super) async fn look(name: &str, text: Option<&str>, environment: &Environment, findings: &mut Findings) {
    let settings = match forge_config::daemon_settings(name, text, environment) {
        Ok((settings, warnings)) => {
            findings.diagnostics("settings", &warnings);
            settings
        }
        Err(mistakes) => return findings.diagnostics("settings", &mistakes),
    };
    findings.ok("settings", format!("{name} describes a daemon"));
    files(findings, &settings);
    let mend = "free space there, or lower `disk_reserve` under [logs]: below it no new task is taken".to_owned();
    host::space(findings, &settings.data_dir, settings.logs.disk_reserve_bytes, mend);
    if let Some(tls) = &settings.tls {
        certificate(findings, &tls.certificate_file, &tls.key_file);
    } else {
        authority(findings, &settings.data_dir);
    }
    match crate::local::config_status(&settings.data_dir).await {
        Ok(status) => serving(findings, &status),
        Err(_) => {
            stopped(findings, &settings);
            tree(findings, &settings, environment);
        }
    }
    findings.note(
        "programs",
        "programs that plugins/*.toml grant are started by runners, and not looked for here",
        "see `forge doctor` on each runner's host",
    );
}

fn files(findings: &mut Findings, settings: &DaemonSettings) {
    let data_dir = &settings.data_dir;
    if host::private_folder(findings, "data_dir", data_dir) {
        for key in ["keys/signing.key", "keys/store.age", "keys/attempts.key", "tls/ca.key", "forge.db"] {
            // What is missing is made at the next start.
            let _is_there = host::secret_file(findings, "the daemon's", &data_dir.join(key));
        }
    } else {
        findings.note(
            "permissions",
            format!("data_dir {} is not there yet", data_dir.display()),
            "the first start makes it",
        );
    }
    if let Some(RegistrationTokenSource::File(path)) = &settings.runner_registration_token {
        let key = "runner_registration_token_file";
        if !host::secret_file(findings, key, path) {
            let mend = "write a token into it as its only line: `forge token new --kind registration` makes one";
            findings.error("permissions", format!("{key} {} is not there", path.display()), mend);
        }
    }
    let access = &settings.source.access;
    let public = [
        (
            "source.allowed_signers_file",
            &settings.source.allowed_signers_file,
            "write the keys into it that may sign commits, in git's allowed-signers format",
        ),
        ("source.known_hosts_file", &access.known_hosts_file, "write the server's key into it: `ssh-keyscan` shows it"),
        ("source.ca_file", &access.ca_file, "write the CA of the git server into it, in PEM"),
        ("webhooks.ca_file", &settings.webhooks.ca_file, "write the CAs of your webhook targets into it, in PEM"),
    ];
    for (key, path, mend) in public {
        if let Some(path) = path
            && let Err(error) = std::fs::File::open(path)
        {
            findings.error("permissions", format!("{key} {} cannot be read: {error}", path.display()), mend);
        }
    }
    let named = [
        ("secrets.identity_file", &settings.secrets.identity_file, "restore it: nothing else opens the tree's secrets"),
        ("source.ssh_key_file", &access.ssh_key_file, "write the private key into it that opens the repository"),
        (
            "source.password_file",
            &access.password_file,
            "write the password or token into it that opens the repository",
        ),
        ("source.hook_secret_file", &settings.source.hook_secret_file, "write the hook's secret into it"),
    ];
    for (key, path, mend) in named {
        if let Some(path) = path
            && !host::secret_file(findings, key, path)
        {
            findings.error("permissions", format!("{key} {} is not there", path.display()), mend);
        }
    }
}

/// The operator's own certificate: readable, and good today.
fn certificate(findings: &mut Findings, certificate_file: &Path, key_file: &Path) {
    let shown = certificate_file.display();
    if !host::secret_file(findings, "tls.key_file", key_file) {
        findings.error(
            "certificate",
            format!("tls.key_file {} is not there", key_file.display()),
            "name the certificate's key",
        );
    } else if let Err(error) = PrivateKeyDer::from_pem_file(key_file) {
        findings.error(
            "certificate",
            format!("tls.key_file {} holds no key: {error}", key_file.display()),
            "write it in PEM",
        );
    }
    let chain = CertificateDer::pem_file_iter(certificate_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => {
            return findings.error(
                "certificate",
                format!("tls.certificate_file {shown} holds no certificate"),
                "write it in PEM, the daemon's own first",
            );
        }
        Err(error) => {
            return findings.error(
                "certificate",
                format!("tls.certificate_file {shown} cannot be read: {error}"),
                "let the daemon's user read it, in PEM",
            );
        }
    };
    match validity(&chain) {
        Err(rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. }) => findings.error(
            "certificate",
            format!("the certificate {shown} has expired"),
            "renew it and write the new one to the same files: the daemon reads them again by itself",
        ),
        Err(rustls::CertificateError::NotValidYet | rustls::CertificateError::NotValidYetContext { .. }) => findings
            .error(
                "certificate",
                format!("the certificate {shown} is not valid yet"),
                "set this machine's clock, or wait",
            ),
        // Who may believe it is not to be told here: only its dates are.
        Ok(()) | Err(_) => findings.ok("certificate", format!("the certificate {shown} is good today")),
    }
}

/// What a verifier says of the chain's first certificate when it believes the last one.
fn validity(chain: &[CertificateDer<'_>]) -> Result<(), rustls::CertificateError> {
    let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return Ok(()) };
    let mut roots = rustls::RootCertStore::empty();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let Ok(()) = roots.add(last.clone().into_owned()) else { return Ok(()) };
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build() else {
        return Ok(());
    };
    let Ok(server) = ServerName::try_from("localhost") else { return Ok(()) };
    let between = chain.get(1..).unwrap_or_default();
    match verifier.verify_server_cert(first, between, &server, &[], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(why)) => Err(why),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The daemon's own CA: what runners pin.
fn authority(findings: &mut Findings, data_dir: &Path) {
    let file = data_dir.join("tls/ca.pem");
    match CertificateDer::from_pem_file(&file) {
        Ok(ca) => {
            let fingerprint = forge_runner::trust::Fingerprint::of(&ca);
            findings.ok("certificate", format!("runners and clients pin {fingerprint}, or take {}", file.display()));
        }
        Err(_) if !file.exists() => findings.note("certificate", "there is no CA yet", "the first start makes one"),
        Err(error) => findings.error(
            "certificate",
            format!("{} cannot be read: {error}", file.display()),
            "restore it from a backup",
        ),
    }
}

/// What a daemon that runs says of its tree: it looks at it all the time.
fn serving(findings: &mut Findings, status: &ConfigStatus) {
    findings.ok("daemon", "it runs and answers on this host");
    let Some(failure) = &status.last_error else {
        return findings.ok("tree", format!("revision {} serves", status.revision));
    };
    for found in failure.diagnostics.iter().take(MISTAKES_MAX) {
        // What is wrong with the source is in no file.
        let place = if found.file == "source" {
            found.code.clone()
        } else {
            format!("{}:{}:{}", found.file, found.line, found.column)
        };
        let message = format!("{place}: {}", found.message);
        let hint = found.hint.as_deref().unwrap_or("correct that line");
        findings.error("tree", message, format!("{hint}; the last good revision serves meanwhile"));
    }
}

/// Why it does not run, and whether it could.
fn stopped(findings: &mut Findings, settings: &DaemonSettings) {
    let said = std::fs::read(settings.data_dir.join(ADDRESSES_FILE)).ok();
    match said.and_then(|said| serde_json::from_slice::<Addresses>(&said).ok()) {
        Some(left) => findings.error(
            "daemon",
            format!("it does not answer: process {} left without a word, or is stuck", left.pid),
            "look at the end of its log, and start it again",
        ),
        None => findings.note("daemon", "it does not run", "start it with `forge daemon --config FILE`"),
    }
    for (key, address) in [("listen.api", &settings.listen.api), ("listen.metrics", &settings.listen.metrics)] {
        if let Err(error) = std::net::TcpListener::bind(address.as_str()) {
            let mend = format!("stop what uses it (`ss -ltnp` shows it), or give {key} another address");
            findings.error("listen", format!("{key} {address} cannot be listened on: {error}"), mend);
        }
    }
}

/// The tree as it lies there now.
fn tree(findings: &mut Findings, settings: &DaemonSettings, environment: &Environment) {
    let path = match &settings.source.location {
        SourceLocation::Path(path) => path,
        SourceLocation::Git { url, .. } => {
            if host::program("git", environment.get("PATH").map(String::as_str)).is_none() {
                findings.error(
                    "programs",
                    format!("there is no program git, and the tree comes from {url}"),
                    "install git",
                );
            }
            return;
        }
    };
    if !path.is_dir() {
        let mend = "make it, or set `path` under [source] to the folder with projects/ in it";
        return findings.error("tree", format!("source.path {} is no folder", path.display()), mend);
    }
    let report = match forge_daemon::check_folder(path, Some(settings)) {
        Ok(report) => report,
        Err(error) => return findings.error("tree", error.to_string(), "report this with the daemon's log"),
    };
    let mistakes: Vec<_> = report.diagnostics.iter().filter(|found| found.is_error()).cloned().collect();
    if mistakes.is_empty() {
        findings.ok("tree", format!("{} can be applied", path.display()));
    } else {
        findings.diagnostics("tree", mistakes.get(..MISTAKES_MAX).unwrap_or(&mistakes));
        let rest = mistakes.len().saturating_sub(MISTAKES_MAX);
        if rest > 0 {
            let mend = format!("`forge config check {}` shows all", path.display());
            findings.error("tree", format!("{rest} more mistakes"), mend);
        }
    }
}
