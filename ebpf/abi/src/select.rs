//! What kernel and agent decide alike: how an address is written, what is redirected where, whether a connection is ours.
//!
//! Pure and total; compiled for both targets and tested on the host. Only scalars and small arrays, no slices of unknown
//! length: the verifier reads the result.

use crate::{ConnKey, DNS_PORT, Listener};

/// Protocol numbers (IANA) and socket types (`linux/net.h`).
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const MPTCP: u32 = 262;
pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;

const MAPPED: u32 = 0xffff_u32.to_be();
const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// Writes an IPv4 address (network order) as a v4-mapped one.
#[inline(always)]
#[must_use]
pub const fn mapped(ip4: u32) -> [u32; 4] {
    [0, 0, MAPPED, ip4]
}

/// Is this `::ffff:a.b.c.d`?
#[inline(always)]
#[must_use]
pub const fn is_mapped(ip6: [u32; 4]) -> bool {
    ip6[0] == 0 && ip6[1] == 0 && ip6[2] == MAPPED
}

/// Where a connection to this IPv4 address really goes: 0.0.0.0 means this host.
#[inline(always)]
#[must_use]
pub const fn destination4(ip4: u32) -> [u32; 4] {
    mapped(if ip4 == 0 { LOOPBACK4 } else { ip4 })
}

/// As `destination4` for IPv6: `::` means this host, in IPv4 if the socket is bound to a v4-mapped address.
#[inline(always)]
#[must_use]
pub const fn destination6(ip6: [u32; 4], bound_mapped: bool) -> [u32; 4] {
    if ip6[0] == 0 && ip6[1] == 0 && ip6[2] == 0 && ip6[3] == 0 {
        return if bound_mapped { mapped(LOOPBACK4) } else { LOOPBACK6 };
    }
    if is_mapped(ip6) { destination4(ip6[3]) } else { ip6 }
}

/// Where a socket of family IPv6 is sent instead of `destination`. A v4-mapped destination stays v4-mapped; any other goes to the
/// IPv6 listener, or v4-mapped to the IPv4 one, which a socket that is V6ONLY or bound to an IPv6 address cannot reach:
/// the kernel then says ENETUNREACH. `None`: nowhere.
#[inline(always)]
#[must_use]
pub const fn target6(destination: [u32; 4], listener: Listener) -> Option<([u32; 4], u32)> {
    if !is_mapped(destination) && listener.port6 != 0 {
        return Some((LOOPBACK6, listener.port6));
    }
    target4(listener)
}

/// Where a socket of family IPv4 is sent.
#[inline(always)]
#[must_use]
pub const fn target4(listener: Listener) -> Option<([u32; 4], u32)> {
    if listener.port4 == 0 { None } else { Some((mapped(LOOPBACK4), listener.port4)) }
}

/// Is this one of the two addresses that weir listens on?
#[inline(always)]
#[must_use]
pub const fn is_loopback(addr: [u32; 4]) -> bool {
    (is_mapped(addr) && addr[3] == LOOPBACK4) || (addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && addr[3] == LOOPBACK6[3])
}

/// Is a connection to this address and port one to weir's listener?
#[inline(always)]
#[must_use]
pub const fn is_ours(addr: [u32; 4], port: u32, listener: Listener) -> bool {
    is_loopback(addr) && is_protected(port, listener)
}

/// Is this a port that nobody may bind, on whatever address, since weir listens there? The agent publishes after it binds.
#[inline(always)]
#[must_use]
pub const fn is_protected(port: u32, listener: Listener) -> bool {
    port != 0 && (port == listener.port4 || port == listener.port6)
}

/// Key of a connection in `CONNS`. The address is normalised by the caller.
#[inline(always)]
#[must_use]
pub const fn conn_key(netns_cookie: u64, addr: [u32; 4], port: u32, listener_port: u32) -> ConnKey {
    ConnKey { netns_cookie, addr, port, listener_port }
}

/// Does the agent live? A heartbeat from the future (written between the two readings of the clock) counts.
#[inline(always)]
#[must_use]
pub const fn is_fresh(now_ns: u64, heartbeat_ns: u64, ttl_ns: u64) -> bool {
    heartbeat_ns != 0 && now_ns.saturating_sub(heartbeat_ns) <= ttl_ns
}

/// What becomes of a new socket of a designated workload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Socket {
    Allow,
    /// EPERM, as for any process without the right to raw sockets.
    Forbid,
    /// EPROTONOSUPPORT: the caller falls back to TCP (MPTCP), or cannot be covered (SCTP, DCCP, UDP-Lite, ping).
    Unsupported,
}

#[inline(always)]
#[must_use]
pub const fn socket(kind: u32, protocol: u32) -> Socket {
    match (kind, protocol) {
        (SOCK_STREAM, TCP) | (SOCK_DGRAM, UDP) => Socket::Allow,
        (SOCK_RAW, _) => Socket::Forbid,
        _ => Socket::Unsupported,
    }
}

/// May a designated workload send this datagram, or connect a datagram socket there?
#[inline(always)]
#[must_use]
pub const fn datagram_allowed(protocol: u32, port: u32) -> bool {
    protocol == UDP && port == DNS_PORT
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn words(ip: Ipv6Addr) -> [u32; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(ip.octets().chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        words
    }

    fn v6(text: &str) -> [u32; 4] {
        words(text.parse().unwrap())
    }

    fn v4(text: &str) -> u32 {
        u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets())
    }

    const BOTH: Listener = Listener { port4: 15001, port6: 15002 };
    const ONLY4: Listener = Listener { port4: 15001, port6: 0 };
    const ONLY6: Listener = Listener { port4: 0, port6: 15002 };

    #[test]
    fn writes_ipv4_as_the_standard_library_maps_it() {
        assert_eq!(mapped(v4("10.2.3.4")), words("10.2.3.4".parse::<Ipv4Addr>().unwrap().to_ipv6_mapped()));
    }

    #[test]
    fn both_spellings_of_one_ipv4_destination_are_equal() {
        assert_eq!(destination4(v4("10.2.3.4")), destination6(v6("::ffff:10.2.3.4"), false));
    }

    #[test]
    fn the_unspecified_address_means_this_host() {
        assert_eq!(destination4(0), v6("::ffff:127.0.0.1"));
        assert_eq!(destination6(v6("::"), false), v6("::1"));
        assert_eq!(destination6(v6("::"), true), v6("::ffff:127.0.0.1"));
        assert_eq!(destination6(v6("::ffff:0.0.0.0"), false), v6("::ffff:127.0.0.1"));
    }

    #[test]
    fn a_v4_compatible_address_is_not_v4_mapped() {
        assert!(!is_mapped(v6("::10.2.3.4")));
        assert_eq!(destination6(v6("::10.2.3.4"), false), v6("::10.2.3.4"));
    }

    #[test]
    fn a_mapped_destination_stays_in_ipv4() {
        assert_eq!(target6(v6("::ffff:10.0.0.1"), BOTH), Some((v6("::ffff:127.0.0.1"), 15001)));
    }

    #[test]
    fn an_ipv6_destination_goes_to_the_ipv6_listener() {
        assert_eq!(target6(v6("2001:db8::1"), BOTH), Some((v6("::1"), 15002)));
    }

    #[test]
    fn without_an_ipv6_listener_an_ipv6_destination_goes_mapped_to_ipv4() {
        assert_eq!(target6(v6("2001:db8::1"), ONLY4), Some((v6("::ffff:127.0.0.1"), 15001)));
    }

    #[test]
    fn without_an_ipv4_listener_ipv4_goes_nowhere() {
        assert_eq!(target4(ONLY6), None);
        assert_eq!(target6(v6("::ffff:10.0.0.1"), ONLY6), None);
        assert_eq!(target6(v6("2001:db8::1"), Listener::default()), None);
    }

    #[test]
    fn only_loopback_with_the_published_port_is_ours() {
        assert!(is_ours(v6("::ffff:127.0.0.1"), 15001, BOTH));
        assert!(is_ours(v6("::1"), 15002, BOTH));
        assert!(!is_ours(v6("::ffff:127.0.0.5"), 15001, BOTH));
        assert!(!is_ours(v6("::ffff:127.0.0.1"), 15003, BOTH));
        assert!(!is_ours(v6("::ffff:127.0.0.1"), 0, ONLY6));
    }

    #[test]
    fn port_zero_is_never_protected() {
        assert!(!is_protected(0, Listener::default()));
        assert!(!is_protected(0, ONLY4));
    }

    #[test]
    fn a_heartbeat_lives_for_its_ttl_and_no_longer() {
        assert!(is_fresh(100, 90, 10));
        assert!(!is_fresh(101, 90, 10));
        assert!(is_fresh(90, 91, 10));
        assert!(!is_fresh(5, 0, 10), "zero says that the agent is gone");
    }

    #[test]
    fn only_tcp_and_udp_sockets_may_be_made() {
        assert_eq!(socket(SOCK_STREAM, TCP), Socket::Allow);
        assert_eq!(socket(SOCK_DGRAM, UDP), Socket::Allow);
        assert_eq!(socket(SOCK_RAW, TCP), Socket::Forbid);
        assert_eq!(socket(SOCK_STREAM, MPTCP), Socket::Unsupported);
        assert_eq!(socket(SOCK_DGRAM, 1), Socket::Unsupported);
        assert_eq!(socket(SOCK_DGRAM, 136), Socket::Unsupported);
        assert_eq!(socket(SOCK_STREAM, 132), Socket::Unsupported);
    }

    #[test]
    fn datagrams_go_to_dns_alone() {
        assert!(datagram_allowed(UDP, 53));
        assert!(!datagram_allowed(UDP, 443));
        assert!(!datagram_allowed(136, 53));
    }
}
