//! How a session ended: recorded exactly once, in the journal and in one log line.

use std::time::Instant;

use tracing::info;

use super::sessions::workload_label;
use crate::{
    flow::{Flow, Reason},
    journal::{Event, Journal, Record},
    mask::Scrubber,
};

/// What the end of a session is described by.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

/// Records the ending when it is dropped, also when the session's task panicked or was cancelled.
pub(super) struct Outcome<'a> {
    pub(super) journal: &'a Journal,
    pub(super) known: &'a crate::mask::KnownSecrets,
    pub(super) flow: Flow,
    pub(super) started: Instant,
    pub(super) ending: Option<Ending>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let ending = self.ending.take().unwrap_or_else(|| Ending {
            reason: Reason::Internal,
            detail: "the session's task ended early".to_owned(),
            bytes_up: 0,
            bytes_down: 0,
        });
        let scrubber: std::sync::Arc<Scrubber> = self.known.scrubber();
        let detail = scrubber.text(ending.detail.as_bytes());
        let duration = self.started.elapsed();
        info!(
            session = %self.flow.session,
            workload = workload_label(&self.flow.origin.workload),
            pid = self.flow.origin.workload.pid,
            orig_dst = %self.flow.origin.orig_dst.0,
            protocol = %self.flow.protocol,
            reason = %ending.reason,
            detail = %detail,
            bytes_up = ending.bytes_up,
            bytes_down = ending.bytes_down,
            duration_ms = duration.as_millis(),
            "session closed"
        );
        let event = Event::SessionClosed {
            reason: ending.reason,
            detail,
            bytes_up: ending.bytes_up,
            bytes_down: ending.bytes_down,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        };
        // A journal that cannot take the close has already refused new sessions; there is nobody else to tell.
        let _ = self.journal.record(Record { time: std::time::SystemTime::now(), session: Some(self.flow.session), event });
    }
}
