//! The few system calls that neither aya nor rustix has: replacing the program of a link, asking a link where it is, taking an
//! element out of a map in one step, the cookie of a network namespace, loading a tiny program to see whether the kernel would.
//!
//! All unsafe code of user space is here. Each function is safe for every argument.

#![expect(unsafe_code, reason = "raw system calls")]

use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, offset_of},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::Pod;

const BPF_PROG_LOAD: i64 = 5;
const BPF_OBJ_GET: i64 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: i64 = 21;
const BPF_LINK_UPDATE: i64 = 29;
const SO_NETNS_COOKIE: i32 = 71;

/// Calls `bpf(2)` with a structure that begins like the member of `union bpf_attr` for this command.
///
/// # Safety
/// Every address in `attr` must be valid for what the command does with it, for the lengths given.
unsafe fn bpf<A>(command: i64, attr: &mut A) -> io::Result<i64> {
    // SAFETY: `attr` is valid for its size, which is passed; the caller answers for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a descriptor of this process close at the next `execve`.
///
/// # Errors
/// EBADF if there is no such descriptor.
pub fn close_on_exec(fd: i32) -> io::Result<()> {
    // SAFETY: F_SETFD takes no address; a number that is no descriptor is refused.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at a path.
///
/// # Errors
/// Those of `BPF_OBJ_GET`; EINVAL if the path holds a zero.
pub fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut attr = ObjectAttr { pathname: path.as_ptr() as u64, ..ObjectAttr::default() };
    // SAFETY: the path is terminated and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    own(fd)
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program behind an attached link, without a moment in which neither runs (Linux 5.7).
///
/// # Errors
/// Those of `BPF_LINK_UPDATE`: ENOLINK if the cgroup is gone, EINVAL if the program is of another type.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link_fd: word(link), new_prog_fd: word(program), ..LinkUpdateAttr::default() };
    // SAFETY: no addresses in this command.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with the member for cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkInfo {
    pub kind: u32,
    pub id: u32,
    pub program_id: u32,
    padding: u32,
    /// 0: the cgroup is gone, and nothing is attached any more.
    pub cgroup_id: u64,
    pub attach_type: u32,
    padding_end: u32,
}

const _: () = assert!(offset_of!(LinkInfo, cgroup_id) == 16);

/// Asks a link what it is (Linux 5.8).
///
/// # Errors
/// Those of `BPF_OBJ_GET_INFO_BY_FD`.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: word(link),
        info_len: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` is writable for the length given, and integers only.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Takes an element out of a hash map: nobody else gets it (Linux 5.14). `None`: there was none.
///
/// # Errors
/// Those of `BPF_MAP_LOOKUP_AND_DELETE_ELEM`; EINVAL where the kernel cannot do it for this map.
pub fn map_take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let info = map_sizes(map)?;
    if info != (size_of::<K>(), size_of::<V>()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map holds something else"));
    }
    let mut value = MaybeUninit::<V>::zeroed();
    let mut attr = ElementAttr {
        map_fd: word(map),
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        ..ElementAttr::default()
    };
    // SAFETY: the sizes were compared: the kernel reads one key and writes one value.
    match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) } {
        // SAFETY: written by the kernel, zeroed before; any bytes are a `Pod`.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// Sizes of a map's key and value, in bytes.
///
/// # Errors
/// Those of `BPF_OBJ_GET_INFO_BY_FD`.
pub fn map_sizes(map: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    let mut info = MapInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: word(map),
        info_len: u32::try_from(size_of::<MapInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` is writable for the length given, and integers only.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok((info.key_size as usize, info.value_size as usize))
}

/// Cookie of the network namespace that a socket is in (Linux 5.14): what `bpf_get_netns_cookie` gives to the programs.
///
/// # Errors
/// ENOPROTOOPT on older kernels.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes into `cookie`.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// One instruction of a program, as in `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    pub code: u8,
    /// Destination in the low half, source in the high one.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

impl Instruction {
    /// `r<register> = value`.
    #[must_use]
    pub const fn load(register: u8, value: i32) -> Self {
        Self { code: 0xb7, registers: register & 0x0f, offset: 0, immediate: value }
    }

    /// `call helper`.
    #[must_use]
    pub const fn call(helper: i32) -> Self {
        Self { code: 0x85, registers: 0, offset: 0, immediate: helper }
    }

    #[must_use]
    pub const fn exit() -> Self {
        Self { code: 0x95, registers: 0, offset: 0, immediate: 0 }
    }
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct ProgramAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads a program without maps, to see whether the kernel takes it. Closing the descriptor unloads it.
///
/// # Errors
/// EPERM: the right is missing, or a security module refuses; EINVAL: the kernel does not know the type, the attach type or a helper.
pub fn program_load(program_type: u32, attach_type: u32, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut attr = ProgramAttr {
        prog_type: program_type,
        insn_cnt: u32::try_from(instructions.len()).unwrap_or(0),
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: attach_type,
        ..ProgramAttr::default()
    };
    // SAFETY: the instructions and the licence outlive the call; their count and the terminating zero are right.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    own(fd)
}

/// Takes what `bpf(2)` returned from a command that opens something.
fn own(fd: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: only called with a descriptor that the kernel has just made, and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn word(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}
