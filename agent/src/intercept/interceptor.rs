//! Loads, attaches, pins, adopts; says to the kernel where the listeners are, that the agent lives, and who is designated.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{CgroupAttachMode, Program, links::FdLink},
};
use serde::Serialize;
use tracing::{info, warn};
use weir_abi::{Config, ConnKey, Counter, Designation, LISTENERS_MAX, Listener, Record, VERSION, sys};

use super::{
    InterceptError, Origins,
    origins::{self, KernelOrigins},
    pins::Pins,
    probe,
};

/// The kernel programs, as built by `cargo xtask ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/weir.bpf.o");

/// How often the agent calls `heartbeat`.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_millis(500);
/// How long the kernel believes the last heartbeat. After that, designated workloads are refused.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(3);

/// Maps of the object, all pinned.
const MAPS: [&str; 6] = ["WORKLOADS", "CONNS", "LISTENERS", "CONFIG", "STATS", "SKSTATE"];

/// Programs in the order in which they are attached and replaced: consumers before producers, so that no connection is sent
/// to weir before its record can be kept, and none whose record the new programs would not understand.
const PROGRAMS: [&str; 13] = [
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

/// Where to attach and where to pin.
#[derive(Clone, Debug)]
pub struct InterceptConfig {
    /// Every task in this cgroup or below passes through the programs; only designated ones are redirected. An absolute path in
    /// the mounted v2 hierarchy.
    pub top_cgroup: PathBuf,
    /// A directory on a BPF file system, such as `PIN_DIR_DEFAULT`.
    pub pin_dir: PathBuf,
}

/// The attached programs. Dropping it leaves them attached, and says so to the kernel: designated workloads are refused from then
/// on, until another agent adopts them. `release` opens the network again.
pub struct Interceptor {
    pins: Pins,
    adopted: bool,
    netns_cookie: u64,
    config: Mutex<Array<MapData, Config>>,
    listeners: Mutex<HashMap<MapData, u64, Listener>>,
    stats: PerCpuArray<MapData, u64>,
    cgroups: Cgroups,
    origins: Arc<KernelOrigins>,
}

impl Interceptor {
    /// Takes the pin directory's lock, loads the programs, and attaches them; or adopts what a dead agent left, with its designations.
    /// Returns with the heartbeat running and no listener published: designated workloads are refused until `publish`.
    ///
    /// # Errors
    /// `AlreadyRunning` with the other agent's pid; `OtherTop` if the pins belong to another cgroup that still exists.
    pub fn attach(config: InterceptConfig) -> Result<Self, InterceptError> {
        let top = Top::open(&config.top_cgroup)?;
        let pins = Pins::lock(&config.pin_dir)?;
        let mut ebpf = load(&pins)?;
        // All programs before any map is taken out: loading refers to the maps by their descriptors.
        for name in PROGRAMS {
            let program = ebpf.program_mut(name).ok_or(InterceptError::Missing(name))?;
            load_program(program).map_err(|error| InterceptError::program("load", name, error))?;
        }
        let mut settings: Array<MapData, Config> =
            Array::try_from(map(&mut ebpf, "CONFIG")?).map_err(|error| InterceptError::map("CONFIG", error))?;
        let before = settings.get(&0, 0).map_err(|error| InterceptError::map("CONFIG", error))?;
        if before.version != 0 && before.version != VERSION {
            return Err(InterceptError::OtherVersion { found: before.version, ours: VERSION, pin_dir: config.pin_dir });
        }
        let adopted = check_links(&pins, &top)?;

        // What the dead agent said about itself is not true any more: its listeners are closed, its connections gone.
        let mut listeners: HashMap<MapData, u64, Listener> =
            HashMap::try_from(map(&mut ebpf, "LISTENERS")?).map_err(|error| InterceptError::map("LISTENERS", error))?;
        clear(&mut listeners, "LISTENERS")?;
        let mut conns = map(&mut ebpf, "CONNS")?;
        let mut records =
            HashMap::<_, ConnKey, Record>::try_from(&mut conns).map_err(|error| InterceptError::map("CONNS", error))?;
        clear(&mut records, "CONNS")?;
        let Map::LruHashMap(conns) = conns else {
            return Err(InterceptError::Missing("CONNS"));
        };

        for name in PROGRAMS {
            hook(&mut ebpf, name, &pins, &top)?;
        }
        let workloads: HashMap<MapData, u64, Designation> =
            HashMap::try_from(map(&mut ebpf, "WORKLOADS")?).map_err(|error| InterceptError::map("WORKLOADS", error))?;
        let stats = PerCpuArray::try_from(map(&mut ebpf, "STATS")?).map_err(|error| InterceptError::map("STATS", error))?;
        let netns_cookie = own_netns_cookie()?;
        settings
            .set(
                0,
                Config { heartbeat_ns: origins::now_ns(), ttl_ns: ttl_ns(), version: VERSION, agent_pid: std::process::id() },
                0,
            )
            .map_err(|error| InterceptError::map("CONFIG", error))?;
        info!(top_cgroup = %config.top_cgroup.display(), pins = %config.pin_dir.display(), adopted, "attached the kernel programs");
        Ok(Self {
            pins,
            adopted,
            netns_cookie,
            config: Mutex::new(settings),
            listeners: Mutex::new(listeners),
            stats,
            cgroups: Cgroups(Arc::new(Mutex::new(workloads))),
            origins: Arc::new(KernelOrigins::new(conns, netns_cookie)),
        })
    }

    /// True: the programs were there, left by an agent that died or stopped without `release`.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Says on which ports of 127.0.0.1 and ::1 weir listens in the agent's network namespace. Bind first: from here on nobody may.
    ///
    /// # Errors
    /// Those of the map.
    pub fn publish(&self, v4: Option<u16>, v6: Option<u16>) -> Result<(), InterceptError> {
        let listener = Listener { port4: v4.unwrap_or(0).into(), port6: v6.unwrap_or(0).into() };
        lock(&self.listeners).insert(self.netns_cookie, listener, 0).map_err(|error| InterceptError::map("LISTENERS", error))
    }

    /// Says that the agent lives. Call it every `HEARTBEAT_PERIOD`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn heartbeat(&self) -> Result<(), InterceptError> {
        self.beat(origins::now_ns())
    }

    fn beat(&self, heartbeat_ns: u64) -> Result<(), InterceptError> {
        let config = Config { heartbeat_ns, ttl_ns: ttl_ns(), version: VERSION, agent_pid: std::process::id() };
        lock(&self.config).set(0, config, 0).map_err(|error| InterceptError::map("CONFIG", error))
    }

    /// Where accepted connections wanted to go, for listeners in the agent's network namespace.
    #[must_use]
    pub fn origins(&self) -> Arc<dyn Origins> {
        Arc::clone(&self.origins) as Arc<dyn Origins>
    }

    /// The designated cgroups, to be changed from anywhere.
    #[must_use]
    pub fn cgroups(&self) -> Cgroups {
        self.cgroups.clone()
    }

    /// Designates a cgroup and everything below it. `flags`: `Designation::DESIGNATED` or `EXEMPT`.
    ///
    /// # Errors
    /// Those of the map; E2BIG when it is full.
    pub fn designate(&self, cgroup_id: u64, flags: u32) -> Result<(), InterceptError> {
        self.cgroups.designate(cgroup_id, flags)
    }

    /// Ends a designation. Sockets that were created under it stay covered.
    ///
    /// # Errors
    /// Those of the map.
    pub fn undesignate(&self, cgroup_id: u64) -> Result<(), InterceptError> {
        self.cgroups.undesignate(cgroup_id)
    }

    /// Cgroup ids and flags.
    ///
    /// # Errors
    /// Those of the map.
    pub fn designated(&self) -> Result<Vec<(u64, u32)>, InterceptError> {
        self.cgroups.designated()
    }

    /// What the programs counted since they were first attached.
    ///
    /// # Errors
    /// Those of the map.
    pub fn stats(&self) -> Result<Stats, InterceptError> {
        let sum = |counter: Counter| -> Result<u64, InterceptError> {
            let values = self.stats.get(&(counter as u32), 0).map_err(|error| InterceptError::map("STATS", error))?;
            Ok(values.iter().sum())
        };
        Ok(Stats {
            redirected: sum(Counter::Redirected)?,
            by_socket: sum(Counter::BySocket)?,
            refused_stale: sum(Counter::RefusedStale)?,
            refused_no_listener: sum(Counter::RefusedNoListener)?,
            refused_no_record: sum(Counter::RefusedNoRecord)?,
            refused_datagram: sum(Counter::RefusedDatagram)?,
            refused_socket: sum(Counter::RefusedSocket)?,
            refused_bind: sum(Counter::RefusedBind)?,
            direct: sum(Counter::Direct)?,
        })
    }

    /// Detaches everything and removes the pins: **the network is open** to everybody from here on.
    ///
    /// # Errors
    /// If a pin could not be removed; what is left stays attached, and refuses.
    pub fn release(self) -> Result<(), InterceptError> {
        // Producers first: a connection that is redirected must find its record kept.
        for name in PROGRAMS.iter().rev() {
            let path = self.pins.link(name);
            fs::remove_file(&path).map_err(|cause| InterceptError::os("remove", &path, cause))?;
        }
        self.pins.remove()
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        // Closed at once, instead of when the last heartbeat grows old.
        if let Err(error) = self.beat(0) {
            warn!(%error, "tell the kernel that the agent stops");
        }
    }
}

/// The map of designated cgroups. Cheap to clone.
#[derive(Clone)]
pub struct Cgroups(Arc<Mutex<HashMap<MapData, u64, Designation>>>);

impl Cgroups {
    /// As `Interceptor::designate`.
    ///
    /// # Errors
    /// Those of the map; E2BIG when it is full.
    pub fn designate(&self, cgroup_id: u64, flags: u32) -> Result<(), InterceptError> {
        lock(&self.0)
            .insert(cgroup_id, Designation { flags, padding: 0 }, 0)
            .map_err(|error| InterceptError::map("WORKLOADS", error))
    }

    /// As `Interceptor::undesignate`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn undesignate(&self, cgroup_id: u64) -> Result<(), InterceptError> {
        match lock(&self.0).remove(&cgroup_id) {
            Err(aya::maps::MapError::KeyNotFound) | Ok(()) => Ok(()),
            Err(aya::maps::MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(InterceptError::map("WORKLOADS", error)),
        }
    }

    /// As `Interceptor::designated`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn designated(&self) -> Result<Vec<(u64, u32)>, InterceptError> {
        let map = lock(&self.0);
        map.iter()
            .map(|entry| {
                entry.map(|(id, designation)| (id, designation.flags)).map_err(|error| InterceptError::map("WORKLOADS", error))
            })
            .collect()
    }
}

/// Counters of the kernel programs; `weir_abi::Counter` says what each means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    pub redirected: u64,
    pub by_socket: u64,
    pub refused_stale: u64,
    pub refused_no_listener: u64,
    pub refused_no_record: u64,
    pub refused_datagram: u64,
    pub refused_socket: u64,
    pub refused_bind: u64,
    pub direct: u64,
}

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
struct Top {
    directory: File,
    id: u64,
}

impl Top {
    fn open(path: &Path) -> Result<Self, InterceptError> {
        let open =
            File::open(path).and_then(|directory| directory.metadata().map(|metadata| Self { id: metadata.ino(), directory }));
        open.map_err(|cause| InterceptError::os("open cgroup", path, cause))
    }
}

/// Loads maps (the pinned ones, if there are) and programs through the verifier.
fn load(pins: &Pins) -> Result<Ebpf, InterceptError> {
    let has_set_retval = u8::from(probe::has_set_retval());
    let paths = MAPS.map(|name| (name, pins.map(name)));
    let mut loader = EbpfLoader::new();
    loader.override_global("HAS_SET_RETVAL", &has_set_retval, true);
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    loader.load(OBJECT).map_err(|error| InterceptError::Load(Box::new(error)))
}

fn map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, InterceptError> {
    ebpf.take_map(name).ok_or(InterceptError::Missing(name))
}

/// Are there links of an earlier agent, all at this cgroup? Looks before anything is changed.
fn check_links(pins: &Pins, top: &Top) -> Result<bool, InterceptError> {
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
fn hook(ebpf: &mut Ebpf, name: &'static str, pins: &Pins, top: &Top) -> Result<(), InterceptError> {
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

/// Removes every element. Bounded by the size of the map; the kernel adds none to `LISTENERS`, and few to `CONNS`.
fn clear<T, K, V>(map: &mut HashMap<T, K, V>, name: &'static str) -> Result<(), InterceptError>
where
    T: std::borrow::BorrowMut<MapData>,
    K: aya::Pod,
    V: aya::Pod,
{
    let keys: Vec<K> = map.keys().take(weir_abi::CONNS_MAX.max(LISTENERS_MAX) as usize).filter_map(Result::ok).collect();
    for key in keys {
        match map.remove(&key) {
            Err(aya::maps::MapError::SyscallError(error)) if error.io_error.kind() != io::ErrorKind::NotFound => {
                return Err(InterceptError::map(name, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The network namespace of this process, as the programs know it.
fn own_netns_cookie() -> Result<u64, InterceptError> {
    let path = Path::new("/proc/self/ns/net");
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let socket = socket.map_err(|cause| InterceptError::os("open a socket in", path, cause))?;
    sys::netns_cookie(socket.as_fd()).map_err(|cause| InterceptError::os("ask the cookie of", path, cause))
}

fn ttl_ns() -> u64 {
    u64::try_from(HEARTBEAT_TTL.as_nanos()).unwrap_or(u64::MAX)
}

/// A panic elsewhere leaves the map as good as it was: every change is one system call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
