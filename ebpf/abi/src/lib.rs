//! The contract between weir's kernel programs and the agent: what lies in the maps, byte for byte, and the pure logic on
//! which both sides must agree (`select`).
//!
//! Structures are `repr(C)`, made of integers, without hidden padding; sizes are asserted. Addresses are 128 bits in network
//! order, as four words in memory order; IPv4 is v4-mapped. Ports are in host order, in a whole word. Identifiers of
//! cgroups are those of the v2 hierarchy (the inode number of the directory).

#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod select;
#[cfg(feature = "user")]
pub mod sys;

/// Layout of the maps. A change of any structure here raises it, and with it the directory of the pins.
pub const VERSION: u32 = 1;

/// Levels of the cgroup hierarchy that are looked at, from the top: a task deeper than this is matched by its upper ancestors.
pub const ANCESTORS_MAX: u32 = 32;
/// Entries of `WORKLOADS`: designated cgroups.
pub const WORKLOADS_MAX: u32 = 16 * 1024;
/// Entries of `CONNS`: connections between `connect` and the agent's `accept`. Far above what is ever alive, because an LRU evicts early.
pub const CONNS_MAX: u32 = 64 * 1024;
/// Entries of `LISTENERS`: network namespaces.
pub const LISTENERS_MAX: u32 = 4 * 1024;

/// The only datagram port that designated workloads may speak to.
pub const DNS_PORT: u32 = 53;

/// Key of `WORKLOADS` is a cgroup id; this is its value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Designation {
    /// `DESIGNATED` or `EXEMPT`. The entry nearest to the task wins.
    pub flags: u32,
    pub padding: u32,
}

impl Designation {
    /// Tasks in this cgroup and below are redirected.
    pub const DESIGNATED: u32 = 1;
    /// Tasks in this cgroup and below are not, though an ancestor is: the agent's own cgroup.
    pub const EXEMPT: u32 = 2;
}

/// What the kernel remembers about one redirected connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Record {
    pub netns_cookie: u64,
    pub socket_cookie: u64,
    /// The designated cgroup that covers the connection: the task's or, failing that, the one that created the socket.
    pub cgroup_id: u64,
    /// Where the connecting task is, which may be below `cgroup_id`, or elsewhere if only the socket is covered.
    pub task_cgroup_id: u64,
    /// `CLOCK_MONOTONIC` at `connect`.
    pub ktime_ns: u64,
    pub orig_addr: [u32; 4],
    pub orig_port: u32,
    /// Process and thread in the initial pid namespace.
    pub tgid: u32,
    pub pid: u32,
    /// In the initial user namespace.
    pub uid: u32,
    pub gid: u32,
    /// Interface that the socket was bound to before it was redirected; 0: none.
    pub ifindex: u32,
    pub flags: u32,
    pub padding: u32,
}

impl Record {
    /// The connecting task is in a designated cgroup.
    pub const BY_TASK: u32 = 1;
    /// The socket was created in a designated cgroup.
    pub const BY_SOCKET: u32 = 2;
}

/// Key of `CONNS`: what both the kernel, before the SYN, and the agent, at `accept`, know of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ConnKey {
    pub netns_cookie: u64,
    /// Source address of the workload's socket.
    pub addr: [u32; 4],
    pub port: u32,
    /// Port of weir's listener that it was sent to.
    pub listener_port: u32,
}

/// Value of `SKSTATE`, the storage of one socket; freed with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SocketState {
    pub record: Record,
    pub key: ConnKey,
    /// The designated cgroup in which the socket was created; 0: none. Stays for the life of the socket, whatever becomes of the cgroup.
    pub creator_cgroup_id: u64,
    pub flags: u32,
    pub padding: u32,
}

impl SocketState {
    /// `record` holds the origin of the current connection.
    pub const REDIRECTED: u32 = 1;
    /// `key` is in `CONNS`, unless the agent took it.
    pub const KEYED: u32 = 2;
}

/// Value of `LISTENERS`, whose key is the cookie of a network namespace. Port 0: no listener of that family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Listener {
    /// On 127.0.0.1.
    pub port4: u32,
    /// On ::1.
    pub port6: u32,
}

/// The one element of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// `CLOCK_MONOTONIC` when the agent last said that it lives; 0: it said that it does not.
    pub heartbeat_ns: u64,
    pub ttl_ns: u64,
    pub version: u32,
    pub agent_pid: u32,
}

/// What is counted; index into `STATS`, a per-CPU array of `u64`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counter {
    /// Connections sent to weir.
    Redirected,
    /// Of these, covered by the mark of the socket alone.
    BySocket,
    /// Refused because the agent's heartbeat is too old.
    RefusedStale,
    /// Refused because no listener is published for the network namespace or family.
    RefusedNoListener,
    /// Refused because the kernel had no memory for the record, or the socket would not leave its interface.
    RefusedNoRecord,
    RefusedDatagram,
    RefusedSocket,
    RefusedBind,
    /// Connections to weir's listener that nobody redirected.
    Direct,
}

impl Counter {
    pub const ALL: [Self; 9] = [
        Self::Redirected,
        Self::BySocket,
        Self::RefusedStale,
        Self::RefusedNoListener,
        Self::RefusedNoRecord,
        Self::RefusedDatagram,
        Self::RefusedSocket,
        Self::RefusedBind,
        Self::Direct,
    ];
}

/// Elements of `STATS`.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;

const _: () = assert!(size_of::<Designation>() == 8);
const _: () = assert!(size_of::<Record>() == 88);
const _: () = assert!(size_of::<ConnKey>() == 32);
const _: () = assert!(size_of::<SocketState>() == 136);
const _: () = assert!(size_of::<Listener>() == 8);
const _: () = assert!(size_of::<Config>() == 24);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya asks for a promise about bytes")]
mod pod {
    use super::{Config, ConnKey, Designation, Listener, Record, SocketState};

    // SAFETY: `repr(C)`, integers only, no padding (the sizes asserted above are the sums of the fields).
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ConnKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Designation {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Listener {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Record {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SocketState {}
}
