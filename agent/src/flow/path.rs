//! The path as rules should see it, whatever the spelling.

/// Percent-decodes once, takes a backslash for a slash (as some servers do), takes the parameters out of each segment (Java's
/// servers take `/admin;x/y` for `/admin/y`, and `/a/..;/b` for `/b`), resolves `.` and `..` (RFC 3986, 5.2.4) and drops empty
/// segments. A trailing slash stays. Bytes that are not UTF-8 become U+FFFD.
pub fn normal(path: &str) -> String {
    if !path.starts_with('/') {
        // `*`, of OPTIONS.
        return path.to_owned();
    }
    let decoded = decode(path.as_bytes());
    let decoded = String::from_utf8_lossy(&decoded);
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = true;
    for segment in decoded.split(['/', '\\']) {
        let segment = segment.split(';').next().unwrap_or_default();
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let mut normal = String::with_capacity(decoded.len() + 1);
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if folder || kept.is_empty() {
        normal.push('/');
    }
    normal
}

/// As the most careless of servers reads it: decoded until nothing is left to decode (`%uXXXX` too), cut at a zero byte, without
/// dots and spaces at the end of a segment. `None` when that is what [`normal`] says.
pub fn lenient(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut decoded = path.as_bytes().to_vec();
    for _ in 0..DECODINGS_MAX {
        let again = decode(&decode_wide(&decoded));
        if again == decoded {
            break;
        }
        decoded = again;
    }
    let until_zero = decoded.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(until_zero);
    let segments = text.split(['/', '\\']).map(|segment| {
        let name = segment.split(';').next().unwrap_or_default();
        let trimmed = name.trim_end_matches(['.', ' ']);
        // `.` and `..` themselves are no names with dots at their end.
        if trimmed.is_empty() { name.trim_end_matches(' ') } else { trimmed }
    });
    // What is left of percent signs stands for itself: it must not be decoded once more.
    let plain = segments.collect::<Vec<_>>().join("/").replace('%', "%25");
    let lenient = normal(&plain);
    (lenient != normal(path)).then_some(lenient)
}

/// Decodes `%uXXXX`, as some servers of old do.
fn decode_wide(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = match (byte, tail) {
            (b'%', [b'u' | b'U', digits @ ..]) => digits.get(..4).and_then(|digits| str::from_utf8(digits).ok()),
            _ => None,
        };
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32) {
            Some(character) => {
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = tail.get(5..).unwrap_or_default();
            }
            None => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    decoded
}

/// Layers of encoding that are taken off; what has more of them is read as if it had these.
const DECODINGS_MAX: usize = 5;

/// Percent-decodes once (RFC 3986, 2.1). A percent sign without two digits stands for itself.
pub fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if let (b'%', [high, low, tail @ ..]) = (byte, tail)
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            decoded.push(u8::try_from(high << 4 | low).unwrap_or(b'%'));
            rest = tail;
            continue;
        }
        decoded.push(byte);
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_one_path() {
        for path in [
            "/a/b",
            "//a///b",
            "/a/./b",
            "/x/../a/b",
            "/%61/b",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/../../a/b",
            "/x/%2e%2E/a/b",
            "/x/.%2e/a/b",
            "/a;x/b;y=1",
            "/a%3bx/b",
            "/x/..;/a/b",
            "/;x/a/b",
        ] {
            assert_eq!(normal(path), "/a/b", "{path}");
        }
    }

    #[test]
    fn the_most_careless_reading_sees_through_layers() {
        for path in ["/%2561/b", "/%252561/b", "/a%00x/b", "/a./b", "/a%20/b", "/%u0061/b", "/a%2e%20/b", "/x/%252e%252e/a/b"] {
            let read = lenient(path).unwrap_or_else(|| panic!("{path} is read as it stands"));
            assert!(read == "/a/b" || (path.contains("%00") && read == "/a"), "{path}: {read}");
        }
        for path in ["/a/b", "/a/b/", "/a/../b", "/a;x/b", "/v1.2/b", "/100%/b", "*"] {
            assert_eq!(lenient(path), None, "{path}");
        }
    }

    #[test]
    fn a_trailing_slash_stays() {
        for path in ["/a/", "/a//", "/a/.", "/a/b/..", "/a%2f"] {
            assert_eq!(normal(path), "/a/", "{path}");
        }
        for path in ["/", "//", "/..", "/a/.."] {
            assert_eq!(normal(path), "/", "{path}");
        }
    }

    #[test]
    fn decoding_happens_once() {
        assert_eq!(normal("/%2561"), "/%61");
        assert_eq!(normal("/%zz%4"), "/%zz%4");
        assert_eq!(normal("/%ff"), "/\u{fffd}");
        assert_eq!(normal("*"), "*");
    }
}
