//! Guesses the protocol of a connection from the first bytes that the client sends.

use crate::postgres;

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guess {
    /// An HTTP/1 request line (RFC 9112, 3), or the HTTP/2 preface.
    Http,
    /// A first packet of PostgreSQL 3.x, or one of its requests for encryption or cancellation.
    Postgres,
    /// A TLS ClientHello (RFC 8446, 4.1.2).
    Tls,
    Unknown,
}

/// No more bytes than this are ever needed: the longest method that is recognised, and a space.
pub const DETECT_BYTES_MAX: usize = 24;

/// Names the protocol, or `None` when more bytes are needed to tell. Decides with at most [`DETECT_BYTES_MAX`] bytes.
#[must_use]
pub fn detect(bytes: &[u8]) -> Option<Guess> {
    let mut undecided = false;
    for (guess, looks) in [
        (Guess::Postgres, postgres::looks_like(bytes)),
        (Guess::Tls, looks_like_tls(bytes)),
        (Guess::Http, looks_like_http(bytes)),
    ] {
        match looks {
            Some(true) => return Some(guess),
            Some(false) => {}
            None => undecided = true,
        }
    }
    (!undecided).then_some(Guess::Unknown)
}

/// A handshake record (22) of major version 3 whose first message is a ClientHello (1).
fn looks_like_tls(bytes: &[u8]) -> Option<bool> {
    for (at, wanted) in [(0, 22), (1, 3), (5, 1)] {
        match bytes.get(at) {
            Some(byte) if *byte == wanted => {}
            Some(_) => return Some(false),
            None => return None,
        }
    }
    Some(true)
}

/// A method token (RFC 9110, 5.6.2; upper case, as every registered one is) and a space.
fn looks_like_http(bytes: &[u8]) -> Option<bool> {
    for (at, byte) in bytes.iter().take(DETECT_BYTES_MAX).enumerate() {
        match byte {
            b' ' => return Some(at > 0),
            b'A'..=b'Z' | b'-' => {}
            _ => return Some(false),
        }
    }
    (bytes.len() >= DETECT_BYTES_MAX).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer must be the same whatever the split: `None` up to some length, then one guess for ever.
    fn settles(bytes: &[u8], expected: Guess) {
        let mut settled = false;
        for length in 0..=bytes.len() {
            match detect(&bytes[..length]) {
                None => assert!(!settled, "undecided again at {length}"),
                Some(guess) => {
                    assert_eq!(guess, expected, "at {length}");
                    settled = true;
                }
            }
        }
        assert!(settled);
    }

    #[test]
    fn recognises_http() {
        settles(b"GET / HTTP/1.1\r\n", Guess::Http);
        settles(b"PROPFIND /x HTTP/1.1\r\n", Guess::Http);
        settles(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Guess::Http);
    }

    #[test]
    fn recognises_postgres() {
        settles(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], Guess::Postgres);
        settles(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30], Guess::Postgres);
        settles(&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2], Guess::Postgres);
        settles(b"\x00\x00\x00\x12\x00\x03\x00\x00user\0ann\0\0", Guess::Postgres);
    }

    #[test]
    fn recognises_tls() {
        settles(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], Guess::Tls);
    }

    #[test]
    fn names_nothing_else() {
        settles(b"\x00\x00\x00\x08\x00\x02\x00\x00", Guess::Unknown);
        settles(b"SSH-2.0-OpenSSH_9.2p1 Debian", Guess::Unknown);
        settles(b"*1\r\n$4\r\nPING\r\n", Guess::Unknown);
        settles(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Guess::Unknown);
        settles(b" GET", Guess::Unknown);
    }
}
