//! Masks the values of chosen keys in texts that are not JSON but hold some: events, parts, scripts, pages, logs, JSON within
//! strings of JSON, forms and YAML.
//!
//! There is no structure to rely on, so every quoted text is looked at as a key: when a colon follows, a value does. In doubt
//! more is masked than was meant, never less. What comes out depends on the bytes alone, not on how they were cut.

mod lex;

use std::sync::Arc;

use bytes::BytesMut;

use super::{
    JsonError, JsonKeys, KEY_BYTES_MAX,
    scan::{Unit, json_unit, percent_unit},
};
use lex::{Kind, Quote, Token};

/// What a text is beyond quoted keys and their values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Text of any kind.
    Code,
    /// `application/x-www-form-urlencoded`: also `key=value`.
    Form,
    /// JSON, masked by its structure: only what stands within its strings is looked at.
    Json,
    /// YAML, logs, plain text: also `key: value` and `key=value`.
    Lines,
    /// Parts of any kind, binary ones too.
    Parts,
}

/// One text being masked. Memory: what was seen since the last quote, twice the longest key at most.
#[derive(Debug)]
pub struct EmbeddedMasker {
    keys: Arc<JsonKeys>,
    dialect: Dialect,
    state: State,
    /// A piece of which more must be seen.
    held: Vec<u8>,
    /// The end of what was seen since the last quote.
    recent: Vec<u8>,
    recent_bytes: usize,
    /// The quote before `recent`.
    opened: Option<Quote>,
    counts: Vec<u64>,
    taken: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Text,
    /// Behind a key: a colon makes it one.
    Separator {
        key: usize,
        spelling: Spelling,
    },
    /// Behind the colon.
    Value {
        key: usize,
        spelling: Spelling,
    },
    /// Within a masked value.
    String {
        quote: Quote,
        raw: Vec<u8>,
    },
    Nest {
        depth: u64,
        within: Option<Quote>,
        level: Quote,
    },
    Token {
        level: Quote,
        until: Until,
    },
    /// Behind `key:` at the start of a line: to the end of the line, and of what is further in.
    Block {
        key: usize,
        indent: usize,
        masked: bool,
    },
    /// At the start of a line behind a block's.
    BlockLine {
        key: usize,
        indent: usize,
        masked: bool,
        pending: Vec<u8>,
        column: usize,
    },
    Failed(JsonError),
}

/// How a key's quotes are written: a masked object is put between the same. Empty for a key without.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Spelling {
    quote: Quote,
    raw: Vec<u8>,
}

/// Where a value ends that has no quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Until {
    Delimiter,
    LineEnd,
    /// A form's value: at the next `&`.
    Pair,
}

/// Raw bytes of a key: every byte of it may be escaped in a string within a string.
const RECENT_BYTES_MAX: usize = KEY_BYTES_MAX * 8;
/// Blank lines that are kept until it is known whether a block goes on.
const PENDING_BYTES_MAX: usize = 4096;
const PLAIN: Quote = Quote { mark: b'"', encoded: false, level: 0 };

impl EmbeddedMasker {
    #[must_use]
    pub fn new(keys: Arc<JsonKeys>, dialect: Dialect) -> Self {
        let counts = vec![0; keys.keys.len()];
        Self {
            keys,
            dialect,
            state: State::Text,
            held: Vec::new(),
            recent: Vec::new(),
            recent_bytes: 0,
            opened: None,
            counts,
            taken: 0,
        }
    }

    /// How many values were masked, by key in the order of `JsonKeys::new`.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Appends the masked form of `input` to `out`.
    ///
    /// # Errors
    /// The text is in an encoding that is not read: nothing after what was appended so far may pass.
    pub fn push(&mut self, input: &[u8], out: &mut BytesMut) -> Result<(), JsonError> {
        if self.held.is_empty() {
            let taken = self.take(input, false, out)?;
            self.held.extend_from_slice(input.get(taken..).unwrap_or_default());
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(input);
        let taken = self.take(&held, false, out)?;
        held.drain(..taken);
        self.held = held;
        Ok(())
    }

    /// Appends what was held back: nothing follows.
    ///
    /// # Errors
    /// As `push`.
    pub fn finish(&mut self, out: &mut BytesMut) -> Result<(), JsonError> {
        let held = std::mem::take(&mut self.held);
        self.take(&held, true, out)?;
        if let State::BlockLine { pending, .. } = &self.state {
            out.extend_from_slice(pending);
        }
        Ok(())
    }

    /// Takes every whole piece; how many bytes they have.
    fn take(&mut self, text: &[u8], last: bool, out: &mut BytesMut) -> Result<usize, JsonError> {
        let mut at = 0;
        while at < text.len() {
            if self.state == State::Text {
                let rest = text.get(at..).unwrap_or_default();
                let plain = rest.iter().position(|byte| self.matters(*byte)).unwrap_or(rest.len());
                let (plain, _) = rest.split_at(plain);
                out.extend_from_slice(plain);
                self.remember(plain);
                self.taken += plain.len() as u64;
                at += plain.len();
            }
            let rest = text.get(at..).unwrap_or_default();
            let Some(token) = lex::next(rest, self.dialect == Dialect::Form, last) else { break };
            let raw = rest.get(..token.length).unwrap_or_default();
            self.step(token, raw, out);
            if let State::Failed(error) = self.state {
                return Err(error);
            }
            at += token.length;
            self.taken += token.length as u64;
        }
        Ok(at)
    }

    /// Bytes that may begin a piece that changes anything.
    fn matters(&self, byte: u8) -> bool {
        match byte {
            b'"' | b'\'' | b'\\' | b'&' => true,
            0 => self.dialect != Dialect::Parts,
            0xfe | 0xff => self.taken == 0,
            b'%' | b'=' => matches!(self.dialect, Dialect::Form | Dialect::Lines),
            b':' => self.dialect == Dialect::Lines,
            _ => false,
        }
    }

    fn step(&mut self, token: Token, raw: &[u8], out: &mut BytesMut) {
        // A text in UTF-16 or UTF-32 begins with a mark, or has zeros in it.
        let unreadable = raw == b"\0" || (self.taken == 0 && matches!(raw, [0xfe | 0xff]));
        if unreadable && !matches!(self.dialect, Dialect::Json | Dialect::Parts) {
            self.state = State::Failed(JsonError::Malformed(self.taken));
            return;
        }
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text(token, raw, out),
            State::Separator { key, spelling } => match token.kind {
                Kind::Space => self.pass(State::Separator { key, spelling }, raw, out),
                Kind::Byte(b':') => self.pass(State::Value { key, spelling }, raw, out),
                _ => self.text(token, raw, out),
            },
            State::Value { key, spelling } => self.value(key, spelling, token, raw, out),
            State::String { quote, raw: opened } => {
                if self.ends_outside(quote, token, raw) {
                    self.text(token, raw, out);
                } else if token.kind == Kind::Quote(quote) {
                    self.forget(None);
                    // Backslashes before the closing quote are the value's.
                    out.extend_from_slice(&opened);
                } else {
                    self.state = State::String { quote, raw: opened };
                }
            }
            State::Nest { depth, within, level } => self.nest(depth, within, level, token, raw, out),
            State::Token { level, until } => {
                let line_end = raw == b"\n";
                let end = match until {
                    Until::Delimiter => match token.kind {
                        Kind::Byte(b',' | b'}' | b']' | b';' | b'<') => true,
                        // A value without quotes may have white space in it where lines end values.
                        Kind::Space => self.dialect != Dialect::Lines || line_end || raw.len() > 1,
                        _ => self.ends_outside(level, token, raw),
                    },
                    Until::LineEnd => line_end,
                    Until::Pair => line_end || raw == b"&",
                };
                if end {
                    self.text(token, raw, out);
                } else {
                    self.state = State::Token { level, until };
                }
            }
            State::Block { key, indent, masked } => self.block(key, indent, masked, raw, out),
            State::BlockLine { key, indent, masked, pending, column } => {
                self.block_line(key, indent, masked, pending, column, token, raw, out);
            }
            State::Failed(error) => self.state = State::Failed(error),
        }
    }

    fn pass(&mut self, state: State, raw: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(raw);
        self.state = state;
    }

    fn text(&mut self, token: Token, raw: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(raw);
        match token.kind {
            Kind::Quote(quote) => {
                let closes = self.opened == Some(quote) && self.recent_bytes <= RECENT_BYTES_MAX;
                // JSON's own keys were masked by its structure.
                let structural = self.dialect == Dialect::Json && quote == PLAIN;
                let key = if closes && !structural { self.key(&self.recent) } else { None };
                self.forget(Some(quote));
                if let Some(key) = key {
                    self.state = State::Separator { key, spelling: Spelling { quote, raw: raw.to_vec() } };
                }
            }
            Kind::Byte(byte @ (b':' | b'=')) if raw.len() == 1 => {
                self.unquoted(byte);
                self.remember(raw);
            }
            _ => self.remember(raw),
        }
    }

    /// A key without quotes before a colon or an equals sign.
    fn unquoted(&mut self, separator: u8) {
        let recent = self.recent.get(self.recent.len().saturating_sub(RECENT_BYTES_MAX)..).unwrap_or_default();
        let spelling = Spelling { quote: PLAIN, raw: Vec::new() };
        if self.dialect == Dialect::Form {
            let start = recent.iter().rposition(|byte| matches!(byte, b'&' | b'\n' | b'=')).map_or(0, |found| found + 1);
            if let (b'=', Some(key)) = (separator, self.key(&decode_form(recent.get(start..).unwrap_or_default()))) {
                self.state = State::Value { key, spelling };
            }
            return;
        }
        if self.dialect != Dialect::Lines {
            return;
        }
        let word = recent.trim_ascii_end();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || *byte >= 0x80;
        let start = word.iter().rposition(|byte| !is_word(byte)).map_or(0, |found| found + 1);
        let Some(key) = self.key(word.get(start..).unwrap_or_default()) else { return };
        let line = recent.get(..start).unwrap_or_default();
        let line = line.iter().rposition(|byte| *byte == b'\n').map(|end| line.get(end + 1..).unwrap_or_default()).or((self
            .opened
            .is_none()
            && self.recent_bytes <= RECENT_BYTES_MAX)
            .then_some(line));
        self.state = match line {
            Some(before) if before.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'-' | b'?')) => {
                State::Block { key, indent: before.len(), masked: false }
            }
            _ => State::Value { key, spelling },
        };
    }

    fn value(&mut self, key: usize, spelling: Spelling, token: Token, raw: &[u8], out: &mut BytesMut) {
        let level = spelling.quote;
        if spelling.raw.is_empty() {
            return self.unquoted_value(key, spelling, raw, out);
        }
        if self.ends_outside(level, token, raw) {
            return self.text(token, raw, out);
        }
        match token.kind {
            Kind::Space => return self.pass(State::Value { key, spelling }, raw, out),
            Kind::Quote(quote) => {
                out.extend_from_slice(raw);
                out.extend_from_slice(b"***");
                self.state = State::String { quote, raw: raw.to_vec() };
            }
            Kind::Byte(b'{' | b'[') => {
                for part in [&*spelling.raw, b"***", &*spelling.raw] {
                    out.extend_from_slice(part);
                }
                self.state = State::Nest { depth: 1, within: None, level };
            }
            Kind::Byte(b',' | b'}' | b']') => return self.text(token, raw, out),
            Kind::Byte(_) | Kind::Backslashes => {
                out.extend_from_slice(b"null");
                self.state = State::Token { level, until: Until::Delimiter };
            }
        }
        self.count(key);
    }

    /// Behind `key=`: nothing tells where the value ends but the end of the line or the pair.
    fn unquoted_value(&mut self, key: usize, spelling: Spelling, raw: &[u8], out: &mut BytesMut) {
        let until = if self.dialect == Dialect::Form { Until::Pair } else { Until::LineEnd };
        let empty = raw == b"\n" || (until == Until::Pair && raw == b"&");
        if empty || matches!(raw, b" " | b"\t" | b"\r") {
            out.extend_from_slice(raw);
            self.remember(raw);
            self.state = if empty { State::Text } else { State::Value { key, spelling } };
            return;
        }
        out.extend_from_slice(b"***");
        self.count(key);
        self.state = State::Token { level: spelling.quote, until };
    }

    fn nest(&mut self, depth: u64, within: Option<Quote>, level: Quote, token: Token, raw: &[u8], out: &mut BytesMut) {
        if self.ends_outside(level, token, raw) {
            return self.text(token, raw, out);
        }
        let (depth, within) = match (token.kind, within) {
            (Kind::Quote(quote), Some(open)) if quote == open => (depth, None),
            (Kind::Quote(quote), None) if quote.level == level.level => (depth, Some(quote)),
            (Kind::Byte(b'{' | b'['), None) => (depth.saturating_add(1), None),
            (Kind::Byte(b'}' | b']'), None) => (depth - 1, None),
            (_, within) => (depth, within),
        };
        if depth == 0 {
            self.forget(None);
        } else {
            self.state = State::Nest { depth, within, level };
        }
    }

    /// The text that the key stands in ends here, and with it whatever the key names.
    fn ends_outside(&self, within: Quote, token: Token, raw: &[u8]) -> bool {
        match token.kind {
            Kind::Quote(quote) => {
                let outer = quote.level < within.level && quote.mark == within.mark && !quote.encoded;
                let attribute = within.encoded && within.level == 0 && self.dialect != Dialect::Form;
                outer || (quote == PLAIN && (self.dialect == Dialect::Json || attribute))
            }
            // A form's next pair; an entity is a quote, so a lone `&` is that.
            Kind::Byte(b'&') => self.dialect == Dialect::Form && raw == b"&",
            _ => false,
        }
    }

    fn block(&mut self, key: usize, indent: usize, mut masked: bool, raw: &[u8], out: &mut BytesMut) {
        if raw == b"\n" {
            self.state = State::BlockLine { key, indent, masked, pending: raw.to_vec(), column: 0 };
            return;
        }
        if !masked && matches!(raw, b" " | b"\t" | b"\r") {
            out.extend_from_slice(raw);
        } else if !masked {
            out.extend_from_slice(b"***");
            self.count(key);
            masked = true;
        }
        self.state = State::Block { key, indent, masked };
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one state")]
    fn block_line(
        &mut self,
        key: usize,
        indent: usize,
        masked: bool,
        mut pending: Vec<u8>,
        column: usize,
        token: Token,
        raw: &[u8],
        out: &mut BytesMut,
    ) {
        if matches!(raw, b" " | b"\t" | b"\r" | b"\n") {
            if pending.len() < PENDING_BYTES_MAX {
                pending.extend_from_slice(raw);
            }
            let column = if raw == b"\n" { 0 } else { column + 1 };
            self.state = State::BlockLine { key, indent, masked, pending, column };
        } else if column > indent || (column == indent && raw == b"-") {
            if !masked {
                // The value begins on a line of its own.
                out.extend_from_slice(b" ***");
                self.count(key);
            }
            self.state = State::Block { key, indent, masked: true };
        } else {
            out.extend_from_slice(&pending);
            self.forget(None);
            self.remember(&pending);
            self.text(token, raw, out);
        }
    }

    fn key(&self, raw: &[u8]) -> Option<usize> {
        let mut text = raw.to_vec();
        for _ in 0..DEPTH_MAX {
            if let Some(key) = self.keys.find(&text) {
                return Some(key);
            }
            if !text.contains(&b'\\') {
                return None;
            }
            text = unescape(&text);
        }
        self.keys.find(&text)
    }

    fn count(&mut self, key: usize) {
        if let Some(count) = self.counts.get_mut(key) {
            *count += 1;
        }
    }

    fn forget(&mut self, opened: Option<Quote>) {
        self.recent.clear();
        self.recent_bytes = 0;
        self.opened = opened.or(Some(PLAIN).filter(|_| self.opened.is_some()));
    }

    fn remember(&mut self, raw: &[u8]) {
        self.recent_bytes = self.recent_bytes.saturating_add(raw.len());
        self.recent.extend_from_slice(raw.get(raw.len().saturating_sub(RECENT_BYTES_MAX)..).unwrap_or_default());
        if self.recent.len() > 2 * RECENT_BYTES_MAX {
            self.recent.drain(..self.recent.len() - RECENT_BYTES_MAX);
        }
    }
}

/// Strings within strings that a key is decoded from.
const DEPTH_MAX: usize = 3;

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Unit::Bytes { raw, decoded, length } = json_unit(text.get(at..).unwrap_or_default(), true) {
        plain.extend(decoded.iter().take(length));
        at += raw;
    }
    plain
}

fn decode_form(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Unit::Bytes { raw, decoded, length } = percent_unit(text.get(at..).unwrap_or_default(), true) {
        plain.extend(decoded.iter().take(length).map(|byte| if *byte == b'+' { b' ' } else { *byte }));
        at += raw;
    }
    plain
}

#[cfg(test)]
mod tests;
