//! `connect`: remember the origin on the socket, send it to weir's listener.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_setsockopt},
    },
};
use weir_abi::{Counter, Listener, Record, SocketState, select};

use crate::{
    conn,
    cover::{self, Coverage},
    maps::{self, ECONNREFUSED, PASS},
};

const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;

#[inline(always)]
pub fn connect4(ctx: *mut bpf_sock_addr) -> i32 {
    // SAFETY: fields of the context, in words, as the verifier wants.
    let (socket, ip4, port) = unsafe { ((*ctx).__bindgen_anon_1.sk, (&raw const (*ctx).user_ip4).read_volatile(), port(ctx)) };
    let Some(Redirect { addr, port }) =
        (match redirect(ctx, socket, port, |_| select::destination4(ip4), |_, listener| select::target4(listener)) {
            Ok(redirect) => redirect,
            Err(verdict) => return verdict,
        })
    else {
        return PASS;
    };
    // SAFETY: as above; these fields are writable in this hook.
    unsafe {
        (&raw mut (*ctx).user_ip4).write_volatile(addr[3]);
        write_port(ctx, port);
    }
    PASS
}

#[inline(always)]
pub fn connect6(ctx: *mut bpf_sock_addr) -> i32 {
    // SAFETY: fields of the context, in words, as the verifier wants.
    let (socket, ip6, port) = unsafe { ((*ctx).__bindgen_anon_1.sk, conn::read6(&raw const (*ctx).user_ip6), port(ctx)) };
    let destination = |socket: *mut bpf_sock| {
        // SAFETY: fields of a socket of which the verifier knows that it is one.
        let bound = unsafe { conn::read6(&raw const (*socket).src_ip6) };
        select::destination6(ip6, select::is_mapped(bound))
    };
    let Some(Redirect { addr, port }) = (match redirect(ctx, socket, port, destination, select::target6) {
        Ok(redirect) => redirect,
        Err(verdict) => return verdict,
    }) else {
        return PASS;
    };
    // SAFETY: as above; these fields are writable in this hook.
    unsafe {
        conn::write6(&raw mut (*ctx).user_ip6, addr);
        write_port(ctx, port);
    }
    PASS
}

struct Redirect {
    addr: [u32; 4],
    port: u32,
}

/// Decides one connect. `Ok(None)`: pass; `Err`: refused, with the program's return value.
#[inline(always)]
fn redirect(
    ctx: *mut bpf_sock_addr,
    socket: *mut bpf_sock,
    port: u32,
    destination: impl FnOnce(*mut bpf_sock) -> [u32; 4],
    target: impl FnOnce([u32; 4], Listener) -> Option<([u32; 4], u32)>,
) -> Result<Option<Redirect>, i32> {
    if socket.is_null() {
        return Ok(None);
    }
    let mut state = maps::socket_state(socket.cast());
    if let Some(state) = state.as_deref_mut() {
        // The socket may have been connected before, by anybody: what was remembered is not true any more.
        conn::forget(state);
    }
    let Some(coverage) = cover::coverage(state.as_deref()) else {
        return Ok(None);
    };
    // SAFETY: a field of the context.
    let protocol = unsafe { (&raw const (*ctx).protocol).read_volatile() };
    if protocol != select::TCP {
        if select::datagram_allowed(protocol, port) {
            return Ok(None);
        }
        return Err(maps::refuse(ECONNREFUSED, Counter::RefusedDatagram));
    }
    let now_ns = maps::now_ns();
    if !maps::agent_lives(now_ns) {
        return Err(maps::refuse(ECONNREFUSED, Counter::RefusedStale));
    }
    // SAFETY: the helper takes the context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let destination = destination(socket);
    let Some((addr, listener_port)) = maps::listener(netns_cookie).and_then(|listener| target(destination, listener)) else {
        return Err(maps::refuse(ECONNREFUSED, Counter::RefusedNoListener));
    };
    let Some(state) = maps::make_socket_state(socket.cast()) else {
        return Err(maps::refuse(ECONNREFUSED, Counter::RefusedNoRecord));
    };
    let Some(ifindex) = leave_device(ctx, socket) else {
        return Err(maps::refuse(ECONNREFUSED, Counter::RefusedNoRecord));
    };
    remember(ctx, state, &coverage, Origin { netns_cookie, now_ns, destination, port, ifindex });
    maps::count(Counter::Redirected);
    if coverage.flags == Record::BY_SOCKET {
        maps::count(Counter::BySocket);
    }
    Ok(Some(Redirect { addr, port: listener_port }))
}

struct Origin {
    netns_cookie: u64,
    now_ns: u64,
    destination: [u32; 4],
    port: u32,
    ifindex: u32,
}

/// Fills the record field by field: the state is in the kernel's memory, and the stack is small.
#[inline(always)]
fn remember(ctx: *mut bpf_sock_addr, state: &mut SocketState, coverage: &Coverage, origin: Origin) {
    let process = bpf_get_current_pid_tgid();
    let owner = bpf_get_current_uid_gid();
    let record = &mut state.record;
    record.netns_cookie = origin.netns_cookie;
    // SAFETY: the helpers take the context, or nothing.
    unsafe {
        record.socket_cookie = bpf_get_socket_cookie(ctx.cast());
        record.task_cgroup_id = bpf_get_current_cgroup_id();
    }
    record.cgroup_id = coverage.cgroup_id;
    record.ktime_ns = origin.now_ns;
    record.orig_addr = origin.destination;
    record.orig_port = origin.port;
    record.tgid = (process >> 32) as u32;
    record.pid = process as u32;
    record.uid = owner as u32;
    record.gid = (owner >> 32) as u32;
    record.ifindex = origin.ifindex;
    record.flags = coverage.flags;
    state.flags = SocketState::REDIRECTED;
}

/// Takes the socket off the interface that it is bound to: from there the loopback listener is out of reach. Returns the
/// interface's index, 0 for none; `None` if the kernel would not.
#[inline(always)]
fn leave_device(ctx: *mut bpf_sock_addr, socket: *mut bpf_sock) -> Option<u32> {
    // SAFETY: a field of a socket of which the verifier knows that it is one.
    let ifindex = unsafe { (&raw const (*socket).bound_dev_if).read_volatile() };
    if ifindex == 0 {
        return Some(0);
    }
    let mut name = [0_u8; 4];
    // SAFETY: the helper reads four bytes of ours: an empty name.
    let result = unsafe { bpf_setsockopt(ctx.cast(), SOL_SOCKET, SO_BINDTODEVICE, name.as_mut_ptr().cast::<c_void>(), 4) };
    (result == 0).then_some(ifindex)
}

/// Port of the address, in host order. The kernel keeps it in the low half of the word, in network order.
#[inline(always)]
unsafe fn port(ctx: *mut bpf_sock_addr) -> u32 {
    // SAFETY: a field of the context.
    let word = unsafe { (&raw const (*ctx).user_port).read_volatile() };
    u32::from(u16::from_be(word as u16))
}

#[inline(always)]
unsafe fn write_port(ctx: *mut bpf_sock_addr, port: u32) {
    // SAFETY: a field of the context, writable in this hook.
    unsafe { (&raw mut (*ctx).user_port).write_volatile(u32::from((port as u16).to_be())) };
}
