//! SCRAM-SHA-256, client side (RFC 5802, RFC 7677), with and without channel binding (RFC 5929, tls-server-end-point).
//!
//! The password is only lent; everything derived from it is wiped. The server must prove that it knows the password too:
//! without a valid signature the exchange has failed, whatever the server says next.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Secret;

/// What the client says about channel binding (the GS2 flag).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Binding {
    /// `n`: there is no TLS, or its certificate has no end-point hash.
    Absent,
    /// `p=tls-server-end-point`: the hash of the server's certificate; mechanism SCRAM-SHA-256-PLUS.
    EndPoint(Vec<u8>),
    /// `y`: we could, but the server did not offer it. A server that did offer it then knows of a man in the middle.
    NotOffered,
}

/// One exchange: `start`, `answer` the server's first message, `verify` its last.
pub struct Exchange {
    binding: Binding,
    nonce: String,
    /// `n=...,r=...`, which both sides sign.
    client_first_bare: String,
    server_signature: Option<Zeroizing<[u8; 32]>>,
}

/// Why the exchange failed. Never holds what either side sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ScramError {
    #[error("scram: {iterations} iterations are over the limit of {ITERATIONS_MAX}")]
    Iterations { iterations: u32 },
    #[error("scram: malformed {message}")]
    Malformed { message: &'static str },
    #[error("scram: the server's nonce does not extend ours")]
    Nonce,
    #[error("scram: {message} out of order")]
    Order { message: &'static str },
    #[error("scram: the server refused: {0}")]
    Refused(&'static str),
    #[error("scram: the server did not prove that it knows the password")]
    Signature,
}

impl Exchange {
    /// Begins an exchange; the second value is the client-first-message. PostgreSQL takes the user from the startup message
    /// and wants it empty here.
    #[must_use]
    pub fn start(binding: Binding) -> (Self, Vec<u8>) {
        let mut random = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut random);
        Self::start_with(binding, "", BASE64_STANDARD.encode(random))
    }

    fn start_with(binding: Binding, user: &str, nonce: String) -> (Self, Vec<u8>) {
        let client_first_bare = format!("n={user},r={nonce}");
        let first = format!("{}{client_first_bare}", binding.gs2_header()).into_bytes();
        (Self { binding, nonce, client_first_bare, server_signature: None }, first)
    }

    /// Answers the server-first-message with the client-final-message, which proves the password.
    ///
    /// # Errors
    /// The message is malformed, its nonce is not an extension of ours, or it asks for more than [`ITERATIONS_MAX`].
    pub fn answer(&mut self, password: &Secret, server_first: &[u8]) -> Result<Vec<u8>, ScramError> {
        if self.server_signature.is_some() {
            return Err(ScramError::Order { message: "server-first-message" });
        }
        let first = ServerFirst::read(server_first)?;
        if !first.nonce.starts_with(&self.nonce) || first.nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salted = salted_password(&prepared(password), &first.salt, first.iterations);
        let client_key = hmac(&*salted, b"Client Key");
        let without_proof = format!("c={},r={}", BASE64_STANDARD.encode(self.binding.input()), first.nonce);
        let signed = format!("{},{},{without_proof}", self.client_first_bare, first.text);

        let stored_key = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(*client_key)));
        let signature = hmac(&*stored_key, signed.as_bytes());
        let mut proof = client_key;
        proof.iter_mut().zip(signature.iter()).for_each(|(key, signature)| *key ^= signature);

        let server_key = hmac(&*salted, b"Server Key");
        self.server_signature = Some(hmac(&*server_key, signed.as_bytes()));
        Ok(format!("{without_proof},p={}", BASE64_STANDARD.encode(*proof)).into_bytes())
    }

    /// Checks the server-final-message, in constant time.
    ///
    /// # Errors
    /// The server reports an error, or its signature is not the one that only a holder of the password's verifier can make.
    pub fn verify(self, server_final: &[u8]) -> Result<(), ScramError> {
        let malformed = ScramError::Malformed { message: "server-final-message" };
        let expected = self.server_signature.ok_or(ScramError::Order { message: "server-final-message" })?;
        let text = std::str::from_utf8(server_final).map_err(|_| malformed.clone())?;
        let first = text.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ScramError::Refused(known_error(error)));
        }
        let signature = first.strip_prefix("v=").ok_or(malformed.clone())?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| malformed)?;
        if bool::from(signature.ct_eq(&*expected)) { Ok(()) } else { Err(ScramError::Signature) }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("answered", &self.server_signature.is_some()).finish_non_exhaustive()
    }
}

impl Binding {
    fn gs2_header(&self) -> &'static str {
        match self {
            Self::Absent => "n,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
            Self::NotOffered => "y,,",
        }
    }

    /// What `c=` carries: the header again, and the channel's own data.
    fn input(&self) -> Vec<u8> {
        let mut input = self.gs2_header().as_bytes().to_vec();
        if let Self::EndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        input
    }
}

/// `r=...,s=...,i=...`, and extensions, which we ignore unless they are mandatory (`m=`).
struct ServerFirst<'a> {
    text: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn read(message: &'a [u8]) -> Result<Self, ScramError> {
        let malformed = ScramError::Malformed { message: "server-first-message" };
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(malformed);
        }
        let text = std::str::from_utf8(message).map_err(|_| malformed.clone())?;
        let mut attributes = text.split(',');
        let mut attribute = |name: &str| attributes.next().and_then(|attribute| attribute.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (attribute("r="), attribute("s="), attribute("i=")) else {
            return Err(malformed);
        };
        let salt = BASE64_STANDARD.decode(salt).map_err(|_| malformed.clone())?;
        let iterations: u32 = iterations.parse().map_err(|_| malformed.clone())?;
        // RFC 5802, 5.1: printable, without a comma.
        if iterations == 0 || salt.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed);
        }
        if iterations > ITERATIONS_MAX {
            return Err(ScramError::Iterations { iterations });
        }
        Ok(Self { text, nonce, salt, iterations })
    }
}

/// SASLprep (RFC 4013) as PostgreSQL does it: a password that is not UTF-8 or has prohibited characters is taken as it is.
fn prepared(password: &Secret) -> Zeroizing<Vec<u8>> {
    let raw = || Zeroizing::new(password.expose().to_vec());
    let Ok(text) = std::str::from_utf8(password.expose()) else {
        return raw();
    };
    match stringprep::saslprep(text) {
        Ok(Cow::Owned(normal)) => Zeroizing::new(normal.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => raw(),
    }
}

/// PBKDF2-HMAC-SHA-256 with one block of output (RFC 5802, 2.2: `Hi`).
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    // The keyed state is prepared once: it is half of the work of every round.
    let keyed = keyed(password);
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&1_u32.to_be_bytes());
    let mut round = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
    let mut result = round.clone();
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&*round);
        *round = mac.finalize().into_bytes().into();
        result.iter_mut().zip(round.iter()).for_each(|(result, round)| *result ^= round);
    }
    result
}

fn hmac(key: &[u8], data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = keyed(key);
    mac.update(data);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104, 3)")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// The server's word, if it is one of RFC 5802, 7; the text of a stranger is not repeated.
fn known_error(error: &str) -> &'static str {
    const ERRORS: [&str; 9] = [
        "invalid-encoding",
        "extensions-not-supported",
        "invalid-proof",
        "channel-bindings-dont-match",
        "server-does-support-channel-binding",
        "channel-binding-not-supported",
        "unsupported-channel-binding-type",
        "unknown-user",
        "invalid-username-encoding",
    ];
    ERRORS.into_iter().find(|known| *known == error).unwrap_or("other-error")
}

/// More than twenty times the server's default of 4,096: a hostile server must not keep a core busy for long.
pub const ITERATIONS_MAX: u32 = 100_000;

/// As many as libpq draws.
const NONCE_BYTES: usize = 18;

/// A server-first-message is about 90 bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &[u8] =
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn pencil() -> Secret {
        Secret::new(b"pencil".to_vec())
    }

    fn rfc() -> Exchange {
        let (exchange, first) = Exchange::start_with(Binding::Absent, "user", NONCE.to_owned());
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        exchange
    }

    #[test]
    fn speaks_the_exchange_of_rfc_7677() {
        let mut exchange = rfc();
        assert_eq!(exchange.answer(&pencil(), SERVER_FIRST).unwrap(), CLIENT_FINAL);
        assert_eq!(exchange.verify(SERVER_FINAL), Ok(()));
    }

    #[test]
    fn refuses_a_wrong_server_signature() {
        let mut exchange = rfc();
        exchange.answer(&pencil(), SERVER_FIRST).unwrap();
        let wrong = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=";
        assert!(matches!(exchange.verify(wrong), Err(ScramError::Signature | ScramError::Malformed { .. })));
        let mut exchange = rfc();
        exchange.answer(&pencil(), SERVER_FIRST).unwrap();
        let wrong = format!("v={}", BASE64_STANDARD.encode([7; 32]));
        assert_eq!(exchange.verify(wrong.as_bytes()), Err(ScramError::Signature));
    }

    #[test]
    fn refuses_an_empty_or_truncated_signature() {
        for signature in ["v=", "v=6rriTRBi23WpRR/wtup+mA=="] {
            let mut exchange = rfc();
            exchange.answer(&pencil(), SERVER_FIRST).unwrap();
            assert_eq!(exchange.verify(signature.as_bytes()), Err(ScramError::Signature));
        }
    }

    #[test]
    fn refuses_a_final_message_before_the_first() {
        assert_eq!(rfc().verify(SERVER_FINAL), Err(ScramError::Order { message: "server-final-message" }));
    }

    #[test]
    fn refuses_a_second_first_message() {
        let mut exchange = rfc();
        exchange.answer(&pencil(), SERVER_FIRST).unwrap();
        assert!(matches!(exchange.answer(&pencil(), SERVER_FIRST), Err(ScramError::Order { .. })));
    }

    #[test]
    fn refuses_a_nonce_that_is_not_an_extension_of_ours() {
        let other = b"r=xOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(rfc().answer(&pencil(), other), Err(ScramError::Nonce));
        let echoed = b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(rfc().answer(&pencil(), echoed), Err(ScramError::Nonce));
    }

    #[test]
    fn takes_the_most_iterations_and_not_one_more() {
        let first = |iterations: u32| format!("r={NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i={iterations}");
        assert!(rfc().answer(&pencil(), first(ITERATIONS_MAX).as_bytes()).is_ok());
        let over = ITERATIONS_MAX + 1;
        assert_eq!(rfc().answer(&pencil(), first(over).as_bytes()), Err(ScramError::Iterations { iterations: over }));
    }

    #[test]
    fn refuses_malformed_first_messages() {
        for message in [
            &b""[..],
            b"r=",
            b"r=rOprNGfwEbeRWgbNEkqOx",
            b"m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=!,i=1",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=,i=1",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=-1",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=99999999999",
            b"\xff\xfe",
        ] {
            let answer = rfc().answer(&pencil(), message);
            assert_eq!(answer, Err(ScramError::Malformed { message: "server-first-message" }), "{message:?}");
        }
    }

    #[test]
    fn binds_the_exchange_to_the_server_certificate() {
        let (mut exchange, first) = Exchange::start_with(Binding::EndPoint(vec![1, 2, 3]), "", NONCE.to_owned());
        assert!(first.starts_with(b"p=tls-server-end-point,,n=,r="));
        let last = exchange.answer(&pencil(), SERVER_FIRST).unwrap();
        let bound = BASE64_STANDARD.encode(b"p=tls-server-end-point,,\x01\x02\x03");
        assert!(last.starts_with(format!("c={bound},r=").as_bytes()));
    }

    #[test]
    fn says_that_binding_was_not_offered() {
        let (mut exchange, first) = Exchange::start_with(Binding::NotOffered, "", NONCE.to_owned());
        assert!(first.starts_with(b"y,,n=,r="));
        assert!(exchange.answer(&pencil(), SERVER_FIRST).unwrap().starts_with(b"c=eSws,r="));
    }

    #[test]
    fn never_repeats_a_nonce() {
        assert_ne!(Exchange::start(Binding::Absent).1, Exchange::start(Binding::Absent).1);
    }

    #[test]
    fn names_the_servers_error_but_no_free_text() {
        let fails_with = |last: &[u8]| {
            let mut exchange = rfc();
            exchange.answer(&pencil(), SERVER_FIRST).unwrap();
            exchange.verify(last)
        };
        assert_eq!(fails_with(b"e=invalid-proof"), Err(ScramError::Refused("invalid-proof")));
        assert_eq!(fails_with(b"e=<script>"), Err(ScramError::Refused("other-error")));
    }

    #[test]
    fn normalises_the_password() {
        // RFC 4013, section 3: I<soft hyphen>X is IX, the feminine ordinal is a; prohibited characters are taken raw.
        let prepare = |text: &[u8]| prepared(&Secret::new(text.to_vec())).to_vec();
        assert_eq!(prepare("I\u{ad}X".as_bytes()), b"IX");
        assert_eq!(prepare("\u{aa}".as_bytes()), b"a");
        assert_eq!(prepare(b"\x07"), b"\x07");
        assert_eq!(prepare(b"\xff\xfe"), b"\xff\xfe");
    }
}
