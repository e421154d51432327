//! Sans-I/O codecs: bytes to messages and back. No sockets, no clock, no policy.

mod detect;
pub mod postgres;
mod reader;

pub use detect::{DETECT_BYTES_MAX, Guess, detect};
pub use reader::Reader;

/// Why bytes are not a message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// A length, count or nesting is over its named limit.
    #[error("{what}: {actual} is over the limit of {limit}")]
    Limit { what: &'static str, actual: u64, limit: u64 },
    #[error("{what}: malformed: {why}")]
    Malformed { what: &'static str, why: &'static str },
    /// A well-formed message that the protocol does not allow here.
    #[error("{what}: unexpected")]
    Unexpected { what: &'static str },
}
