//! Reads one segment file frame by frame and says where and how it stops being good. Recovery and verification share it, so that
//! both draw the same line between a crash and a hand.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{
    event::AbandonedTail,
    segment::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, Link, Malformed, SEGMENT_HEADER_BYTES, SegmentHeader},
};

/// A segment being read. Bytes that are appended meanwhile are not looked at.
pub(super) struct Scan {
    file: BufReader<File>,
    pub(super) header: SegmentHeader,
    /// Up to here everything is good.
    pub(super) offset: u64,
    end: u64,
    pub(super) next_frame: u64,
    pub(super) next_record: u64,
    pub(super) head: Link,
    pub(super) sealed: bool,
}

/// One whole group commit.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub header: FrameHeader,
    /// JSON lines.
    pub payload: Vec<u8>,
}

/// Why reading stopped before the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bad {
    /// No crash leaves this behind.
    Damaged(&'static str),
    /// The bytes end where a write was cut short.
    Incomplete,
}

impl Scan {
    /// Opens a segment and reads its header. `end`: where it stops to count, else its length now.
    pub(super) fn open(path: &Path, end: Option<u64>) -> io::Result<Result<Self, Bad>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let end = end.unwrap_or(length).min(length);
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        if end < SEGMENT_HEADER_BYTES as u64 {
            return Ok(Err(Bad::Incomplete));
        }
        file.read_exact(&mut bytes)?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(Malformed(why)) => {
                return Ok(Err(if rest_is_zero(&mut file, &bytes)? { Bad::Incomplete } else { Bad::Damaged(why) }));
            }
        };
        Ok(Ok(Self {
            file,
            offset: SEGMENT_HEADER_BYTES as u64,
            end,
            next_frame: header.first_frame,
            next_record: header.first_record,
            head: header.link(),
            sealed: false,
            header,
        }))
    }

    /// The next good frame; `None` at the end. After `Bad` nothing more can be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Frame, Bad>>> {
        let left = self.end.saturating_sub(self.offset);
        if left == 0 {
            return Ok(None);
        }
        if self.sealed {
            return Ok(Some(Err(Bad::Damaged("bytes follow the seal"))));
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return self.short_header(left).map(|bad| Some(Err(bad)));
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.file.read_exact(&mut bytes)?;
        let header = match FrameHeader::decode(&bytes) {
            Ok(header) => header,
            Err(Malformed(why)) => {
                let zero = rest_is_zero(&mut self.file, &bytes)?;
                return Ok(Some(Err(if zero { Bad::Incomplete } else { Bad::Damaged(why) })));
            }
        };
        if u64::from(header.payload_bytes) > left - FRAME_HEADER_BYTES as u64 {
            return Ok(Some(Err(Bad::Incomplete)));
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        self.file.read_exact(&mut payload)?;
        Ok(Some(self.accept(header, payload)))
    }

    fn accept(&mut self, header: FrameHeader, payload: Vec<u8>) -> Result<Frame, Bad> {
        let bytes = FRAME_HEADER_BYTES as u64 + payload.len() as u64;
        if !header.fits(&payload) {
            // A power cut may keep the file's length and lose whole sectors of a frame that nobody was told of; records have no NUL.
            let last = self.offset + bytes == self.end;
            return Err(if last && has_lost_sector(&payload) {
                Bad::Incomplete
            } else {
                Bad::Damaged("payload checksum differs")
            });
        }
        if header.frame != self.next_frame || header.first_record != self.next_record || header.previous != self.head {
            return Err(Bad::Damaged("frame does not continue the one before it: frames were removed, repeated or reordered"));
        }
        self.offset += bytes;
        self.next_frame += 1;
        self.next_record += u64::from(header.records);
        self.head = header.link(&payload);
        self.sealed = header.kind == FrameKind::Seal;
        Ok(Frame { header, payload })
    }

    fn short_header(&mut self, left: u64) -> io::Result<Bad> {
        let mut bytes = Vec::new();
        self.file.by_ref().take(left).read_to_end(&mut bytes)?;
        let begins_well = bytes.iter().zip(FRAME_MAGIC).all(|(byte, magic)| *byte == magic);
        let cut = begins_well || bytes.iter().all(|byte| *byte == 0);
        Ok(if cut { Bad::Incomplete } else { Bad::Damaged("not a frame") })
    }
}

/// What lies behind `offset` in a file.
pub(super) fn tail(path: &Path, offset: u64, damaged: bool) -> io::Result<AbandonedTail> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut hash = Sha256::new();
    let bytes = io::copy(&mut file, &mut hash)?;
    Ok(AbandonedTail { bytes, sha256: hexadecimal(&hash.finalize()), damaged })
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A crash may lengthen a file before its bytes arrive.
fn rest_is_zero(file: &mut impl Read, begin: &[u8]) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    let mut zero = begin.iter().all(|byte| *byte == 0);
    while zero {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        zero = chunk.iter().take(read).all(|byte| *byte == 0);
    }
    Ok(zero)
}

fn has_lost_sector(payload: &[u8]) -> bool {
    let mut run = 0;
    payload.iter().any(|byte| {
        run = if *byte == 0 { run + 1 } else { 0 };
        run >= SECTOR_BYTES
    })
}

const READ_BYTES: usize = 256 * 1024;
const SECTOR_BYTES: usize = 512;
