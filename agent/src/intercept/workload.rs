//! Who made a connection: the kernel names the process, `/proc` tells the rest. Cached by (pid, start time) and the running file,
//! so that neither a reused pid nor an `exec` inherits what somebody else was.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    hash::Hash,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use super::{TakenOrigin, cgroup};
use crate::flow::{Ancestor, Workload};

/// Bytes read of any file of `/proc`, but for the command line.
const PROC_BYTES_MAX: u64 = 16 * 1024;
/// Bytes and words kept of a command line: enough to recognise it, whatever a workload writes there.
const ARGV_BYTES_MAX: u64 = 4 * 1024;
const ARGV_WORDS_MAX: usize = 64;
const PARENTS_MAX: usize = 16;
const CACHE_ENTRIES_MAX: usize = 4 * 1024;
const HASHES_MAX: usize = 1024;
/// Executables larger than this have no hash.
const EXE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Executables that are hashed at the same time.
const HASHERS_MAX: usize = 2;
/// Directories that are searched for the path of a cgroup whose process is gone.
const CGROUPS_MAX: usize = 16 * 1024;

/// Gives the name of a cgroup that `weir run` made.
type Names = dyn Fn(u64) -> Option<String> + Send + Sync;

/// Identifies processes, and remembers them.
pub struct Identities {
    cgroup_root: PathBuf,
    names: Box<Names>,
    known: Mutex<Recent<Process, Arc<Workload>>>,
    hashes: Mutex<Recent<FileId, Arc<OnceCell<Option<String>>>>>,
    hashers: Semaphore,
}

/// One process, running one file, under one identity.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Process {
    pid: u32,
    start_time_ticks: u64,
    exe: Option<FileId>,
    uid: u32,
    gid: u32,
    cgroup_id: u64,
    task_cgroup_id: u64,
}

/// The content of a file, as far as the file system tells without reading it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct FileId {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identities {
    /// `cgroup_root`: where the v2 hierarchy is mounted. `names`: the name given to `weir run` for a cgroup id.
    pub fn new(cgroup_root: PathBuf, names: impl Fn(u64) -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            cgroup_root,
            names: Box::new(names),
            known: Mutex::new(Recent::new(CACHE_ENTRIES_MAX)),
            hashes: Mutex::new(Recent::new(HASHES_MAX)),
            hashers: Semaphore::new(HASHERS_MAX),
        }
    }

    /// Tells who made a connection. What cannot be learned, because the process is gone or has another life, is `None` or empty:
    /// a rule that asks for it then does not match. Hashes the executable off the async threads, once per content. Cancel safe.
    pub async fn identify(&self, taken: &TakenOrigin) -> Arc<Workload> {
        // A process that began after the connection is another one, with the same number.
        let stat = stat(taken.pid).filter(|stat| taken.ktime_ns == 0 || began_before(stat.start_time_ticks, taken.ktime_ns));
        let exe = stat.as_ref().and_then(|_| FileId::of(&exe_link(taken.pid)));
        let process = Process {
            pid: taken.pid,
            start_time_ticks: stat.as_ref().map_or(0, |stat| stat.start_time_ticks),
            exe,
            uid: taken.uid,
            gid: taken.gid,
            cgroup_id: taken.cgroup_id,
            task_cgroup_id: taken.task_cgroup_id,
        };
        if stat.is_some()
            && let Some(workload) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&process)
        {
            return Arc::clone(workload);
        }
        let exe_sha256 = match exe {
            Some(exe) => self.sha256(taken.pid, exe).await,
            None => None,
        };
        let mut workload = self.describe(taken, stat.as_ref());
        // Look again: if it is another file by now, neither path nor hash is that of who connected.
        let unchanged = exe.is_some() && FileId::of(&exe_link(taken.pid)) == exe;
        if unchanged {
            workload.exe_sha256 = exe_sha256;
        } else {
            workload.exe = None;
        }
        let workload = Arc::new(workload);
        if stat.is_some() && unchanged {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(process, Arc::clone(&workload));
        }
        workload
    }

    fn describe(&self, taken: &TakenOrigin, stat: Option<&Stat>) -> Workload {
        let cgroup = self.cgroup(taken, stat.is_some());
        let mut workload = Workload {
            name: (self.names)(taken.cgroup_id).or_else(|| (self.names)(taken.task_cgroup_id)),
            pid: taken.pid,
            uid: taken.uid,
            gid: taken.gid,
            unit: unit(&cgroup),
            cgroup,
            cgroup_id: taken.cgroup_id,
            ..Workload::default()
        };
        let Some(stat) = stat else {
            return workload;
        };
        workload.start_time_ticks = stat.start_time_ticks;
        workload.exe = exe_path(taken.pid);
        workload.argv = argv(taken.pid);
        workload.cwd = fs::read_link(format!("/proc/{}/cwd", taken.pid)).ok();
        workload.parents = parents(stat.parent);
        workload
    }

    /// The task's own cgroup; the designated one if the task is only helping (its own says nothing about whom it helps), or gone.
    fn cgroup(&self, taken: &TakenOrigin, alive: bool) -> String {
        let own = if alive && taken.by_task { cgroup_of(taken.pid) } else { None };
        own.or_else(|| self.search(taken.task_cgroup_id).filter(|_| taken.by_task))
            .or_else(|| self.search(taken.cgroup_id))
            .unwrap_or_default()
    }

    /// Finds a cgroup by its id. Only for processes that are gone.
    fn search(&self, id: u64) -> Option<String> {
        let mut queue = VecDeque::from([self.cgroup_root.clone()]);
        let mut seen = 0;
        while let Some(directory) = queue.pop_front() {
            if cgroup::cgroup_id(&directory).ok() == Some(id) {
                return cgroup::relative(&self.cgroup_root, &directory);
            }
            seen += 1;
            if seen >= CGROUPS_MAX {
                return None;
            }
            queue.extend(super::designate::children(&directory));
        }
        None
    }

    /// The hash of the running file, through `/proc/PID/exe`: whatever lies at its path by now.
    async fn sha256(&self, pid: u32, exe: FileId) -> Option<String> {
        let cell = {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            match hashes.get(&exe) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let cell = Arc::new(OnceCell::new());
                    hashes.insert(exe, Arc::clone(&cell));
                    cell
                }
            }
        };
        let hash = || async {
            let _permit = self.hashers.acquire().await.map_err(drop)?;
            // An error is not remembered: the next process that runs the file tries again.
            tokio::task::spawn_blocking(move || hash_file(&exe_link(pid), exe)).await.map_err(drop)?.map_err(drop).map(Some)
        };
        cell.get_or_try_init(hash).await.ok().cloned().flatten()
    }
}

impl FileId {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn exe_link(pid: u32) -> PathBuf {
    format!("/proc/{pid}/exe").into()
}

/// Path of the running file. One that was replaced or removed since keeps its name without the kernel's remark.
fn exe_path(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(exe_link(pid)).ok()?;
    let bytes = path.as_os_str().as_bytes();
    Some(match bytes.strip_suffix(b" (deleted)") {
        Some(name) => PathBuf::from(std::ffi::OsStr::from_bytes(name)),
        None => path,
    })
}

fn hash_file(path: &Path, expected: FileId) -> io::Result<String> {
    let file = File::open(path)?;
    if FileId::from(&file.metadata()?) != expected || expected.bytes > EXE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut hash = Sha256::new();
    io::copy(&mut file.take(EXE_BYTES_MAX), &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What we need of `/proc/PID/stat`.
#[derive(Debug, Eq, PartialEq)]
struct Stat {
    parent: u32,
    start_time_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_bounded(&format!("/proc/{pid}/stat"), PROC_BYTES_MAX)?)
}

/// proc_pid_stat(5). The name, in parentheses, may hold anything, also parentheses: the fields begin after the last one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after = text.iter().rposition(|byte| *byte == b')')?.checked_add(1)?;
    let fields: Vec<&str> = std::str::from_utf8(text.get(after..)?).ok()?.split_whitespace().collect();
    // Field 3 is the first here; the parent is field 4, the start time field 22.
    Some(Stat { parent: fields.get(1)?.parse().ok()?, start_time_ticks: fields.get(19)?.parse().ok()? })
}

/// Did a process that started then exist at that time of `CLOCK_MONOTONIC`? Start times count from boot, including suspends,
/// in ticks, rounded down.
fn began_before(start_time_ticks: u64, ktime_ns: u64) -> bool {
    let nanos = |clock| {
        let now = clock_gettime(clock);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    };
    let suspended = nanos(ClockId::Boottime) - nanos(ClockId::Monotonic);
    let tick_ns = 1_000_000_000 / i128::from(rustix::param::clock_ticks_per_second().max(1));
    i128::from(start_time_ticks) * tick_ns <= i128::from(ktime_ns) + suspended + tick_ns
}

fn argv(pid: u32) -> Vec<String> {
    let bytes = read_bounded(&format!("/proc/{pid}/cmdline"), ARGV_BYTES_MAX).unwrap_or_default();
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if words.is_empty() {
        return Vec::new();
    }
    words.split(|byte| *byte == 0).take(ARGV_WORDS_MAX).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn parents(mut pid: u32) -> Vec<Ancestor> {
    let mut chain = Vec::new();
    while pid > 0 && chain.len() < PARENTS_MAX {
        let Some(stat) = stat(pid) else {
            break;
        };
        chain.push(Ancestor { pid, exe: exe_path(pid), argv: argv(pid) });
        pid = stat.parent;
    }
    chain
}

fn cgroup_of(pid: u32) -> Option<String> {
    let text = read_bounded(&format!("/proc/{pid}/cgroup"), PROC_BYTES_MAX)?;
    cgroup_line(&text)
}

/// The line of the v2 hierarchy: `0::/path` (cgroups(7)). A cgroup that was removed keeps its name without the kernel's remark.
fn cgroup_line(text: &[u8]) -> Option<String> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    let path = std::str::from_utf8(line).ok()?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// The systemd unit that a cgroup belongs to: the last component that is a service or scope. Slices only group; a service of
/// a user's manager is below `user@1000.service`. `_` escapes names that the kernel would take for its own files.
fn unit(cgroup: &str) -> Option<String> {
    let component = cgroup.rsplit('/').find(|component| is_unit(component))?;
    Some(component.strip_prefix('_').unwrap_or(component).to_owned())
}

fn is_unit(component: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|kind| component.strip_suffix(kind).is_some_and(|name| !name.is_empty()))
}

fn read_bounded(path: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A bounded map that forgets what was inserted or used longest ago.
struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    clock: u64,
    entries_max: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), clock: 0, entries_max }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        if self.entries.len() >= self.entries_max {
            self.forget_older_half();
        }
        self.entries.insert(key, (value, self.clock));
    }

    /// Half at a time: the search is paid once for many insertions.
    fn forget_older_half(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, (_, used)| *used > median);
    }
}

#[cfg(test)]
mod tests;
