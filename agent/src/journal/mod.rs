//! The journal: what happened, in order, chained, durable before it takes effect.
//!
//! One append-only log a directory, not a file a session: sessions are a view. Sessions encode their records and queue them; one
//! thread writes what is queued as a frame, calls fdatasync, and wakes whoever waits. There is no timer while somebody waits: the
//! next frame forms while the disk is busy with this one.
//!
//! ```no_run
//! # async fn example(record: weir::journal::Record) -> Result<(), weir::journal::JournalError> {
//! use weir::journal::{Journal, JournalConfig};
//! let (journal, committer) = Journal::open(JournalConfig::new("/var/lib/weir/journal"))?;
//! journal.record(record)?.durable().await?; // now it may take effect
//! committer.close()
//! # }
//! ```
//!
//! It may use `flow` and `mask::Masked`; it must not use protocols or the proxy.
//!
//! What the first form proves: any change inside what was written, while the chain's end is known. It has no keys: whoever may write the
//! directory can cut whole frames off an unsealed end, or rewrite everything. A later format signs.

pub mod bench;
mod committer;
mod encode;
pub mod event;
mod lock;
mod queue;
pub mod read;
mod recover;
mod scan;
pub mod segment;
mod storage;
pub mod time;
pub mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use event::{Event, Record};
pub use queue::{QUEUE_BYTES_MAX, RECORD_BYTES_MAX, Ticket};

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use committer::Committer;
use lock::LockError;
use queue::Shared;
use storage::{Disk, Storage};
use writer::{WriteError, Writer};

/// Where and how to write.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Made with mode 0700 if it does not exist.
    pub directory: PathBuf,
    /// A segment that would grow over it is followed by a new one.
    pub segment_bytes_max: u64,
    pub sync: SyncPolicy,
}

impl JournalConfig {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), segment_bytes_max: SEGMENT_BYTES_MAX, sync: SyncPolicy::default() }
    }
}

/// When a record counts as durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SyncPolicy {
    #[default]
    Fdatasync,
    /// As soon as the kernel has it: for measuring only, a power cut loses it.
    Never,
}

/// The writing side; cheap to clone. One committer thread owns the files.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

/// Owns the committer thread; dropping it closes the journal and waits, as [`CommitterHandle::close`] does: not on an async thread.
#[derive(Debug)]
pub struct CommitterHandle {
    journal: Journal,
    thread: Option<JoinHandle<()>>,
}

/// What the journal looks like from outside.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    pub directory: PathBuf,
    pub segment: u64,
    pub segment_bytes: u64,
    /// Counted from the beginning of the log.
    pub records: u64,
    pub frames: u64,
    pub queued_bytes: u64,
    /// The last failure, also when it is over.
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal {directory}: in use by weir with pid {pid}")]
    Locked { directory: String, pid: String },
    #[error("journal {directory}: a record of {bytes} bytes is over the limit of {RECORD_BYTES_MAX}")]
    TooLarge { directory: String, bytes: usize },
    #[error("journal {directory}: {operation}: {cause}")]
    Unavailable { directory: String, operation: &'static str, cause: String },
}

impl JournalError {
    fn slow(directory: String, cause: String) -> Self {
        Self::Unavailable { directory, operation: "journal slow", cause }
    }

    fn closed(directory: String) -> Self {
        Self::Unavailable { directory, operation: "record", cause: "the journal is closed".to_owned() }
    }

    fn too_large(directory: String, bytes: usize) -> Self {
        Self::TooLarge { directory, bytes }
    }
}

impl Journal {
    /// Opens the log in a directory, behind what the last agent wrote, and starts the committer. The opening record is durable
    /// when this returns. Blocks while the last segment is read.
    ///
    /// # Errors
    /// Another agent holds the directory, others may write to it, or the disk refuses.
    pub fn open(config: JournalConfig) -> Result<(Self, CommitterHandle), JournalError> {
        let disk = Disk(config.sync);
        Self::open_on(config, Box::new(disk))
    }

    fn open_on(config: JournalConfig, storage: Box<dyn Storage>) -> Result<(Self, CommitterHandle), JournalError> {
        let directory = config.directory;
        let failed = |operation, cause: &dyn fmt::Display| JournalError::Unavailable {
            directory: directory.display().to_string(),
            operation,
            cause: cause.to_string(),
        };
        prepare(&directory).map_err(|(operation, cause)| failed(operation, &cause))?;
        let lock = lock::lock(&directory).map_err(|error| match error {
            LockError::Held { pid } => JournalError::Locked { directory: directory.display().to_string(), pid },
            LockError::Io(cause) => failed("lock", &cause),
        })?;
        let recovered = recover::recover(&directory).map_err(|cause| failed("read the last segment", &cause))?;
        let mut writer = Writer::new(&directory, storage, config.segment_bytes_max, recovered);
        writer.ensure_open().map_err(|WriteError { operation, cause }| failed(operation, &cause))?;

        let status = Status { directory: directory.clone(), ..Status::default() };
        let committer = Committer::new(Arc::new(Shared::new(status.clone())), writer, status);
        let journal = Self { shared: Arc::clone(&committer.shared) };
        let thread = thread::Builder::new().name("weir-journal".to_owned()).spawn(move || {
            let _lock = lock;
            committer.run();
        });
        let thread = thread.map_err(|cause| failed("start the committer", &cause))?;
        Ok((journal.clone(), CommitterHandle { journal, thread: Some(thread) }))
    }

    /// Hands a record to the committer; returns at once. Records of one caller keep their order.
    ///
    /// # Errors
    /// The journal cannot be written (or its queue is full for too long): nothing may take effect.
    pub fn record(&self, record: Record) -> Result<Ticket, JournalError> {
        let line = record.encode().map_err(|cause| JournalError::Unavailable {
            directory: self.shared.status().directory.display().to_string(),
            operation: "encode",
            cause: cause.to_string(),
        })?;
        self.shared.push(&line)
    }

    /// Whether a new session may count on it.
    ///
    /// # Errors
    /// It cannot be written, is closed, or the disk has not answered for more than a second.
    pub fn healthy(&self) -> Result<(), JournalError> {
        self.shared.health()
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Takes no more records; the committer writes what is queued, seals the log and ends. [`CommitterHandle::close`] waits for that.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("status", &self.status()).finish()
    }
}

impl CommitterHandle {
    /// Closes the journal and waits until it is sealed. Blocks; at most [`CLOSE_WAIT`].
    ///
    /// # Errors
    /// The last records, or the seal, could not be written.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), JournalError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.journal.close();
        if !self.journal.shared.wait_ended(CLOSE_WAIT) {
            let directory = self.journal.status().directory.display().to_string();
            return Err(JournalError::slow(directory, format!("not sealed after {} s", CLOSE_WAIT.as_secs())));
        }
        // A panic was already told to everyone as an unavailable journal.
        let _ = thread.join();
        self.journal.shared.unavailable().map_or(Ok(()), Err)
    }
}

impl Drop for CommitterHandle {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// Makes the directory, or makes sure that nobody else may change what is in it.
fn prepare(directory: &Path) -> Result<(), (&'static str, std::io::Error)> {
    let created = !directory.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|cause| ("create directory", cause))?;
    let mode = fs::metadata(directory).map_err(|cause| ("look at directory", cause))?.permissions().mode();
    if mode & 0o022 != 0 {
        let advice = format!("others may write to it (mode {:o}): chmod 700", mode & 0o7777);
        return Err(("look at directory", std::io::Error::other(advice)));
    }
    if let (true, Some(parent)) = (created, directory.parent().filter(|parent| !parent.as_os_str().is_empty())) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|cause| ("sync parent directory", cause))?;
    }
    Ok(())
}

/// Default size of a segment.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long closing waits for the disk.
pub const CLOSE_WAIT: Duration = Duration::from_secs(10);
