//! Which names the API answers to. A page of another site whose name was pointed at us (DNS rebinding) gets 421.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use super::problem::Refusal;
use crate::tls::ServedNames;

/// The names that requests may be addressed to.
#[derive(Clone, Debug)]
pub(crate) enum KnownHosts {
    /// Only these, the names in the certificate that is shown, and the address that the connection came in on.
    Only {
        /// What the daemon calls itself.
        names: BTreeSet<String>,
        /// What the operator's certificate calls it; `None` with plain HTTP.
        certificate: Option<ServedNames>,
    },
    /// Any: for the metrics listener, which holds nothing that a page could abuse.
    Any,
}

impl KnownHosts {
    /// Refuses a request that is addressed to somebody else.
    pub(crate) fn check(&self, request: &Parts, local: SocketAddr) -> Result<(), Refusal> {
        let (known, certificate) = match self {
            Self::Any => return Ok(()),
            Self::Only { names, certificate } => (names, certificate),
        };
        let header = || request.headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
        let Some(authority) = request.uri.authority().cloned().or_else(header) else {
            return Err(Refusal::invalid("the request has no valid Host header")
                .hint("send the daemon's name and port as Host"));
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let is_own_address = host.parse::<IpAddr>().is_ok_and(|ip| ip == local.ip().to_canonical());
        let is_certified = || certificate.as_ref().is_some_and(|names| names.hold(&host));
        if is_own_address || known.contains(&host) || is_certified() {
            return Ok(());
        }
        // What else the daemon is called is nobody's business who does not know it.
        Err(Refusal::new(421, "unknown-host", "Misdirected request", format!("this daemon is not called {host:?}"))
            .hint("set `web_host` in forge.toml to the URL that people use, and restart the daemon"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    fn status(host: &str, uri: &str) -> Option<u16> {
        let names = ["localhost", "::1", "forge.example.com"].map(str::to_owned).into();
        let known = KnownHosts::Only { names, certificate: None };
        let request = http::Request::builder().uri(uri).header(HOST, host).body(()).expect("a request");
        known
            .check(&request.into_parts().0, "10.0.0.7:8443".parse().expect("an address"))
            .err()
            .map(|refusal| refusal.into_response().status().as_u16())
    }

    #[test]
    fn only_known_names_and_the_own_address_are_answered() {
        for fine in ["localhost:8443", "Forge.Example.com", "[::1]:1", "10.0.0.7:8443"] {
            assert_eq!(status(fine, "/"), None, "{fine}");
        }
        for wrong in ["evil.example.com", "10.0.0.8", "localhost.evil.example.com"] {
            assert_eq!(status(wrong, "/"), Some(421), "{wrong}");
        }
        assert_eq!(status("a b", "/"), Some(400));
        assert_eq!(status("localhost", "https://evil.example.com/"), Some(421), "the request line wins");
    }
}
