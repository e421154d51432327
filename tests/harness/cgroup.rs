//! Cgroups of the tests, below the root of the v2 hierarchy, wherever that is mounted.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::random_hex;

/// The mount point of the cgroup v2 hierarchy, from mountinfo: hybrid systems keep it beside the v1 ones.
///
/// # Errors
/// There is none.
pub fn v2_root() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    parse_v2_root(&table).context("no cgroup v2 hierarchy is mounted")
}

fn parse_v2_root(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next() == Some("cgroup2")).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// One cgroup; on drop its processes are killed and it is removed, with everything below it.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    root: PathBuf,
}

impl Cgroup {
    /// A fresh cgroup directly below the root.
    ///
    /// # Errors
    /// Not root, or no v2 hierarchy.
    pub fn top() -> Result<Self> {
        let root = v2_root()?;
        let directory = root.join(format!("weir-e2e-{}", random_hex(6)?));
        fs::create_dir(&directory).with_context(|| format!("make cgroup {} (are you root?)", directory.display()))?;
        Ok(Self { directory, root })
    }

    /// A cgroup below this one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn child(&self, name: &str) -> Result<Self> {
        let directory = self.directory.join(name);
        fs::create_dir(&directory).with_context(|| format!("make cgroup {}", directory.display()))?;
        Ok(Self { directory, root: self.root.clone() })
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path as policies write it: below the v2 root, with a leading slash.
    #[must_use]
    pub fn path(&self) -> String {
        let below = self.directory.strip_prefix(&self.root).unwrap_or(&self.directory);
        format!("/{}", below.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_TRIES_MAX {
            empty(&self.directory);
            if fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            empty(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
    let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

const REMOVE_TRIES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_v2_on_a_hybrid_system() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_v2_root(table), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn finds_no_v2_where_there_is_none() {
        assert_eq!(parse_v2_root("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
