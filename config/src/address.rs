//! Web addresses and addresses to listen on, as settings take them. Nothing is resolved here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// How an address is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    Http,
}

/// `https://host[:port][/path]` without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebAddress {
    pub(crate) scheme: Scheme,
    pub(crate) rest: String,
}

/// Why an address is refused. The address itself is left out: it may carry a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("it does not begin with https://")]
    Scheme,
    #[error("it has no valid host")]
    Host,
    #[error("its port is no number from 1 to 65535")]
    Port,
    #[error("it must not hold a user or a password")]
    User,
    #[error("it must not have a query, a fragment, spaces or control characters")]
    Extra,
}

impl FromStr for WebAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else {
            (Scheme::Http, text.strip_prefix("http://").ok_or(AddressError::Scheme)?)
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || "?#\\\"<>".contains(c)) {
            return Err(AddressError::Extra);
        }
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(AddressError::User);
        }
        let (host, port) = split_port(authority).ok_or(AddressError::Host)?;
        if !is_host(host) {
            return Err(AddressError::Host);
        }
        if port.is_some_and(|port| !is_number(port) || port.parse::<u16>().is_ok_and(|port| port == 0)) {
            return Err(AddressError::Port);
        }
        Ok(Self { scheme, rest: rest.to_owned() })
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        write!(f, "{scheme}://{}", self.rest)
    }
}

/// `host:port` in its two parts; an IPv6 address stands in brackets. `None` when the brackets do not match.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        return match &authority[end..] {
            "" => Some((&authority[..end], None)),
            port => Some((&authority[..end], Some(port.strip_prefix(':')?))),
        };
    }
    Some(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))))
}

/// Whether `port` is a number that a port can have.
pub(crate) fn is_number(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Whether `host` is a name, an IPv4 address or an IPv6 address in brackets. A host that begins with a dash is an option to ssh.
pub(crate) fn is_host(host: &str) -> bool {
    if let Some(ip) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return ip.parse::<Ipv6Addr>().is_ok();
    }
    (1..=253).contains(&host.len())
        && !host.starts_with(['-', '.'])
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// Whether `host` is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `text` is an address and a port to listen on: an IP address, or `localhost`.
pub(crate) fn is_listen_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok() || text.strip_prefix("localhost:").is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_addresses_lose_their_last_slash() {
        for (text, shown) in [
            ("https://forge.example.com", "https://forge.example.com"),
            ("https://forge.example.com/", "https://forge.example.com"),
            ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
            ("https://[::1]:8443/forge/", "https://[::1]:8443/forge"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(text.parse::<WebAddress>().map(|address| address.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for (text, error) in [
            ("", AddressError::Scheme),
            ("forge.example.com", AddressError::Scheme),
            ("ftp://a", AddressError::Scheme),
            ("https://", AddressError::Host),
            ("https://-a", AddressError::Host),
            ("https://[::1", AddressError::Host),
            ("https://a:0", AddressError::Port),
            ("https://a:x", AddressError::Port),
            ("https://a:70000", AddressError::Port),
            ("https://me:pass@a", AddressError::User),
            ("https://a?x", AddressError::Extra),
            ("https://a b", AddressError::Extra),
        ] {
            assert_eq!(text.parse::<WebAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn listening_needs_an_address_and_a_port() {
        for good in ["0.0.0.0:8443", "127.0.0.1:0", "[::]:8443", "localhost:0"] {
            assert!(is_listen_address(good), "{good}");
        }
        for wrong in ["8443", ":8443", "0.0.0.0", "example.com:80", "localhost:", "localhost:70000"] {
            assert!(!is_listen_address(wrong), "{wrong}");
        }
    }
}
