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
