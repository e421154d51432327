//! Passwords that a statement carries do not go into the journal.

use bytes::Bytes;
use pg_query::protobuf::{ScanToken, Token};

/// Which literals of a statement are secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SecretLiteral {
    /// The first string literal at or behind this byte offset of the text.
    After(usize),
    /// Every string literal: one of them may be a connection string.
    All,
}

const HIDDEN: &[u8] = b"'***'";

/// The text with its secret literals replaced by `'***'`.
pub(super) fn hide(text: &Bytes, sql: &str, secrets: &[SecretLiteral]) -> Bytes {
    if secrets.is_empty() {
        return text.clone();
    }
    let Ok(scan) = pg_query::scan(sql) else {
        return hide_after_password(text);
    };
    let literals: Vec<(usize, usize)> = scan.tokens.iter().filter(|token| is_string(token)).filter_map(span).collect();
    let mut hidden: Vec<(usize, usize)> = Vec::new();
    for secret in secrets {
        match secret {
            SecretLiteral::After(offset) => hidden.extend(literals.iter().find(|(start, _)| start >= offset)),
            SecretLiteral::All => hidden.extend(&literals),
        }
    }
    hidden.sort_unstable();
    hidden.dedup();
    replace(text, &hidden)
}

/// For text that could not be read: everything behind the first word that announces a password is cut off.
pub(super) fn hide_after_password(text: &Bytes) -> Bytes {
    let word = WORDS.iter().filter_map(|word| Some((find_ignoring_case(text, word)?, word.len()))).min();
    match word {
        None => text.clone(),
        Some((start, len)) => {
            let mut shown = text.get(..start + len).unwrap_or_default().to_vec();
            shown.extend_from_slice(b" ***");
            shown.into()
        }
    }
}

const WORDS: &[&[u8]] = &[b"password", b"passwd", b"conninfo"];

fn find_ignoring_case(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

fn is_string(token: &ScanToken) -> bool {
    matches!(token.token(), Token::Sconst | Token::Usconst)
}

fn span(token: &ScanToken) -> Option<(usize, usize)> {
    Some((usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?))
}

fn replace(text: &Bytes, spans: &[(usize, usize)]) -> Bytes {
    let mut shown = Vec::with_capacity(text.len());
    let mut from = 0;
    for &(start, end) in spans {
        shown.extend_from_slice(text.get(from..start).unwrap_or_default());
        shown.extend_from_slice(HIDDEN);
        from = end;
    }
    shown.extend_from_slice(text.get(from..).unwrap_or_default());
    shown.into()
}
