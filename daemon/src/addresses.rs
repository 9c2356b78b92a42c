//! Where the daemon listens, in `data_dir/addresses.json`: how tools find a daemon that was told to take any port.
//!
//! The file is there exactly while the daemon serves: written whole after every listener is bound, removed at its end.
//! One that a killed daemon left behind is replaced by the next; its `pid` tells a reader which it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The file's name in the data folder.
pub const ADDRESSES_FILE: &str = "addresses.json";

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The API's base URL by the bound address, without a trailing slash.
    pub api: String,
    /// The base URL of `/healthz`, `/readyz` and `/metrics`.
    pub metrics: String,
    /// The self-made CA's certificate; null with a certificate of one's own or with plain HTTP.
    pub ca_file: Option<PathBuf>,
    /// The daemon's process.
    pub pid: u32,
}

/// The base URL of a bound address. One that stands for every interface is reached on loopback.
pub(crate) fn base_url(scheme: &str, address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}")
}

/// The written file; dropping it removes it.
#[derive(Debug)]
pub(crate) struct AddressesFile {
    path: PathBuf,
}

impl AddressesFile {
    /// Writes it.
    pub(crate) fn write(data_dir: &Path, addresses: &Addresses) -> Result<Self, FileError> {
        let path = data_dir.join(ADDRESSES_FILE);
        let mut json = serde_json::to_vec_pretty(addresses)
            .map_err(|error| FileError::new("write", &path, std::io::Error::other(error)))?;
        json.push(b'\n');
        files::write_atomic(&path, &json, files::MODE_PRIVATE)?;
        Ok(Self { path })
    }
}

impl Drop for AddressesFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "addresses.json could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_reached_on_loopback() {
        let url = |text: &str| base_url("https", text.parse().expect("an address"));
        assert_eq!(url("0.0.0.0:8443"), "https://127.0.0.1:8443");
        assert_eq!(url("[::]:8443"), "https://[::1]:8443");
        assert_eq!(url("10.0.0.7:1"), "https://10.0.0.7:1");
    }

    #[test]
    fn the_file_is_there_while_it_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let addresses = Addresses {
            api: "https://127.0.0.1:1".into(),
            metrics: "http://127.0.0.1:2".into(),
            ca_file: None,
            pid: 7,
        };
        let file = AddressesFile::write(folder.path(), &addresses).expect("written");
        let read: Addresses =
            serde_json::from_slice(&std::fs::read(folder.path().join(ADDRESSES_FILE)).expect("there")).expect("json");
        assert_eq!(read, addresses);
        drop(file);
        assert!(!folder.path().join(ADDRESSES_FILE).exists());
    }
}
