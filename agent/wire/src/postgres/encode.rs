//! Messages that weir itself says, to either side. Values with a NUL inside are cut there: the wire cannot carry it.

use bytes::{BufMut, Bytes, BytesMut};

use super::TransactionStatus;

/// Appends one message: tag, length, and the body that `write` appends.
pub fn message(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    length_prefixed(out, write);
}

/// `SSLRequest`, on the way to an upstream that wants TLS.
#[must_use]
pub fn ssl_request() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
}

/// `CancelRequest`: the whole conversation of a connection of its own.
#[must_use]
pub fn cancel_request(process: i32, key: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    length_prefixed(&mut out, |out| {
        out.put_slice(&[0x04, 0xd2, 0x16, 0x2e]);
        out.put_i32(process);
        out.put_slice(key);
    });
    out.freeze()
}

/// `StartupMessage` of protocol 3.0.
pub fn startup_message<'a>(parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Bytes {
    let mut out = BytesMut::new();
    length_prefixed(&mut out, |out| {
        out.put_u32(3 << 16);
        for (name, value) in parameters {
            put_cstr(out, name);
            put_cstr(out, value);
        }
        out.put_u8(0);
    });
    out.freeze()
}

/// `R` with nothing left to ask.
#[must_use]
pub fn authentication_ok() -> Bytes {
    Bytes::from_static(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0])
}

/// `v`: the newest minor version that is spoken, and the options that are not known.
pub fn negotiate_protocol_version(out: &mut BytesMut, minor: u16, options: &[&[u8]]) {
    message(out, b'v', |out| {
        out.put_u32(3 << 16 | u32::from(minor));
        out.put_u32(u32::try_from(options.len()).unwrap_or(u32::MAX));
        for option in options {
            put_cstr(out, option);
        }
    });
}

/// `E` or `N` from fields by their codes; empty values are left out.
pub fn error_response<'a>(out: &mut BytesMut, tag: u8, fields: impl IntoIterator<Item = (u8, &'a [u8])>) {
    message(out, tag, |out| {
        for (code, value) in fields {
            if !value.is_empty() {
                out.put_u8(code);
                put_cstr(out, value);
            }
        }
        out.put_u8(0);
    });
}

/// `Z`.
pub fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    out.put_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
}

/// `p` that opens a SASL exchange.
#[must_use]
pub fn sasl_initial_response(mechanism: &[u8], response: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    message(&mut out, b'p', |out| {
        put_cstr(out, mechanism);
        length_of(out, response);
        out.put_slice(response);
    });
    out.freeze()
}

/// `D` of a portal.
pub fn describe_portal(out: &mut BytesMut, name: &[u8]) {
    message(out, b'D', |out| {
        out.put_u8(b'P');
        put_cstr(out, name);
    });
}

/// `H`.
#[must_use]
pub fn flush() -> Bytes {
    Bytes::from_static(&[b'H', 0, 0, 0, 4])
}

/// `Q`.
#[must_use]
pub fn query(text: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    message(&mut out, b'Q', |out| put_cstr(out, text));
    out.freeze()
}

/// `X`.
#[must_use]
pub fn terminate() -> Bytes {
    Bytes::from_static(&[b'X', 0, 0, 0, 4])
}

fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    out.put_slice(text);
    out.put_u8(0);
}

fn length_of(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
}

/// A length that counts itself, then what `write` appends.
fn length_prefixed(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    write(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}
