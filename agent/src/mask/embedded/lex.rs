//! The pieces of a text that matter to who looks for keys in it: quotes in every spelling, white space, everything else.

/// One piece; `length` bytes of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) length: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Quote(Quote),
    /// White space; also when it is escaped (`\n`).
    Space,
    /// A byte, decoded where the text is percent-encoded.
    Byte(u8),
    /// Backslashes that escape nothing that matters.
    Backslashes,
}

/// A quote, and in how many strings within strings it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Quote {
    pub(super) mark: u8,
    pub(super) encoded: bool,
    pub(super) level: u32,
}

/// Longer runs of backslashes are read in parts.
const BACKSLASHES_MAX: usize = 63;

const SPELLINGS: [(&[u8], u8, bool); 11] = [
    (b"\"", b'"', false),
    (b"'", b'\'', false),
    (b"`", b'`', false),
    (b"u0022", b'"', false),
    (b"u0027", b'\'', false),
    (b"&quot;", b'"', true),
    (b"&#34;", b'"', true),
    (b"&#x22;", b'"', true),
    (b"&apos;", b'\'', true),
    (b"&#39;", b'\'', true),
    (b"&#x27;", b'\'', true),
];

/// The first piece of `text`; `None` when more of it must be seen (never with `last`, unless it is empty).
pub(super) fn next(text: &[u8], form: bool, last: bool) -> Option<Token> {
    let run = text.iter().take(BACKSLASHES_MAX).take_while(|byte| **byte == b'\\').count();
    let rest = text.get(run..).unwrap_or_default();
    let token = |kind, length| Some(Token { kind, length });
    let Some(&first) = rest.first() else {
        return if run > 0 && (last || run == BACKSLASHES_MAX) { token(Kind::Backslashes, run) } else { None };
    };
    if form && let Some(read) = percent(rest, last) {
        // Within an encoded text backslashes are encoded, too.
        return match read {
            Percent::Partial => None,
            Percent::Byte(mark @ (b'"' | b'\'')) => {
                token(Kind::Quote(Quote { mark, encoded: true, level: run.trailing_ones() }), run + 3)
            }
            Percent::Byte(_) if run > 0 => token(Kind::Backslashes, run),
            Percent::Byte(byte) if byte.is_ascii_whitespace() => token(Kind::Space, 3),
            Percent::Byte(byte) => token(Kind::Byte(byte), 3),
        };
    }
    for (spelling, mark, encoded) in SPELLINGS {
        let unicode = first == b'u';
        if spelling.first() != Some(&first) || (unicode && run == 0) {
            continue;
        }
        if rest.starts_with(spelling) {
            let level = if unicode { unicode_level(run) } else { run.trailing_ones() };
            return token(Kind::Quote(Quote { mark, encoded, level }), run + spelling.len());
        }
        if !last && spelling.starts_with(rest) {
            return None;
        }
    }
    match first {
        b'n' | b'r' | b't' if run > 0 => token(Kind::Space, run + 1),
        _ if run > 0 => token(Kind::Backslashes, run),
        b' ' | b'\t' | b'\r' | b'\n' => token(Kind::Space, 1),
        b'+' if form => token(Kind::Space, 1),
        byte => token(Kind::Byte(byte), 1),
    }
}

/// `\u0022` is a quote of the string within the string; each doubling of its backslashes is one string more.
fn unicode_level(run: usize) -> u32 {
    let doublings = run.trailing_zeros();
    doublings + (run >> doublings).trailing_ones()
}

enum Percent {
    Byte(u8),
    Partial,
}

fn percent(text: &[u8], last: bool) -> Option<Percent> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [b'%', high, low, ..] => digit(high).zip(digit(low)).map(|(high, low)| Percent::Byte(high << 4 | low)),
        [b'%'] if !last => Some(Percent::Partial),
        [b'%', high] if !last && digit(high).is_some() => Some(Percent::Partial),
        _ => None,
    }
}
