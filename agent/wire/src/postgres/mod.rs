//! PostgreSQL protocol 3.x (chapter 55 of its manual): frames, and the messages that weir must understand.
//!
//! A frame is cut first ([`frame`]), then its body is decoded, and the body must be used up. Messages that pass unread are
//! never decoded at all.

mod backend;
mod encode;
mod frontend;
mod startup;
#[cfg(test)]
mod tests;

pub use backend::{
    Authentication, Cells, FieldDescription, TransactionStatus, authentication, backend_key, cells, command_tag, error_fields,
    parameter_status, ready_for_query, row_description, tag_rows,
};
pub use encode::{
    authentication_ok, cancel_request, describe_portal, error_response, flush, message, negotiate_protocol_version, query,
    ready_for_query as encode_ready_for_query, sasl_initial_response, ssl_request, startup_message, terminate,
};
pub use frontend::{Bind, BindPieces, Execute, Parse, Target, bind, bind_names, execute, parse, target, text};
pub use startup::{First, STARTUP_BYTES_MAX, Startup, first, looks_like};

use crate::WireError;

/// The server refuses longer messages itself (`PQ_LARGE_MESSAGE_LIMIT`, `MaxAllocSize - 1`).
pub const MESSAGE_BYTES_MAX: usize = 0x3fff_fffe;

/// Bytes of a message before its body: the tag and the length.
pub const HEADER_BYTES: usize = 5;

/// One message's outline: all that is known once its first five bytes are there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    pub tag: u8,
    /// Of the whole message, with tag and length.
    pub length: usize,
}

/// Reads the outline of the message at the start of `input`; `None` when the header is not complete.
///
/// # Errors
/// A length that counts less than itself, or more than [`MESSAGE_BYTES_MAX`].
pub fn frame(input: &[u8]) -> Result<Option<Frame>, WireError> {
    let Some((&[tag, a, b, c, d], _)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length < 4 {
        return Err(WireError::Malformed { what: "message", why: "a length less than its own four bytes" });
    }
    let body = length as usize - 4;
    if body > MESSAGE_BYTES_MAX {
        return Err(WireError::Limit { what: "message bytes", actual: u64::from(length), limit: MESSAGE_BYTES_MAX as u64 });
    }
    Ok(Some(Frame { tag, length: body + HEADER_BYTES }))
}

impl Frame {
    /// The body within an input that starts with this message; `None` until all of it is there.
    #[must_use]
    pub fn body(self, input: &[u8]) -> Option<&[u8]> {
        input.get(HEADER_BYTES..self.length)
    }
}
