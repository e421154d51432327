//! Is this journal what the agent wrote? What can be proven from the files alone, and what cannot.

use std::path::Path;

use serde::Serialize;

use super::{
    read::{Item, Problem, ProblemKind, ReadError, UncleanStop, Walk},
    segment::Link,
    time::Stamp,
};

/// The answer, worst first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Something was changed, removed or put in.
    Tampered,
    /// Some file could not be read.
    Unreadable,
    /// The last write was cut short: an unclean stop.
    Torn,
    /// Every frame is good and no agent is running, but the log was never closed: an unclean stop, or whole frames were cut
    /// off its end. The files alone cannot tell which.
    Unsealed,
    /// Every frame is good and an agent is writing.
    Running,
    /// Every frame is good and the log ends with a seal. Whole segments behind it may have been removed: only a head that was noted
    /// elsewhere can tell.
    Sealed,
}

impl State {
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Running | Self::Sealed)
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub state: State,
    pub segments: u64,
    pub frames: u64,
    pub records: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Stamp>,
    /// The last good frame: what to note elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// What became of the head that was noted elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    pub problems: Vec<Problem>,
    /// Crashes that the journal itself records; not problems.
    pub unclean_stops: Vec<UncleanStop>,
    /// There were more problems than are listed.
    pub more_problems: u64,
}

/// A frame by which everything before it can be proven.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Head {
    pub segment: u64,
    pub frame: u64,
    /// 64 hexadecimal digits.
    pub hash: String,
}

/// Is a noted head part of this journal?
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// A frame has it, and later ones follow.
    Contained,
    /// The last frame has it.
    Head,
    /// No frame has it: what led to it was removed or replaced.
    Missing,
}

/// As `verify_expecting`, with nothing expected.
///
/// # Errors
/// There is no journal to read.
pub fn verify(directory: &Path, progress: impl FnMut(u64, u64)) -> Result<Report, ReadError> {
    verify_expecting(directory, None, progress)
}

/// Reads the whole journal, and looks for a head that was noted elsewhere. `progress` is told bytes read and bytes in all, once a frame.
///
/// # Errors
/// There is no journal to read.
pub fn verify_expecting(
    directory: &Path,
    expected: Option<Link>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, ReadError> {
    let mut walk = Walk::open(directory)?;
    let mut report = Report {
        state: State::Sealed,
        segments: walk.segments,
        frames: 0,
        records: 0,
        bytes: walk.bytes,
        first: None,
        last: None,
        head: None,
        expected: expected.map(|_| Expected::Missing),
        problems: Vec::new(),
        unclean_stops: Vec::new(),
        more_problems: 0,
    };
    let mut worst: Option<ProblemKind> = None;
    while let Some(item) = walk.next() {
        match item {
            Item::Commit(commit) => {
                report.frames += 1;
                report.records += u64::from(commit.records);
                report.first = report.first.or(Some(commit.time));
                report.last = Some(commit.time);
                let hash = commit.link.to_string();
                report.head = Some(Head { segment: commit.segment, frame: commit.frame, hash });
                report.expected = report.expected.map(|before| match before {
                    Expected::Missing if expected == Some(commit.link) => Expected::Head,
                    Expected::Head => Expected::Contained,
                    other => other,
                });
                progress(walk.bytes_done, walk.bytes);
            }
            Item::Problem(problem) => {
                worst = worst.max(Some(problem.kind));
                if report.problems.len() < PROBLEMS_MAX { report.problems.push(problem) } else { report.more_problems += 1 }
            }
            Item::UncleanStop(stop) => report.unclean_stops.push(stop),
        }
    }
    report.state = match worst {
        Some(ProblemKind::Tampered) => State::Tampered,
        Some(ProblemKind::Unreadable) => State::Unreadable,
        Some(ProblemKind::Torn) => State::Torn,
        None if walk.is_sealed() => State::Sealed,
        None if walk.running => State::Running,
        None => State::Unsealed,
    };
    Ok(report)
}

/// A report is read by a person.
const PROBLEMS_MAX: usize = 100;
