//! Finds known secrets in bytes: as they are, with JSON escapes decoded, and with percent-encoding decoded.
//!
//! An automaton (Aho-Corasick, every overlapping match) runs only where a gate of four-byte windows lets it: clean text costs one
//! hash for four bytes. The decoded views run only from an escape for as long as a match may still come of it; elsewhere they
//! would see what the plain view sees.

use std::{collections::HashMap, ops::Range};

use aho_corasick::{
    Anchored, MatchKind,
    automaton::{Automaton, StateID},
    nfa::contiguous::NFA,
};

use super::forms::Form;

pub(super) struct Scanner {
    automaton: NFA,
    start: StateID,
    /// Bytes of the longest form prefix that each state stands for.
    depths: HashMap<StateID, usize>,
    longest: usize,
    gate: Gate,
}

/// What a scan saw.
pub(super) struct Scan {
    /// Where known secrets stand; sorted, not overlapping.
    pub(super) ranges: Vec<Range<usize>>,
    /// Where each view must start again once more bytes have come. Before the least of them everything is settled.
    pub(super) plain: usize,
    pub(super) views: Views,
}

/// Where the next unit of each decoded view begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Views {
    json: usize,
    /// JSON within a string of JSON.
    nested: usize,
    percent: usize,
}

impl Views {
    /// The views of what is left once the first `settled` bytes are gone.
    pub(super) fn after(self, settled: usize) -> Self {
        let left = |at: usize| at.saturating_sub(settled);
        Self { json: left(self.json), nested: left(self.nested), percent: left(self.percent) }
    }
}

impl Scan {
    pub(super) fn settled(&self) -> usize {
        self.plain.min(self.views.json).min(self.views.nested).min(self.views.percent)
    }
}

impl Scanner {
    /// `None` when the forms are too many for the automaton.
    pub(super) fn new(forms: &[Form]) -> Option<Self> {
        let automaton =
            NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(forms.iter().map(|f| f.as_slice())).ok()?;
        let start = automaton.start_state(Anchored::No).ok()?;
        let mut depths = HashMap::new();
        for form in forms {
            let mut state = start;
            for (index, &byte) in form.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, byte);
                depths.insert(state, index + 1);
            }
        }
        let longest = forms.iter().map(|form| form.len()).max()?;
        Some(Self { automaton, start, depths, longest, gate: Gate::new(forms) })
    }

    /// Scans a text whose units start where `views` says. With `last` nothing will
    /// follow: an unfinished escape is then plain text.
    pub(super) fn scan(&self, text: &[u8], views: Views, last: bool) -> Scan {
        let mut ranges = Vec::new();
        let state = self.literal(text, 0, text.len(), &mut |range| ranges.push(range));
        let plain = text.len() - self.depth(state);
        let json = self.decoded(text, views.json, plain, b'\\', json_unit, last, &mut ranges);
        let nested = self.decoded(text, views.nested, plain, b'\\', nested_unit, last, &mut ranges);
        let percent = self.decoded(text, views.percent, plain, b'%', percent_unit, last, &mut ranges);
        merge(&mut ranges);
        Scan { ranges, plain, views: Views { json, nested, percent } }
    }

    /// Runs over bytes as they are, from no prefix seen; the state at `to`.
    fn literal(&self, text: &[u8], from: usize, to: usize, found: &mut dyn FnMut(Range<usize>)) -> StateID {
        let mut at = from;
        loop {
            // `until`: as far as the automaton must run before the gate may judge again.
            let (start, until) = self.gate.next(text, at, to);
            let mut state = self.start;
            at = start;
            for &byte in text.get(start..to).unwrap_or_default() {
                state = self.automaton.next_state(Anchored::No, state, byte);
                at += 1;
                if self.automaton.is_match(state) {
                    found(at.saturating_sub(self.longest_match(state))..at);
                }
                if state == self.start && at >= until {
                    break;
                }
            }
            if at >= to {
                return state;
            }
        }
    }

    /// Runs over the decoded text around each escape; where it must start again when more comes.
    #[expect(clippy::too_many_arguments, reason = "one call a view; a struct would only rename them")]
    fn decoded(
        &self,
        text: &[u8],
        from: usize,
        plain: usize,
        lead: u8,
        unit: fn(&[u8], bool) -> Unit,
        last: bool,
        ranges: &mut Vec<Range<usize>>,
    ) -> usize {
        let mut at = from;
        // Where the unit of each decoded byte starts, from the escape on.
        let mut starts: Vec<usize> = Vec::new();
        while let Some(found) = memchr::memchr(lead, text.get(at..).unwrap_or_default()) {
            let escape = at + found;
            let mut state = self.literal(text, escape.saturating_sub(self.longest).max(at), escape, &mut |_| {});
            starts.clear();
            at = escape;
            let begin = |starts: &[usize], length: usize| match starts.len().checked_sub(length) {
                Some(index) => starts.get(index).copied().unwrap_or(escape),
                None => escape.saturating_sub(length - starts.len()),
            };
            loop {
                let Unit::Bytes { raw, decoded, length } = unit(text.get(at..).unwrap_or_default(), last) else {
                    // The end, perhaps amid an escape: what is in progress starts the next scan.
                    let depth = self.depth(state);
                    return if depth == 0 { at } else { begin(&starts, depth) };
                };
                for &byte in decoded.iter().take(length) {
                    starts.push(at);
                    state = self.automaton.next_state(Anchored::No, state, byte);
                    if self.automaton.is_match(state) {
                        ranges.push(begin(&starts, self.longest_match(state))..at + raw);
                    }
                }
                at += raw;
                if state == self.start && text.get(at).is_some_and(|&byte| byte != lead) {
                    break;
                }
            }
        }
        // No escape is left: from here on this view is the plain one.
        plain.max(at)
    }

    fn depth(&self, state: StateID) -> usize {
        self.depths.get(&state).copied().unwrap_or(0)
    }

    fn longest_match(&self, state: StateID) -> usize {
        let lengths = (0..self.automaton.match_len(state)).map(|index| self.automaton.match_pattern(state, index));
        lengths.map(|pattern| self.automaton.pattern_len(pattern)).max().unwrap_or(0)
    }
}

fn merge(ranges: &mut Vec<Range<usize>>) {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|next, kept| {
        let overlaps = next.start < kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
        }
        overlaps
    });
}

/// A set of hashed four-byte windows: text in which none of them is seen holds no form.
struct Gate {
    bits: Vec<u64>,
    /// Every form is at least seven bytes long: one window in four suffices, because each form has one at every phase.
    strides: bool,
}

impl Gate {
    fn new(forms: &[Form]) -> Self {
        let strides = forms.iter().all(|form| form.len() >= WINDOW + STRIDE - 1);
        let mut gate = Self { bits: vec![0; GATE_BITS / 64], strides };
        for form in forms {
            for window in form.windows(WINDOW).take(if strides { STRIDE } else { 1 }) {
                let hash = hash(window);
                if let Some(word) = gate.bits.get_mut(hash / 64) {
                    *word |= 1 << (hash % 64);
                }
            }
        }
        gate
    }

    /// The first position from which a form may start, and how far the automaton must at least run from there.
    fn next(&self, text: &[u8], from: usize, to: usize) -> (usize, usize) {
        let text = text.get(from..to).unwrap_or_default();
        let hit = if self.strides {
            text.chunks_exact(WINDOW).position(|window| self.has(window)).map(|index| index * STRIDE)
        } else {
            text.windows(WINDOW).position(|window| self.has(window))
        };
        match hit {
            Some(window) => (from + window.saturating_sub(STRIDE - 1), from + window + WINDOW),
            // What starts behind the last whole window was not judged.
            None => {
                let judged = if self.strides { text.len() / WINDOW * WINDOW } else { (text.len() + 1).saturating_sub(WINDOW) };
                (from + judged.saturating_sub(STRIDE - 1), to)
            }
        }
    }

    fn has(&self, window: &[u8]) -> bool {
        let hash = hash(window);
        self.bits.get(hash / 64).is_some_and(|word| word & (1 << (hash % 64)) != 0)
    }
}

const WINDOW: usize = 4;
const STRIDE: usize = 4;
const GATE_BITS: usize = 1 << 17;

/// Multiplicative hashing (Knuth, 6.4): the upper bits of a product with an odd constant.
fn hash(window: &[u8]) -> usize {
    let word = match *window {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    (word.wrapping_mul(0x9e37_79b1) >> 15) as usize
}

/// The next piece of an encoded text.
pub(super) enum Unit {
    /// `raw` bytes of text stand for `length` bytes.
    Bytes { raw: usize, decoded: [u8; 4], length: usize },
    /// More text is needed to tell; also at the end of it.
    Partial,
}

impl Unit {
    fn one(raw: usize, byte: u8) -> Self {
        Self::Bytes { raw, decoded: [byte, 0, 0, 0], length: 1 }
    }
}

/// A character of a JSON string (RFC 8259, section 7). What is no escape stands for itself.
pub(super) fn json_unit(text: &[u8], last: bool) -> Unit {
    let (first, rest) = match text {
        [] => return Unit::Partial,
        [b'\\', rest @ ..] => (b'\\', rest),
        [byte, ..] => return Unit::one(1, *byte),
    };
    match rest {
        [] if !last => Unit::Partial,
        [b'u', digits @ ..] => match hexadecimal(digits, 4) {
            Hex::Value(high @ 0xd800..=0xdbff) => match digits.get(4..).unwrap_or_default() {
                [] | [b'\\'] if !last => Unit::Partial,
                [b'\\', b'u', digits @ ..] => match hexadecimal(digits, 4) {
                    Hex::Value(low @ 0xdc00..=0xdfff) => character(12, 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
                    Hex::Partial if !last => Unit::Partial,
                    _ => character(6, high),
                },
                _ => character(6, high),
            },
            Hex::Value(value) => character(6, value),
            Hex::Partial if !last => Unit::Partial,
            Hex::Partial | Hex::Invalid => Unit::one(1, first),
        },
        [byte @ (b'"' | b'\\' | b'/'), ..] => Unit::one(2, *byte),
        [b'b', ..] => Unit::one(2, 8),
        [b'f', ..] => Unit::one(2, 12),
        [b'n', ..] => Unit::one(2, b'\n'),
        [b'r', ..] => Unit::one(2, b'\r'),
        [b't', ..] => Unit::one(2, b'\t'),
        _ => Unit::one(1, first),
    }
}

/// A character of a JSON string within a JSON string: escaped twice.
fn nested_unit(text: &[u8], last: bool) -> Unit {
    let mut inner = Vec::with_capacity(16);
    // Where the outer unit behind each inner byte ends.
    let mut ends = Vec::with_capacity(16);
    let mut at = 0;
    loop {
        let more = match json_unit(text.get(at..).unwrap_or_default(), last) {
            // Only a backslash begins an inner escape.
            unit @ Unit::Bytes { decoded, length, .. } if inner.is_empty() && (length > 1 || decoded.first() != Some(&b'\\')) => {
                return unit;
            }
            Unit::Bytes { raw, decoded, length } => {
                at += raw;
                inner.extend(decoded.iter().take(length));
                ends.resize(inner.len(), at);
                true
            }
            Unit::Partial if inner.is_empty() => return Unit::Partial,
            Unit::Partial => false,
        };
        match json_unit(&inner, !more && last) {
            Unit::Bytes { raw, decoded, length } => {
                let raw = raw.checked_sub(1).and_then(|index| ends.get(index)).copied().unwrap_or(at);
                return Unit::Bytes { raw, decoded, length };
            }
            Unit::Partial if more => {}
            Unit::Partial => return Unit::Partial,
        }
    }
}

/// A byte of percent-encoded text (RFC 3986, section 2.1). What is no escape stands for itself.
pub(super) fn percent_unit(text: &[u8], last: bool) -> Unit {
    match text {
        [] => Unit::Partial,
        [b'%', digits @ ..] => match hexadecimal(digits, 2) {
            Hex::Value(value) => Unit::one(3, u8::try_from(value).unwrap_or(b'%')),
            Hex::Partial if !last => Unit::Partial,
            Hex::Partial | Hex::Invalid => Unit::one(1, b'%'),
        },
        [byte, ..] => Unit::one(1, *byte),
    }
}

fn character(raw: usize, value: u32) -> Unit {
    let mut decoded = [0; 4];
    let length = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut decoded).len();
    Unit::Bytes { raw, decoded, length }
}

enum Hex {
    Invalid,
    Partial,
    Value(u32),
}

fn hexadecimal(text: &[u8], digits: usize) -> Hex {
    let mut value = 0;
    for index in 0..digits {
        match text.get(index).map(|&byte| char::from(byte).to_digit(16)) {
            None => return Hex::Partial,
            Some(None) => return Hex::Invalid,
            Some(Some(digit)) => value = value << 4 | digit,
        }
    }
    Hex::Value(value)
}
