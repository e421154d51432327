//! The thread that owns the files: takes what is queued, makes it durable, wakes who waited.

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use super::{
    JournalError, Status,
    event::{Event, Record},
    queue::{Batch, Shared},
    segment::FrameKind,
    time::Stamp,
    writer::{WriteError, Writer},
};

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    writer: Writer,
    status: Status,
}

/// Tells everyone when the thread ends, also by a panic: a journal without a committer is unavailable.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            let directory = self.0.status().directory.display().to_string();
            let cause = "the committer ended unexpectedly".to_owned();
            self.0.fail(JournalError::Unavailable { directory, operation: "commit", cause });
        }
        self.0.end();
    }
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer, status: Status) -> Self {
        let mut committer = Self { shared, writer, status };
        committer.describe();
        committer.shared.publish(0, committer.status.clone());
        committer
    }

    pub(super) fn run(mut self) {
        let _ended = Ended(Arc::clone(&self.shared));
        let mut batch = Batch::new();
        while let Some(taken) = self.shared.take(batch) {
            batch = taken;
            if !self.commit(&mut batch) {
                return;
            }
        }
        self.seal();
    }

    /// Writes until it is written. False: closed while the disk refuses.
    fn commit(&mut self, batch: &mut Batch) -> bool {
        let mut down_since = None;
        while let Err(error) = self.append_twice(batch, FrameKind::Records) {
            down_since.get_or_insert_with(SystemTime::now);
            self.shared.fail(self.unavailable(&error));
            if !self.shared.pause(RETRY_INTERVAL) {
                return false;
            }
        }
        self.describe();
        let refused = self.shared.publish(batch.last, self.status.clone());
        if refused > 0 {
            self.record_gap(refused, Stamp(down_since.unwrap_or_else(SystemTime::now)));
        }
        true
    }

    fn record_gap(&mut self, records: u64, since: Stamp) {
        let gap = Record { time: SystemTime::now(), session: None, event: Event::Gap { records, since } };
        let mut batch = Batch::new();
        let encoded = gap.encode().map(|line| batch.push(&line)).is_ok();
        if !encoded || self.append_twice(&mut batch, FrameKind::Records).is_err() {
            self.shared.refused_still(records);
        }
    }

    /// The first failure may be the file's; the second, in a new segment, is the disk's.
    fn append_twice(&mut self, batch: &mut Batch, kind: FrameKind) -> Result<(), WriteError> {
        self.writer.append(batch, kind).or_else(|_| self.writer.append(batch, kind))
    }

    fn seal(&mut self) {
        let event = Event::JournalSealed { records: self.writer.records() + 1, frames: self.writer.frames() + 1 };
        let record = Record { time: SystemTime::now(), session: None, event };
        let mut batch = Batch::new();
        let Ok(line) = record.encode() else { return };
        batch.push(&line);
        match self.append_twice(&mut batch, FrameKind::Seal) {
            Ok(()) => {
                self.describe();
                self.shared.publish(0, self.status.clone());
            }
            Err(error) => self.shared.fail(self.unavailable(&error)),
        }
    }

    fn describe(&mut self) {
        self.status.segment = self.writer.segment();
        self.status.segment_bytes = self.writer.segment_bytes();
        self.status.records = self.writer.records();
        self.status.frames = self.writer.frames();
    }

    fn unavailable(&self, error: &WriteError) -> JournalError {
        JournalError::Unavailable {
            directory: self.status.directory.display().to_string(),
            operation: error.operation,
            cause: error.cause.to_string(),
        }
    }
}

/// How often a disk that refuses is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
