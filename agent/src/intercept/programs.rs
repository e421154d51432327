//! The programs: through the verifier, onto the cgroup, behind their pinned links.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{CgroupAttachMode, Program, links::FdLink},
};
use serde::Serialize;
use weir_abi::sys;

use super::{InterceptError, pins::Pins, probe};

/// The kernel programs, as built by `cargo xtask ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/weir.bpf.o");

/// Maps of the object, all pinned.
const MAPS: [&str; 6] = ["WORKLOADS", "CONNS", "LISTENERS", "CONFIG", "STATS", "SKSTATE"];

/// Programs in the order in which they are attached and replaced: consumers before producers, so that no connection is sent
/// to weir before its record can be kept, and none whose record the new programs would not understand.
pub(super) const PROGRAMS: [&str; 13] = [
    "sock_ops",
    "sock_release",
    "getpeername4",
    "getpeername6",
    "post_bind4",
    "post_bind6",
    "bind4",
    "bind6",
    "sock_create",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
];

/// One program as the verifier took it.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramSize {
    pub name: &'static str,
    pub instructions: u32,
    /// Instructions that the verifier looked at, over all paths; its limit is one million.
    pub verified_instructions: u32,
}

/// Loads every program through the verifier, attaches and pins nothing, and unloads them again.
///
/// # Errors
/// Those of `Interceptor::attach` as far as loading goes, with the verifier's log.
pub fn verify() -> Result<Vec<ProgramSize>, InterceptError> {
    let has_set_retval = u8::from(probe::has_set_retval());
    let mut ebpf = EbpfLoader::new()
        .override_global("HAS_SET_RETVAL", &has_set_retval, true)
        .load(OBJECT)
        .map_err(|error| InterceptError::Load(Box::new(error)))?;
    let size = |name: &'static str| {
        let program = ebpf.program_mut(name).ok_or(InterceptError::Missing(name))?;
        load_program(program).map_err(|error| InterceptError::program("load", name, error))?;
        let info = program.info().map_err(|error| InterceptError::program("ask", name, error))?;
        let instructions = info.size_translated().unwrap_or(0) / INSTRUCTION_BYTES;
        Ok(ProgramSize { name, instructions, verified_instructions: info.verified_instruction_count().unwrap_or(0) })
    };
    PROGRAMS.into_iter().map(size).collect()
}

const INSTRUCTION_BYTES: u32 = 8;

/// The cgroup at which everything is attached.
pub(super) struct Top {
    directory: File,
    id: u64,
}

impl Top {
    pub(super) fn open(path: &Path) -> Result<Self, InterceptError> {
        let open =
            File::open(path).and_then(|directory| directory.metadata().map(|metadata| Self { id: metadata.ino(), directory }));
        open.map_err(|cause| InterceptError::os("open cgroup", path, cause))
    }
}

/// Loads maps (the pinned ones, if there are) and programs through the verifier.
pub(super) fn load(pins: &Pins) -> Result<Ebpf, InterceptError> {
    let has_set_retval = u8::from(probe::has_set_retval());
    let paths = MAPS.map(|name| (name, pins.map(name)));
    let mut loader = EbpfLoader::new();
    loader.override_global("HAS_SET_RETVAL", &has_set_retval, true);
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| InterceptError::Load(Box::new(error)))?;
    // All programs before any map is taken out: loading refers to the maps by their descriptors.
    for name in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or(InterceptError::Missing(name))?;
        load_program(program).map_err(|error| InterceptError::program("load", name, error))?;
    }
    Ok(ebpf)
}

pub(super) fn map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, InterceptError> {
    ebpf.take_map(name).ok_or(InterceptError::Missing(name))
}

/// Are there links of an earlier agent, all at this cgroup? Looks before anything is changed.
pub(super) fn check_links(pins: &Pins, top: &Top) -> Result<bool, InterceptError> {
    let mut found = false;
    for name in PROGRAMS {
        match attached_cgroup(&pins.link(name))? {
            None | Some(0) => {}
            Some(id) if id == top.id => found = true,
            Some(attached) => {
                return Err(InterceptError::OtherTop { attached, wanted: top.id, pin_dir: pins.directory().to_owned() });
            }
        }
    }
    Ok(found)
}

/// Two agents at one cgroup would both redirect the same connections.
///
/// # Errors
/// `AlreadyRunning` if another running agent, with pins elsewhere, is attached at this very cgroup.
pub(super) fn refuse_rival(pins: &Pins, top: &Top) -> Result<(), InterceptError> {
    let attached = |links: &Path| PROGRAMS.iter().any(|name| attached_cgroup(&links.join(name)).ok().flatten() == Some(top.id));
    match pins.rivals().find(|(_, _, links)| attached(links)) {
        Some((pid, pin_dir, _)) => {
            pins.forget_if_empty();
            Err(InterceptError::AlreadyRunning { pid, pin_dir })
        }
        None => Ok(()),
    }
}

/// The cgroup at which a pinned link is attached; 0: it is gone. `None`: no such pin.
fn attached_cgroup(path: &Path) -> Result<Option<u64>, InterceptError> {
    let link = match sys::object_get(path) {
        Ok(link) => link,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(InterceptError::os("open", path, cause)),
    };
    let info = sys::link_info(link.as_fd()).map_err(|cause| InterceptError::os("ask", path, cause))?;
    Ok(Some(info.cgroup_id))
}

/// Puts one loaded program behind its pinned link, or attaches it and pins the link.
pub(super) fn hook(ebpf: &mut Ebpf, name: &'static str, pins: &Pins, top: &Top) -> Result<(), InterceptError> {
    let program = ebpf.program_mut(name).ok_or(InterceptError::Missing(name))?;
    let path = pins.link(name);
    match attached_cgroup(&path)? {
        Some(id) if id == top.id => {
            let link = sys::object_get(&path).map_err(|cause| InterceptError::os("open", &path, cause))?;
            let fd = program.fd().map_err(|error| InterceptError::program("load", name, error))?;
            return sys::link_update(link.as_fd(), fd.as_fd())
                .map_err(|cause| InterceptError::os("replace the program of", &path, cause));
        }
        // The cgroup of that agent is gone, and the link with it.
        Some(_) => fs::remove_file(&path).map_err(|cause| InterceptError::os("remove", &path, cause))?,
        None => {}
    }
    let link = attach_program(program, top).map_err(|error| InterceptError::program("attach", name, error))?;
    match link.pin(&path) {
        // The pin holds the link from here on.
        Ok(_) => Ok(()),
        Err(aya::pin::PinError::SyscallError(error)) => Err(InterceptError::os("pin", &path, error.io_error)),
        Err(_) => Err(InterceptError::os("pin", &path, io::Error::from(io::ErrorKind::InvalidFilename))),
    }
}

fn load_program(program: &mut Program) -> Result<(), aya::programs::ProgramError> {
    match program {
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(aya::programs::ProgramError::UnexpectedProgramType),
    }
}

/// `Single` is the mode without flags: links stack anyway, and kernels that know links refuse the others.
fn attach_program(program: &mut Program, top: &Top) -> Result<FdLink, aya::programs::ProgramError> {
    let mode = CgroupAttachMode::Single;
    let link = match program {
        Program::CgroupSock(program) => {
            let id = program.attach(&top.directory, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(&top.directory, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        Program::SockOps(program) => {
            let id = program.attach(&top.directory, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        _ => return Err(aya::programs::ProgramError::UnexpectedProgramType),
    };
    link.map_err(|_| aya::programs::ProgramError::NotAttached)
}
