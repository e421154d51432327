//! Where the last agent stopped: reads the end of the log and decides what counts. Nothing is repaired, truncated or appended to.

use std::{fs, io, path::Path};

use super::{
    event::{Abandoned, OpenCause},
    scan::{Bad, Scan, tail},
    segment::{Link, segment_file_name, segment_number},
};

/// The end of the log as the next segment continues it.
pub(super) struct Recovered {
    pub(super) log: [u8; 16],
    pub(super) next_segment: u64,
    pub(super) next_frame: u64,
    pub(super) next_record: u64,
    pub(super) head: Link,
    pub(super) cause: OpenCause,
    pub(super) abandoned: Vec<Abandoned>,
}

/// Finds the last good frame. Segments behind it without any were begun by an agent that died, or are damaged: they are void.
pub(super) fn recover(directory: &Path) -> io::Result<Recovered> {
    let mut segments = segments(directory)?;
    let next_segment = segments.last().map_or(1, |last| last + 1);
    let mut abandoned = Vec::new();
    while let Some(segment) = segments.pop() {
        let path = directory.join(segment_file_name(segment));
        let Some(found) = last_frame(&path)? else {
            abandoned.push(Abandoned { segment, valid_bytes: 0, tail: Some(tail(&path, 0, is_damaged(&path)?)?) });
            continue;
        };
        let Found { scan, bad } = found;
        let clean = scan.sealed && bad.is_none();
        if !clean {
            let damaged = matches!(bad, Some(Bad::Damaged(_)));
            abandoned.push(Abandoned { segment, valid_bytes: scan.offset, tail: Some(tail(&path, scan.offset, damaged)?) });
        }
        abandoned.reverse();
        let cause = if abandoned.is_empty() { OpenCause::Start } else { OpenCause::UncleanStop };
        return Ok(Recovered {
            log: scan.header.log,
            next_segment,
            next_frame: scan.next_frame,
            next_record: scan.next_record,
            head: scan.head,
            cause,
            abandoned,
        });
    }
    abandoned.reverse();
    let cause = if abandoned.is_empty() { OpenCause::Start } else { OpenCause::UncleanStop };
    Ok(Recovered { log: rand::random(), next_segment, next_frame: 0, next_record: 0, head: Link::default(), cause, abandoned })
}

/// Numbers of the segments in a directory, ascending.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(segment_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

struct Found {
    scan: Scan,
    bad: Option<Bad>,
}

/// Reads a segment to its last good frame; `None` if there is no good frame.
fn last_frame(path: &Path) -> io::Result<Option<Found>> {
    let Ok(mut scan) = Scan::open(path, None)? else { return Ok(None) };
    let first_frame = scan.next_frame;
    let mut bad = None;
    while let Some(found) = scan.next()? {
        if let Err(why) = found {
            bad = Some(why);
            break;
        }
    }
    Ok((scan.next_frame > first_frame).then_some(Found { scan, bad }))
}

/// Of a segment without a good frame: true if no crash leaves it so.
fn is_damaged(path: &Path) -> io::Result<bool> {
    let bad = match Scan::open(path, None)? {
        Err(bad) => Some(bad),
        Ok(mut scan) => scan.next()?.and_then(Result::err),
    };
    Ok(matches!(bad, Some(Bad::Damaged(_))))
}
