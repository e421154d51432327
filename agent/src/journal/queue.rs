//! Between sessions and the committer: a bounded queue of encoded records, and who waits for which of them.
//!
//! Locks are held for a copy of one record or a look at a map, never across a system call.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{JournalError, Status, segment::FRAME_HEADER_BYTES};

/// What the committer takes at once: room for a frame header, then the records.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) buffer: Vec<u8>,
    pub(super) records: u32,
    /// The queue's own count of the last record in it: what tickets wait for. Numbers in the file are the writer's.
    pub(super) last: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; FRAME_HEADER_BYTES], records: 0, last: 0 }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(FRAME_HEADER_BYTES)
    }

    pub(super) fn push(&mut self, line: &[u8]) {
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        self.records += 1;
    }

    /// Empties it for the next use; memory that a burst took is given back.
    fn clear(&mut self) {
        self.buffer.truncate(FRAME_HEADER_BYTES);
        self.buffer.shrink_to(SPARE_BYTES_MAX);
        self.records = 0;
    }
}

/// What sessions and committer share.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// The committer sleeps here.
    work: Condvar,
    /// Whoever closes sleeps here.
    ended: Condvar,
    /// The last record that is durable.
    committed: AtomicU64,
}

struct Inner {
    batch: Batch,
    /// The last record that was taken in.
    pushed: u64,
    /// The last record that the committer took.
    taken: u64,
    /// When the first record of `batch` came.
    first_at: Option<Instant>,
    /// Somebody waits for a record in `batch`.
    urgent: bool,
    /// The committer sleeps and nobody has woken it yet.
    asleep: bool,
    closing: bool,
    ended: bool,
    unavailable: Option<JournalError>,
    /// Records that were refused since the last gap record.
    refused: u64,
    commit_since: Option<Instant>,
    waiters: BTreeMap<(u64, u64), Waker>,
    waiter_ids: u64,
    status: Status,
}

/// A record's place in the queue: tells when it is durable.
#[derive(Clone)]
pub struct Ticket {
    shared: Arc<Shared>,
    place: u64,
}

impl Ticket {
    /// True once fdatasync has returned for the record: no wait is needed.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.shared.committed.load(Ordering::Acquire) >= self.place
    }

    /// Waits for fdatasync. Cancel safe: a wait that is dropped leaves nothing behind, the record is still written.
    ///
    /// # Errors
    /// The record could not be made durable.
    pub async fn durable(&self) -> Result<(), JournalError> {
        Durable { ticket: self, waiter: None }.await
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("place", &self.place).field("durable", &self.is_durable()).finish()
    }
}

struct Durable<'a> {
    ticket: &'a Ticket,
    waiter: Option<u64>,
}

impl Future for Durable<'_> {
    type Output = Result<(), JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.ticket;
        if ticket.is_durable() {
            return Poll::Ready(Ok(()));
        }
        let mut inner = ticket.shared.lock();
        // Again under the lock: the committer publishes before it takes the lock to wake.
        if ticket.is_durable() {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &inner.unavailable {
            return Poll::Ready(Err(error.clone()));
        }
        let id = *self.waiter.get_or_insert_with(|| {
            inner.waiter_ids += 1;
            inner.waiter_ids
        });
        inner.waiters.insert((ticket.place, id), context.waker().clone());
        if ticket.place > inner.taken {
            inner.urgent = true;
            ticket.shared.wake_committer(&mut inner);
        }
        Poll::Pending
    }
}

impl Drop for Durable<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.waiter {
            self.ticket.shared.lock().waiters.remove(&(self.ticket.place, id));
        }
    }
}

/// The sessions' side.
impl Shared {
    pub(super) fn new(status: Status) -> Self {
        Self {
            inner: Mutex::new(Inner {
                batch: Batch::new(),
                pushed: 0,
                taken: 0,
                first_at: None,
                urgent: false,
                asleep: false,
                closing: false,
                ended: false,
                unavailable: None,
                refused: 0,
                commit_since: None,
                waiters: BTreeMap::new(),
                waiter_ids: 0,
                status,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            committed: AtomicU64::new(0),
        }
    }

    /// Queues one encoded record, without a line feed.
    pub(super) fn push(self: &Arc<Self>, line: &[u8]) -> Result<Ticket, JournalError> {
        let mut inner = self.lock();
        if let Err(error) = inner.may_take(line.len()) {
            // What is too large would never have been taken: its session ends and says so itself.
            inner.refused += u64::from(!matches!(error, JournalError::TooLarge { .. }));
            return Err(error);
        }
        if inner.batch.records == 0 {
            inner.first_at = Some(Instant::now());
            self.wake_committer(&mut inner);
        }
        inner.batch.push(line);
        inner.pushed += 1;
        inner.batch.last = inner.pushed;
        if inner.batch.payload_bytes() >= BATCH_BYTES_MIN {
            self.wake_committer(&mut inner);
        }
        Ok(Ticket { shared: Arc::clone(self), place: inner.pushed })
    }

    pub(super) fn health(&self) -> Result<(), JournalError> {
        let inner = self.lock();
        let directory = || inner.status.directory.display().to_string();
        match (&inner.unavailable, inner.commit_since) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(since)) if since.elapsed() > COMMIT_SLOW => {
                Err(JournalError::slow(directory(), format!("the disk has not answered for {} ms", since.elapsed().as_millis())))
            }
            (None, _) if inner.closing => Err(JournalError::closed(directory())),
            (None, _) => Ok(()),
        }
    }

    pub(super) fn status(&self) -> Status {
        let inner = self.lock();
        Status { queued_bytes: inner.batch.payload_bytes() as u64, ..inner.status.clone() }
    }

    /// Takes no more records; what is queued is still written, then the log is sealed.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        self.wake_committer(&mut inner);
        self.work.notify_one();
    }

    /// Waits for the committer's end after `close`. False: it is still busy when the time is over.
    pub(super) fn wait_ended(&self, timeout: Duration) -> bool {
        let inner = self.lock();
        let (inner, _) =
            self.ended.wait_timeout_while(inner, timeout, |inner| !inner.ended).unwrap_or_else(PoisonError::into_inner);
        inner.ended
    }

    /// Why the last records could not be written, if so.
    pub(super) fn unavailable(&self) -> Option<JournalError> {
        self.lock().unavailable.clone()
    }

    fn wake_committer(&self, inner: &mut Inner) {
        if mem::take(&mut inner.asleep) {
            self.work.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn may_take(&self, line_bytes: usize) -> Result<(), JournalError> {
        let directory = || self.status.directory.display().to_string();
        if let Some(error) = &self.unavailable {
            return Err(error.clone());
        }
        if self.closing {
            return Err(JournalError::closed(directory()));
        }
        if line_bytes > RECORD_BYTES_MAX {
            return Err(JournalError::too_large(directory(), line_bytes));
        }
        if self.batch.payload_bytes() + line_bytes + 1 > QUEUE_BYTES_MAX {
            return Err(JournalError::slow(directory(), format!("{} bytes wait for the disk", self.batch.payload_bytes())));
        }
        Ok(())
    }

    /// How long the committer may still wait for more company; `None`: not at all.
    fn patience(&self) -> Option<Duration> {
        if self.urgent || self.closing || self.batch.payload_bytes() >= BATCH_BYTES_MIN {
            return None;
        }
        BOUNDED_DELAY.checked_sub(self.first_at?.elapsed()).filter(|left| !left.is_zero())
    }
}

/// The committer's side.
impl Shared {
    /// Sleeps until there is something to commit and no reason to wait for more. `spare` is given for what is taken. `None`: closed
    /// and empty.
    pub(super) fn take(&self, mut spare: Batch) -> Option<Batch> {
        spare.clear();
        let mut inner = self.lock();
        loop {
            if inner.batch.records > 0 {
                let Some(patience) = inner.patience() else { break };
                inner.asleep = true;
                inner = self.work.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner).0;
            } else if inner.closing {
                return None;
            } else {
                inner.asleep = true;
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            inner.asleep = false;
        }
        inner.urgent = false;
        inner.first_at = None;
        inner.taken = inner.pushed;
        inner.commit_since = Some(Instant::now());
        Some(mem::replace(&mut inner.batch, spare))
    }

    /// Everything up to `last` is durable: wakes those who waited for it. Returns how many records were refused meanwhile.
    pub(super) fn publish(&self, last: u64, status: Status) -> u64 {
        self.committed.fetch_max(last, Ordering::Release);
        let mut inner = self.lock();
        inner.commit_since = None;
        inner.unavailable = None;
        inner.status = status;
        let later = inner.waiters.split_off(&(last + 1, 0));
        let served = mem::replace(&mut inner.waiters, later);
        let refused = mem::take(&mut inner.refused);
        drop(inner);
        served.into_values().for_each(Waker::wake);
        refused
    }

    /// Nothing can be written: whoever waits is told, whoever comes is refused.
    pub(super) fn fail(&self, error: JournalError) {
        let mut inner = self.lock();
        inner.commit_since = None;
        inner.status.last_error = Some(error.to_string());
        inner.unavailable = Some(error);
        let waiters = mem::take(&mut inner.waiters);
        drop(inner);
        waiters.into_values().for_each(Waker::wake);
    }

    /// The gap could not be written: it grows.
    pub(super) fn refused_still(&self, records: u64) {
        self.lock().refused += records;
    }

    /// Waits before the next attempt; false when somebody closes.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let inner = self.lock();
        let (inner, _) =
            self.work.wait_timeout_while(inner, time, |inner| !inner.closing).unwrap_or_else(PoisonError::into_inner);
        !inner.closing
    }

    /// The committer is gone, for whatever reason.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        inner.closing = true;
        if inner.unavailable.is_none() && inner.pushed > self.committed.load(Ordering::Acquire) {
            inner.unavailable = Some(JournalError::closed(inner.status.directory.display().to_string()));
        }
        let waiters = mem::take(&mut inner.waiters);
        drop(inner);
        self.ended.notify_all();
        waiters.into_values().for_each(Waker::wake);
    }
}

/// Records that wait for the disk; over it, `record` refuses: a session must not go on unrecorded, and must not block a thread.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// One encoded record; the largest statement that PostgreSQL's front end accepts fits, escaped.
pub const RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A batch of this size is worth a commit even when nobody waits.
const BATCH_BYTES_MIN: usize = 256 * 1024;
/// Records that nobody waits for are synced within 20 ms: half of it for company, half for the disk.
const BOUNDED_DELAY: Duration = Duration::from_millis(10);
/// A commit that takes longer makes the journal unhealthy.
const COMMIT_SLOW: Duration = Duration::from_secs(1);
const SPARE_BYTES_MAX: usize = 1024 * 1024;
