//! Which addresses a source may be fetched from: those of the public internet, and nothing that lies inside.
//!
//! A corpus is written by others. A URL in it that leads to this machine, its network or a cloud's metadata service
//! would be read with this machine's rights, so every address is judged before it is connected to, and what is not
//! known to be public is refused. The tables are the IANA special-purpose registries (RFC 6890) as of 2026; of IPv6 only
//! 2000::/3 is handed out for global use, so the rest needs no list. Rejected: a list of bad host names alone (any name
//! may resolve to 127.0.0.1) and `Ipv4Addr::is_global` (unstable, and it knows no translated addresses).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far inside a host may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Public addresses only.
    Public,
    /// Also this machine and private networks: the host is named in `[store] private_hosts`.
    Private,
}

/// Why an address may not be connected to; none: it may.
pub(crate) fn refusal(address: IpAddr, reach: Reach) -> Option<&'static str> {
    let (what, inside) = match address {
        IpAddr::V4(address) => v4(address)?,
        IpAddr::V6(address) => v6(address)?,
    };
    // Never meant, whatever is configured: metadata services, everybody, nobody.
    (reach == Reach::Public || inside == Inside::Never).then_some(what)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// A host of one's own may be there.
    Own,
    Never,
}

const V4: [(Ipv4Addr, u32, &str, Inside); 17] = [
    (Ipv4Addr::UNSPECIFIED, 8, "this network (0.0.0.0/8)", Inside::Never),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private network", Inside::Own),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "a carrier's inner network (100.64.0.0/10)", Inside::Own),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "this machine (loopback)", Inside::Own),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud's metadata service", Inside::Never),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local (cloud metadata)", Inside::Never),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private network", Inside::Own),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved for protocols (192.0.0.0/24)", Inside::Never),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation only", Inside::Never),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay", Inside::Never),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private network", Inside::Own),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks only (198.18.0.0/15)", Inside::Own),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation only", Inside::Never),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation only", Inside::Never),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast", Inside::Never),
    (Ipv4Addr::BROADCAST, 32, "broadcast", Inside::Never),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved (240.0.0.0/4)", Inside::Never),
];

fn v4(address: Ipv4Addr) -> Option<(&'static str, Inside)> {
    let within = |net: Ipv4Addr, bits: u32| (address.to_bits() ^ net.to_bits()).leading_zeros() >= bits;
    V4.into_iter().find(|(net, bits, ..)| within(*net, *bits)).map(|(_, _, what, inside)| (what, inside))
}

fn v6(address: Ipv6Addr) -> Option<(&'static str, Inside)> {
    let [a, b, c, d, id @ ..] = address.segments();
    let embedded = || v4(Ipv4Addr::from_bits((u32::from(id[2]) << 16) | u32::from(id[3])));
    let empty = (c, d) == (0, 0);
    match (a, b) {
        _ if address == Ipv6Addr::UNSPECIFIED => Some(("no address (::)", Inside::Never)),
        _ if address == Ipv6Addr::LOCALHOST => Some(("this machine (loopback)", Inside::Own)),
        (0, 0) if empty && id[..2] == [0, 0xffff] => {
            Some(("an IPv4 address in IPv6 form (::ffff:0:0/96)", Inside::Never))
        }
        (0, 0) if empty && id[..2] == [0, 0] => Some(("an IPv4-compatible IPv6 address", Inside::Never)),
        // Networks without IPv4 reach public IPv4 hosts through this prefix (RFC 6052), so what it holds decides.
        (0x64, 0xff9b) if empty && id[..2] == [0, 0] => {
            embedded().map(|_| ("a translated (NAT64) address that is not public", Inside::Never))
        }
        (0xfc00..=0xfdff, _) => Some(("a private network (fc00::/7)", Inside::Own)),
        (0xfe80..=0xfebf, _) => Some(("link-local", Inside::Never)),
        (0xfec0..=0xfeff, _) => Some(("site-local (fec0::/10)", Inside::Never)),
        (0xff00..=0xffff, _) => Some(("multicast", Inside::Never)),
        (0x2001, 0) => Some(("a tunnel's address (Teredo)", Inside::Never)),
        (0x2001, 0..=0x1ff) => Some(("reserved for protocols (2001::/23)", Inside::Never)),
        (0x2001, 0xdb8) | (0x3fff, 0..=0xfff) => Some(("for documentation only", Inside::Never)),
        (0x2002, _) => Some(("a tunnel's address (6to4)", Inside::Never)),
        // ISATAP (RFC 5214): the interface identifier of a tunnel into an IPv4 network.
        _ if matches!(id, [0 | 0x200, 0x5efe, ..]) => Some(("a tunnel's address (ISATAP)", Inside::Never)),
        (0x2000..=0x3fff, _) => None,
        _ => Some(("outside of what is handed out for public use (2000::/3)", Inside::Never)),
    }
}

/// Why a host of this name is never asked for its address; none: it may be. The name is in small letters.
pub(crate) fn name_refusal(host: &str) -> Option<&'static str> {
    const INSIDE: [&str; 9] =
        ["localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "arpa"];
    match host.rsplit_once('.') {
        _ if host == "localhost" || host.ends_with(".localhost") => Some("names this machine"),
        None => Some("is a name without a dot, which only an inner network knows"),
        Some((_, last)) if INSIDE.contains(&last) => Some("is a name of inner networks"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_public_addresses_may_be_connected_to() {
        for inner in "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 \
             127.255.255.254 168.63.129.16 169.254.169.254 169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.192 \
             192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 \
             239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 \
             ::ffff:8.8.8.8 ::ffff:169.254.169.254 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 \
             64:ff9b:1::8.8.8.8 100::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:db8::1 2002:7f00:1:: \
             2002:a00:1::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 febf::1 fec0::1 ff02::1 \
             2600::5efe:10.0.0.1 2600::200:5efe:127.0.0.1 4000::1"
            .split(' ')
        {
            assert!(refusal(inner.parse().unwrap(), Reach::Public).is_some(), "{inner}");
        }
        for public in
            "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 128.0.0.1 169.253.1.1 172.15.0.1 172.32.0.1 192.0.1.1 \
             198.17.0.1 198.20.0.1 223.255.255.255 2001:200::1 2001:4860:4860::8888 2606:4700::1111 \
             2a00:1450:4001::1 64:ff9b::8.8.8.8"
                .split(' ')
        {
            assert_eq!(refusal(public.parse().unwrap(), Reach::Public), None, "{public}");
        }
    }

    #[test]
    fn a_private_host_may_be_inside_but_never_a_metadata_service() {
        for own in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "1.1.1.1"] {
            assert_eq!(refusal(own.parse().unwrap(), Reach::Private), None, "{own}");
        }
        for never in ["169.254.169.254", "168.63.129.16", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "fe80::1", "::"] {
            assert!(refusal(never.parse().unwrap(), Reach::Private).is_some(), "{never}");
        }
    }

    #[test]
    fn names_of_inner_networks_are_not_looked_up() {
        for inner in
            ["localhost", "a.localhost", "db", "metadata.google.internal", "printer.local", "nas.lan", "1.in-addr.arpa"]
        {
            assert!(name_refusal(inner).is_some(), "{inner}");
        }
        for public in ["example.org", "localhost.example.org", "internal.example.com"] {
            assert_eq!(name_refusal(public), None, "{public}");
        }
    }
}
