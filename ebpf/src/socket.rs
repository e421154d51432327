//! Birth and death of sockets: what a designated workload creates stays covered wherever it is connected.

use aya_ebpf::bindings::bpf_sock;
use weir_abi::{Counter, select};

use crate::{
    conn, cover,
    maps::{self, ECONNREFUSED, EPERM, EPROTONOSUPPORT, PASS},
};

#[inline(always)]
pub fn create(socket: *mut bpf_sock) -> i32 {
    let cgroup_id = cover::task_cgroup();
    if cgroup_id == 0 {
        return PASS;
    }
    // SAFETY: fields of the context.
    let (kind, protocol) =
        unsafe { ((&raw const (*socket).type_).read_volatile(), (&raw const (*socket).protocol).read_volatile()) };
    match select::socket(kind, protocol) {
        select::Socket::Allow => {}
        select::Socket::Forbid => return maps::refuse(EPERM, Counter::RefusedSocket),
        select::Socket::Unsupported => return maps::refuse(EPROTONOSUPPORT, Counter::RefusedSocket),
    }
    let Some(state) = maps::make_socket_state(socket.cast()) else {
        return maps::refuse(ECONNREFUSED, Counter::RefusedNoRecord);
    };
    state.creator_cgroup_id = cgroup_id;
    PASS
}

#[inline(always)]
pub fn release(socket: *mut bpf_sock) -> i32 {
    if let Some(state) = maps::socket_state(socket.cast()) {
        conn::forget(state);
    }
    PASS
}
