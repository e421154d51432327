//! Replacements for single values of a PostgreSQL result: valid for the column's type and wire format, else NULL.
//!
//! A replacement does not depend on the value (nor on its length), except for the two formats that an operator asks for by name:
//! the domain of an address, the last four characters. Types and their binary forms are those of the server's `pg_type.dat` and
//! its `*_send` functions.

use std::borrow::Cow;

use crate::policy::object::MaskWith;

/// What a masked text shows.
const STARS: &str = "***";
/// Shorter values would be given away by their last four characters.
const LAST4_CHARS_MIN: usize = 12;
/// RFC 1035, 2.3.4.
const DOMAIN_BYTES_MAX: usize = 253;

/// A column's type, as RowDescription and the result format say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CellType {
    pub oid: u32,
    /// `atttypmod`; -1: none.
    pub modifier: i32,
    pub binary: bool,
}

/// The value to send instead of `value` (not NULL); `None` is NULL.
#[must_use]
pub fn replacement(with: &MaskWith, cell: CellType, value: &[u8]) -> Option<Cow<'static, [u8]>> {
    match with {
        MaskWith::Null => None,
        MaskWith::Redact => redacted(cell),
        MaskWith::Constant(constant) => self::constant(constant, cell),
        MaskWith::KeepDomain => formatted(cell, value, keep_domain),
        MaskWith::Last4 => formatted(cell, value, last4),
    }
}

/// True for types whose values can hold any text: what an unknown expression may carry a secret in.
#[must_use]
pub fn carries_text(type_oid: u32) -> bool {
    !matches!(
        type_oid,
        oid::BOOL
            | oid::INT2
            | oid::INT4
            | oid::INT8
            | oid::OID
            | oid::FLOAT4
            | oid::FLOAT8
            | oid::NUMERIC
            | oid::DATE
            | oid::TIME
            | oid::TIMETZ
            | oid::TIMESTAMP
            | oid::TIMESTAMPTZ
            | oid::INTERVAL
            | oid::UUID
            | oid::VOID
            | oid::XID
            | oid::CID
            | oid::TID
            | oid::PG_LSN
            | oid::REGTYPE
    )
}

fn formatted(cell: CellType, value: &[u8], format: fn(&str) -> Option<String>) -> Option<Cow<'static, [u8]>> {
    if !is_text(cell.oid) {
        return redacted(cell);
    }
    match str::from_utf8(value).ok().and_then(format) {
        // A cut value would show something else than was asked for.
        Some(text) if fits(&text, cell) => Some(Cow::Owned(text.into_bytes())),
        _ => redacted(cell),
    }
}

fn keep_domain(value: &str) -> Option<String> {
    let (local, domain) = value.rsplit_once('@')?;
    let is_label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // A password with an `@` in it is no address.
    let is_domain = domain.len() <= DOMAIN_BYTES_MAX && domain.contains('.') && domain.split('.').all(is_label);
    (!local.is_empty() && is_domain).then(|| format!("{STARS}@{domain}"))
}

fn last4(value: &str) -> Option<String> {
    let value = value.trim_end();
    let chars = value.chars().count();
    (chars >= LAST4_CHARS_MIN).then(|| STARS.chars().chain(value.chars().skip(chars - 4)).collect())
}

fn constant(constant: &str, cell: CellType) -> Option<Cow<'static, [u8]>> {
    if is_text(cell.oid) {
        return Some(truncated(constant, cell));
    }
    let integer = |width: usize, range: std::ops::RangeInclusive<i64>| {
        let number: i64 = constant.parse().ok().filter(|number| range.contains(number))?;
        let binary = || number.to_be_bytes().get(8 - width..).map(<[u8]>::to_vec);
        Some(Cow::Owned(if cell.binary { binary()? } else { number.to_string().into_bytes() }))
    };
    match cell.oid {
        oid::INT2 => integer(2, i64::from(i16::MIN)..=i64::from(i16::MAX)),
        oid::INT4 => integer(4, i64::from(i32::MIN)..=i64::from(i32::MAX)),
        oid::INT8 => integer(8, i64::MIN..=i64::MAX),
        oid::OID => integer(4, 0..=i64::from(u32::MAX)),
        oid::NUMERIC if !cell.binary && is_decimal(constant) => Some(Cow::Owned(constant.as_bytes().to_vec())),
        oid::BOOL => match (constant, cell.binary) {
            ("t" | "true", false) => Some(Cow::Borrowed(b"t")),
            ("t" | "true", true) => Some(Cow::Borrowed(&[1])),
            ("f" | "false", false) => Some(Cow::Borrowed(b"f")),
            ("f" | "false", true) => Some(Cow::Borrowed(&[0])),
            _ => None,
        },
        oid::JSON => Some(Cow::Owned(json(constant))),
        oid::JSONB => {
            Some(Cow::Owned(if cell.binary { [&[JSONB_VERSION], &json(constant)[..]].concat() } else { json(constant) }))
        }
        oid::BYTEA if cell.binary => Some(Cow::Owned(constant.as_bytes().to_vec())),
        oid::BYTEA => {
            Some(Cow::Owned(constant.bytes().fold(r"\x".to_owned(), |text, byte| text + &format!("{byte:02x}")).into_bytes()))
        }
        oid::UUID => {
            let value = uuid::Uuid::try_parse(constant).ok()?;
            Some(Cow::Owned(if cell.binary { value.as_bytes().to_vec() } else { value.as_hyphenated().to_string().into_bytes() }))
        }
        // Dates, addresses and the rest have no form of the operator's own choice that is certain to be valid.
        _ => redacted(cell),
    }
}

/// Small enough for every numeric column without a modifier; others fall back to what `Redact` shows.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.len() <= 30 && part.bytes().all(|byte| byte.is_ascii_digit());
    is_number(whole) && is_number(fraction)
}

fn json(constant: &str) -> Vec<u8> {
    match serde_json::from_str::<serde_json::Value>(constant) {
        Ok(value) => value.to_string().into_bytes(),
        Err(_) => serde_json::Value::from(constant).to_string().into_bytes(),
    }
}

fn redacted(cell: CellType) -> Option<Cow<'static, [u8]>> {
    let fixed: &'static [u8] = match (cell.oid, cell.binary) {
        (oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN, _) => return Some(truncated(STARS, cell)),
        (oid::CHAR, _) => b"*",
        (oid::JSON | oid::JSONB, false) | (oid::JSON, true) => br#""***""#,
        (oid::JSONB, true) => b"\x01\"***\"",
        (oid::INT2 | oid::INT4 | oid::INT8 | oid::OID | oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC, false) => b"0",
        (oid::INT2, true) => &[0; 2],
        (oid::INT4 | oid::OID | oid::FLOAT4, true) => &[0; 4],
        // Numeric: no digits, weight 0, positive, scale 0.
        (oid::INT8 | oid::FLOAT8 | oid::NUMERIC, true) => &[0; 8],
        (oid::DATE, false) => b"1970-01-01",
        (oid::DATE, true) => &EPOCH_DAYS,
        (oid::TIMESTAMP, false) => b"1970-01-01 00:00:00",
        (oid::TIMESTAMPTZ, false) => b"1970-01-01 00:00:00+00",
        (oid::TIMESTAMP | oid::TIMESTAMPTZ, true) => &EPOCH_MICROS,
        (oid::TIME | oid::INTERVAL, false) => b"00:00:00",
        (oid::TIME, true) => &[0; 8],
        (oid::TIMETZ, false) => b"00:00:00+00",
        (oid::TIMETZ, true) => &[0; 12],
        (oid::INTERVAL | oid::UUID, true) => &[0; 16],
        (oid::UUID, false) => b"00000000-0000-0000-0000-000000000000",
        (oid::INET, false) => b"0.0.0.0",
        (oid::CIDR, false) => b"0.0.0.0/32",
        // Family (AF_INET), bits, is_cidr, length, address.
        (oid::INET, true) => &[2, 32, 0, 4, 0, 0, 0, 0],
        (oid::CIDR, true) => &[2, 32, 1, 4, 0, 0, 0, 0],
        (oid::MACADDR, false) => b"00:00:00:00:00:00",
        (oid::MACADDR, true) => &[0; 6],
        (oid::MACADDR8, false) => b"00:00:00:00:00:00:00:00",
        (oid::MACADDR8, true) => &[0; 8],
        (oid::BYTEA, false) => br"\x",
        (oid::BYTEA, true) => b"",
        _ => return None,
    };
    Some(Cow::Borrowed(fixed))
}

fn is_text(oid: u32) -> bool {
    matches!(oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN)
}

/// The most characters that the type takes.
fn chars_max(cell: CellType) -> usize {
    match cell.oid {
        oid::NAME => NAME_BYTES_MAX,
        // The modifier counts the length word of the stored value.
        oid::VARCHAR | oid::BPCHAR => {
            cell.modifier.checked_sub(4).and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    }
}

fn fits(text: &str, cell: CellType) -> bool {
    text.len() <= chars_max(cell)
}

fn truncated(text: &str, cell: CellType) -> Cow<'static, [u8]> {
    let kept: String = match fits(text, cell) {
        true => text.to_owned(),
        false => text.chars().filter(char::is_ascii).take(chars_max(cell)).collect(),
    };
    Cow::Owned(kept.into_bytes())
}

/// 1970-01-01 in days and microseconds since 2000-01-01.
const EPOCH_DAYS: [u8; 4] = (-10_957_i32).to_be_bytes();
const EPOCH_MICROS: [u8; 8] = (-946_684_800_000_000_i64).to_be_bytes();
const JSONB_VERSION: u8 = 1;
/// NAMEDATALEN without the terminating zero.
const NAME_BYTES_MAX: usize = 63;

/// Fixed OIDs of built-in types (`pg_type.dat`).
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const CHAR: u32 = 18;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const OID: u32 = 26;
    pub(crate) const TID: u32 = 27;
    pub(crate) const XID: u32 = 28;
    pub(crate) const CID: u32 = 29;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const CIDR: u32 = 650;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const UNKNOWN: u32 = 705;
    pub(crate) const MACADDR8: u32 = 774;
    pub(crate) const MACADDR: u32 = 829;
    pub(crate) const INET: u32 = 869;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const INTERVAL: u32 = 1186;
    pub(crate) const TIMETZ: u32 = 1266;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const REGTYPE: u32 = 2206;
    pub(crate) const VOID: u32 = 2278;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const PG_LSN: u32 = 3220;
    pub(crate) const JSONB: u32 = 3802;
}

#[cfg(test)]
mod tests;
