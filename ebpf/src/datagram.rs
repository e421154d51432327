//! Datagrams that are not connected: a workload speaks to DNS, and hears at once that nothing else is there, so that HTTP/3
//! falls back to TCP.

use aya_ebpf::bindings::bpf_sock_addr;
use weir_abi::{Counter, select};

use crate::{
    cover,
    maps::{self, ECONNREFUSED, PASS},
};

#[inline(always)]
pub fn send(ctx: *mut bpf_sock_addr) -> i32 {
    // SAFETY: fields of the context.
    let (socket, protocol, port) = unsafe {
        let port = u32::from(u16::from_be((&raw const (*ctx).user_port).read_volatile() as u16));
        ((*ctx).__bindgen_anon_1.sk, (&raw const (*ctx).protocol).read_volatile(), port)
    };
    if select::datagram_allowed(protocol, port) {
        return PASS;
    }
    let state = if socket.is_null() { None } else { maps::socket_state(socket.cast()) };
    if cover::coverage(state.as_deref()).is_none() {
        return PASS;
    }
    maps::refuse(ECONNREFUSED, Counter::RefusedDatagram)
}
