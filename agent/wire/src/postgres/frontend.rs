//! What the client asks: bodies of the frontend's messages, cut by [`super::frame`].

use crate::{Reader, WireError};

/// `P`: a statement to prepare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub text: &'a [u8],
}

/// `B`: a prepared statement made a portal. The parameters' values are not looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Format codes of the result columns: none (all text), one (for all), or one each.
    pub formats: Vec<u16>,
}

/// `E`: a portal to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// 0: no limit.
    pub rows_max: i32,
}

/// What `D` and `C` name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target<'a> {
    Portal(&'a [u8]),
    Statement(&'a [u8]),
}

/// `Q`: the text, without its NUL.
///
/// # Errors
/// There is no NUL, or bytes behind it.
pub fn text(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new("Query", body);
    let text = reader.cstr()?;
    reader.finish()?;
    Ok(text)
}

/// # Errors
/// The body is malformed, here and in every function below.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, WireError> {
    let mut reader = Reader::new("Parse", body);
    let parse = Parse { name: reader.cstr()?, text: reader.cstr()? };
    let types = reader.u16()?;
    reader.bytes(usize::from(types) * 4)?;
    reader.finish()?;
    Ok(parse)
}

/// # Errors
/// The body is malformed.
pub fn bind(body: &[u8]) -> Result<Bind<'_>, WireError> {
    let mut reader = Reader::new("Bind", body);
    let (portal, statement) = (reader.cstr()?, reader.cstr()?);
    let parameter_formats = reader.u16()?;
    reader.bytes(usize::from(parameter_formats) * 2)?;
    for _ in 0..reader.u16()? {
        if let Ok(length) = usize::try_from(reader.i32()?) {
            reader.bytes(length)?;
        }
    }
    let count = reader.u16()?;
    let formats = (0..count).map(|_| reader.u16()).collect::<Result<Vec<_>, _>>()?;
    reader.finish()?;
    Ok(Bind { portal, statement, formats })
}

/// Portal and statement of a Bind of which only the beginning is there; `None` when more is needed.
#[must_use]
pub fn bind_names(start: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new("Bind", start);
    Some((reader.cstr().ok()?, reader.cstr().ok()?))
}

/// A Bind that is too large to keep: read behind its names, piece by piece, in a few bytes of memory.
#[derive(Debug, Default)]
pub struct BindPieces {
    part: BindPart,
    /// Of the current number: its bytes so far, and how many.
    number: u32,
    bytes: usize,
    /// Bytes that say nothing: parameter formats, or a value.
    skips: usize,
    formats: Vec<u16>,
}

/// Which number comes next.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum BindPart {
    #[default]
    ParameterFormatCount,
    ParameterCount,
    ParameterLength {
        left: u32,
    },
    FormatCount,
    Format {
        left: u32,
    },
    End,
}

impl BindPieces {
    /// Takes the next piece of the body, which starts behind the names.
    ///
    /// # Errors
    /// There are bytes behind the last result format.
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), WireError> {
        while let Some((byte, rest)) = piece.split_first() {
            if self.skips > 0 {
                let count = self.skips.min(piece.len());
                piece = piece.get(count..).unwrap_or_default();
                self.skips -= count;
                continue;
            }
            let width = match self.part {
                BindPart::ParameterLength { .. } => 4,
                BindPart::End => return Err(malformed_bind("bytes behind its end")),
                _ => 2,
            };
            piece = rest;
            self.number = self.number << 8 | u32::from(*byte);
            self.bytes += 1;
            if self.bytes == width {
                self.bytes = 0;
                let number = std::mem::take(&mut self.number);
                self.part = self.behind(number);
            }
        }
        Ok(())
    }

    /// The result formats, once the message has ended.
    ///
    /// # Errors
    /// The message is shorter than its fields.
    pub fn finish(self) -> Result<Vec<u16>, WireError> {
        if self.part == BindPart::End { Ok(self.formats) } else { Err(malformed_bind("shorter than its fields")) }
    }

    /// What follows a number.
    fn behind(&mut self, number: u32) -> BindPart {
        match self.part {
            BindPart::ParameterFormatCount => {
                self.skips = number as usize * 2;
                BindPart::ParameterCount
            }
            BindPart::ParameterCount => parameters(number),
            BindPart::ParameterLength { left } => {
                // A negative length is NULL.
                self.skips = usize::try_from(number.cast_signed()).unwrap_or(0);
                parameters(left - 1)
            }
            BindPart::FormatCount => formats(number),
            BindPart::Format { left } => {
                self.formats.push(number as u16);
                formats(left - 1)
            }
            BindPart::End => BindPart::End,
        }
    }
}

fn parameters(left: u32) -> BindPart {
    if left == 0 { BindPart::FormatCount } else { BindPart::ParameterLength { left } }
}

fn formats(left: u32) -> BindPart {
    if left == 0 { BindPart::End } else { BindPart::Format { left } }
}

fn malformed_bind(why: &'static str) -> WireError {
    WireError::Malformed { what: "Bind", why }
}

/// # Errors
/// The body is malformed.
pub fn target(body: &[u8]) -> Result<Target<'_>, WireError> {
    let mut reader = Reader::new("Describe or Close", body);
    let (kind, name) = (reader.u8()?, reader.cstr()?);
    let target = match kind {
        b'P' => Target::Portal(name),
        b'S' => Target::Statement(name),
        _ => return Err(reader.malformed("neither a portal nor a statement")),
    };
    reader.finish()?;
    Ok(target)
}

/// # Errors
/// The body is malformed.
pub fn execute(body: &[u8]) -> Result<Execute<'_>, WireError> {
    let mut reader = Reader::new("Execute", body);
    let execute = Execute { portal: reader.cstr()?, rows_max: reader.i32()? };
    reader.finish()?;
    Ok(execute)
}
