//! Who is covered: the current task by its cgroups, the socket by where it was made. The stricter of both counts.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use weir_abi::{ANCESTORS_MAX, Designation, Record, SocketState};

use crate::maps::WORKLOADS;

/// Why somebody is covered.
pub struct Coverage {
    pub cgroup_id: u64,
    /// `Record::BY_TASK`, `Record::BY_SOCKET`.
    pub flags: u32,
}

/// The designated cgroup nearest to the current task; 0: none, or the task is exempt.
///
/// The task counts, not the socket's cgroup for which the kernel runs these programs: a socket may have been inherited or
/// received from elsewhere.
#[inline(always)]
pub fn task_cgroup() -> u64 {
    let mut nearest = 0;
    let mut level = 1; // the root is never designated
    while level <= ANCESTORS_MAX {
        // SAFETY: the helper takes a number.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if id == 0 {
            break;
        }
        // SAFETY: read at once; elements are not reused while the program runs (RCU).
        if let Some(designation) = unsafe { WORKLOADS.get(id) } {
            nearest = if designation.flags & Designation::EXEMPT != 0 { 0 } else { id };
        }
        level += 1;
    }
    nearest
}

/// Is the current task or the socket covered?
#[inline(always)]
pub fn coverage(state: Option<&SocketState>) -> Option<Coverage> {
    let task = task_cgroup();
    let creator = state.map_or(0, |state| state.creator_cgroup_id);
    let mut flags = 0;
    if task != 0 {
        flags |= Record::BY_TASK;
    }
    if creator != 0 {
        flags |= Record::BY_SOCKET;
    }
    if flags == 0 {
        return None;
    }
    Some(Coverage { cgroup_id: if task != 0 { task } else { creator }, flags })
}
