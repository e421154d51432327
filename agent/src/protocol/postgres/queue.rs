//! What the server still owes: one entry for every message that it answers, in the order in which it will.
//!
//! Answers carry no reference to their question; this queue is that reference. Refusals of weir's own stand in it too, so that
//! they are heard after the answers to everything that was forwarded before.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use weir_wire::postgres::FieldDescription;

use super::{rows::Mentions, sql::ByName};
use crate::flow::Statement;

/// A prepared statement as it was judged.
pub(super) struct Prepared {
    pub(super) statement: Arc<Statement>,
    pub(super) by_name: Option<Arc<ByName>>,
    /// `None`: what the statement reads is not known.
    pub(super) mentions: Option<Arc<Mentions>>,
    /// It may read masked columns.
    pub(super) sensitive: bool,
    pub(super) changes_lexing: bool,
    /// The journal's number of its Parse.
    pub(super) number: u64,
    /// The batch in which it was judged: its first Execute there needs no second verdict.
    pub(super) batch: u64,
    pub(super) fresh: AtomicBool,
    /// The client asked for its layout, so the answer will come before that of a later Execute.
    pub(super) described: AtomicBool,
    pub(super) layout: OnceLock<Arc<[FieldDescription]>>,
}

/// A portal: a prepared statement with its parameters.
pub(super) struct Portal {
    pub(super) prepared: Arc<Prepared>,
    /// Of the results; not there while its Bind is still coming in.
    pub(super) formats: OnceLock<Vec<u16>>,
    pub(super) described: AtomicBool,
    pub(super) layout: OnceLock<Arc<[FieldDescription]>>,
    /// The journal's number of its first Execute; 0 before that. Further ones only fetch more of its rows.
    pub(super) started: AtomicU64,
}

impl Portal {
    pub(super) fn new(prepared: Arc<Prepared>, formats: Option<Vec<u16>>) -> Arc<Self> {
        let described = AtomicBool::new(false);
        let formats = formats.map_or_else(OnceLock::new, OnceLock::from);
        Arc::new(Self { prepared, formats, described, layout: OnceLock::new(), started: AtomicU64::new(0) })
    }

    /// Columns and their formats, if they were described for the portal or its statement.
    pub(super) fn layout(&self) -> Option<&Arc<[FieldDescription]>> {
        self.layout.get().or_else(|| self.prepared.layout.get())
    }

    pub(super) fn is_described(&self) -> bool {
        self.described.load(Ordering::Relaxed) || self.prepared.described.load(Ordering::Relaxed)
    }
}

/// One thing that the server will answer.
pub(super) struct Expected {
    pub(super) kind: Kind,
    /// The journal's number, 0 for messages that are not journaled.
    pub(super) number: u64,
    pub(super) sensitive: bool,
}

pub(super) enum Kind {
    /// A message that cannot succeed, sent in the place of a refused one; the client hears the refusal instead of its error.
    Abort {
        error: Bytes,
    },
    Bind {
        name: Bytes,
        portal: Arc<Portal>,
    },
    Close {
        statement: bool,
        name: Bytes,
    },
    /// Where the client ended its copy data: not answered, but a Sync before it is swallowed by a server in copy-in mode.
    CopyEnd,
    /// Said by weir, not by the server.
    Denied {
        error: Bytes,
        then_ready: bool,
    },
    DescribePortal {
        portal: Option<Arc<Portal>>,
        ours: bool,
    },
    DescribeStatement {
        prepared: Option<Arc<Prepared>>,
    },
    Execute {
        portal: Arc<Portal>,
    },
    Function,
    Parse {
        name: Bytes,
        prepared: Arc<Prepared>,
    },
    Query {
        mentions: Option<Arc<Mentions>>,
        /// The prepared statement that is there when the server says so.
        prepares: Option<(Bytes, Arc<Prepared>)>,
        /// The prepared statement that is then gone.
        deallocates: Option<Bytes>,
    },
    Sync,
}

impl Kind {
    /// True for messages after whose failure the server skips to Sync.
    fn is_extended(&self) -> bool {
        !matches!(self, Self::Function | Self::Query { .. } | Self::Sync | Self::CopyEnd | Self::Denied { .. })
    }

    /// True for messages behind which the server sends what it has.
    fn flushes(&self) -> bool {
        matches!(self, Self::Function | Self::Query { .. } | Self::Sync | Self::Denied { .. })
    }
}

/// The queue, and the server's own rule for skipping.
#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<Expected>,
    /// The server skips everything until a Sync that was not forwarded yet.
    skips_to_sync: bool,
    /// The server is in copy-in mode: it ignores Sync.
    copies_in: bool,
}

impl Queue {
    pub(super) fn head(&self) -> Option<&Expected> {
        self.entries.front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= OUTSTANDING_MAX
    }

    /// True when nothing that was forwarded makes the server send the answers that it has so far.
    pub(super) fn needs_flush(&self) -> bool {
        self.entries.back().is_some_and(|last| !last.kind.flushes())
    }

    /// Notes what was, or is about to be, forwarded.
    pub(super) fn push(&mut self, expected: Expected) {
        let is_sync = matches!(expected.kind, Kind::Sync);
        if is_sync && self.copies_in {
            return;
        }
        if is_sync {
            self.skips_to_sync = false;
        } else if self.skips_to_sync {
            forget(&expected);
            return;
        }
        self.entries.push_back(expected);
    }

    pub(super) fn pop(&mut self) -> Option<Expected> {
        self.entries.pop_front()
    }

    /// The client ended its copy data.
    pub(super) fn copy_ended(&mut self) {
        if self.copies_in {
            self.copies_in = false;
        } else if !self.entries.is_empty() && !self.skips_to_sync {
            self.entries.push_back(Expected { kind: Kind::CopyEnd, number: 0, sensitive: false });
        }
    }

    /// The server asked for copy data on behalf of the head: Syncs that it will read before the end of the data are ignored.
    pub(super) fn copy_started(&mut self) {
        let end = self.entries.iter().position(|entry| matches!(entry.kind, Kind::CopyEnd));
        self.copies_in = end.is_none();
        let mut position = 0;
        let end = end.unwrap_or(usize::MAX);
        self.entries.retain(|entry| {
            let ignored = position <= end && matches!(entry.kind, Kind::Sync | Kind::CopyEnd);
            position += 1;
            !ignored
        });
    }

    /// The server reported an error for the head. Returns what it will skip, the head first when it is done with it too.
    pub(super) fn failed(&mut self) -> Vec<Expected> {
        self.copies_in = false;
        if !self.head().is_some_and(|head| head.kind.is_extended()) {
            return Vec::new();
        }
        let next_sync = self.entries.iter().position(|entry| matches!(entry.kind, Kind::Sync));
        self.skips_to_sync = next_sync.is_none();
        let skipped: Vec<_> = self.entries.drain(..next_sync.unwrap_or(self.entries.len())).collect();
        skipped.iter().for_each(forget);
        skipped
    }

    /// True if a statement that may read masked columns is not answered yet.
    pub(super) fn holds_sensitive(&self) -> bool {
        self.entries.iter().any(|entry| entry.sensitive)
    }
}

/// A Describe that the server skipped will not tell the layout after all.
fn forget(skipped: &Expected) {
    match &skipped.kind {
        Kind::DescribePortal { portal: Some(portal), .. } => portal.described.store(false, Ordering::Relaxed),
        Kind::DescribeStatement { prepared: Some(prepared) } => prepared.described.store(false, Ordering::Relaxed),
        _ => {}
    }
}

/// Messages that may wait for an answer; more wait in the inbox.
const OUTSTANDING_MAX: usize = 16_384;
