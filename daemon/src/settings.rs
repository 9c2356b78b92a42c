//! What the daemon checks of its settings before it touches anything: the data folder, and where it may listen in clear.
//!
//! forge-config has read and typed them; what needs the machine to be known (owners, addresses) is decided here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files;

/// How many descriptors the daemon asks the system for: each parked runner holds one.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// The settings do not go with this machine.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The data folder cannot be made or written.
    #[error("the data folder {path} cannot be used: {cause}", path = path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// An address that is none.
    #[error("`{key} = {text:?}` in forge.toml is no address")]
    Address {
        /// Which key.
        key: &'static str,
        /// Its value.
        text: String,
    },
    /// Plain HTTP where strangers can listen.
    #[error("`listen.insecure_http = true` is refused on {address}: tokens would cross the network in clear")]
    InsecureAddress {
        /// The address.
        address: SocketAddr,
    },
}

impl SettingsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::DataFolder { path: _, cause: _, hint } => hint.clone(),
            Self::Address { .. } => {
                "write IP:PORT such as \"127.0.0.1:8443\" or \"[::]:8443\"; port 0 takes any".to_owned()
            }
            Self::InsecureAddress { .. } => {
                "listen on loopback or a private address behind a proxy that speaks TLS, or remove `insecure_http`"
                    .to_owned()
            }
        }
    }
}

/// The address that a key holds.
pub(crate) fn address(key: &'static str, text: &str) -> Result<SocketAddr, SettingsError> {
    let wrong = || SettingsError::Address { key, text: text.to_owned() };
    match text.rsplit_once(':') {
        // A name for loopback is what people write; any other would have to be resolved, and may resolve to several.
        Some(("localhost", port)) => Ok(SocketAddr::from(([127, 0, 0, 1], port.parse().map_err(|_| wrong())?))),
        Some(_) | None => text.parse().map_err(|_| wrong()),
    }
}

/// Plain HTTP is for loopback and private networks, where a proxy stands in front.
pub(crate) fn check_insecure_address(address: SocketAddr) -> Result<(), SettingsError> {
    let private = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if private { Ok(()) } else { Err(SettingsError::InsecureAddress { address }) }
}

/// Makes the data folder where it is missing, 0700, and proves that it can be written.
pub(crate) fn prepare_data_folder(path: &Path) -> Result<(), SettingsError> {
    let refused = |cause: io::Error| {
        let (cause, hint) = explain(path, &cause);
        SettingsError::DataFolder { path: path.to_owned(), cause, hint }
    };
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => return Err(refused(io::ErrorKind::NotADirectory.into())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            files::make_private_folder(path).map_err(|error| refused(error.kind().into()))?;
        }
        Err(error) => return Err(refused(error)),
    }
    let probe = path.join(format!(".forge-probe-{}", std::process::id()));
    fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(refused)
}

/// What the system said, in words, with who owns what and what to do.
fn explain(path: &Path, error: &io::Error) -> (String, String) {
    let nearest = path.ancestors().find_map(|folder| fs::metadata(folder).ok().map(|metadata| (folder, metadata)));
    let this_user = rustix::process::geteuid().as_raw();
    match (error.kind(), nearest) {
        (io::ErrorKind::PermissionDenied, Some((folder, metadata))) => (
            format!(
                "user {this_user} may not write in {}, which belongs to user {} (mode {:03o})",
                folder.display(),
                metadata.uid(),
                metadata.mode() & 0o777
            ),
            format!(
                "run `install -d -m 0700 -o {this_user} {}` as root, or set `data_dir` in forge.toml (FORGE_DATA_DIR) to a folder of this user",
                path.display()
            ),
        ),
        (io::ErrorKind::NotADirectory, Some((file, metadata))) if !metadata.is_dir() => (
            format!("{} is a file", file.display()),
            "set `data_dir` in forge.toml (FORGE_DATA_DIR) to a folder, or move that file away".to_owned(),
        ),
        (io::ErrorKind::ReadOnlyFilesystem, _) => (
            "its file system is mounted read-only".to_owned(),
            "set `data_dir` in forge.toml (FORGE_DATA_DIR) to a folder that can be written".to_owned(),
        ),
        (_, _) => (
            error.to_string(),
            "set `data_dir` in forge.toml (FORGE_DATA_DIR) to a folder that this user can write".to_owned(),
        ),
    }
}

/// Raises the soft limit of descriptors as far as the system lets us, and says how many there are.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(DESCRIPTORS_WANTED);
    let soft = limit.current.unwrap_or(DESCRIPTORS_WANTED);
    let wanted = DESCRIPTORS_WANTED.min(hard);
    if soft >= wanted {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(soft, wanted, %error, "the limit of open files could not be raised");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        assert_eq!(address("listen.api", "localhost:1").expect("loopback"), "127.0.0.1:1".parse().expect("one"));
        assert!(address("listen.api", "[::]:8443").is_ok());
        let error = address("listen.api", "forge.example.com:8443").expect_err("a name");
        assert!(error.to_string().contains("listen.api"), "{error}");
    }

    #[test]
    fn plain_http_stays_where_no_stranger_listens() {
        for fine in ["127.0.0.1:1", "10.1.2.3:1", "192.168.0.1:1", "[::1]:1", "[fd00::1]:1"] {
            assert!(check_insecure_address(fine.parse().expect("an address")).is_ok(), "{fine}");
        }
        for refused in ["0.0.0.0:1", "[::]:1", "8.8.8.8:1", "[2001:db8::1]:1"] {
            assert!(check_insecure_address(refused.parse().expect("an address")).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_data_folder_is_made_private_and_a_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("a/b");
        prepare_data_folder(&data).expect("made");
        assert_eq!(fs::metadata(&data).expect("there").mode() & 0o777, 0o700);
        let file = folder.path().join("file");
        fs::write(&file, b"").expect("written");
        for wrong in [file.clone(), file.join("below")] {
            let error = prepare_data_folder(&wrong).expect_err("no folder");
            assert!(error.to_string().contains("is a file") && error.hint().contains("data_dir"), "{error}");
        }
    }
}
