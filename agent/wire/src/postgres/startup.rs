//! The first packets of a connection, which have no tag: startup, requests for encryption, cancellation.

use bytes::Bytes;

use crate::{Reader, WireError};

/// What a client may say first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum First {
    Cancel {
        process: i32,
        key: Bytes,
    },
    GssEncryption,
    Ssl,
    Startup(Startup),
    /// Another protocol version: refused, but in words.
    Unsupported {
        major: u16,
        minor: u16,
    },
}

/// A startup message of protocol 3.x.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Startup {
    pub minor: u16,
    /// In the order in which they were sent; names may repeat, and the last one counts.
    pub parameters: Vec<(Bytes, Bytes)>,
}

impl Startup {
    /// The last value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &[u8]) -> Option<&Bytes> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// The server's own limit (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// Parameters in one startup message: more than any client sends, and what the byte limit alone would not bound well.
const PARAMETERS_MAX: usize = 256;

/// The longest cancellation key that protocol 3.2 allows.
const CANCEL_KEY_BYTES_MAX: usize = 256;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS_ENCRYPTION: u32 = 80_877_104;

/// Reads one first packet and says how long it is; `None` when more bytes are needed.
///
/// # Errors
/// A length over [`STARTUP_BYTES_MAX`] or under 8 (which includes everything that is another protocol), or a malformed body.
pub fn first(input: &[u8]) -> Result<Option<(First, usize)>, WireError> {
    let Some((length, _)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > STARTUP_BYTES_MAX {
        return Err(WireError::Limit { what: "startup message bytes", actual: length as u64, limit: STARTUP_BYTES_MAX as u64 });
    }
    if length < 8 {
        return Err(WireError::Malformed { what: "startup message", why: "a length too short for a version" });
    }
    let Some(body) = input.get(4..length) else {
        return Ok(None);
    };
    let mut reader = Reader::new("startup message", body);
    let first = match reader.u32()? {
        CANCEL => cancel(&mut reader)?,
        SSL => First::Ssl,
        GSS_ENCRYPTION => First::GssEncryption,
        version if version >> 16 == 3 => First::Startup(startup(version, &mut reader)?),
        version => return Ok(Some((unsupported(version), length))),
    };
    reader.finish()?;
    Ok(Some((first, length)))
}

/// Whether the first bytes of a connection are PostgreSQL's; `None` when more are needed (8 always suffice).
#[must_use]
pub fn looks_like(bytes: &[u8]) -> Option<bool> {
    let mut head = [0; 8];
    let known = bytes.len().min(8);
    for (to, from) in head.iter_mut().zip(bytes) {
        *to = *from;
    }
    // The first two bytes of a length that the server would take are zero: everything else is told apart at once.
    if head.iter().take(known.min(2)).any(|byte| *byte != 0) {
        return Some(false);
    }
    if known < 8 {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let version = u32::from_be_bytes([e, f, g, h]);
    Some((8..=STARTUP_BYTES_MAX).contains(&length) && (version >> 16 == 3 || (CANCEL..=GSS_ENCRYPTION).contains(&version)))
}

fn cancel(reader: &mut Reader<'_>) -> Result<First, WireError> {
    let process = reader.i32()?;
    let key = reader.bytes(reader.rest().len())?;
    if key.len() < 4 || key.len() > CANCEL_KEY_BYTES_MAX {
        return Err(reader.malformed("a cancellation key of a wrong length"));
    }
    Ok(First::Cancel { process, key: Bytes::copy_from_slice(key) })
}

fn startup(version: u32, reader: &mut Reader<'_>) -> Result<Startup, WireError> {
    let mut parameters = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            break;
        }
        if parameters.len() == PARAMETERS_MAX {
            let limit = PARAMETERS_MAX as u64;
            return Err(WireError::Limit { what: "startup parameters", actual: limit + 1, limit });
        }
        parameters.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(reader.cstr()?)));
    }
    Ok(Startup { minor: (version & 0xffff) as u16, parameters })
}

fn unsupported(version: u32) -> First {
    First::Unsupported { major: (version >> 16) as u16, minor: (version & 0xffff) as u16 }
}
