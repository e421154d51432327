//! Reads big-endian fields from a frame that was already cut: every read is checked, and the frame must end empty.

use crate::WireError;

/// A cursor over one frame. `what` names the message in every error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(what: &'static str, frame: &'a [u8]) -> Self {
        Self { rest: frame, what }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// # Errors
    /// The frame ends first, here and in every method below.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        let (value, rest) = self.rest.split_first().ok_or(self.short())?;
        self.rest = rest;
        Ok(*value)
    }

    /// # Errors
    /// The frame ends first.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// # Errors
    /// The frame ends first.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        self.array().map(i16::from_be_bytes)
    }

    /// # Errors
    /// The frame ends first.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// # Errors
    /// The frame ends first.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_be_bytes)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// The frame ends first.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(self.short())?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Bytes up to a NUL, which is taken and not returned.
    ///
    /// # Errors
    /// There is no NUL.
    pub fn cstr(&mut self) -> Result<&'a [u8], WireError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(self.malformed("string without its NUL"))?;
        let text = self.bytes(end)?;
        self.u8()?;
        Ok(text)
    }

    /// Requires that everything was read.
    ///
    /// # Errors
    /// Bytes are left.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes behind its end")) }
    }

    /// An error that names this frame.
    #[must_use]
    pub fn malformed(&self, why: &'static str) -> WireError {
        WireError::Malformed { what: self.what, why }
    }

    fn short(&self) -> WireError {
        self.malformed("shorter than its fields")
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(self.short())?;
        self.rest = rest;
        Ok(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_field_and_ends_empty() {
        let mut reader = Reader::new("test", b"\x01\x00\x02\xff\xfe\x00\x00\x00\x03\xff\xff\xff\xffabc\0xy");
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.i16(), Ok(-2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.i32(), Ok(-1));
        assert_eq!(reader.cstr(), Ok(&b"abc"[..]));
        assert_eq!(reader.bytes(2), Ok(&b"xy"[..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn refuses_to_read_over_the_end() {
        assert!(Reader::new("test", b"\x01").u16().is_err());
        assert!(Reader::new("test", b"abc").cstr().is_err());
        assert!(Reader::new("test", b"abc").bytes(4).is_err());
        assert!(Reader::new("test", b"").u8().is_err());
        assert!(Reader::new("test", b"x").finish().is_err());
    }
}
