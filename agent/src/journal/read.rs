//! The reading side: walks a journal from its first record to its last, checking every link, also while it is being written.
//!
//! What is wrong is an item among the frames, not an end: after a bad frame reading goes on with the next segment, so that one flipped
//! byte does not hide what happened later.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    event::{Abandoned, Event, OpenCause},
    lock,
    recover::segments,
    scan::{Bad, Frame, Scan, tail},
    segment::{FrameKind, Link, segment_file_name},
    time::Stamp,
};
use crate::flow::SessionId;

/// One thing found on the way.
#[derive(Debug)]
pub enum Item {
    Commit(Commit),
    Problem(Problem),
    UncleanStop(UncleanStop),
}

/// One good frame.
#[derive(Debug)]
pub struct Commit {
    pub segment: u64,
    pub frame: u64,
    pub time: Stamp,
    pub first_record: u64,
    pub records: u32,
    pub is_seal: bool,
    /// The hash that the next frame must name.
    pub link: Link,
    payload: Vec<u8>,
}

/// One record.
#[derive(Debug)]
pub struct Entry {
    /// Its place in the log, from 0.
    pub seq: u64,
    pub time: Stamp,
    pub session: Option<SessionId>,
    /// `None`: an event that this weir does not know.
    pub event: Option<Event>,
    /// The record as it was written, a JSON object.
    pub line: String,
}

/// Something that an honest journal does not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    pub kind: ProblemKind,
    pub segment: u64,
    pub file: String,
    /// The first frame that cannot be trusted, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Up to here the file is good.
    pub offset: u64,
    pub detail: String,
    /// The time of the last good frame before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// The last write was cut short, and no agent has looked since: a crash leaves this behind.
    Torn,
    /// The file cannot be read.
    Unreadable,
    /// No crash leaves this behind.
    Tampered,
}

/// A crash or a failed write that the journal itself records.
#[derive(Clone, Debug, Serialize)]
pub struct UncleanStop {
    pub cause: OpenCause,
    /// When the journal was continued.
    pub continued: Stamp,
    pub segment: u64,
    pub valid_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_bytes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("journal {directory}: {cause}")]
    Directory { directory: String, cause: io::Error },
    #[error("journal {directory}: holds no segments")]
    Empty { directory: String },
}

/// Walks a journal. Remembers which segments there were when it began.
pub struct Walk {
    directory: PathBuf,
    /// An agent was writing when the walk began.
    pub running: bool,
    pub segments: u64,
    pub bytes: u64,
    /// Bytes of segments that are done.
    pub bytes_done: u64,
    left: VecDeque<u64>,
    void: HashMap<u64, (Abandoned, OpenCause, Stamp)>,
    current: Option<(u64, Scan)>,
    expected: Expected,
    since: Option<Stamp>,
    sealed: bool,
    found: VecDeque<Item>,
}

/// What the next segment must claim; `None` after a problem: then its own word is taken.
struct Expected {
    segment: u64,
    log: Option<[u8; 16]>,
    end: Option<(Link, u64, u64)>,
}

impl Walk {
    /// # Errors
    /// The directory cannot be read or holds no journal.
    pub fn open(directory: &Path) -> Result<Self, ReadError> {
        let failed = |cause| ReadError::Directory { directory: directory.display().to_string(), cause };
        let running = lock::is_held(directory);
        let left: VecDeque<u64> = segments(directory).map_err(failed)?.into();
        if left.is_empty() {
            return Err(ReadError::Empty { directory: directory.display().to_string() });
        }
        let length = |segment: &u64| fs::metadata(directory.join(segment_file_name(*segment))).map_or(0, |file| file.len());
        Ok(Self {
            running,
            segments: left.len() as u64,
            bytes: left.iter().map(length).sum(),
            bytes_done: 0,
            void: left.iter().flat_map(|segment| abandoned_by(directory, *segment)).collect(),
            left,
            current: None,
            expected: Expected { segment: 1, log: None, end: Some((Link::default(), 0, 0)) },
            since: None,
            sealed: false,
            found: VecDeque::new(),
            directory: directory.to_owned(),
        })
    }

    /// True once the walk ended at a seal: nothing was cut off behind it in that segment.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Every record of the good frames that are left; problems go to `complain`.
    pub fn for_each(self, mut complain: impl FnMut(&Problem), mut entry: impl FnMut(Entry)) {
        for item in self {
            match item {
                Item::Commit(commit) => commit.entries().for_each(&mut entry),
                Item::Problem(problem) => complain(&problem),
                Item::UncleanStop(_) => {}
            }
        }
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(segment_file_name(segment))
    }

    fn step(&mut self) {
        match self.current.take() {
            Some((segment, scan)) => self.read_on(segment, scan),
            None => self.begin_segment(),
        }
    }

    fn begin_segment(&mut self) {
        let Some(segment) = self.left.pop_front() else { return };
        self.sealed = false;
        if segment != self.expected.segment {
            let detail = format!("segments {} to {} are missing", self.expected.segment, segment.saturating_sub(1));
            self.problem(ProblemKind::Tampered, segment, None, 0, detail);
            self.expected.end = None;
        }
        self.expected.segment = segment.saturating_add(1);
        let end = self.void.get(&segment).map(|(abandoned, ..)| abandoned.valid_bytes);
        if end == Some(0) {
            return self.check_void(segment);
        }
        match Scan::open(&self.path(segment), end) {
            Err(error) => self.unreadable(segment, 0, &error),
            Ok(Err(bad)) => self.bad(segment, None, 0, bad, end.is_some()),
            Ok(Ok(scan)) => {
                self.check_header(segment, &scan);
                self.current = Some((segment, scan));
            }
        }
    }

    fn check_header(&mut self, segment: u64, scan: &Scan) {
        let header = &scan.header;
        if header.segment != segment {
            let detail = format!("holds segment {}: renamed", header.segment);
            return self.problem(ProblemKind::Tampered, segment, Some(header.first_frame), 0, detail);
        }
        if *self.expected.log.get_or_insert(header.log) != header.log {
            return self.problem(
                ProblemKind::Tampered,
                segment,
                Some(header.first_frame),
                0,
                "belongs to another log".to_owned(),
            );
        }
        let claims = (header.previous, header.first_frame, header.first_record);
        if self.expected.end.is_some_and(|end| end != claims) {
            let detail = "does not continue the segment before it: frames are missing, or one of the two was replaced";
            self.problem(ProblemKind::Tampered, segment, Some(header.first_frame), 0, detail.to_owned());
        }
    }

    fn read_on(&mut self, segment: u64, mut scan: Scan) {
        let void = self.void.get(&segment).map(|(abandoned, ..)| abandoned.valid_bytes);
        match scan.next() {
            Err(error) => self.unreadable(segment, scan.offset, &error),
            Ok(Some(Err(bad))) => self.bad(segment, Some(scan.next_frame), scan.offset, bad, void.is_some()),
            Ok(Some(Ok(frame))) => {
                let commit = Commit::new(segment, frame, scan.head);
                self.since = Some(commit.time);
                self.found.push_back(Item::Commit(commit));
                self.current = Some((segment, scan));
            }
            Ok(None) => {
                self.expected.end = Some((scan.head, scan.next_frame, scan.next_record));
                self.sealed = scan.sealed;
                self.bytes_done += scan.offset;
                if void.is_some_and(|valid_bytes| valid_bytes != scan.offset) {
                    let detail = "is shorter than it was when the journal was continued".to_owned();
                    self.problem(ProblemKind::Tampered, segment, Some(scan.next_frame), scan.offset, detail);
                } else if void.is_some() {
                    self.check_void(segment);
                }
            }
        }
    }

    /// What a later segment declared void must still be what it was then.
    fn check_void(&mut self, segment: u64) {
        let Some((abandoned, cause, continued)) = self.void.remove(&segment) else { return };
        let offset = abandoned.valid_bytes;
        self.found.push_back(Item::UncleanStop(UncleanStop {
            cause,
            continued,
            segment,
            valid_bytes: offset,
            tail_bytes: abandoned.tail.as_ref().map(|tail| tail.bytes),
        }));
        let Some(recorded) = abandoned.tail else { return };
        if recorded.damaged {
            let detail = format!("was found damaged when the journal was continued at {continued}");
            self.problem(ProblemKind::Tampered, segment, None, offset, detail);
        }
        match tail(&self.path(segment), offset, recorded.damaged) {
            Err(error) => self.unreadable(segment, offset, &error),
            Ok(now) if now != recorded => {
                let detail = format!("the bytes behind the last good frame changed after {continued}");
                self.problem(ProblemKind::Tampered, segment, None, offset, detail);
            }
            Ok(_) => {}
        }
    }

    fn bad(&mut self, segment: u64, frame: Option<u64>, offset: u64, bad: Bad, declared_good: bool) {
        self.expected.end = None;
        let last = self.left.is_empty() && !declared_good;
        match bad {
            Bad::Incomplete if last && self.running => {} // the agent is writing it just now
            Bad::Incomplete if last => self.problem(ProblemKind::Torn, segment, frame, offset, "ends inside a frame".to_owned()),
            Bad::Incomplete => self.problem(ProblemKind::Tampered, segment, frame, offset, "ends inside a frame".to_owned()),
            Bad::Damaged(why) => self.problem(ProblemKind::Tampered, segment, frame, offset, why.to_owned()),
        }
    }

    fn unreadable(&mut self, segment: u64, offset: u64, error: &io::Error) {
        self.expected.end = None;
        self.problem(ProblemKind::Unreadable, segment, None, offset, error.to_string());
    }

    fn problem(&mut self, kind: ProblemKind, segment: u64, frame: Option<u64>, offset: u64, detail: String) {
        let file = segment_file_name(segment);
        self.found.push_back(Item::Problem(Problem { kind, segment, file, frame, offset, detail, since: self.since }));
    }
}

impl Iterator for Walk {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while self.found.is_empty() && (self.current.is_some() || !self.left.is_empty()) {
            self.step();
        }
        self.found.pop_front()
    }
}

impl Commit {
    fn new(segment: u64, frame: Frame, link: Link) -> Self {
        Self {
            segment,
            frame: frame.header.frame,
            time: Stamp::from_nanoseconds(frame.header.time_ns),
            first_record: frame.header.first_record,
            records: frame.header.records,
            is_seal: frame.header.kind == FrameKind::Seal,
            link,
            payload: frame.payload,
        }
    }

    /// Its records, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let lines = self.payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (self.first_record..).zip(lines).map(|(seq, line)| Entry::parse(seq, line, self.time))
    }
}

impl Entry {
    /// A line that is not understood is still shown: with the time of its frame, without an event.
    pub(super) fn parse(seq: u64, line: &[u8], committed: Stamp) -> Self {
        #[derive(Deserialize)]
        struct Head {
            time: Stamp,
            session: Option<SessionId>,
        }
        let head = serde_json::from_slice(line).unwrap_or(Head { time: committed, session: None });
        let event = serde_json::from_slice(line).ok();
        Self { seq, time: head.time, session: head.session, event, line: String::from_utf8_lossy(line).into_owned() }
    }

    /// The record with its number in front.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{{\"seq\":{},{}", self.seq, self.line.strip_prefix('{').unwrap_or("}"))
    }
}

/// What the first record of a segment declares void in earlier ones.
fn abandoned_by(directory: &Path, segment: u64) -> Vec<(u64, (Abandoned, OpenCause, Stamp))> {
    let first = Scan::open(&directory.join(segment_file_name(segment)), None).ok().and_then(Result::ok).and_then(|mut scan| {
        let frame = scan.next().ok()??.ok()?;
        Commit::new(segment, frame, scan.head).entries().next()
    });
    let Some(Entry { time, event: Some(Event::JournalOpened { cause, abandoned }), .. }) = first else { return Vec::new() };
    let earlier = abandoned.into_iter().filter(|abandoned| abandoned.segment < segment);
    earlier.map(|abandoned| (abandoned.segment, (abandoned, cause, time))).collect()
}
