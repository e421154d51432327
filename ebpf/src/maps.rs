//! The maps, and the few ways in which programs touch them. Layouts and sizes: `weir_abi`.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE},
    btf_maps::SkStorage,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_set_retval, bpf_sk_storage_get},
    },
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use weir_abi::{
    CONNS_MAX, COUNTERS, Config, ConnKey, Counter, Designation, LISTENERS_MAX, Listener, Record, SocketState, WORKLOADS_MAX,
    select,
};

/// Designated cgroups.
#[map]
pub static WORKLOADS: HashMap<u64, Designation> = HashMap::with_max_entries(WORKLOADS_MAX, BPF_F_NO_PREALLOC);

/// Redirected connections that the agent has not accepted yet.
#[map]
pub static CONNS: LruHashMap<ConnKey, Record> = LruHashMap::with_max_entries(CONNS_MAX, 0);

/// Weir's listeners, by the cookie of their network namespace.
#[map]
pub static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(LISTENERS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map]
pub static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// What is known of a socket; gone with it.
#[btf_map]
pub static SKSTATE: SkStorage<SocketState> = SkStorage::new();

/// 0 on kernels before 5.18, whose programs cannot choose the errno; the loader says. Refusals are then EPERM.
#[unsafe(no_mangle)]
pub static HAS_SET_RETVAL: u8 = 1;

pub const PASS: i32 = 1;
const REFUSE: i32 = 0;

pub const EPERM: i32 = 1;
pub const EPROTONOSUPPORT: i32 = 93;
pub const EADDRINUSE: i32 = 98;
pub const ECONNREFUSED: i32 = 111;

/// Refuses, with this errno, and counts it.
#[inline(always)]
pub fn refuse(errno: i32, counter: Counter) -> i32 {
    count(counter);
    // SAFETY: a valid static; volatile, because the loader may have changed it.
    if unsafe { ptr::read_volatile(&raw const HAS_SET_RETVAL) } != 0 {
        // SAFETY: the helper takes a number.
        unsafe { bpf_set_retval(-errno) };
    }
    REFUSE
}

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = STATS.get_ptr_mut(counter as u32) {
        // SAFETY: a value of this CPU, and programs do not migrate.
        unsafe { *value += 1 };
    }
}

/// Does the agent live?
#[inline(always)]
pub fn agent_lives(now_ns: u64) -> bool {
    CONFIG.get(0).is_some_and(|config| select::is_fresh(now_ns, config.heartbeat_ns, config.ttl_ns))
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
pub fn listener(netns_cookie: u64) -> Option<Listener> {
    // SAFETY: copied at once; both ports are replaced by whole entries, and the map does not reuse an element that is being read
    // for another key while the program runs (RCU).
    unsafe { LISTENERS.get(netns_cookie) }.copied()
}

/// The state of a socket, if it has one. `socket` comes from a context and is not null.
#[inline(always)]
pub fn socket_state(socket: *mut c_void) -> Option<&'static mut SocketState> {
    // SAFETY: the verifier checks that `socket` is one; the result is null or a value that lives as long as the program runs.
    unsafe {
        bpf_sk_storage_get((&raw const SKSTATE).cast_mut().cast(), socket, ptr::null_mut(), 0).cast::<SocketState>().as_mut()
    }
}

/// The state of a socket, made if need be, zeroed. `None`: no memory.
#[inline(always)]
pub fn make_socket_state(socket: *mut c_void) -> Option<&'static mut SocketState> {
    // SAFETY: as in `socket_state`; a null initial value means zeroes.
    unsafe {
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        bpf_sk_storage_get((&raw const SKSTATE).cast_mut().cast(), socket, ptr::null_mut(), flags).cast::<SocketState>().as_mut()
    }
}
