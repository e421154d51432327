//! What this kernel can do, found by trying and not by version. One line a feature.

use std::io;

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use serde::Serialize;
use weir_abi::sys::{Instruction, program_load};

/// One feature.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    pub name: &'static str,
    /// What weir does with it.
    pub needed_for: &'static str,
    pub found: Finding,
    /// What it means that it is missing.
    pub consequence: &'static str,
    /// Without it there is no interception at all.
    pub required: bool,
}

/// What trying gave.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    Found,
    /// EPERM or EACCES: the kernel may have it, but a capability, lockdown or a security module is in the way.
    Forbidden {
        errno: i32,
    },
    /// EINVAL and the like: the kernel is too old, or built without it.
    Missing {
        errno: i32,
    },
}

impl Finding {
    /// Forbidden and missing are told apart: the first is cured by a right, the second by a kernel.
    #[must_use]
    pub fn of<T>(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Found,
            Err(error) => match error.raw_os_error() {
                Some(errno @ (libc::EPERM | libc::EACCES)) => Self::Forbidden { errno },
                errno => Self::Missing { errno: errno.unwrap_or(0) },
            },
        }
    }
}

/// What it means that something required is missing.
const NO_INTERCEPTION: &str = "interception is not possible: weir does not start";

const CGROUP_SOCK: u32 = 9;
const SOCK_OPS: u32 = 13;
const CGROUP_SOCK_ADDR: u32 = 18;

const SOCK_CREATE: u32 = 2;
const SOCK_OPS_ATTACH: u32 = 3;
const BIND4: u32 = 8;
const CONNECT4: u32 = 10;
const CONNECT6: u32 = 11;
const POST_BIND4: u32 = 12;
const SENDMSG4: u32 = 14;
const GETPEERNAME4: u32 = 29;
const SOCK_RELEASE: u32 = 34;

const HELPER_NETNS_COOKIE: i32 = 122;
const HELPER_ANCESTOR_CGROUP_ID: i32 = 123;
const HELPER_SET_RETVAL: i32 = 187;

/// Tries everything. Loads tiny programs and makes maps, attaches none.
#[must_use]
pub fn features() -> Vec<Feature> {
    let mut features = hooks();
    features.extend(maps());
    features.extend(helpers());
    features.push(Feature {
        name: "SO_NETNS_COOKIE",
        needed_for: "taking the origin of a connection once",
        found: netns_cookie(),
        consequence: NO_INTERCEPTION,
        required: true,
    });
    features.push(lsm());
    features
}

fn hooks() -> Vec<Feature> {
    let hook = |(name, needed_for, kind, attach)| Feature {
        name,
        needed_for,
        found: Finding::of(program_load(kind, attach, &[Instruction::load(0, 1), Instruction::exit()])),
        consequence: NO_INTERCEPTION,
        required: true,
    };
    let hooks = [
        ("connect hooks", "redirecting TCP", CGROUP_SOCK_ADDR, CONNECT4),
        ("connect hooks, IPv6", "redirecting TCP over IPv6", CGROUP_SOCK_ADDR, CONNECT6),
        ("sendmsg hooks", "refusing UDP but DNS", CGROUP_SOCK_ADDR, SENDMSG4),
        ("getpeername hooks", "showing clients their true peer", CGROUP_SOCK_ADDR, GETPEERNAME4),
        ("bind hooks", "protecting weir's port", CGROUP_SOCK_ADDR, BIND4),
        ("post-bind hooks", "protecting weir's port", CGROUP_SOCK, POST_BIND4),
        ("socket creation hook", "marking sockets, refusing raw ones", CGROUP_SOCK, SOCK_CREATE),
        ("socket release hook", "forgetting connections that failed", CGROUP_SOCK, SOCK_RELEASE),
        ("sock_ops", "finding the origin of a connection", SOCK_OPS, SOCK_OPS_ATTACH),
    ];
    hooks.into_iter().map(hook).collect()
}

fn maps() -> Vec<Feature> {
    let map = |(name, needed_for, kind)| Feature {
        name,
        needed_for,
        found: Finding::of(is_map_supported(kind).map_err(|error| error.io_error).and_then(supported)),
        consequence: NO_INTERCEPTION,
        required: true,
    };
    let maps = [
        ("hash maps", "the designated workloads", MapType::Hash),
        ("LRU maps", "the origins of connections", MapType::LruHash),
        ("per-CPU arrays", "counters", MapType::PerCpuArray),
        ("socket storage", "the state of a socket", MapType::SkStorage),
    ];
    maps.into_iter().map(map).collect()
}

fn helpers() -> [Feature; 3] {
    let helper = |name, needed_for, id, consequence, required| {
        let found = Finding::of(call(id));
        Feature { name, needed_for, found, consequence, required }
    };
    let namespaces = "knowing in which namespace a connection is made";
    let ancestors = "matching workloads by the cgroups above them";
    let errno = "refusing in words that clients understand";
    [
        helper("network namespace cookie", namespaces, HELPER_NETNS_COOKIE, NO_INTERCEPTION, true),
        helper("ancestor cgroup id", ancestors, HELPER_ANCESTOR_CGROUP_ID, NO_INTERCEPTION, true),
        helper("choice of errno", errno, HELPER_SET_RETVAL, "refusals say EPERM instead of ECONNREFUSED", false),
    ]
}

fn lsm() -> Feature {
    let found = match is_program_supported(ProgramType::Lsm(aya::programs::LsmAttachType::Mac)) {
        Ok(found) => supported(found),
        Err(error) => Err(io_error(error)),
    };
    Feature {
        name: "BPF LSM",
        needed_for: "refusing sockets that no cgroup hook sees",
        found: Finding::of(found),
        consequence: "the extra tier that refuses AF_PACKET, AF_VSOCK and AF_XDP stays off: drop CAP_NET_RAW from workloads",
        required: false,
    }
}

/// Linux 5.18: programs choose the errno of a refusal.
pub(super) fn has_set_retval() -> bool {
    call(HELPER_SET_RETVAL).is_ok()
}

/// Loads a connect program that calls a helper which takes the context (already in register 1) or a number.
fn call(helper: i32) -> io::Result<()> {
    let mut program = Vec::with_capacity(4);
    if helper != HELPER_NETNS_COOKIE {
        program.push(Instruction::load(1, 1));
    }
    program.extend([Instruction::call(helper), Instruction::load(0, 1), Instruction::exit()]);
    program_load(CGROUP_SOCK_ADDR, CONNECT4, &program).map(drop)
}

fn netns_cookie() -> Finding {
    use std::os::fd::AsFd;

    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    Finding::of(socket.map_err(io::Error::from).and_then(|socket| weir_abi::sys::netns_cookie(socket.as_fd())))
}

fn supported(found: bool) -> io::Result<()> {
    if found { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}

fn io_error(error: aya::programs::ProgramError) -> io::Error {
    match error {
        aya::programs::ProgramError::SyscallError(error) => error.io_error,
        aya::programs::ProgramError::LoadError { io_error, .. } => io_error,
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_not_an_old_kernel() {
        let failed = |errno| Finding::of::<()>(Err(io::Error::from_raw_os_error(errno)));
        assert_eq!(failed(libc::EPERM), Finding::Forbidden { errno: libc::EPERM });
        assert_eq!(failed(libc::EINVAL), Finding::Missing { errno: libc::EINVAL });
        assert_eq!(Finding::of(Ok(())), Finding::Found);
    }
}
