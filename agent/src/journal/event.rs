//! What is written: one record an event. Free text is `Masked`; raw bytes cannot be given to the journal.
//!
//! ```no_run
//! use weir::{journal::Event, mask::KnownSecrets};
//! let text = KnownSecrets::default().scrubber().text(b"select 1");
//! let event = Event::PolicyRejected { errors: vec![text] };
//! ```
//!
//! The same without the scrubber does not compile, as text or as bytes:
//! ```compile_fail,E0308
//! use weir::{journal::Event, mask::KnownSecrets};
//! let text = String::from("select 1");
//! let event = Event::PolicyRejected { errors: vec![text] };
//! ```
//! ```compile_fail,E0277
//! use weir::{journal::Event, mask::KnownSecrets};
//! let text = b"select 1".to_vec().into();
//! let event = Event::PolicyRejected { errors: vec![text] };
//! ```

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    flow::{Effects, Login, Object, OrigDst, PeerAddr, Protocol, Reason, SessionId},
    mask::{Masked, MaskedWorkload},
};

use super::time::Stamp;

/// One event with its time and its session (`None`: the agent itself).
#[derive(Clone, Debug)]
pub struct Record {
    pub time: SystemTime,
    pub session: Option<SessionId>,
    pub event: Event,
}

/// A verdict as it is journaled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerdictEntry {
    pub allowed: bool,
    /// `policy/rule` that decided, if one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<Arc<str>>,
    /// What the client was told, for a denial.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<Arc<str>>,
    /// Observe mode: the rule that would have denied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub would_deny: Option<Arc<str>>,
}

/// Everything that can happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    AgentStarted {
        version: Arc<str>,
        pid: u32,
        ebpf_sha256: Arc<str>,
    },
    AgentStopped {},
    /// A connection without a record of its origin was refused.
    ConnectionRefused {
        peer: PeerAddr,
        reason: Reason,
    },
    CredentialInjected {
        credential: Arc<str>,
        version: Arc<str>,
        method: Arc<str>,
    },
    /// A prepared statement ran again.
    Executed {
        number: u64,
        statement: u64,
    },
    Finished {
        /// The number of the `Statement`, `Request` or `Executed` event that ended.
        number: u64,
        status: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        rows: Option<u64>,
        bytes: u64,
        duration_us: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<Masked>,
    },
    /// Records were refused because the journal could not be written: nothing that they spoke of took effect.
    Gap {
        records: u64,
        since: Stamp,
    },
    /// The first record of every segment.
    JournalOpened {
        cause: OpenCause,
        /// Bytes of earlier segments that do not count.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        abandoned: Vec<Abandoned>,
    },
    /// The last record of a log that was closed: whatever is cut off later is missed.
    JournalSealed {
        /// Counted from the beginning of the log, this one included.
        records: u64,
        frames: u64,
    },
    Login {
        number: u64,
        login: LoginEntry,
        verdict: VerdictEntry,
    },
    Masks {
        mask: Arc<str>,
        what: Arc<str>,
        count: u64,
    },
    PolicyApplied {
        generation: u64,
        digest: Arc<str>,
    },
    PolicyRejected {
        errors: Vec<Masked>,
    },
    Request {
        number: u64,
        method: Masked,
        host: Masked,
        target: Masked,
        verdict: VerdictEntry,
    },
    SessionClosed {
        reason: Reason,
        detail: Masked,
        bytes_up: u64,
        bytes_down: u64,
        duration_us: u64,
    },
    SessionOpened {
        peer: PeerAddr,
        orig_dst: OrigDst,
        protocol: Protocol,
        upstream: Option<Arc<str>>,
        workload: MaskedWorkload,
        verdict: VerdictEntry,
    },
    /// The whole of a connection without requests was judged.
    Stream {
        number: u64,
        verdict: VerdictEntry,
    },
    Statement {
        number: u64,
        text: Masked,
        effects: Effects,
        objects: Arc<[Object]>,
        verdict: VerdictEntry,
    },
}

/// Why a segment was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenCause {
    /// The segment before it was full.
    Rotation,
    Start,
    /// The agent before this one did not close the journal.
    UncleanStop,
    /// The segment before it could not be written or synced.
    WriteFailure,
}

/// The part of a segment that does not count: what a crash or a failed write left behind its last good frame.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Abandoned {
    pub segment: u64,
    /// The segment counts up to here; 0: not at all.
    pub valid_bytes: u64,
    /// What lay behind, as it was found. Absent: the disk had refused it, nobody knows what it kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tail: Option<AbandonedTail>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AbandonedTail {
    pub bytes: u64,
    pub sha256: String,
    /// No crash leaves such bytes behind: somebody changed them, or the disk did.
    pub damaged: bool,
}

impl Abandoned {
    pub(super) fn unread(segment: u64, valid_bytes: u64) -> Self {
        Self { segment, valid_bytes, tail: None }
    }
}

/// The client's login as it is journaled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginEntry {
    pub user: Masked,
    pub database: Option<Masked>,
    pub application: Option<Masked>,
}

impl LoginEntry {
    /// Scrubs what the client said about itself.
    #[must_use]
    pub fn new(login: &Login, scrubber: &crate::mask::Scrubber) -> Self {
        let text = |value: &String| scrubber.text(value.as_bytes());
        Self {
            user: text(&login.user),
            database: login.database.as_ref().map(text),
            application: login.application.as_ref().map(text),
        }
    }
}
