//! The journal: what happened, in order, chained, durable before it takes effect.

pub mod event;

pub use event::{Event, Record};

/// The writing side; cheap to clone. One committer thread owns the files.
#[derive(Clone, Debug)]
pub struct Journal {}

/// A record's place in the queue: tells when it is durable.
#[derive(Clone, Debug)]
pub struct Ticket {}

#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal {directory}: {operation}: {cause}")]
    Unavailable { directory: String, operation: &'static str, cause: String },
}

impl Journal {
    /// Hands a record to the committer; returns at once. Records of one caller keep their order.
    ///
    /// # Errors
    /// The journal cannot be written (or its queue is full for too long): nothing may take effect.
    pub fn record(&self, record: Record) -> Result<Ticket, JournalError> {
        let _ = record;
        todo!()
    }
}

impl Ticket {
    /// True once fdatasync has returned for the record: no wait is needed.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        todo!()
    }

    /// Waits for fdatasync. Cancel safe.
    ///
    /// # Errors
    /// The record could not be made durable.
    pub async fn durable(&self) -> Result<(), JournalError> {
        todo!()
    }
}
