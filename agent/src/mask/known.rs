//! Secrets that weir itself injects, found in every encoding wherever they come back.

use std::borrow::Cow;
use std::sync::Arc;

use super::Masked;

/// The registry: the broker adds what it reads; sessions take the current [`Scrubber`].
#[derive(Default)]
pub struct KnownSecrets {}

impl KnownSecrets {
    /// Adds a value (shorter than 8 bytes: only raw) in every rendered form. Idempotent; bounded.
    pub fn register(&self, value: &[u8]) {
        let _ = value;
        todo!()
    }

    /// The masks for everything registered so far.
    #[must_use]
    pub fn scrubber(&self) -> Arc<Scrubber> {
        todo!()
    }
}

/// Finds and replaces every known secret, in raw, base64 (three alignments, url-safe), percent-encoded, hex and JSON-escaped form.
#[derive(Debug)]
pub struct Scrubber {}

impl Scrubber {
    /// Replaces known secrets in a whole value (a cell, a header, a message). Borrowed when there were none.
    #[must_use]
    pub fn scrub<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        let _ = value;
        todo!()
    }

    /// True if the value holds a known secret in any form.
    #[must_use]
    pub fn finds(&self, value: &[u8]) -> bool {
        let _ = value;
        todo!()
    }

    /// Turns bytes into text for the journal: scrubbed, then lossily decoded.
    #[must_use]
    pub fn text(&self, value: &[u8]) -> Masked {
        let _ = value;
        todo!()
    }
}
