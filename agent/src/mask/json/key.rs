//! One object key, decoded as its escapes arrive.

use super::KEY_BYTES_MAX;

/// At most [`KEY_BYTES_MAX`] bytes of UTF-8; a longer key is read to its end and forgotten.
#[derive(Debug, Default)]
pub(super) struct Key {
    decoded: Vec<u8>,
    too_long: bool,
    high_surrogate: Option<u32>,
}

impl Key {
    pub(super) fn clear(&mut self) {
        self.decoded.clear();
        self.too_long = false;
        self.high_surrogate = None;
    }

    /// The key, once its closing quote was seen; `None` when it was too long to be any that is looked for.
    pub(super) fn whole(&mut self) -> Option<&[u8]> {
        self.lone_surrogate();
        (!self.too_long).then_some(&*self.decoded)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.lone_surrogate();
        self.extend(bytes);
    }

    /// A `\uXXXX` escape: one UTF-16 code unit (RFC 8259, section 7).
    pub(super) fn unit(&mut self, unit: u32) {
        if let (Some(high), 0xdc00..=0xdfff) = (self.high_surrogate, unit) {
            self.high_surrogate = None;
            self.character(0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00));
            return;
        }
        self.lone_surrogate();
        if (0xd800..=0xdbff).contains(&unit) {
            self.high_surrogate = Some(unit);
        } else {
            self.character(unit);
        }
    }

    fn lone_surrogate(&mut self) {
        if self.high_surrogate.take().is_some() {
            self.character(u32::from(char::REPLACEMENT_CHARACTER));
        }
    }

    fn character(&mut self, value: u32) {
        let mut buffer = [0; 4];
        let text = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer);
        self.extend(text.as_bytes());
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.decoded.len() + bytes.len() > KEY_BYTES_MAX {
            self.too_long = true;
        } else {
            self.decoded.extend_from_slice(bytes);
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.decoded.capacity()
    }
}
