//! Where an accepted connection wanted to go, as the kernel remembers it. Told once: who asks again, or did not come through the
//! kernel's redirection, has no origin and is refused.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::MapData;
use rustix::time::{ClockId, clock_gettime};
use tracing::warn;
use weir_abi::{ConnKey, Record, select, sys};

use crate::flow::{OrigDst, PeerAddr, canonical};

/// A record older than this is of a connection that was never accepted. Longer than any connection waits in the accept queue.
const RECORD_AGE_MAX: Duration = Duration::from_secs(60);

/// What the kernel knows about one redirected connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TakenOrigin {
    pub orig_dst: OrigDst,
    /// The process (thread group) that called `connect`, in the initial pid namespace.
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// The designated cgroup that covers the connection.
    pub cgroup_id: u64,
    /// Where the connecting task is: `cgroup_id`, or below it; elsewhere if `by_task` is false.
    pub task_cgroup_id: u64,
    /// False: the connecting task is not designated, but uses a socket that was created in `cgroup_id`.
    pub by_task: bool,
    /// Interface that the workload had bound the socket to; 0: none.
    pub ifindex: u32,
    /// `CLOCK_MONOTONIC` at `connect`; 0: unknown.
    pub ktime_ns: u64,
}

/// The kernel, or a map in a test.
pub trait Origins: Send + Sync {
    /// Takes the record of the connection from `peer` to the listener's `local` address. `None`: nobody redirected it, or it
    /// was taken before. Does not block.
    fn take(&self, peer: PeerAddr, local: SocketAddr) -> Option<TakenOrigin>;
}

/// The map that the kernel programs fill, for the listeners of one network namespace.
pub(super) struct KernelOrigins {
    conns: MapData,
    netns_cookie: u64,
}

impl KernelOrigins {
    pub(super) fn new(conns: MapData, netns_cookie: u64) -> Self {
        Self { conns, netns_cookie }
    }
}

impl Origins for KernelOrigins {
    fn take(&self, peer: PeerAddr, local: SocketAddr) -> Option<TakenOrigin> {
        use std::os::fd::AsFd;

        let key = key(self.netns_cookie, peer, local);
        let record = match sys::map_take::<ConnKey, Record>(self.conns.fd().as_fd(), &key) {
            Ok(record) => record?,
            Err(error) => {
                warn!(peer = %peer.0, %error, "take the origin of a connection");
                return None;
            }
        };
        let age = now_ns().saturating_sub(record.ktime_ns);
        (u128::from(age) <= RECORD_AGE_MAX.as_nanos()).then(|| taken(&record))
    }
}

fn key(netns_cookie: u64, peer: PeerAddr, local: SocketAddr) -> ConnKey {
    select::conn_key(netns_cookie, words(peer.0.ip()), peer.0.port().into(), local.port().into())
}

fn taken(record: &Record) -> TakenOrigin {
    let port = u16::try_from(record.orig_port).unwrap_or(0);
    TakenOrigin {
        orig_dst: OrigDst(canonical(SocketAddr::new(address(record.orig_addr), port))),
        pid: record.tgid,
        uid: record.uid,
        gid: record.gid,
        cgroup_id: record.cgroup_id,
        task_cgroup_id: record.task_cgroup_id,
        by_task: record.flags & Record::BY_TASK != 0,
        ifindex: record.ifindex,
        ktime_ns: record.ktime_ns,
    }
}

/// Four words in memory order, IPv4 as v4-mapped: the kernel's way.
fn words(ip: IpAddr) -> [u32; 4] {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

fn address(words: [u32; 4]) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// `CLOCK_MONOTONIC`, which is also the clock of `bpf_ktime_get_ns`.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

/// Origins without a kernel, for tests.
#[derive(Debug, Default)]
pub struct MapOrigins(Mutex<HashMap<(SocketAddr, u16), TakenOrigin>>);

impl MapOrigins {
    /// The next connection from `peer` to the port of `local` has this origin.
    pub fn insert(&self, peer: PeerAddr, local: SocketAddr, origin: TakenOrigin) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((canonical(peer.0), local.port()), origin);
    }
}

impl Origins for MapOrigins {
    fn take(&self, peer: PeerAddr, local: SocketAddr) -> Option<TakenOrigin> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(canonical(peer.0), local.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_spellings_of_a_peer_give_one_key() {
        let local = socket("127.0.0.1:15001");
        let plain = key(7, PeerAddr(socket("127.0.0.1:4000")), local);
        let mapped = key(7, PeerAddr(socket("[::ffff:127.0.0.1]:4000")), local);
        assert_eq!(plain, mapped);
        assert_eq!((plain.port, plain.listener_port, plain.netns_cookie), (4000, 15001, 7));
    }

    #[test]
    fn a_mapped_destination_is_told_as_ipv4() {
        let record = Record { orig_addr: words("10.1.2.3".parse().unwrap()), orig_port: 5432, ..Record::default() };
        assert_eq!(taken(&record).orig_dst, OrigDst(socket("10.1.2.3:5432")));
    }

    #[test]
    fn an_ipv6_destination_survives_the_words() {
        let record = Record { orig_addr: words("2001:db8::7".parse().unwrap()), orig_port: 443, ..Record::default() };
        assert_eq!(taken(&record).orig_dst, OrigDst(socket("[2001:db8::7]:443")));
    }

    #[test]
    fn an_origin_is_told_once() {
        let origins = MapOrigins::default();
        let (peer, local) = (PeerAddr(socket("127.0.0.1:4000")), socket("127.0.0.1:15001"));
        origins.insert(peer, local, taken(&Record::default()));
        assert!(origins.take(PeerAddr(socket("127.0.0.1:4001")), local).is_none());
        assert!(origins.take(peer, local).is_some());
        assert!(origins.take(peer, local).is_none());
    }
}
