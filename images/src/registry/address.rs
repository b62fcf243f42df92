//! Addresses that a pull does not dial unless told so: they lead to this machine, to its
//! neighbours' control planes, or nowhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use rustix::io::Errno;

/// Metadata services outside the link-local range (Alibaba, Oracle; EC2 over IPv6).
const METADATA_V4: &[Ipv4Addr] = &[Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere.
    Public,
    /// The networks of one house.
    Private,
    /// This machine.
    Here(&'static str),
    /// Nowhere that a registry is.
    Special(&'static str),
}

/// Where an address leads from this machine.
///
/// IPv6 addresses that embed an IPv4 address are special whatever they embed: a registry has no
/// need of them, and a filter that looks at the other form would be passed by.
pub fn reach(address: IpAddr) -> Reach {
    let special = match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    };
    match special {
        Some(why) if address.is_loopback() => Reach::Here(why),
        Some(why) => Reach::Special(why),
        None if is_own(address) => Reach::Here("an address of this machine"),
        None if is_private(address) => Reach::Private,
        None => Reach::Public,
    }
}

/// From its own address the kernel speaks to itself. Connecting a datagram socket sends nothing. Where that cannot be tried,
/// because there are no descriptors for example, an address counts as this machine's.
fn is_own(address: IpAddr) -> bool {
    let unspecified: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    judge(local.map(|local| local.ip()), address)
}

/// What the answer to that means: without a route, or where nobody has heard of such addresses, it is not ours.
fn judge(local: io::Result<IpAddr>, address: IpAddr) -> bool {
    match local {
        Ok(local) => local == address,
        Err(error) => !matches!(
            error.raw_os_error().map(Errno::from_raw_os_error),
            Some(
                Errno::NETUNREACH
                    | Errno::HOSTUNREACH
                    | Errno::ACCESS
                    | Errno::INVAL
                    | Errno::AFNOSUPPORT
                    | Errno::ADDRNOTAVAIL
            )
        ),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        // 100.64.0.0/10 is shared by the customers of one provider (RFC 6598).
        IpAddr::V4(address) => address.is_private() || address.to_bits() >> 22 == 0x191,
        // fc00::/7, and fec0::/10 that came before it.
        IpAddr::V6(address) => {
            let first = address.segments().first().copied().unwrap_or_default();
            first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let first = address.octets().first().copied();
    match address {
        _ if address.is_loopback() => Some("a loopback address"),
        _ if METADATA_V4.contains(&address) => Some("a metadata service"),
        _ if address.is_link_local() => Some("a link-local address"),
        _ if first == Some(0) => Some("an unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if first.is_some_and(|first| first >= 240) => Some("a reserved address"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [first, second, ..] = address.segments();
    match address {
        Ipv6Addr::LOCALHOST => Some("a loopback address"),
        Ipv6Addr::UNSPECIFIED => Some("an unspecified address"),
        METADATA_V6 => Some("a metadata service"),
        _ if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
        _ if address.is_multicast() => Some("a multicast address"),
        // ::/96 and ::ffff:0:0/96, 64:ff9b::/32 (NAT64), 2002::/16 (6to4).
        _ if first == 0 || (first, second) == (0x64, 0xff9b) || first == 0x2002 => {
            Some("an IPv6 address that embeds an IPv4 address")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s20_an_address_that_cannot_be_looked_at_is_this_machines() {
        let address = IpAddr::from([203, 0, 113, 5]);
        for (answer, expected) in [
            (Ok(address), true),
            (Ok(IpAddr::from([192, 0, 2, 2])), false),
            (Err(Errno::MFILE), true),
            (Err(Errno::NFILE), true),
            (Err(Errno::NOBUFS), true),
            (Err(Errno::NETUNREACH), false),
            (Err(Errno::AFNOSUPPORT), false),
        ] {
            assert_eq!(judge(answer.map_err(io::Error::from), address), expected, "{answer:?}");
        }
    }

    #[test]
    fn s20_addresses_of_this_machine_and_of_metadata_services_are_special() {
        let refused = [
            "127.0.0.1",
            "127.255.1.2",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ];
        for address in refused {
            let reach = reach(address.parse().unwrap());
            assert!(matches!(reach, Reach::Here(_) | Reach::Special(_)), "{address}: {reach:?}");
        }
        // Documentation's addresses: this host has none of them.
        for address in ["8.8.8.8", "192.0.2.1", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert_eq!(reach(address.parse().unwrap()), Reach::Public, "{address}");
        }
        for address in
            ["10.255.255.254", "192.168.255.254", "172.31.255.254", "100.64.0.1", "fd12::1", "fec0::1"]
        {
            assert_eq!(reach(address.parse().unwrap()), Reach::Private, "{address}");
        }
    }
}
