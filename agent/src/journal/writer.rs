//! Writes frames to segments and keeps the chain. A segment that failed once, or was found after an unclean stop, is never
//! appended to.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    event::{Abandoned, Event, OpenCause, Record},
    queue::Batch,
    recover::Recovered,
    segment::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Link, SegmentHeader, segment_file_name},
    storage::Storage,
};

/// The end of the log.
pub(super) struct Writer {
    directory: PathBuf,
    storage: Box<dyn Storage>,
    segment_bytes_max: u64,
    log: [u8; 16],
    open: Option<OpenSegment>,
    next_segment: u64,
    next_frame: u64,
    next_record: u64,
    head: Link,
    /// Why the next segment will be opened, and what before it is void: its first record says so.
    cause: OpenCause,
    abandoned: Vec<Abandoned>,
}

struct OpenSegment {
    file: File,
    number: u64,
    /// Up to here everything is acknowledged.
    bytes: u64,
}

/// What failed: the operation and the file, in the journal's own words.
#[derive(Debug)]
pub(super) struct WriteError {
    pub(super) operation: &'static str,
    pub(super) cause: io::Error,
}

impl Writer {
    pub(super) fn new(directory: &Path, storage: Box<dyn Storage>, segment_bytes_max: u64, recovered: Recovered) -> Self {
        Self {
            directory: directory.to_owned(),
            storage,
            segment_bytes_max,
            log: recovered.log,
            open: None,
            next_segment: recovered.next_segment,
            next_frame: recovered.next_frame,
            next_record: recovered.next_record,
            head: recovered.head,
            cause: recovered.cause,
            abandoned: recovered.abandoned,
        }
    }

    /// Makes a batch durable as one frame, in a new segment if there is none or it is full.
    ///
    /// # Errors
    /// The segment is dead: nothing of the batch counts. The next attempt opens a new segment.
    pub(super) fn append(&mut self, batch: &mut Batch, kind: FrameKind) -> Result<(), WriteError> {
        let full = |open: &OpenSegment| open.bytes + batch.buffer.len() as u64 > self.segment_bytes_max;
        if self.open.as_ref().is_some_and(full) {
            self.open = None;
            self.cause = OpenCause::Rotation;
        }
        self.ensure_open()?;
        self.write_frame(batch, kind)
    }

    /// Opens a new segment if there is none.
    ///
    /// # Errors
    /// It cannot be made; what was made of it is removed, or declared void by the next.
    pub(super) fn ensure_open(&mut self) -> Result<(), WriteError> {
        if self.open.is_some() {
            return Ok(());
        }
        let number = self.next_segment;
        let path = self.directory.join(segment_file_name(number));
        let file = self.storage.create(&path).map_err(|cause| WriteError { operation: "create segment", cause })?;
        let opened = self.begin(file, number);
        if opened.is_err() && self.storage.remove(&path).is_err() {
            self.abandoned.push(Abandoned::unread(number, 0));
            self.next_segment += 1;
        }
        opened
    }

    pub(super) fn segment(&self) -> u64 {
        self.open.as_ref().map_or(self.next_segment, |open| open.number)
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    pub(super) fn records(&self) -> u64 {
        self.next_record
    }

    pub(super) fn frames(&self) -> u64 {
        self.next_frame
    }

    /// Header and first frame go out in one write: a segment whose first frame is not whole was never used.
    fn begin(&mut self, mut file: File, number: u64) -> Result<(), WriteError> {
        let header = SegmentHeader {
            log: self.log,
            segment: number,
            first_frame: self.next_frame,
            first_record: self.next_record,
            previous: self.head,
            created_ns: now_ns(),
        };
        let event = Event::JournalOpened { cause: self.cause, abandoned: self.abandoned.clone() };
        let record = Record { time: SystemTime::now(), session: None, event };
        let mut batch = Batch::new();
        batch.push(&record.encode().map_err(|cause| WriteError { operation: "encode", cause: cause.into() })?);
        let link = seal(&mut batch, FrameKind::Records, self.next_frame, self.next_record, header.link());
        let bytes = [header.encode().as_slice(), &batch.buffer].concat();

        let written = self.storage.write(&mut file, &bytes);
        written.map_err(|cause| WriteError { operation: "write segment", cause })?;
        self.storage.sync(&file).map_err(|cause| WriteError { operation: "sync segment", cause })?;
        let synced = self.storage.sync_directory(&self.directory);
        synced.map_err(|cause| WriteError { operation: "sync directory", cause })?;

        self.open = Some(OpenSegment { file, number, bytes: bytes.len() as u64 });
        self.next_segment = number + 1;
        self.next_frame += 1;
        self.next_record += 1;
        self.head = link;
        self.abandoned.clear();
        Ok(())
    }

    fn write_frame(&mut self, batch: &mut Batch, kind: FrameKind) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else {
            return Err(WriteError { operation: "write frame", cause: io::Error::other("no segment is open") });
        };
        let link = seal(batch, kind, self.next_frame, self.next_record, self.head);
        let written = self.storage.write(&mut open.file, &batch.buffer);
        let written = written.map_err(|cause| WriteError { operation: "write frame", cause });
        let synced =
            written.and_then(|()| self.storage.sync(&open.file).map_err(|cause| WriteError { operation: "sync frame", cause }));
        if let Err(error) = synced {
            // After a failed fsync the kernel may have dropped the pages and call the next one a success: this file is over.
            self.abandoned.push(Abandoned::unread(open.number, open.bytes));
            self.cause = OpenCause::WriteFailure;
            self.open = None;
            return Err(error);
        }
        open.bytes += batch.buffer.len() as u64;
        self.next_frame += 1;
        self.next_record += u64::from(batch.records);
        self.head = link;
        Ok(())
    }
}

/// Fills the room at the batch's front with a header.
fn seal(batch: &mut Batch, kind: FrameKind, frame: u64, first_record: u64, previous: Link) -> Link {
    let Some((room, payload)) = batch.buffer.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        return previous; // a Batch always has the room
    };
    let header = FrameHeader {
        kind,
        payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        records: batch.records,
        frame,
        first_record,
        time_ns: now_ns(),
        previous,
        payload_crc: crc32c::crc32c(payload),
    };
    *room = header.encode();
    header.link(payload)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
