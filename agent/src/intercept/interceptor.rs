//! Attaches, or adopts what a dead agent left; says to the kernel where the listeners are, that the agent lives, and who is designated.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use serde::Serialize;
use tracing::{info, warn};
use weir_abi::{Config, ConnKey, Counter, Designation, LISTENERS_MAX, Listener, Record, VERSION, sys};

use super::{
    InterceptError, Origins,
    origins::{self, KernelOrigins},
    pins::{Pins, one_at_a_time},
    programs::{PROGRAMS, Top, check_links, hook, load, map, refuse_rival},
};

/// How often the agent calls `heartbeat`.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_millis(500);
/// How long the kernel believes the last heartbeat. After that, designated workloads are refused.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(3);

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
    /// `AlreadyRunning` with the other agent's pid, also if its pins are elsewhere and it is attached at the same cgroup;
    /// `OtherTop` if the pins belong to another cgroup that still exists.
    pub fn attach(config: InterceptConfig) -> Result<Self, InterceptError> {
        let top = Top::open(&config.top_cgroup)?;
        let _one_at_a_time = one_at_a_time(&config.pin_dir)?;
        let pins = Pins::lock(&config.pin_dir)?;
        refuse_rival(&pins, &top)?;
        let mut ebpf = load(&pins)?;
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
