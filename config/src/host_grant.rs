//! A host that a webhook target's requests may go to, as `[allow].hosts` of `plugins/NAME.toml` names it. Nothing is resolved here.
//!
//! A name grants public addresses. An address grants itself, whatever it is. A name of one's own network says where it may lead:
//! `chat.example.com in 10.0.0.0/8`. `docs/decisions/0014-hosts-of-webhook-targets.md` says why.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::address::{is_host, is_number, split_port};

/// Between a host and the network that it may lead to.
const IN: &str = " in ";

/// A granted host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGrant {
    /// Whether it is spoken to in clear: only when `http://` is written.
    pub plain_http: bool,
    /// Who it is.
    pub host: GrantedHost,
    /// The port: what is written, else that of the scheme.
    pub port: u16,
}

/// Who is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantedHost {
    /// A name in lower case, and the network that it may lead to beside public addresses.
    Name(String, Option<Network>),
    /// An address.
    Address(IpAddr),
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text grants no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostGrantError {
    /// Another scheme than the two.
    #[error("requests go over https or http alone")]
    Scheme,
    /// Something stands behind the port.
    #[error("it is a host and no URL: no user, no path")]
    Extra,
    /// No name and no address.
    #[error("its host is neither a name nor an address")]
    Host,
    /// No port.
    #[error("its port is no number from 1 to 65535")]
    Port,
    /// No network.
    #[error("what stands after `in` is no network such as 10.0.0.0/8")]
    Network,
    /// An address, and a network.
    #[error("an address is granted by itself and lies in no other network")]
    AddressInNetwork,
}

impl Network {
    /// Whether the address is one of it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = HostGrantError;

    fn from_str(text: &str) -> Result<Self, HostGrantError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address = address.parse::<IpAddr>().map_err(|_| HostGrantError::Network)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => whole,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= whole).ok_or(HostGrantError::Network)?
            }
            Some(_) => return Err(HostGrantError::Network),
        };
        Ok(Self { address, prefix })
    }
}

impl FromStr for HostGrant {
    type Err = HostGrantError;

    fn from_str(text: &str) -> Result<Self, HostGrantError> {
        let (host, network) = text.split_once(IN).map_or((text, None), |(host, network)| (host, Some(network.trim())));
        let network = network.map(str::parse::<Network>).transpose()?;
        let (plain_http, authority) = match host.trim().split_once("://") {
            None => (false, host.trim()),
            Some(("https", authority)) => (false, authority),
            Some(("http", authority)) => (true, authority),
            Some(_) => return Err(HostGrantError::Scheme),
        };
        if authority.contains(['/', '?', '#', '@']) {
            return Err(HostGrantError::Extra);
        }
        let (host, port) = split_port(authority).ok_or(HostGrantError::Host)?;
        let port = match port {
            None if plain_http => 80,
            None => 443,
            Some(port) if is_number(port) => port.parse().ok().filter(|port| *port != 0).ok_or(HostGrantError::Port)?,
            Some(_) => return Err(HostGrantError::Port),
        };
        let host = match (address(host), network) {
            (Some(_), Some(_)) => return Err(HostGrantError::AddressInNetwork),
            (Some(address), None) => GrantedHost::Address(address),
            (None, network) if is_name(host) => GrantedHost::Name(host.to_ascii_lowercase(), network),
            (None, _) => return Err(HostGrantError::Host),
        };
        Ok(Self { plain_http, host, port })
    }
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// A name whose last part is a number is an address in a spelling that few people read.
fn is_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    is_host(host) && !host.starts_with('[') && !last.is_empty() && !last.starts_with(|c: char| c.is_ascii_digit())
}

impl fmt::Display for HostGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.plain_http { ("http://", 80) } else { ("", 443) };
        f.write_str(scheme)?;
        match &self.host {
            GrantedHost::Name(name, _) => f.write_str(name)?,
            GrantedHost::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            GrantedHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        if self.port != usual {
            write!(f, ":{}", self.port)?;
        }
        match &self.host {
            GrantedHost::Name(_, Some(Network { address, prefix })) => write!(f, "{IN}{address}/{prefix}"),
            GrantedHost::Name(_, None) | GrantedHost::Address(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_granted_as_people_write_them() {
        for (text, shown) in [
            ("chat.example.com", "chat.example.com"),
            ("Chat.Example.com:443", "chat.example.com"),
            ("chat.example.com:8443", "chat.example.com:8443"),
            ("https://chat.example.com", "chat.example.com"),
            ("http://chat.example.com", "http://chat.example.com"),
            ("http://chat.example.com:443", "http://chat.example.com:443"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://10.0.0.5", "http://10.0.0.5"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://chat:8080 in 172.16.0.0/12", "http://chat:8080 in 172.16.0.0/12"),
            ("chat.example.com in fd00::/8", "chat.example.com in fd00::/8"),
            ("chat.example.com in 10.2.3.4", "chat.example.com in 10.2.3.4/32"),
        ] {
            let grant: HostGrant = text.parse().expect(text);
            assert_eq!(grant.to_string(), shown);
            assert_eq!(shown.parse(), Ok(grant), "{text}");
        }
    }

    #[test]
    fn other_texts_say_what_is_wrong() {
        for (text, error) in [
            ("", HostGrantError::Host),
            ("a b", HostGrantError::Host),
            ("*.example.com", HostGrantError::Host),
            ("ftp://a", HostGrantError::Scheme),
            ("me@a", HostGrantError::Extra),
            ("https://a/hook", HostGrantError::Extra),
            ("a:0", HostGrantError::Port),
            ("a:+1", HostGrantError::Port),
            ("a:70000", HostGrantError::Port),
            ("2130706433", HostGrantError::Host),
            ("0x7f000001", HostGrantError::Host),
            ("127.1", HostGrantError::Host),
            ("::1", HostGrantError::Port),
            ("[::1", HostGrantError::Host),
            ("a.", HostGrantError::Host),
            ("a in 10.0.0.0/33", HostGrantError::Network),
            ("a in 10.0.0.0/+8", HostGrantError::Network),
            ("a in b", HostGrantError::Network),
            ("10.0.0.5 in 10.0.0.0/8", HostGrantError::AddressInNetwork),
        ] {
            assert_eq!(text.parse::<HostGrant>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_network_holds_its_own_addresses() {
        let holds = |network: &str, address: &str| {
            let network: Network = network.parse().expect("it is a network");
            network.contains(address.parse().expect("it is an address"))
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(!holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(holds("10.0.0.5", "10.0.0.5") && !holds("10.0.0.5", "10.0.0.4"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && holds("::/0", "fe80::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::1"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_shown_is_read_again(text in "(http://)?[a0.:\\[\\]/@ ]{0,12}( in [0-9a-f:./]{0,9})?") {
            if let Ok(grant) = text.parse::<HostGrant>() {
                prop_assert_eq!(grant.to_string().parse(), Ok(grant));
            }
        }
    }
}
