//! Takes known secrets out of messages for the client: each value is replaced on its own, and its message framed anew.

use bytes::{BufMut, Bytes, BytesMut};
use weir_wire::{
    Reader, WireError,
    postgres::{self, Frame, frame},
};

use crate::mask::Scrubber;

/// Rewrites a run of whole messages. A message that is not understood passes as it is: it holds no values.
pub(super) fn messages(run: &[u8], scrubber: &Scrubber) -> Bytes {
    let mut out = BytesMut::with_capacity(run.len() + 64);
    let mut rest = run;
    while let Ok(Some(outline)) = frame(rest) {
        let Some((whole, behind)) = rest.split_at_checked(outline.length) else {
            break;
        };
        let before = out.len();
        if !scrubber.finds(whole) || one(outline, whole, scrubber, &mut out).is_err() {
            out.truncate(before);
            out.extend_from_slice(whole);
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.freeze()
}

fn one(outline: Frame, whole: &[u8], scrubber: &Scrubber, out: &mut BytesMut) -> Result<(), WireError> {
    let body = outline.body(whole).unwrap_or_default();
    let mut rewritten = BytesMut::with_capacity(body.len() + 64);
    match outline.tag {
        b'A' => {
            let mut reader = Reader::new("NotificationResponse", body);
            rewritten.put_i32(reader.i32()?);
            strings(&mut reader, scrubber, &mut rewritten)?;
        }
        b'C' | b'S' => strings(&mut Reader::new("strings", body), scrubber, &mut rewritten)?,
        b'D' => row(body, scrubber, &mut rewritten)?,
        b'E' | b'N' => {
            for (code, value) in postgres::error_fields(body)? {
                rewritten.put_u8(code);
                rewritten.put_slice(&scrubber.scrub(value));
                rewritten.put_u8(0);
            }
            rewritten.put_u8(0);
        }
        b'T' => description(body, scrubber, &mut rewritten)?,
        b'd' => rewritten.put_slice(&scrubber.scrub(body)),
        _ => rewritten.put_slice(body),
    }
    postgres::message(out, outline.tag, |out| out.extend_from_slice(&rewritten));
    Ok(())
}

fn strings(reader: &mut Reader<'_>, scrubber: &Scrubber, out: &mut BytesMut) -> Result<(), WireError> {
    while !reader.is_empty() {
        out.put_slice(&scrubber.scrub(reader.cstr()?));
        out.put_u8(0);
    }
    Ok(())
}

fn row(body: &[u8], scrubber: &Scrubber, out: &mut BytesMut) -> Result<(), WireError> {
    let cells = postgres::cells(body)?;
    out.put_u16(cells.left());
    for cell in cells {
        let Some(cell) = cell? else {
            out.put_i32(-1);
            continue;
        };
        let cell = scrubber.scrub(cell);
        out.put_u32(u32::try_from(cell.len()).unwrap_or(u32::MAX));
        out.put_slice(&cell);
    }
    Ok(())
}

fn description(body: &[u8], scrubber: &Scrubber, out: &mut BytesMut) -> Result<(), WireError> {
    let mut reader = Reader::new("RowDescription", body);
    let count = reader.u16()?;
    out.put_u16(count);
    for _ in 0..count {
        out.put_slice(&scrubber.scrub(reader.cstr()?));
        out.put_u8(0);
        out.put_slice(reader.bytes(FIELD_BYTES)?);
    }
    reader.finish()
}

/// A field of a RowDescription behind its name.
const FIELD_BYTES: usize = 18;
