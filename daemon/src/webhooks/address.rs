//! Which addresses are public: pure. Whatever is not is somebody's own network, and a plugin does not reach into it unasked.
//!
//! IPv4 lists what is refused, as IANA's registry of special addresses does. IPv6 lists what is public, since most of it is not
//! given to anyone; an IPv4 address inside of an IPv6 one is looked at as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, when it is not public: in words, with their article.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

/// Whether no one can ever be asked under this address, granted or not: `0.0.0.0` leads to the own machine, a group is not one host.
pub(super) fn is_no_host(address: IpAddr) -> bool {
    let unmapped = address.to_canonical();
    unmapped.is_unspecified() || unmapped.is_multicast() || unmapped == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an unspecified address",
        [127, ..] => "a loopback address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [169, 254, ..] => "a link-local address",
        [100, 64..=127, ..] => "a carrier's shared address",
        [192, 0, 0, _] => "an address reserved for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address of documentation",
        [192, 88, 99, _] => "a relay's address",
        [198, 18..=19, ..] => "an address of benchmarks",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // An IPv4 address in IPv6's clothes, and one behind the well-known prefix of NAT64, lead where the IPv4 address does.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            not_public_v4(embedded(high, low))
        }
        [0x2001, second, ..] if second < 0x200 => Some("an address reserved for protocols"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("an address of documentation"),
        [0x2002, ..] => Some("an IPv4 address inside of 6to4"),
        [0x2000..=0x3fff, ..] => None,
        [0xfc00..=0xfdff, ..] => Some("a unique local address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a site-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(address: &str) -> Option<&'static str> {
        not_public(address.parse().expect("it is an address"))
    }

    #[test]
    fn only_public_addresses_are_public() {
        for public in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "192.0.1.1",
        ] {
            assert_eq!(kind(public), None, "{public}");
        }
        for public in
            ["2606:4700::1111", "2a00:1450:4001::1", "2001:200::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "3ffe::1"]
        {
            assert_eq!(kind(public), None, "{public}");
        }
        for (address, expected) in [
            ("0.0.0.0", "an unspecified address"),
            ("0.1.2.3", "an unspecified address"),
            ("127.0.0.1", "a loopback address"),
            ("127.255.255.254", "a loopback address"),
            ("10.0.0.1", "a private address"),
            ("172.16.0.1", "a private address"),
            ("172.31.255.255", "a private address"),
            ("192.168.1.1", "a private address"),
            ("169.254.169.254", "a link-local address"),
            ("100.64.0.1", "a carrier's shared address"),
            ("192.0.0.170", "an address reserved for protocols"),
            ("192.0.2.1", "an address of documentation"),
            ("198.51.100.1", "an address of documentation"),
            ("203.0.113.1", "an address of documentation"),
            ("192.88.99.1", "a relay's address"),
            ("198.18.0.1", "an address of benchmarks"),
            ("224.0.0.1", "a multicast address"),
            ("240.0.0.1", "a reserved address"),
            ("255.255.255.255", "a reserved address"),
            ("::", "an unspecified address"),
            ("::1", "a loopback address"),
            ("::ffff:127.0.0.1", "a loopback address"),
            ("::ffff:169.254.169.254", "a link-local address"),
            ("64:ff9b::10.0.0.1", "a private address"),
            ("64:ff9b:1::8.8.8.8", "a reserved address"),
            ("::127.0.0.1", "a reserved address"),
            ("2001::1", "an address reserved for protocols"),
            ("2001:2::1", "an address reserved for protocols"),
            ("2001:db8::1", "an address of documentation"),
            ("3fff::1", "an address of documentation"),
            ("2002:7f00:1::1", "an IPv4 address inside of 6to4"),
            ("fd00:ec2::254", "a unique local address"),
            ("fc00::1", "a unique local address"),
            ("fe80::1", "a link-local address"),
            ("fec0::1", "a site-local address"),
            ("ff02::1", "a multicast address"),
            ("100::1", "a reserved address"),
            ("4000::1", "a reserved address"),
        ] {
            assert_eq!(kind(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn some_addresses_are_nobodys() {
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"] {
            assert!(is_no_host(address.parse().expect("it is an address")), "{address}");
        }
        assert!(!is_no_host(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
