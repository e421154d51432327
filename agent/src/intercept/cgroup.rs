//! Where the v2 hierarchy is, and how a cgroup is named there.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::InterceptError;

/// A mount table larger than this is not read to its end.
const MOUNTINFO_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Finds the root of the cgroup v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host, or wherever it is mounted.
///
/// # Errors
/// `NoCgroup2` if it is not mounted at all.
pub fn cgroup2_root() -> Result<PathBuf, InterceptError> {
    let path = Path::new("/proc/self/mountinfo");
    let mut table = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MOUNTINFO_BYTES_MAX).read_to_end(&mut table));
    read.map_err(|cause| InterceptError::os("read", path, cause))?;
    root_in(&table).ok_or(InterceptError::NoCgroup2)
}

/// The mount point in a mount table (proc_pid_mountinfo(5)). Of several, one that shows the whole hierarchy is preferred.
fn root_in(table: &[u8]) -> Option<PathBuf> {
    let mounts: Vec<(bool, PathBuf)> = table.split(|byte| *byte == b'\n').filter_map(mount_point).collect();
    mounts.iter().find(|(whole, _)| *whole).or_else(|| mounts.first()).map(|(_, path)| path.clone())
}

/// `id parent dev root MOUNTPOINT options optional... - TYPE source options`
fn mount_point(line: &[u8]) -> Option<(bool, PathBuf)> {
    let mut words = line.split(|byte| *byte == b' ');
    let root = words.nth(3)?;
    let point = words.next()?;
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    (kind == b"cgroup2").then(|| (root == b"/", PathBuf::from(OsString::from_vec(unescape(point)))))
}

/// Space, tab, newline and backslash are written as three octal digits after a backslash.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value = digits.map(|digits| digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// True while a process lives in the cgroup or below it.
#[must_use]
pub fn is_populated(cgroup: &Path) -> bool {
    let events = std::fs::read_to_string(cgroup.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// The id that the kernel gives to a cgroup: the inode number of its directory.
///
/// # Errors
/// Those of `stat`.
pub fn cgroup_id(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.ino())
}

/// The path of a cgroup below the root of the hierarchy, with a leading slash, as `/proc/PID/cgroup` writes it.
pub(super) fn relative(root: &Path, path: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok()?;
    Some(format!("/{}", below.to_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &[u8] = b"25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:1 - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_a_pure_hierarchy() {
        assert_eq!(root_in(PURE), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn finds_the_v2_part_of_a_hybrid_host() {
        assert_eq!(root_in(HYBRID), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn finds_nothing_without_v2() {
        assert_eq!(root_in(b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }

    #[test]
    fn decodes_escapes_in_the_mount_point() {
        assert_eq!(root_in(b"1 2 0:3 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n"), Some("/mnt/a b\\c".into()));
    }

    #[test]
    fn prefers_the_mount_that_shows_the_whole_hierarchy() {
        let table = b"1 2 0:3 /docker/abc /inner rw - cgroup2 none rw\n2 2 0:3 / /whole rw - cgroup2 none rw\n";
        assert_eq!(root_in(table), Some("/whole".into()));
    }

    #[test]
    fn is_not_fooled_by_a_type_in_the_options() {
        assert_eq!(root_in(b"1 2 0:3 / /x rw cgroup2 - tmpfs cgroup2 rw,cgroup2\n"), None);
    }

    #[test]
    fn survives_a_line_cut_short() {
        assert_eq!(root_in(b"1 2 0:3 / /x rw -"), None);
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"a\\777"), b"a\\777");
    }
}
