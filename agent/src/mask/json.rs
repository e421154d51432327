//! Masks the values of chosen keys in JSON that arrives in pieces, at any depth, without building a document.
//!
//! Bytes that are not masked are copied as they are: number formats, white space, duplicates, order. Several values in a row
//! (NDJSON, RFC 7464 sequences) are fine. The structure is checked as RFC 8259 wants it, because a reader that is more lenient
//! than the client's would look at the wrong keys; numbers and the bytes inside strings are left to the client.

mod key;

use std::sync::Arc;

use bytes::BytesMut;

use key::Key;

/// The keys whose values are masked; compared without case, after escapes are decoded.
#[derive(Debug)]
pub struct JsonKeys {
    /// Lower case.
    pub(super) keys: Vec<String>,
}

/// Why the rest of a text cannot be masked. Holds nothing of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JsonError {
    #[error("malformed json: byte {0}")]
    Malformed(u64),
    #[error("json is nested deeper than {NESTING_MAX}")]
    TooDeep,
    #[error("json ends early")]
    Unfinished,
}

/// Containers within containers that are followed.
pub const NESTING_MAX: usize = 512;
/// A configured key is at most this long; longer ones in a text match nothing.
pub const KEY_BYTES_MAX: usize = 1024;

impl JsonKeys {
    /// Takes the keys in the order by which they are counted. Keys over [`KEY_BYTES_MAX`] match nothing.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self { keys: keys.into_iter().map(str::to_lowercase).collect() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        if key.is_ascii() {
            return self.keys.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(key));
        }
        let key = String::from_utf8_lossy(key).to_lowercase();
        self.keys.iter().position(|known| *known == key)
    }
}

/// One text being masked. Memory: one bit a level of nesting, and the key at hand.
#[derive(Debug)]
pub struct JsonMasker {
    keys: Arc<JsonKeys>,
    state: State,
    /// True for an object, false for an array; outermost first.
    open: Vec<bool>,
    key: Key,
    /// The configured key that names the next value.
    due: Option<usize>,
    /// Nothing is copied until the value that began at this depth has ended.
    muted: Option<usize>,
    /// Bytes taken before the current piece.
    offset: u64,
    counts: Vec<u64>,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// A byte order mark or the first byte that tells what the text is.
    Start {
        bom: usize,
    },
    /// A value; after `[` also its end.
    Value {
        or_end: bool,
    },
    /// A key; after `{` also its end.
    Key {
        or_end: bool,
    },
    Colon,
    /// A comma or an end; at depth 0 another value.
    After,
    Number,
    Literal {
        rest: &'static [u8],
    },
    String {
        key: bool,
        escape: Escape,
    },
    Failed(JsonError),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Escape {
    None,
    Backslash,
    Unicode { value: u32, digits: u8 },
}

impl JsonMasker {
    #[must_use]
    pub fn new(keys: Arc<JsonKeys>) -> Self {
        let counts = vec![0; keys.keys.len()];
        Self {
            keys,
            state: State::Start { bom: 0 },
            open: Vec::new(),
            key: Key::default(),
            due: None,
            muted: None,
            offset: 0,
            counts,
        }
    }

    /// How many values were masked, by key in the order of `JsonKeys::new`.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Appends the masked form of `input` to `out`.
    ///
    /// # Errors
    /// The text cannot be read: nothing after what was appended so far may pass.
    pub fn push(&mut self, input: &[u8], out: &mut BytesMut) -> Result<(), JsonError> {
        // Where the part begins that is to be copied and was not yet.
        let mut copied = 0;
        let mut at = 0;
        while at < input.len() {
            if let Err(error) = self.step(input, &mut at, &mut copied, out) {
                self.state = State::Failed(error);
                return Err(error);
            }
        }
        if self.muted.is_none() {
            out.extend_from_slice(input.get(copied..).unwrap_or_default());
        }
        self.offset += input.len() as u64;
        Ok(())
    }

    /// Checks that the text is whole.
    ///
    /// # Errors
    /// It ended within a value.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.state {
            State::Failed(error) => Err(error),
            State::Start { .. } => Ok(()),
            State::After | State::Number if self.open.is_empty() => Ok(()),
            State::Value { or_end: false } if self.open.is_empty() && self.due.is_none() => Ok(()),
            _ => Err(JsonError::Unfinished),
        }
    }

    /// Takes at least one byte, or changes the state.
    fn step(&mut self, input: &[u8], at: &mut usize, copied: &mut usize, out: &mut BytesMut) -> Result<(), JsonError> {
        let Some(&byte) = input.get(*at) else { return Ok(()) };
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::Start { bom } => return self.begin(byte, bom, at),
            State::Value { .. } | State::Key { .. } | State::Colon if space => *at += 1,
            State::After if space => *at += 1,
            // RFC 7464: each text of a sequence begins with a record separator.
            State::After | State::Value { or_end: false } if byte == 0x1e && self.open.is_empty() && self.due.is_none() => {
                *at += 1
            }
            State::Value { or_end: true } if byte == b']' => self.close(false, at, copied)?,
            State::Value { .. } => self.value(byte, input, at, copied, out)?,
            State::Key { or_end: true } if byte == b'}' => self.close(true, at, copied)?,
            State::Key { .. } if byte == b'"' => {
                self.key.clear();
                self.state = State::String { key: true, escape: Escape::None };
                *at += 1;
            }
            State::Colon if byte == b':' => {
                self.state = State::Value { or_end: false };
                *at += 1;
            }
            State::After => match (byte, self.open.last()) {
                (b',', Some(&object)) => {
                    self.state = if object { State::Key { or_end: false } } else { State::Value { or_end: false } };
                    *at += 1;
                }
                (b'}', Some(_)) => self.close(true, at, copied)?,
                (b']', Some(_)) => self.close(false, at, copied)?,
                (_, None) => self.state = State::Value { or_end: false },
                _ => return Err(self.malformed(*at)),
            },
            State::Number => {
                let rest = input.get(*at..).unwrap_or_default();
                let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                *at += rest.iter().position(|byte| !digit(byte)).unwrap_or(rest.len());
                if *at < input.len() {
                    self.ended(*at, copied);
                }
            }
            State::Literal { rest } => match rest.split_first() {
                Some((&expected, rest)) if expected == byte => {
                    *at += 1;
                    self.state = State::Literal { rest };
                    if rest.is_empty() {
                        self.ended(*at, copied);
                    }
                }
                _ => return Err(self.malformed(*at)),
            },
            State::String { key: true, escape } => self.key_byte(byte, escape, input, at)?,
            State::String { key: false, escape } => self.string_bytes(escape, input, at, copied),
            State::Failed(error) => return Err(error),
            State::Key { .. } | State::Colon => return Err(self.malformed(*at)),
        }
        Ok(())
    }

    fn begin(&mut self, byte: u8, bom: usize, at: &mut usize) -> Result<(), JsonError> {
        const BOM: &[u8] = b"\xef\xbb\xbf";
        if BOM.get(bom) == Some(&byte) {
            self.state = State::Start { bom: bom + 1 };
            *at += 1;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') && (bom == 0 || bom >= BOM.len()) {
            // A mark behind white space is none.
            self.state = State::Start { bom: BOM.len() };
            *at += 1;
        } else if bom != 0 && bom < BOM.len() {
            return Err(self.malformed(*at));
        } else {
            self.state = State::Value { or_end: false };
        }
        Ok(())
    }

    fn value(&mut self, byte: u8, input: &[u8], at: &mut usize, copied: &mut usize, out: &mut BytesMut) -> Result<(), JsonError> {
        let state = match byte {
            b'"' => State::String { key: false, escape: Escape::None },
            b'{' => State::Key { or_end: true },
            b'[' => State::Value { or_end: true },
            b'-' | b'0'..=b'9' => State::Number,
            b't' => State::Literal { rest: b"rue" },
            b'f' => State::Literal { rest: b"alse" },
            b'n' => State::Literal { rest: b"ull" },
            _ => return Err(self.malformed(*at)),
        };
        if let (Some(key), None) = (self.due.take(), self.muted) {
            out.extend_from_slice(input.get(*copied..*at).unwrap_or_default());
            // A reader that wants a string or an object gets a string; one that wants a number or a truth value gets null.
            let replacement: &[u8] = if matches!(byte, b'"' | b'{' | b'[') { b"\"***\"" } else { b"null" };
            out.extend_from_slice(replacement);
            self.muted = Some(self.open.len());
            if let Some(count) = self.counts.get_mut(key) {
                *count += 1;
            }
        }
        if matches!(byte, b'{' | b'[') {
            if self.open.len() >= NESTING_MAX {
                return Err(JsonError::TooDeep);
            }
            self.open.push(byte == b'{');
        }
        self.state = state;
        *at += 1;
        Ok(())
    }

    fn close(&mut self, object: bool, at: &mut usize, copied: &mut usize) -> Result<(), JsonError> {
        if self.open.pop() != Some(object) {
            return Err(self.malformed(*at));
        }
        *at += 1;
        self.ended(*at, copied);
        Ok(())
    }

    /// A value ended before `at`: if it was a masked one, copying goes on there.
    fn ended(&mut self, at: usize, copied: &mut usize) {
        self.state = State::After;
        if self.muted == Some(self.open.len()) {
            self.muted = None;
            *copied = at;
        }
    }

    fn string_bytes(&mut self, escape: Escape, input: &[u8], at: &mut usize, copied: &mut usize) {
        if escape != Escape::None {
            *at += 1;
            self.state = State::String { key: false, escape: Escape::None };
            return;
        }
        let rest = input.get(*at..).unwrap_or_default();
        let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
            *at = input.len();
            return;
        };
        *at += found + 1;
        if rest.get(found) == Some(&b'"') {
            self.ended(*at, copied);
        } else {
            self.state = State::String { key: false, escape: Escape::Backslash };
        }
    }

    fn key_byte(&mut self, byte: u8, escape: Escape, input: &[u8], at: &mut usize) -> Result<(), JsonError> {
        let mut next = Escape::None;
        match escape {
            Escape::None => {
                let rest = input.get(*at..).unwrap_or_default();
                let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                if plain > 0 {
                    self.key.bytes(rest.get(..plain).unwrap_or_default());
                    *at += plain;
                    return Ok(());
                }
                if byte == b'"' {
                    *at += 1;
                    let key = self.key.whole().filter(|_| self.muted.is_none());
                    self.due = key.and_then(|key| self.keys.find(key));
                    self.state = State::Colon;
                    return Ok(());
                }
                next = Escape::Backslash;
            }
            Escape::Backslash => match byte {
                b'u' => next = Escape::Unicode { value: 0, digits: 0 },
                b'"' | b'\\' | b'/' => self.key.bytes(&[byte]),
                b'b' => self.key.bytes(&[8]),
                b'f' => self.key.bytes(&[12]),
                b'n' => self.key.bytes(b"\n"),
                b'r' => self.key.bytes(b"\r"),
                b't' => self.key.bytes(b"\t"),
                _ => return Err(self.malformed(*at)),
            },
            Escape::Unicode { value, digits } => {
                let Some(digit) = char::from(byte).to_digit(16) else { return Err(self.malformed(*at)) };
                let value = value << 4 | digit;
                if digits == 3 {
                    self.key.unit(value);
                } else {
                    next = Escape::Unicode { value, digits: digits + 1 };
                }
            }
        }
        *at += 1;
        self.state = State::String { key: true, escape: next };
        Ok(())
    }

    fn malformed(&self, at: usize) -> JsonError {
        JsonError::Malformed(self.offset + at as u64)
    }
}

#[cfg(test)]
mod tests;
