//! A Rust source with everything that is not code taken out, line for line and byte for byte.

/// Replaces comments by spaces and the content of strings and characters by `"`; line feeds stay where they are.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let (length, fill) = token(rest, out.last().copied());
        let taken = rest.get(..length).unwrap_or(rest);
        match fill {
            Some(fill) => out.extend(taken.iter().map(|byte| if *byte == b'\n' { b'\n' } else { fill })),
            None => out.extend_from_slice(taken),
        }
        at += taken.len().max(1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Takes out `#[cfg(test)]` items from blanked code.
pub(super) fn without_tests(blanked: &str) -> String {
    let mut text = blanked.to_owned();
    while let Some(start) = text.find("#[cfg(test)]") {
        let end = item_end(&text, start);
        let spaces: String =
            text.get(start..end).unwrap_or_default().chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        text.replace_range(start..end, &spaces);
    }
    text
}

/// The end of the item that begins at `start` of blanked code: behind its block, or its semicolon.
pub(super) fn item_end(blanked: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in blanked.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return offset + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return offset + 1,
            _ => {}
        }
    }
    blanked.len()
}

/// The line number, from 1, of an offset.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The length of the token at the start, and what its bytes become: `None` leaves them.
fn token(rest: &[u8], before: Option<u8>) -> (usize, Option<u8>) {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), Some(b' ')),
        [b'/', b'*', ..] => (block_comment(rest), Some(b' ')),
        [b'"', ..] => (string(rest, 0), Some(b'"')),
        [b'r' | b'b' | b'c', ..] if !in_word => match raw_string(rest) {
            Some(length) => (length, Some(b'"')),
            None => (1, None),
        },
        [b'\'', ..] => character(rest),
        _ => (1, None),
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a string whose opening quote is at `quote`.
fn string(rest: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `r"..."`, `r#"..."#`, `br"..."` and the like; `None` when this is none.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = rest.iter().take(2).take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
    let raw = rest.get(..prefix)?.contains(&b'r');
    let hashes = rest.iter().skip(prefix).take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') || (!raw && hashes > 0) {
        return None;
    }
    if !raw {
        return Some(string(rest, prefix));
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = prefix + hashes + 1;
    let found = rest.get(body..)?.windows(close.len()).position(|window| window == close.as_slice());
    Some(found.map_or(rest.len(), |offset| body + offset + close.len()))
}

/// A character literal, or a lifetime (left as it is).
fn character(rest: &[u8]) -> (usize, Option<u8>) {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|byte| *byte == b'\'');
        return (close.map_or(rest.len(), |offset| offset + 4), Some(b'"'));
    }
    // One character of one to four bytes, then the closing quote; anything else is a lifetime.
    let close = rest.iter().skip(2).take(4).position(|byte| *byte == b'\'');
    match close {
        Some(offset)
            if std::str::from_utf8(rest.get(1..offset + 2).unwrap_or_default()).is_ok_and(|c| c.chars().count() == 1) =>
        {
            (offset + 3, Some(b'"'))
        }
        _ => (1, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_length_and_lines() {
        let text = "fn a() { /* {\n */ \"}\\\"{\" }\n// }\nlet c = '{'; let d: &'a str = r#\"}\"#;\n";
        let blanked = blank(text);
        assert_eq!(blanked.len(), text.len());
        assert_eq!(blanked.matches('\n').count(), text.matches('\n').count());
        assert_eq!(blanked.matches('{').count(), 1);
        assert_eq!(blanked.matches('}').count(), 1);
        assert!(blanked.contains("&'a str"));
    }

    #[test]
    fn knows_characters_from_lifetimes() {
        assert_eq!(blank("'a' 'static '\\'' 'é' b'{'").matches('{').count(), 0);
        assert!(blank("'static ").contains("static"));
    }

    #[test]
    fn nested_comments_end_where_the_outermost_ends() {
        assert_eq!(blank("/* /* } */ } */ x").trim(), "x");
    }

    #[test]
    fn takes_out_test_modules_only() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}\n";
        let code = without_tests(&blank(text));
        assert!(code.contains("fn a") && code.contains("fn c") && !code.contains("fn b"));
    }
}
