//! The life of a redirected connection after `connect`: keyed for the agent before the SYN, shown to its owner by its true
//! peer, forgotten when it comes to nothing.

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::bpf_get_netns_cookie,
};
use weir_abi::{ConnKey, Counter, SocketState, select};

use crate::maps::{self, CONNS, PASS};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const BPF_ANY: u64 = 0;

/// `sock_ops`: called for every TCP connection under the top cgroup, so the first test is the cheapest.
#[inline(always)]
pub fn event(ctx: *mut bpf_sock_ops) -> u32 {
    // SAFETY: a field of the context.
    let op = unsafe { (&raw const (*ctx).op).read_volatile() };
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        connecting(ctx);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        established(ctx);
    }
    PASS as u32
}

/// The source address and port are chosen, the SYN is not sent: the record must be there before the agent can accept.
#[inline(always)]
fn connecting(ctx: *mut bpf_sock_ops) {
    // SAFETY: fields of the context.
    let socket = unsafe { (*ctx).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    let Some(addresses) = addresses(ctx) else {
        return;
    };
    if let Some(state) = maps::socket_state(socket.cast())
        && state.flags & SocketState::REDIRECTED != 0
    {
        state.key = select::conn_key(state.record.netns_cookie, addresses.local, addresses.local_port, addresses.remote_port);
        if CONNS.insert(&state.key, &state.record, BPF_ANY).is_ok() {
            state.flags |= SocketState::KEYED;
        }
        return;
    }
    if select::is_loopback(addresses.remote) {
        direct(ctx, &addresses);
    }
}

/// Somebody dials weir's listener: a record that an earlier connection from the same source left must not become theirs.
#[inline(always)]
fn direct(ctx: *mut bpf_sock_ops, addresses: &Addresses) {
    // SAFETY: the helper takes the context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let Some(listener) = maps::listener(netns_cookie) else {
        return;
    };
    if select::is_ours(addresses.remote, addresses.remote_port, listener) {
        let key = select::conn_key(netns_cookie, addresses.local, addresses.local_port, addresses.remote_port);
        let _ = CONNS.remove(&key);
        maps::count(Counter::Direct);
    }
}

/// The handshake is done, so the connection is in the agent's queue: from here on the record is the agent's to take, even if
/// the workload has closed by then.
#[inline(always)]
fn established(ctx: *mut bpf_sock_ops) {
    // SAFETY: a field of the context.
    let socket = unsafe { (*ctx).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    if let Some(state) = maps::socket_state(socket.cast()) {
        state.flags &= !SocketState::KEYED;
    }
}

/// Forgets where the socket's last connection went, and takes its record away from the agent if it never came to be.
#[inline(always)]
pub fn forget(state: &mut SocketState) {
    if state.flags & SocketState::KEYED != 0 {
        let _ = CONNS.remove(&state.key);
    }
    if state.flags != 0 {
        state.flags = 0;
        state.key = ConnKey::default();
    }
}

/// `getpeername` of an IPv4 socket.
#[inline(always)]
pub fn peer4(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some((addr, port)) = original(ctx) {
        // SAFETY: fields of the context, writable in this hook.
        unsafe {
            (&raw mut (*ctx).user_ip4).write_volatile(addr[3]);
            (&raw mut (*ctx).user_port).write_volatile(u32::from((port as u16).to_be()));
        }
    }
    PASS
}

/// `getpeername` of an IPv6 socket.
#[inline(always)]
pub fn peer6(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some((addr, port)) = original(ctx) {
        // SAFETY: fields of the context, writable in this hook.
        unsafe {
            write6(&raw mut (*ctx).user_ip6, addr);
            (&raw mut (*ctx).user_port).write_volatile(u32::from((port as u16).to_be()));
        }
    }
    PASS
}

#[inline(always)]
fn original(ctx: *mut bpf_sock_addr) -> Option<([u32; 4], u32)> {
    // SAFETY: a field of the context.
    let socket = unsafe { (*ctx).__bindgen_anon_1.sk };
    if socket.is_null() {
        return None;
    }
    let state = maps::socket_state(socket.cast())?;
    (state.flags & SocketState::REDIRECTED != 0).then_some((state.record.orig_addr, state.record.orig_port))
}

struct Addresses {
    local: [u32; 4],
    local_port: u32,
    remote: [u32; 4],
    remote_port: u32,
}

/// Both ends, normalised: a v6 socket that speaks IPv4 reports family INET6 and mapped addresses.
///
/// Reads the fields of both families before it looks at the family: the compiler would else merge the two branches into one
/// load through a computed address, which the verifier forbids in a context.
#[inline(always)]
fn addresses(ctx: *mut bpf_sock_ops) -> Option<Addresses> {
    // SAFETY: fields of the context, word by word. The local port is in host order, the remote one in network order.
    let (family, local_port, remote_port, local4, remote4, local6, remote6) = unsafe {
        (
            (&raw const (*ctx).family).read_volatile(),
            (&raw const (*ctx).local_port).read_volatile(),
            u32::from_be((&raw const (*ctx).remote_port).read_volatile()),
            (&raw const (*ctx).local_ip4).read_volatile(),
            (&raw const (*ctx).remote_ip4).read_volatile(),
            read6(&raw const (*ctx).local_ip6),
            read6(&raw const (*ctx).remote_ip6),
        )
    };
    let (local, remote) = match family {
        AF_INET => (select::mapped(local4), select::mapped(remote4)),
        AF_INET6 => (local6, remote6),
        _ => return None,
    };
    Some(Addresses { local, local_port, remote, remote_port })
}

/// Reads an address word by word: the verifier forbids wider loads here.
#[inline(always)]
pub unsafe fn read6(field: *const [u32; 4]) -> [u32; 4] {
    let words = field.cast::<u32>();
    // SAFETY: four words of the field.
    unsafe { [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile(), words.add(3).read_volatile()] }
}

/// Writes an address word by word: the verifier forbids wider stores here.
#[inline(always)]
pub unsafe fn write6(field: *mut [u32; 4], addr: [u32; 4]) {
    let words = field.cast::<u32>();
    // SAFETY: four words of the field.
    unsafe {
        words.write_volatile(addr[0]);
        words.add(1).write_volatile(addr[1]);
        words.add(2).write_volatile(addr[2]);
        words.add(3).write_volatile(addr[3]);
    }
}
