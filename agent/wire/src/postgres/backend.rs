//! What the server answers: bodies of the backend's messages, cut by [`super::frame`].

use bytes::Bytes;

use crate::{Reader, WireError};

/// One column of a RowDescription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldDescription {
    pub name: Bytes,
    /// 0: not a column of a table.
    pub table_oid: u32,
    /// 0: not a column of a table, or the whole row.
    pub attribute: i16,
    pub type_oid: u32,
    pub type_size: i16,
    pub type_modifier: i32,
    /// 0 text, 1 binary; 0 as well where it is not known yet (Describe of a statement).
    pub format: u16,
}

/// `R`: what the server wants to know, or that it knows enough.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Authentication<'a> {
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    Ok,
    /// A method that weir does not speak, by its number.
    Other(u32),
    Sasl {
        mechanisms: Vec<&'a [u8]>,
    },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
}

/// `Z`: where the session stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TransactionStatus {
    Failed,
    #[default]
    Idle,
    InBlock,
}

impl TransactionStatus {
    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Failed => b'E',
            Self::Idle => b'I',
            Self::InBlock => b'T',
        }
    }
}

/// SASL mechanisms in one offer; servers know three.
const MECHANISMS_MAX: usize = 16;

/// Fields in one error or notice; the protocol defines eighteen.
const ERROR_FIELDS_MAX: usize = 64;

/// # Errors
/// The body is malformed, here and in every function below.
pub fn authentication(body: &[u8]) -> Result<Authentication<'_>, WireError> {
    let mut reader = Reader::new("Authentication", body);
    let authentication = match reader.u32()? {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => {
            let salt = reader.u32()?.to_be_bytes();
            Authentication::Md5Password { salt }
        }
        10 => Authentication::Sasl { mechanisms: mechanisms(&mut reader)? },
        11 => Authentication::SaslContinue(reader.bytes(reader.rest().len())?),
        12 => Authentication::SaslFinal(reader.bytes(reader.rest().len())?),
        other => return Ok(Authentication::Other(other)),
    };
    reader.finish()?;
    Ok(authentication)
}

fn mechanisms<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, WireError> {
    let mut mechanisms = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            return Ok(mechanisms);
        }
        if mechanisms.len() == MECHANISMS_MAX {
            let limit = MECHANISMS_MAX as u64;
            return Err(WireError::Limit { what: "SASL mechanisms", actual: limit + 1, limit });
        }
        mechanisms.push(name);
    }
}

/// `K`: process number and secret key.
///
/// # Errors
/// The body is malformed.
pub fn backend_key(body: &[u8]) -> Result<(i32, Bytes), WireError> {
    let mut reader = Reader::new("BackendKeyData", body);
    let process = reader.i32()?;
    let key = reader.rest();
    // 4 bytes up to protocol 3.1, at most 256 since.
    if key.len() < 4 || key.len() > 256 {
        return Err(reader.malformed("a key of a wrong length"));
    }
    Ok((process, Bytes::copy_from_slice(key)))
}

/// `C`: the tag, such as `INSERT 0 5`.
///
/// # Errors
/// The body is malformed.
pub fn command_tag(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new("CommandComplete", body);
    let tag = reader.cstr()?;
    reader.finish()?;
    Ok(tag)
}

/// The number of rows at the end of a command tag, if the command counts any.
#[must_use]
pub fn tag_rows(tag: &[u8]) -> Option<u64> {
    let last = tag.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}

/// `E` and `N`: the fields, by their codes.
///
/// # Errors
/// The body is malformed.
pub fn error_fields(body: &[u8]) -> Result<Vec<(u8, &[u8])>, WireError> {
    let mut reader = Reader::new("ErrorResponse", body);
    let mut fields = Vec::with_capacity(8);
    loop {
        let code = reader.u8()?;
        if code == 0 {
            break;
        }
        if fields.len() == ERROR_FIELDS_MAX {
            let limit = ERROR_FIELDS_MAX as u64;
            return Err(WireError::Limit { what: "error fields", actual: limit + 1, limit });
        }
        fields.push((code, reader.cstr()?));
    }
    reader.finish()?;
    Ok(fields)
}

/// `S`: name and value.
///
/// # Errors
/// The body is malformed.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut reader = Reader::new("ParameterStatus", body);
    let pair = (reader.cstr()?, reader.cstr()?);
    reader.finish()?;
    Ok(pair)
}

/// `Z`.
///
/// # Errors
/// The body is malformed.
pub fn ready_for_query(body: &[u8]) -> Result<TransactionStatus, WireError> {
    match body {
        b"E" => Ok(TransactionStatus::Failed),
        b"I" => Ok(TransactionStatus::Idle),
        b"T" => Ok(TransactionStatus::InBlock),
        _ => Err(WireError::Malformed { what: "ReadyForQuery", why: "not a transaction status" }),
    }
}

/// `T`.
///
/// # Errors
/// The body is malformed.
pub fn row_description(body: &[u8]) -> Result<Vec<FieldDescription>, WireError> {
    let mut reader = Reader::new("RowDescription", body);
    let count = reader.u16()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        fields.push(FieldDescription {
            name: Bytes::copy_from_slice(reader.cstr()?),
            table_oid: reader.u32()?,
            attribute: reader.i16()?,
            type_oid: reader.u32()?,
            type_size: reader.i16()?,
            type_modifier: reader.i32()?,
            format: reader.u16()?,
        });
    }
    reader.finish()?;
    Ok(fields)
}

/// `D`: the cells of one row, in order; `None` is NULL.
///
/// # Errors
/// The body is too short for a count.
pub fn cells(body: &[u8]) -> Result<Cells<'_>, WireError> {
    let mut reader = Reader::new("DataRow", body);
    let left = reader.u16()?;
    Ok(Cells { reader, left })
}

/// Iterates over the cells of a DataRow; ends after the first error. Bytes behind the last cell are an error.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Cells<'a> {
    /// How many cells the row says it has left.
    #[must_use]
    pub fn left(&self) -> u16 {
        self.left
    }

    fn cell(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        match self.reader.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| self.reader.malformed("a cell of negative length"))?;
                self.reader.bytes(length).map(Some)
            }
        }
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Result<Option<&'a [u8]>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.reader.is_empty() {
                return None;
            }
            let error = self.reader.malformed("bytes behind its end");
            self.reader = Reader::new("DataRow", &[]);
            return Some(Err(error));
        }
        self.left -= 1;
        let cell = self.cell();
        if cell.is_err() {
            *self = Self { reader: Reader::new("DataRow", &[]), left: 0 };
        }
        Some(cell)
    }
}
