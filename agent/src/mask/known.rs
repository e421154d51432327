//! Secrets that weir itself injects, found in every encoding wherever they come back.
//!
//! The automaton behind a [`Scrubber`] holds the values in the clear; the agent is not dumpable.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::{
    Masked, REPLACEMENT, forms,
    scan::{Scanner, Views},
    stream::ScrubStream,
};

/// The registry: the broker adds what it reads; sessions take the current [`Scrubber`].
#[derive(Default)]
pub struct KnownSecrets {
    registry: Mutex<Registry>,
    current: ArcSwap<Scrubber>,
}

#[derive(Default)]
struct Registry {
    values: Vec<Zeroizing<Vec<u8>>>,
    forms: Vec<forms::Form>,
    forms_bytes: usize,
}

/// Why a value cannot be promised to stay hidden; whoever wanted to inject it must not.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unmaskable {
    #[error("a credential shorter than {SECRET_BYTES_MIN} bytes cannot be masked")]
    TooShort,
    #[error("no more credentials can be masked: {SECRETS_MAX} values or {FORMS_BYTES_MAX} bytes of their forms are known")]
    Full,
}

/// Every value of this length is likely to be part of something innocent.
pub const SECRET_BYTES_MIN: usize = 4;
/// Values that are known at a time. They are never forgotten: a rotated credential may still come back.
const SECRETS_MAX: usize = 4096;
/// Bytes of all forms together; the automaton takes about ten times as much.
const FORMS_BYTES_MAX: usize = 4 * 1024 * 1024;

impl KnownSecrets {
    /// Adds a value in every rendered form (shorter than 8 bytes: only as it is). Idempotent.
    ///
    /// # Errors
    /// The value is too short, or the registry is full: the value must then not be used.
    pub fn register(&self, value: &[u8]) -> Result<(), Unmaskable> {
        if value.len() < SECRET_BYTES_MIN {
            return Err(Unmaskable::TooShort);
        }
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.values.iter().any(|known| known.as_slice() == value) {
            return Ok(());
        }
        let forms = forms::of(value);
        let forms_bytes = registry.forms_bytes + forms.iter().map(|form| form.len()).sum::<usize>();
        if registry.values.len() >= SECRETS_MAX || forms_bytes > FORMS_BYTES_MAX {
            return Err(Unmaskable::Full);
        }
        let known_forms = registry.forms.len();
        registry.forms.extend(forms);
        let Some(scanner) = Scanner::new(&registry.forms) else {
            registry.forms.truncate(known_forms);
            return Err(Unmaskable::Full);
        };
        registry.forms_bytes = forms_bytes;
        registry.values.push(Zeroizing::new(value.to_vec()));
        self.current.store(Arc::new(Scrubber { scanner: Some(scanner) }));
        Ok(())
    }

    /// The masks for everything registered so far.
    #[must_use]
    pub fn scrubber(&self) -> Arc<Scrubber> {
        self.current.load_full()
    }
}

impl fmt::Debug for KnownSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownSecrets").finish_non_exhaustive()
    }
}

/// Finds and replaces every known secret, in raw, base64 (three alignments, url-safe), percent-encoded, hex and (twice) JSON-escaped form.
/// Occurrences that overlap are replaced together.
#[derive(Default)]
pub struct Scrubber {
    scanner: Option<Scanner>,
}

impl Scrubber {
    /// True when no secret is known: nothing will ever be replaced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scanner.is_none()
    }

    /// Replaces known secrets in a whole value (a cell, a header, a message). Borrowed when there were none.
    #[must_use]
    pub fn scrub<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(scanner) = &self.scanner else { return Cow::Borrowed(value) };
        let ranges = scanner.scan(value, Views::default(), true).ranges;
        if ranges.is_empty() {
            return Cow::Borrowed(value);
        }
        let mut clean = Vec::with_capacity(value.len());
        let mut at = 0;
        for range in ranges {
            clean.extend_from_slice(value.get(at..range.start).unwrap_or_default());
            clean.extend_from_slice(REPLACEMENT);
            at = range.end;
        }
        clean.extend_from_slice(value.get(at..).unwrap_or_default());
        Cow::Owned(clean)
    }

    /// True if the value holds a known secret in any form.
    #[must_use]
    pub fn finds(&self, value: &[u8]) -> bool {
        self.scanner.as_ref().is_some_and(|scanner| !scanner.scan(value, Views::default(), true).ranges.is_empty())
    }

    /// Turns bytes into text for the journal: scrubbed, then lossily decoded.
    #[must_use]
    pub fn text(&self, value: &[u8]) -> Masked {
        let clean = self.scrub(value);
        // Nearly always: looking for what is wrong takes longer than seeing that nothing is.
        match str::from_utf8(&clean) {
            Ok(text) => Masked(text.into()),
            Err(_) => Masked(String::from_utf8_lossy(&clean).into()),
        }
    }

    /// Scrubs a text that arrives in pieces.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> ScrubStream {
        ScrubStream::new(Arc::clone(self))
    }

    pub(super) fn scanner(&self) -> Option<&Scanner> {
        self.scanner.as_ref()
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
