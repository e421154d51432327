//! Nobody binds a port that weir publishes, on any address: neither beside the listener, nor instead of it while the agent is
//! dead. The agent needs no exception: it binds first and publishes then.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_netns_cookie,
};
use weir_abi::{Counter, select};

use crate::maps::{self, EADDRINUSE, PASS};

/// `bind`, before the kernel acts.
#[inline(always)]
pub fn before(ctx: *mut bpf_sock_addr) -> i32 {
    // SAFETY: fields of the context.
    let (kind, port) = unsafe {
        let port = u32::from(u16::from_be((&raw const (*ctx).user_port).read_volatile() as u16));
        ((&raw const (*ctx).type_).read_volatile(), port)
    };
    if kind != select::SOCK_STREAM || port == 0 {
        return PASS;
    }
    // SAFETY: the helper takes the context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    match maps::listener(netns_cookie) {
        Some(listener) if select::is_protected(port, listener) => maps::refuse(EADDRINUSE, Counter::RefusedBind),
        _ => PASS,
    }
}

/// After the kernel chose a port, which may be one that a dead agent left.
#[inline(always)]
pub fn after(socket: *mut bpf_sock) -> i32 {
    // SAFETY: fields of the context; the port is in host order.
    let (kind, port) = unsafe { ((&raw const (*socket).type_).read_volatile(), (&raw const (*socket).src_port).read_volatile()) };
    if kind != select::SOCK_STREAM {
        return PASS;
    }
    // SAFETY: the helper takes the context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(socket.cast()) };
    match maps::listener(netns_cookie) {
        Some(listener) if select::is_protected(port, listener) => maps::refuse(EADDRINUSE, Counter::RefusedBind),
        _ => PASS,
    }
}
