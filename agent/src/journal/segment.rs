//! The bytes of a segment: a fixed header, then frames. A frame is one group commit.
//!
//! Everything is little-endian. Records are JSON objects, one a line. CRC32C is for accidents, SHA-256 for custody: each frame
//! holds the hash of the one before it, the first frame of a segment that of the segment's header, and a header that of the last
//! frame of the segment before it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The hash of a frame or of a segment header: what the next one must name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Link(pub [u8; 32]);

impl Link {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut link = [0; 32];
        if text.len() != 2 * link.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (place, byte) in link.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(Self(link))
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first [`SEGMENT_HEADER_BYTES`] of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    /// Random, the same in every segment of one log: a segment of another log cannot stand in.
    pub log: [u8; 16],
    /// From 1, without gaps; the file's name in hexadecimal.
    pub segment: u64,
    pub first_frame: u64,
    pub first_record: u64,
    /// Zeros in segment 1.
    pub previous: Link,
    pub created_ns: u64,
}

/// The first [`FRAME_HEADER_BYTES`] of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    pub kind: FrameKind,
    pub payload_bytes: u32,
    pub records: u32,
    /// From 0 over the whole log.
    pub frame: u64,
    /// Number of the first record, from 0 over the whole log.
    pub first_record: u64,
    /// Wall clock at commit, nanoseconds since 1970.
    pub time_ns: u64,
    pub previous: Link,
    pub payload_crc: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    Records,
    /// The last frame of a log that was closed; nothing may follow it in its segment.
    Seal,
}

impl SegmentHeader {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.log);
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first_frame.to_le_bytes());
        bytes.extend_from_slice(&self.first_record.to_le_bytes());
        bytes.extend_from_slice(&self.previous.0);
        bytes.extend_from_slice(&self.created_ns.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, Malformed> {
        let mut rest = checked(bytes)?;
        if take(&mut rest)? != SEGMENT_MAGIC {
            return Err(Malformed("not a journal segment"));
        }
        if u32::from_le_bytes(take(&mut rest)?) != FORMAT_VERSION {
            return Err(Malformed("written by a newer weir: unknown format version"));
        }
        let header = Self {
            log: take(&mut rest)?,
            segment: take_u64(&mut rest)?,
            first_frame: take_u64(&mut rest)?,
            first_record: take_u64(&mut rest)?,
            previous: Link(take(&mut rest)?),
            created_ns: take_u64(&mut rest)?,
        };
        if rest.iter().any(|byte| *byte != 0) { Err(Malformed("padding is not zero")) } else { Ok(header) }
    }

    /// What the first frame of the segment must name.
    #[must_use]
    pub fn link(&self) -> Link {
        Link(Sha256::new().chain_update([0x11]).chain_update(self.encode()).finalize().into())
    }
}

impl FrameHeader {
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
        bytes.extend_from_slice(&FRAME_MAGIC);
        bytes.extend_from_slice(&(self.kind as u32).to_le_bytes());
        bytes.extend_from_slice(&self.payload_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.frame.to_le_bytes());
        bytes.extend_from_slice(&self.first_record.to_le_bytes());
        bytes.extend_from_slice(&self.time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.previous.0);
        bytes.extend_from_slice(&self.payload_crc.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut header = [0; FRAME_HEADER_BYTES];
        header.copy_from_slice(&bytes);
        header
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, Malformed> {
        let mut rest = checked(bytes)?;
        if take(&mut rest)? != FRAME_MAGIC {
            return Err(Malformed("not a frame"));
        }
        let header = Self {
            kind: match take_u32(&mut rest)? {
                0 => FrameKind::Records,
                1 => FrameKind::Seal,
                _ => return Err(Malformed("unknown kind of frame")),
            },
            payload_bytes: take_u32(&mut rest)?,
            records: take_u32(&mut rest)?,
            frame: take_u64(&mut rest)?,
            first_record: take_u64(&mut rest)?,
            time_ns: take_u64(&mut rest)?,
            previous: Link(take(&mut rest)?),
            payload_crc: take_u32(&mut rest)?,
        };
        if header.payload_bytes as usize > FRAME_PAYLOAD_BYTES_MAX {
            return Err(Malformed("frame is over its limit"));
        }
        Ok(header)
    }

    /// What the next frame must name.
    #[must_use]
    pub fn link(&self, payload: &[u8]) -> Link {
        Link(Sha256::new().chain_update([0x10]).chain_update(self.encode()).chain_update(payload).finalize().into())
    }

    /// True if the payload is the one that the header was made for and holds as many lines as it says.
    #[must_use]
    pub fn fits(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
            && payload.len() == self.payload_bytes as usize
            && payload.ends_with(b"\n")
            && memchr::memchr_iter(b'\n', payload).count() == self.records as usize
    }
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The number in a segment's file name; `None` for other files.
#[must_use]
pub fn segment_number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".wj")?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == 16 && digits.bytes().all(lower_hex)).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[must_use]
pub fn segment_file_name(segment: u64) -> String {
    format!("{segment:016x}.wj")
}

/// Everything but the checksum at the end, once that agrees.
fn checked(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed("too short"))?;
    if crc32c::crc32c(body) == u32::from_le_bytes(*crc) { Ok(body) } else { Err(Malformed("header checksum differs")) }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(Malformed("too short"))?;
    *rest = after;
    Ok(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, Malformed> {
    take(rest).map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, Malformed> {
    take(rest).map(u64::from_le_bytes)
}

pub const SEGMENT_HEADER_BYTES: usize = 128;
pub const FRAME_HEADER_BYTES: usize = 80;
/// CR LF SUB catch damage by text-mode transfers, as in PNG.
const SEGMENT_MAGIC: [u8; 8] = *b"WEIRJ\r\n\x1a";
pub(super) const FRAME_MAGIC: [u8; 4] = *b"WFR1";
const FORMAT_VERSION: u32 = 1;
/// A frame is at most what the queue may hold.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = super::queue::QUEUE_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Seal,
            payload_bytes: 3,
            records: 1,
            frame: 9,
            first_record: 77,
            time_ns: 5,
            previous: Link([7; 32]),
            payload_crc: crc32c::crc32c(b"{}\n"),
        }
    }

    #[test]
    fn headers_survive_the_round_trip() {
        let segment =
            SegmentHeader { log: [1; 16], segment: 2, first_frame: 3, first_record: 4, previous: Link([5; 32]), created_ns: 6 };
        assert_eq!(SegmentHeader::decode(segment.encode().as_slice().try_into().unwrap()), Ok(segment));
        assert_eq!(FrameHeader::decode(&frame().encode()), Ok(frame()));
    }

    #[test]
    fn a_payload_with_fewer_lines_than_announced_does_not_fit() {
        assert!(frame().fits(b"{}\n"));
        let lying = FrameHeader { records: 2, ..frame() };
        assert!(!lying.fits(b"{}\n"));
    }

    #[test]
    fn refuses_a_frame_over_the_limit_before_anything_is_allocated() {
        let at_limit = FrameHeader { payload_bytes: u32::try_from(FRAME_PAYLOAD_BYTES_MAX).unwrap(), ..frame() };
        assert!(FrameHeader::decode(&at_limit.encode()).is_ok());
        let over = FrameHeader { payload_bytes: at_limit.payload_bytes + 1, ..frame() };
        assert_eq!(FrameHeader::decode(&over.encode()), Err(Malformed("frame is over its limit")));
    }

    #[test]
    fn file_names_are_sixteen_lower_case_digits() {
        assert_eq!(segment_number(&segment_file_name(255)), Some(255));
        assert_eq!(segment_number("00000000000000FF.wj"), None);
        assert_eq!(segment_number("+0000000000000ff.wj"), None);
        assert_eq!(segment_number("lock"), None);
    }
}
