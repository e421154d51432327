//! Keeps the kernel's set of designated cgroups equal to what is selected: by glob, by systemd unit, and whatever `weir run` made.
//!
//! Cgroups below a designated one are covered by the kernel, which looks at ancestors; here only the directories that match
//! themselves are entered. A unit that restarts gets a new cgroup with a new id: the hierarchy is watched, and scanned again at
//! every change and every second.
//!
//! Between the birth of a cgroup and its designation lies a fraction of a millisecond. Where that matters, select the slice above.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use globset::GlobMatcher;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tracing::{debug, error, warn};
use weir_abi::{ANCESTORS_MAX, Designation, WORKLOADS_MAX};

use super::{Cgroups, InterceptError, cgroup};

/// Directories that one scan enters. A hierarchy with more is scanned in part, and an error is logged.
const DIRECTORIES_MAX: usize = 64 * 1024;
/// Directories that are watched; the rest is found by the periodic scan.
const WATCHES_MAX: usize = 4 * 1024;
/// The kernel looks no deeper.
const DEPTH_MAX: usize = ANCESTORS_MAX as usize;
/// Designated by `weir run`, not by a policy. The programs look at other bits only; the next agent looks at this one.
const REGISTERED: u32 = Designation::DESIGNATED | 0x100;
const SCAN_PERIOD: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const EVENTS_BYTES: usize = 64 * 1024;

/// One way in which a policy designates workloads.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Matches the path of a cgroup below the root of the hierarchy, with a leading slash.
    Cgroup(GlobMatcher),
    /// The name given to `weir run`: designated when it is registered, whatever the selectors say.
    Name(String),
    /// A systemd unit: a cgroup whose last component is this.
    Unit(String),
}

/// What shall be designated, and what is. Scanning is its only work; [`Designators`] does it at the right moments.
pub struct Designator {
    root: PathBuf,
    top: PathBuf,
    /// The agent's own cgroup: never redirected to itself.
    own: Option<PathBuf>,
    selectors: Vec<Selector>,
    registered: BTreeMap<u64, String>,
    current: HashMap<u64, u32>,
}

/// What to change in the kernel.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Cgroup ids with their flags.
    pub designate: Vec<(u64, u32)>,
    pub undesignate: Vec<u64>,
}

/// One scan of the hierarchy.
struct Scan {
    wanted: HashMap<u64, u32>,
    directories: Vec<PathBuf>,
}

impl Designator {
    /// `root`: where the v2 hierarchy is mounted; `top`: the cgroup at which the programs are attached; `current`: what the kernel
    /// has already, left by another agent.
    #[must_use]
    pub fn new(root: PathBuf, top: PathBuf, current: Vec<(u64, u32)>) -> Self {
        Self {
            own: own_cgroup(&root),
            root,
            top,
            selectors: Vec::new(),
            registered: BTreeMap::new(),
            current: current.into_iter().collect(),
        }
    }

    /// Replaces the selectors. Takes effect at the next `sync`.
    pub fn select(&mut self, selectors: Vec<Selector>) {
        self.selectors = selectors;
    }

    /// Adds a cgroup of `weir run`. Takes effect at the next `sync`.
    pub fn register(&mut self, name: String, cgroup_id: u64) {
        self.registered.insert(cgroup_id, name);
    }

    /// Forgets a cgroup of `weir run`.
    pub fn unregister(&mut self, cgroup_id: u64) {
        self.registered.remove(&cgroup_id);
    }

    /// The name of a registered cgroup.
    #[must_use]
    pub fn name(&self, cgroup_id: u64) -> Option<String> {
        self.registered.get(&cgroup_id).cloned()
    }

    /// Scans and says what must change; the caller tells the kernel and then calls `applied`.
    #[must_use]
    pub fn sync(&mut self) -> Changes {
        self.changes(&self.scan().wanted)
    }

    fn changes(&self, wanted: &HashMap<u64, u32>) -> Changes {
        let mut designate: Vec<_> =
            wanted.iter().filter(|(id, flags)| self.current.get(id) != Some(flags)).map(|(id, flags)| (*id, *flags)).collect();
        let mut undesignate: Vec<_> = self.current.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        designate.sort_unstable();
        undesignate.sort_unstable();
        Changes { designate, undesignate }
    }

    /// Remembers that the kernel was told.
    pub fn applied(&mut self, changes: &Changes) {
        self.current.extend(changes.designate.iter().copied());
        self.current.retain(|id, _| !changes.undesignate.contains(id));
    }

    fn scan(&self) -> Scan {
        let registered = self.registered.keys().map(|id| (*id, REGISTERED));
        let orphans = self.orphans();
        let mut scan = Scan { wanted: registered.collect(), directories: Vec::new() };
        let mut stack = vec![self.top.clone()];
        while let Some(directory) = stack.pop() {
            if scan.directories.len() >= DIRECTORIES_MAX {
                error!(
                    directories = DIRECTORIES_MAX,
                    "the cgroup hierarchy is too large: workloads in the rest of it are NOT designated"
                );
                break;
            }
            self.enter(&directory, &mut scan);
            keep_orphan(&directory, &orphans, &mut scan);
            stack.extend(children(&directory));
            scan.directories.push(directory);
        }
        self.exempt_own(&mut scan);
        scan
    }

    /// Cgroups that were registered with an agent before, or whose `weir run` is gone. No selector names them; while a process of
    /// theirs lives, it must not get the open network.
    fn orphans(&self) -> HashSet<u64> {
        let registered = self.current.iter().filter(|(_, flags)| **flags == REGISTERED).map(|(id, _)| *id);
        registered.filter(|id| !self.registered.contains_key(id)).collect()
    }

    fn enter(&self, directory: &Path, scan: &mut Scan) {
        let Some(path) = cgroup::relative(&self.root, directory) else {
            return;
        };
        if path == "/" || !self.selectors.iter().any(|selector| selector.matches(&path)) {
            return;
        }
        if path.matches('/').count() > DEPTH_MAX {
            error!(cgroup = path, levels = DEPTH_MAX, "too deep in the hierarchy to be designated: choose a cgroup above it");
            return;
        }
        if scan.wanted.len() >= WORKLOADS_MAX as usize {
            error!(
                cgroup = path,
                workloads = WORKLOADS_MAX,
                "too many designated cgroups: this one is NOT designated; select one above them"
            );
            return;
        }
        // A cgroup that is gone by now needs no entry.
        if let Ok(id) = cgroup::cgroup_id(directory) {
            scan.wanted.insert(id, Designation::DESIGNATED);
        }
    }

    /// The agent must reach the network by itself. Its cgroup is taken out of what covers it, but only if nothing else lives
    /// there: else a workload beside the agent would go free, so the agent's connections come back to itself, and are refused.
    fn exempt_own(&self, scan: &mut Scan) {
        let Some(own) = &self.own else {
            return;
        };
        let covering = own.ancestors().take_while(|ancestor| ancestor.starts_with(&self.root));
        let covered = covering.filter_map(|ancestor| cgroup::cgroup_id(ancestor).ok()).any(|id| scan.wanted.contains_key(&id));
        if !covered {
            return;
        }
        if !is_alone(own) {
            error!(cgroup = %own.display(), "the agent's own cgroup is designated and not the agent's alone: start the agent in a cgroup of its own");
            return;
        }
        if let Ok(id) = cgroup::cgroup_id(own) {
            scan.wanted.insert(id, Designation::EXEMPT);
        }
    }
}

impl Selector {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Cgroup(glob) => glob.is_match(path),
            Self::Name(_) => false,
            Self::Unit(unit) => path.rsplit('/').next().is_some_and(|last| last.strip_prefix('_').unwrap_or(last) == unit),
        }
    }
}

fn keep_orphan(directory: &Path, orphans: &HashSet<u64>, scan: &mut Scan) {
    if orphans.is_empty() {
        return;
    }
    if let Ok(id) = cgroup::cgroup_id(directory)
        && orphans.contains(&id)
        && cgroup::is_populated(directory)
    {
        scan.wanted.insert(id, REGISTERED);
    }
}

/// Cgroups directly below one. None if it is gone.
pub(super) fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.take(DIRECTORIES_MAX).map(|entry| entry.path()).collect()
}

fn own_cgroup(root: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(root.join(path)).filter(|own| own != root)
}

fn is_alone(cgroup: &Path) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|processes| processes.lines().all(|pid| pid == own))
        && children(cgroup).is_empty()
}

/// A [`Designator`] that is kept true by a thread of its own, until it is dropped.
pub struct Designators {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    designator: Mutex<Designator>,
    cgroups: Cgroups,
    wake: OwnedFd,
    stop: std::sync::atomic::AtomicBool,
}

impl Designators {
    /// Starts the thread. What the kernel has already is kept until the first `select`, so that adopted workloads stay covered.
    ///
    /// # Errors
    /// If the kernel gives no descriptor or no thread.
    pub fn start(root: PathBuf, top: PathBuf, cgroups: Cgroups) -> Result<Self, InterceptError> {
        let current = cgroups.designated()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|cause| InterceptError::os("make an eventfd for", &top, cause))?;
        let shared = Arc::new(Shared {
            designator: Mutex::new(Designator::new(root, top.clone(), current)),
            cgroups,
            wake,
            stop: std::sync::atomic::AtomicBool::new(false),
        });
        Self { shared, thread: None }.spawned(&top)
    }

    fn spawned(mut self, top: &Path) -> Result<Self, InterceptError> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("designate".into()).spawn(move || shared.follow());
        self.thread = Some(thread.map_err(|cause| InterceptError::os("start the thread that watches", top, cause))?);
        Ok(self)
    }

    /// Replaces the selectors; returns when the kernel knows.
    ///
    /// # Errors
    /// Those of the map. What was designated stays so; the thread tries again.
    pub fn select(&self, selectors: Vec<Selector>) -> Result<(), InterceptError> {
        let mut designator = self.shared.lock();
        designator.select(selectors);
        self.shared.sync(&mut designator)?;
        // The thread shall watch what is there now.
        self.shared.wake();
        Ok(())
    }

    /// Designates a cgroup of `weir run`; returns when the kernel knows, so that the command may start.
    ///
    /// # Errors
    /// Those of the map: then the command must not start.
    pub fn register(&self, name: &str, cgroup_id: u64) -> Result<(), InterceptError> {
        let mut designator = self.shared.lock();
        designator.register(name.to_owned(), cgroup_id);
        self.shared.sync(&mut designator).map(drop)
    }

    /// Forgets a cgroup of `weir run`, when its last process is gone.
    ///
    /// # Errors
    /// Those of the map.
    pub fn unregister(&self, cgroup_id: u64) -> Result<(), InterceptError> {
        let mut designator = self.shared.lock();
        designator.unregister(cgroup_id);
        self.shared.sync(&mut designator).map(drop)
    }

    /// The lookup that `Identities` asks for.
    pub fn names(&self) -> impl Fn(u64) -> Option<String> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |cgroup_id| shared.lock().name(cgroup_id)
    }
}

impl Drop for Designators {
    fn drop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // It fails only when the counter is full: then the thread is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Designator> {
        self.designator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Scans, tells the kernel, returns the directories that were seen.
    fn sync(&self, designator: &mut Designator) -> Result<Vec<PathBuf>, InterceptError> {
        let scan = designator.scan();
        let changes = designator.changes(&scan.wanted);
        // Cover first, uncover then: a workload that moves from one selector to another is never in the open.
        for (id, flags) in &changes.designate {
            self.cgroups.designate(*id, *flags)?;
        }
        for id in &changes.undesignate {
            self.cgroups.undesignate(*id)?;
        }
        if changes != Changes::default() {
            debug!(designate = ?changes.designate, undesignate = ?changes.undesignate, "designations changed");
        }
        designator.applied(&changes);
        Ok(scan.directories)
    }

    fn follow(&self) {
        let mut watched = BTreeSet::new();
        let mut again = false;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        if let Err(cause) = &inotify {
            warn!(%cause, "watch the cgroup hierarchy: new workloads are found by the periodic scan only");
        }
        while !self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            if !again {
                self.wait(inotify.as_ref().ok());
            }
            again = false;
            let mut designator = self.lock();
            // Until the policies are known, what another agent designated stays.
            if designator.selectors.is_empty() && designator.registered.is_empty() {
                continue;
            }
            match self.sync(&mut designator) {
                Ok(directories) => {
                    drop(designator);
                    if let Ok(inotify) = &inotify {
                        // What was born below a directory before it was watched made no event.
                        again = watch(inotify, directories, &mut watched);
                    }
                }
                Err(error) => error!(%error, "designate workloads"),
            }
        }
    }

    /// Until something changes, somebody wakes us, or the period is over.
    fn wait(&self, inotify: Option<&OwnedFd>) {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(inotify.map(|inotify| PollFd::new(inotify, PollFlags::IN)));
        let _ = poll(&mut fds, Some(&SCAN_PERIOD));
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        if let Some(inotify) = inotify {
            drain(inotify);
        }
    }
}

/// Reads and forgets all pending events: the scan finds out what they mean.
fn drain(inotify: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    while reader.next().is_ok() {}
}

/// Watches what is not watched yet. True: there was some.
fn watch(inotify: &OwnedFd, directories: Vec<PathBuf>, watched: &mut BTreeSet<PathBuf>) -> bool {
    let present: BTreeSet<PathBuf> = directories.into_iter().collect();
    // The kernel drops the watch of a directory that is removed.
    watched.retain(|directory| present.contains(directory));
    let before = watched.len();
    for directory in present {
        if watched.len() >= WATCHES_MAX || watched.contains(&directory) {
            continue;
        }
        match inotify::add_watch(
            inotify,
            &directory,
            WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR,
        ) {
            Ok(_) => drop(watched.insert(directory)),
            Err(Errno::NOENT) => {}
            Err(cause) => debug!(directory = %directory.display(), cause = %io::Error::from(cause), "watch a cgroup"),
        }
    }
    watched.len() > before
}

#[cfg(test)]
mod tests;
