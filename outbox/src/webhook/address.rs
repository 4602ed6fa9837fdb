//! Which addresses are the public internet. The service can reach what its users cannot: its own host, its private
//! network, a cloud's metadata service. A webhook must not reach there for them.
//!
//! After the IANA special-purpose address registries (RFC 6890 and its successors): what is not globally reachable is
//! refused. For IPv6 that is everything outside 2000::/3, and the ways to write an IPv4 address inside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not of the public internet; `None` if it is.
pub(crate) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => "of this host",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private",
        (127, ..) => "loopback",
        (169, 254, _) => "link-local",
        (100, 64..=127, _) => "shared by a carrier",
        (192, 0, 0) | (192, 88, 99) => "for protocols",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "for documentation",
        (198, 18..=19, _) => "for benchmarks",
        (224..=239, ..) => "multicast",
        (240..=255, ..) => "reserved",
        _ => return None,
    })
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return not_public_v4(inner);
    }
    let segments = address.segments();
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0xfc00..=0xfdff, ..] => "private",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xff00..=0xffff, ..] => "multicast",
        // 6to4, Teredo and NAT64 carry an IPv4 address that a router may unpack.
        [0x2002, ..] | [0x2001, 0, ..] => "a tunnel to an IPv4 address",
        [0x0064, 0xff9b, ..] => "a translation of an IPv4 address",
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => "for documentation",
        [0x2001, 0x0001..=0x01ff, ..] => "for protocols",
        [0x2000..=0x3fff, ..] => return None,
        _ => "not of the public internet",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_this_host_or_network_reaches_are_told_apart() {
        for (address, why) in [
            ("0.0.0.0", "of this host"),
            ("10.1.2.3", "private"),
            ("100.64.0.1", "shared by a carrier"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.8", "for protocols"),
            ("192.0.2.1", "for documentation"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "for benchmarks"),
            ("198.51.100.7", "for documentation"),
            ("203.0.113.9", "for documentation"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::127.0.0.1", "not of the public internet"),
            ("64:ff9b::7f00:1", "a translation of an IPv4 address"),
            ("2001:0:7f00::1", "a tunnel to an IPv4 address"),
            ("2002:7f00:1::", "a tunnel to an IPv4 address"),
            ("2001:db8::1", "for documentation"),
            ("fc00::1", "private"),
            ("fd12:3456::1", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "not of the public internet"),
            ("ff02::1", "multicast"),
        ] {
            assert_eq!(not_public(address.parse().unwrap()), Some(why), "{address}");
        }
    }

    #[test]
    fn addresses_of_the_public_internet_are_allowed() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80b::200e",
        ] {
            assert_eq!(not_public(address.parse().unwrap()), None, "{address}");
        }
    }
}
