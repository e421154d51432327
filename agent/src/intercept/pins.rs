//! Where maps and links are pinned, and who holds them: a directory on the BPF file system, locked by the running agent.
//!
//! ```text
//! /sys/fs/bpf/weir/        0700; flock by the running agent
//!   v1/maps/<NAME>         the layout's version is in the name of the directory
//!   v1/links/<program>
//! ```

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, statfs};
use serde::Serialize;
use tracing::info;

use super::InterceptError;

/// Where the agent pins unless it is told otherwise.
pub const PIN_DIR_DEFAULT: &str = "/sys/fs/bpf/weir";

const BPFFS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Times that the directory may be removed under our hands by an agent that stops, while we wait for its lock.
const LOCK_ATTEMPTS_MAX: u32 = 8;
const LOCKS_BYTES_MAX: u64 = 1024 * 1024;
/// Entries that `pin_directories` looks at.
const PIN_DIRS_MAX: usize = 1024;

/// The locked pin directory of the running agent. The lock ends with the value, or with the process.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    _lock: File,
}

impl Pins {
    /// Makes the directory if need be, mounting the BPF file system if nobody has, and locks it.
    ///
    /// # Errors
    /// `AlreadyRunning` if another process holds the lock.
    pub(super) fn lock(directory: &Path) -> Result<Self, InterceptError> {
        ensure_bpffs(directory)?;
        for _ in 0..LOCK_ATTEMPTS_MAX {
            make_directory(directory)?;
            let lock = File::open(directory).map_err(|cause| InterceptError::os("open", directory, cause))?;
            if let Err(cause) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                if cause != rustix::io::Errno::WOULDBLOCK {
                    return Err(InterceptError::os("lock", directory, cause));
                }
                return Err(InterceptError::AlreadyRunning { pid: holder(&lock).unwrap_or(0), pin_dir: directory.to_owned() });
            }
            // The one who held it may have removed it in the meantime: then this is a lock on nothing.
            if is_same(&lock, directory) {
                let pins = Self { directory: directory.to_owned(), _lock: lock };
                make_directory(&pins.version())?;
                make_directory(&pins.maps())?;
                make_directory(&pins.links())?;
                return Ok(pins);
            }
        }
        Err(InterceptError::os("lock", directory, io::Error::from(io::ErrorKind::TimedOut)))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn version(&self) -> PathBuf {
        self.directory.join(format!("v{}", weir_abi::VERSION))
    }

    fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// Other running agents, as `(pid, pin directory, directory of its links)`.
    pub(super) fn rivals(&self) -> impl Iterator<Item = (u32, PathBuf, PathBuf)> {
        let version = format!("v{}", weir_abi::VERSION);
        let others = pin_directories().into_iter().filter(|other| other.directory != self.directory);
        others.filter_map(move |other| {
            let links = other.directory.join(&version).join("links");
            Some((other.agent_pid?, other.directory, links))
        })
    }

    /// Removes the directory if nothing is pinned in it: an agent that is refused leaves nothing behind.
    pub(super) fn forget_if_empty(&self) {
        for directory in [&self.links(), &self.maps(), &self.version(), &self.directory] {
            let _ = fs::remove_dir(directory); // what holds pins stays
        }
    }

    /// Removes every pin and the directory. Call it when nothing is designated any more, or on purpose: it opens the network.
    pub(super) fn remove(&self) -> Result<(), InterceptError> {
        fs::remove_dir_all(&self.directory).map_err(|cause| InterceptError::os("remove", &self.directory, cause))
    }
}

/// Removes what a dead agent pinned, when nothing that it protected lives any more: the caller has made sure of that.
///
/// # Errors
/// `AlreadyRunning` if its agent lives.
pub fn remove_abandoned(directory: &Path) -> Result<(), InterceptError> {
    if !directory.exists() {
        return Ok(());
    }
    let _one_at_a_time = one_at_a_time(directory)?;
    Pins::lock(directory)?.remove()
}

/// Until it is dropped, no other agent locks or looks at pin directories: two that start at once must see each other.
///
/// # Errors
/// There is no BPF file system.
pub(super) fn one_at_a_time(directory: &Path) -> Result<File, InterceptError> {
    ensure_bpffs(directory)?;
    let place = Path::new(BPFFS);
    let lock = File::open(place).map_err(|cause| InterceptError::os("open", place, cause))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|cause| InterceptError::os("lock", place, cause))?;
    Ok(lock)
}

fn make_directory(path: &Path) -> Result<(), InterceptError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(InterceptError::os("make", path, cause)),
        _ => Ok(()),
    }
}

fn is_same(lock: &File, path: &Path) -> bool {
    let (Ok(locked), Ok(there)) = (lock.metadata(), fs::metadata(path)) else {
        return false;
    };
    (locked.dev(), locked.ino()) == (there.dev(), there.ino())
}

/// Is this path, or the nearest directory above it that exists, on a BPF file system?
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    let nearest = path.ancestors().find(|ancestor| ancestor.exists());
    nearest.and_then(|nearest| statfs(nearest).ok()).is_some_and(|found| found.f_type & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Mounts the BPF file system at its usual place, if the directory shall be there and nobody has mounted it yet.
fn ensure_bpffs(directory: &Path) -> Result<(), InterceptError> {
    if is_bpffs(directory) {
        return Ok(());
    }
    let place = Path::new(BPFFS);
    if !directory.starts_with(place) {
        return Err(InterceptError::NotBpffs(directory.to_owned()));
    }
    // Two agents that start at once must not mount twice: the second mount would hide the pins of the first.
    let lock = File::open(place).map_err(|cause| InterceptError::os("open", place, cause))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|cause| InterceptError::os("lock", place, cause))?;
    if is_bpffs(directory) {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("bpf", place, "bpf", flags, c"mode=0700")
        .map_err(|cause| InterceptError::os("mount bpffs at", place, cause))?;
    info!(path = BPFFS, "mounted the BPF file system: pins live there");
    Ok(())
}

/// Who holds the lock on this file, from `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 1234 00:1d:5678 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let subject = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let mut locks = String::new();
    File::open("/proc/locks").ok()?.take(LOCKS_BYTES_MAX).read_to_string(&mut locks).ok()?;
    holder_in(&locks, &subject)
}

fn holder_in(locks: &str, subject: &str) -> Option<u32> {
    let words = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut held = words.filter(|words| words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&subject));
    held.find_map(|words| words.get(4)?.parse().ok())
}

/// A pin directory, and who holds it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PinState {
    pub directory: PathBuf,
    /// The running agent; 0: there is one, but not to be seen from here. `None`: its agent stopped or died, and what it designated
    /// is refused.
    pub agent_pid: Option<u32>,
    /// When an agent last made or adopted something in it, in seconds since 1970.
    pub changed: i64,
}

/// The pin directories of this host: `/sys/fs/bpf/weir*`.
#[must_use]
pub fn pin_directories() -> Vec<PinState> {
    let entries = fs::read_dir(BPFFS).into_iter().flatten().flatten().take(PIN_DIRS_MAX).map(|entry| entry.path());
    let ours = entries.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("weir")) && path.is_dir()
    });
    let mut states: Vec<PinState> = ours.filter_map(state).collect();
    states.sort_by(|one, other| one.directory.cmp(&other.directory));
    states
}

fn state(directory: PathBuf) -> Option<PinState> {
    let file = File::open(&directory).ok()?;
    let free = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
    let agent_pid = (!free).then(|| holder(&file).unwrap_or(0));
    Some(PinState { directory, agent_pid, changed: file.metadata().map_or(0, |file| file.mtime()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 77 00:1d:5678 0 EOF\n\
        2: FLOCK  ADVISORY  WRITE 1234 00:1d:5678 0 EOF\n\
        2: -> FLOCK  ADVISORY  WRITE 4321 00:1d:5678 0 EOF\n";

    #[test]
    fn names_the_process_that_holds_a_lock() {
        assert_eq!(holder_in(LOCKS, "00:1d:5678"), Some(1234));
        assert_eq!(holder_in(LOCKS, "00:1d:567"), None);
    }

    #[test]
    fn a_lock_tells_its_own_process() {
        let directory = tempfile::tempdir().unwrap();
        let first = File::open(directory.path()).unwrap();
        flock(&first, FlockOperation::NonBlockingLockExclusive).unwrap();
        let second = File::open(directory.path()).unwrap();
        assert!(flock(&second, FlockOperation::NonBlockingLockExclusive).is_err());
        assert_eq!(holder(&second), Some(std::process::id()));
    }

    #[test]
    fn refuses_a_directory_that_is_not_on_bpffs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Pins::lock(directory.path()), Err(InterceptError::NotBpffs(_))));
    }
}
