//! Scrubs known secrets from a text that arrives in pieces.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::{REPLACEMENT, Scrubber, scan::Views};

/// One text being scrubbed. What comes out depends on the bytes alone, not on how they were cut. Holds back only what may be
/// the start of a secret: at most the longest escaped form, mostly nothing.
pub struct ScrubStream {
    scrubber: Arc<Scrubber>,
    held: BytesMut,
    /// Bytes at the start of `held` for which a replacement is out already.
    covered: usize,
    /// Where in `held` the decoded views begin.
    views: Views,
    replaced: u64,
}

impl ScrubStream {
    pub(super) fn new(scrubber: Arc<Scrubber>) -> Self {
        Self { scrubber, held: BytesMut::new(), covered: 0, views: Views::default(), replaced: 0 }
    }

    /// Appends to `out` what is settled once `input` is known.
    pub fn push(&mut self, input: &[u8], out: &mut BytesMut) {
        if self.held.is_empty() {
            let settled = self.settle(input, false, out);
            self.held.extend_from_slice(input.get(settled..).unwrap_or_default());
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(input);
        let settled = self.settle(&held, false, out);
        held.advance(settled);
        self.held = held;
    }

    /// As `push`, without a copy when nothing is found. `spare` keeps its allocation from piece to piece and is empty between.
    #[must_use]
    pub fn push_bytes(&mut self, input: Bytes, spare: &mut BytesMut) -> Bytes {
        if self.held.is_empty() {
            let Some(scanner) = self.scrubber.scanner() else { return input };
            let scan = scanner.scan(&input, Views::default(), false);
            if scan.ranges.is_empty() && scan.settled() == input.len() {
                return input;
            }
        }
        self.push(&input, spare);
        spare.split().freeze()
    }

    /// Appends what was held back: nothing follows.
    pub fn finish(&mut self, out: &mut BytesMut) {
        let held = std::mem::take(&mut self.held);
        self.settle(&held, true, out);
    }

    /// How many replacements were made so far.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Writes the settled part of `text`; how long that is.
    fn settle(&mut self, text: &[u8], last: bool, out: &mut BytesMut) -> usize {
        let Some(scanner) = self.scrubber.scanner() else {
            out.extend_from_slice(text);
            return text.len();
        };
        let scan = scanner.scan(text, self.views, last);
        let settled = if last { text.len() } else { scan.settled() };
        let mut at = self.covered;
        for range in &scan.ranges {
            if range.start >= settled {
                break;
            }
            // What overlaps an earlier replacement is covered by it.
            if range.start >= at {
                out.extend_from_slice(text.get(at..range.start).unwrap_or_default());
                out.extend_from_slice(REPLACEMENT);
                self.replaced += 1;
            }
            at = at.max(range.end);
        }
        out.extend_from_slice(text.get(at..settled).unwrap_or_default());
        self.covered = at.saturating_sub(settled);
        self.views = scan.views.after(settled);
        settled
    }
}
