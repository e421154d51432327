//! One agent a directory: a lock that the kernel drops with its holder.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// Held as long as the committer lives.
pub(super) struct DirectoryLock {
    _file: File,
}

/// Who else holds it.
#[derive(Debug)]
pub(super) enum LockError {
    Held { pid: String },
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes the lock; a reader that is just looking gets a moment to finish.
pub(super) fn lock(directory: &Path) -> Result<DirectoryLock, LockError> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let path = directory.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow).open(path)?;
    let mut attempts_left = ATTEMPTS_MAX;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io::Error::from(error).into());
        }
        attempts_left -= 1;
        if attempts_left == 0 {
            return Err(LockError::Held { pid: read_pid(&mut file) });
        }
        thread::sleep(ATTEMPT_INTERVAL);
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(DirectoryLock { _file: file })
}

/// True while an agent writes here.
pub(super) fn is_held(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LOCK_FILE)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

fn read_pid(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(PID_BYTES_MAX).read_to_string(&mut text);
    let pid = text.trim();
    if read.is_err() || pid.is_empty() { "unknown".to_owned() } else { pid.chars().filter(char::is_ascii_digit).collect() }
}

const LOCK_FILE: &str = "lock";
const PID_BYTES_MAX: u64 = 16;
const ATTEMPTS_MAX: u32 = 20;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);
