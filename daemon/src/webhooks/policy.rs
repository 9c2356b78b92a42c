//! Where a planned request may go, and what it may say in its head: pure, and asked before anything is looked up or sent.
//!
//! A URL is taken as it is written or not at all: what two parsers could read in two ways (a backslash, a space, a user before the
//! host) is refused. A refusal is final; the same plan is refused again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use forge_config::{GrantedHost, HostGrant, Network};
use reqwest::Url;

use super::address::{is_no_host, not_public};

/// Headers that belong to the connection, and so to the host.
const HOST_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// What Forge's own headers begin with.
const FORGE_PREFIX: &str = "forge-";

/// What a request is refused for. None repeats a secret: a URL with one in the place of its host is told of by [`Refusal::Hidden`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a URL, or one with a doubtful reading.
    #[error("`{url}` is not taken as a URL: {why}")]
    Url {
        /// What was planned.
        url: String,
        /// Why.
        why: &'static str,
    },
    /// Neither https nor http.
    #[error(
        "the scheme `{scheme}` is refused: a request goes over https, or over http to a host that is granted as \"http://host\""
    )]
    Scheme {
        /// It.
        scheme: String,
    },
    /// Nobody granted it.
    #[error("denied: {host} is not in [allow].hosts of plugins/{plugin}.toml")]
    NotGranted {
        /// As it would be granted.
        host: String,
        /// The plugin.
        plugin: String,
    },
    /// Its name leads into a network that the grant does not name.
    #[error(
        "denied: {host} leads to {address}, {kind}; if that is meant, write \"{host} in {address}\", or its network, in \
         [allow].hosts of plugins/{plugin}.toml"
    )]
    NotPublic {
        /// As it is granted.
        host: String,
        /// Where it leads.
        address: IpAddr,
        /// What that is.
        kind: &'static str,
        /// The plugin.
        plugin: String,
    },
    /// No one can be reached there, whatever is granted.
    #[error("denied: {address} is no address of a host")]
    NoHost {
        /// It.
        address: IpAddr,
    },
    /// A header that is not the guest's to set.
    #[error("the header `{name}` is set by Forge alone")]
    HostHeader {
        /// It.
        name: String,
    },
    /// No header.
    #[error("the header {name:?} is none: {why}")]
    BadHeader {
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A secret stands where it would decide who is asked.
    #[error(
        "a secret stands in the URL before its path: it is the whole begin of a URL, or stands in the path or the query"
    )]
    SecretInHost,
    /// The URL is refused once its secrets are filled in; nothing of it is repeated.
    #[error("with its secret filled in, the URL is refused: {0}")]
    Hidden(&'static str),
    /// A placeholder for what is not there.
    #[error("there is no secret `{0}` in [config] of the target")]
    NoSecret(String),
    /// A signature with the target's own secret, which has none.
    #[error("the request is to be signed with the target's `secret`, and webhooks/{target}.toml has none")]
    NoOwnSecret {
        /// The target.
        target: String,
    },
    /// Larger than what is sent, with its secrets.
    #[error("with its secrets filled in, the {part} has more than {bytes_max} bytes")]
    TooLarge {
        /// URL or body.
        part: &'static str,
        /// What is taken.
        bytes_max: usize,
    },
}

impl Refusal {
    /// The same without any word of the URL.
    pub(super) fn hidden(self) -> Self {
        Self::Hidden(match self {
            Self::Url { why, .. } => why,
            Self::Scheme { .. } => "its scheme is neither https nor http",
            Self::NotGranted { .. } => "its host is not in [allow].hosts of the plugin",
            Self::NotPublic { .. } => {
                "its host leads to an address that is not public, and the grant does not name the network"
            }
            Self::NoHost { .. } => "its host is no address of a host",
            other @ (Self::HostHeader { .. }
            | Self::BadHeader { .. }
            | Self::SecretInHost
            | Self::Hidden(_)
            | Self::NoSecret(_)
            | Self::NoOwnSecret { .. }
            | Self::TooLarge { .. }) => return other,
        })
    }
}

/// A URL that may be asked, as far as its text tells.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// It, parsed.
    pub url: Url,
    /// As an operator would grant it.
    pub granted_as: String,
    /// How its host is found.
    pub host: Host,
    plugin: String,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An address that is granted itself.
    Address(IpAddr),
    /// A name, and the networks that it may lead to beside public addresses.
    Name(String, Vec<Network>),
}

/// Checks a URL's text against the grants.
///
/// # Errors
/// It is no URL that Forge takes, or nobody granted its host.
pub(super) fn destination(text: &str, grants: &[HostGrant], plugin: &str) -> Result<Destination, Refusal> {
    let url = parse(text)?;
    let plain_http = url.scheme() == "http";
    let wrong = |why: &'static str| Refusal::Url { url: text.to_owned(), why };
    let host = url.host_str().ok_or_else(|| wrong("it has no host"))?.to_owned();
    let port = url.port_or_known_default().ok_or_else(|| wrong("it has no port"))?;
    let wanted = match ip(&host) {
        Some(address) => GrantedHost::Address(address),
        None => GrantedHost::Name(host, None),
    };
    let granted_as = HostGrant { plain_http, host: wanted.clone(), port }.to_string();
    let fitting = grants.iter().filter(|grant| grant.plain_http == plain_http && grant.port == port);
    let found = match wanted {
        GrantedHost::Address(address) => {
            let is_granted = fitting.map(|grant| &grant.host).any(|host| *host == GrantedHost::Address(address));
            is_granted.then_some(Host::Address(address))
        }
        GrantedHost::Name(name, _) => {
            let mut networks = Vec::new();
            let mut is_granted = false;
            for grant in fitting {
                match &grant.host {
                    GrantedHost::Name(granted, network) if *granted == name => {
                        is_granted = true;
                        networks.extend(*network);
                    }
                    GrantedHost::Name(..) | GrantedHost::Address(_) => {}
                }
            }
            is_granted.then_some(Host::Name(name, networks))
        }
    };
    let plugin = plugin.to_owned();
    match found {
        Some(Host::Address(address)) if is_no_host(address) => Err(Refusal::NoHost { address }),
        Some(host) => Ok(Destination { url, granted_as, host, plugin }),
        None => Err(Refusal::NotGranted { host: granted_as, plugin }),
    }
}

/// The URL, when it has one reading only.
fn parse(text: &str) -> Result<Url, Refusal> {
    let wrong = |why: &'static str| Refusal::Url { url: text.to_owned(), why };
    if text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err(wrong("it holds a backslash, a space or a control character"));
    }
    let (scheme, rest) = text.split_once(':').ok_or_else(|| wrong("it does not begin with https://"))?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return Err(Refusal::Scheme { scheme: scheme.to_owned() });
    }
    let rest = rest.strip_prefix("//").ok_or_else(|| wrong("it does not begin with https://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(wrong("it has no host"));
    }
    if authority.contains('@') {
        // What stands there may be a password.
        return Err(Refusal::Url {
            url: format!("{scheme}://..."),
            why: "a user or a password before the host is not taken",
        });
    }
    let mut url = Url::parse(text).map_err(|_| wrong("it does not follow the rules of URLs"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Url {
            url: format!("{scheme}://..."),
            why: "a user or a password before the host is not taken",
        });
    }
    url.set_fragment(None);
    Ok(url)
}

fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

impl Destination {
    /// Checks what the host's name leads to: every address, since the connection may take any.
    ///
    /// # Errors
    /// One of them is not public, and the grant does not name its network.
    pub(super) fn check(&self, addresses: &[IpAddr]) -> Result<(), Refusal> {
        let Host::Name(name, networks) = &self.host else { return Ok(()) };
        for &address in addresses {
            if is_no_host(address) {
                return Err(Refusal::NoHost { address });
            }
            // The one name that says itself where it leads.
            let is_itself = name == "localhost" && address.is_loopback();
            let is_named = networks.iter().any(|network| network.contains(address));
            if let Some(kind) = not_public(address).filter(|_| !is_itself && !is_named) {
                let (host, plugin) = (self.granted_as.clone(), self.plugin.clone());
                return Err(Refusal::NotPublic { host, address, kind, plugin });
            }
        }
        Ok(())
    }
}

/// Checks the name of a header that a guest sets.
///
/// # Errors
/// It belongs to the host, or is no header's name.
pub(super) fn check_header(name: &str) -> Result<http::HeaderName, Refusal> {
    let lower = name.to_ascii_lowercase();
    if HOST_HEADERS.contains(&lower.as_str()) || lower.starts_with(FORGE_PREFIX) {
        return Err(Refusal::HostHeader { name: name.to_owned() });
    }
    http::HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Refusal::BadHeader { name: name.to_owned(), why: "a name has letters, digits and dashes" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Vec<HostGrant> {
        let texts = [
            "chat.example.com",
            "http://plain.example.com",
            "127.0.0.1:9000",
            "http://10.0.0.5",
            "lan.example.com in 10.0.0.0/8",
            "http://localhost:9000",
            "http://0.0.0.0",
            "http://[::1]:9000",
        ];
        texts.map(|text| text.parse().expect("it is a grant")).to_vec()
    }

    fn goes(text: &str) -> Result<Destination, Refusal> {
        destination(text, &grants(), "x")
    }

    #[test]
    fn granted_hosts_are_asked_over_the_granted_scheme_and_port() {
        for url in [
            "https://chat.example.com/hook?x=1#y",
            "https://CHAT.example.com:443",
            "HTTPS://chat.example.com/{{secret:a:0}}/@b",
            "http://plain.example.com:80/",
            "https://127.0.0.1:9000/",
            "http://10.0.0.5/",
            "http://[0:0:0:0:0:0:0:1]:9000/",
        ] {
            assert!(goes(url).is_ok(), "{url}: {:?}", goes(url));
        }
        for (url, host) in [
            ("http://chat.example.com/", "http://chat.example.com"),
            ("https://chat.example.com:8443/", "chat.example.com:8443"),
            ("https://plain.example.com/", "plain.example.com"),
            ("https://10.0.0.5/", "10.0.0.5"),
            ("https://chat.example.com./", "chat.example.com."),
            ("https://sub.chat.example.com/", "sub.chat.example.com"),
            ("https://chat.example.com.evil.example/", "chat.example.com.evil.example"),
            ("http://169.254.169.254/latest/meta-data/", "http://169.254.169.254"),
            ("https://[::ffff:127.0.0.1]:9000/", "[::ffff:127.0.0.1]:9000"),
            ("https://[::ffff:a9fe:a9fe]/", "[::ffff:169.254.169.254]"),
            // Spellings of 169.254.169.254 and of 127.0.0.2.
            ("http://2852039166/", "http://169.254.169.254"),
            ("http://0xa9.0xfe.0xa9.0xfe/", "http://169.254.169.254"),
            ("http://0251.0376.0251.0376/", "http://169.254.169.254"),
            ("http://127.2/", "http://127.0.0.2"),
            ("http://１６９.254.169.254/", "http://169.254.169.254"),
        ] {
            let refusal = goes(url).expect_err(url);
            assert_eq!(refusal, Refusal::NotGranted { host: host.to_owned(), plugin: "x".to_owned() }, "{url}");
        }
        let words = goes("http://169.254.169.254/").expect_err("nobody granted it").to_string();
        assert_eq!(words, "denied: http://169.254.169.254 is not in [allow].hosts of plugins/x.toml");
    }

    #[test]
    fn a_url_has_one_reading_or_none() {
        for scheme in ["file:///etc/passwd", "gopher://chat.example.com/", "ftp://chat.example.com/", "javascript:1"] {
            assert!(matches!(goes(scheme), Err(Refusal::Scheme { .. })), "{scheme}");
        }
        for url in [
            "",
            "chat.example.com",
            "//chat.example.com/",
            "https:chat.example.com",
            "https:///chat.example.com",
            "https:/\\chat.example.com",
            "https://chat.example.com@evil.example/",
            "https://chat.example.com:443@evil.example/",
            "https://user:password@chat.example.com/",
            "https://@chat.example.com/",
            "https://evil.example\\@chat.example.com/",
            "https://chat.example.com\t.evil.example/",
            " https://chat.example.com/",
            "https://chat.example.com/a b",
            "https://chat.example.com:port/",
            "https://[::1/",
            "https://?",
        ] {
            assert!(matches!(goes(url), Err(Refusal::Url { .. })), "{url}: {:?}", goes(url));
        }
        let words = goes("https://user:password@chat.example.com/").expect_err("it is refused").to_string();
        assert!(!words.contains("password@"), "{words}");
    }

    #[test]
    fn a_name_leads_to_public_addresses_or_into_its_network() {
        let check = |url: &str, addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
            goes(url).expect("it is granted").check(&addresses)
        };
        assert_eq!(check("https://chat.example.com/", &["8.8.8.8", "2606:4700::1111"]), Ok(()));
        let words =
            check("https://chat.example.com/", &["8.8.8.8", "10.0.0.1"]).expect_err("it is private").to_string();
        assert_eq!(
            words,
            "denied: chat.example.com leads to 10.0.0.1, a private address; if that is meant, write \"chat.example.com in 10.0.0.1\", \
             or its network, in [allow].hosts of plugins/x.toml"
        );
        for address in
            ["127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1", "64:ff9b::7f00:1", "100.64.0.1"]
        {
            let refusal = check("https://chat.example.com/", &[address]);
            assert!(matches!(refusal, Err(Refusal::NotPublic { .. })), "{address}: {refusal:?}");
        }
        assert_eq!(check("https://lan.example.com/", &["10.1.2.3", "8.8.8.8"]), Ok(()));
        assert!(check("https://lan.example.com/", &["192.168.0.1"]).is_err());
        assert_eq!(check("http://localhost:9000/", &["127.0.0.1", "::1"]), Ok(()));
        assert!(check("http://localhost:9000/", &["10.0.0.1"]).is_err());
        assert!(check("https://chat.example.com/", &["0.0.0.0"]).is_err());
        assert!(matches!(goes("http://0.0.0.0/"), Err(Refusal::NoHost { .. })), "it leads to the own machine");
    }

    #[test]
    fn headers_of_the_connection_and_of_forge_are_the_hosts() {
        for name in
            ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Forge-Signature", "forge-", "Upgrade", "TE"]
        {
            assert_eq!(check_header(name), Err(Refusal::HostHeader { name: name.to_owned() }));
        }
        for name in ["Content-Type", "Authorization", "X-Forge", "Accept"] {
            assert!(check_header(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a:b", "a\r\nHost", "é"] {
            assert!(matches!(check_header(name), Err(Refusal::BadHeader { .. })), "{name:?}");
        }
    }
}
