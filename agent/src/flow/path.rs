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
