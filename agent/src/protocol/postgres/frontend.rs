//! From the client to the server: every statement is judged before it is forwarded, everything else passes in runs.
//!
//! What was read and may pass is held at the head of the inbox and sent in one piece: at the latest where the server would
//! flush, so that holding cannot be noticed.

mod by_name;
mod extended;
mod verdict;

use bytes::{Buf, Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{self, Frame, HEADER_BYTES, Target, frame},
};

use super::{
    STREAM_BYTES_MIN, Steps,
    queue::{Expected, Kind},
    session::Session,
    sql::{self, Reading},
};
use crate::{flow::Side, policy::Verdict, protocol::Step};
use verdict::{Deciding, What, opaque};

/// The client's side of a session.
#[derive(Default)]
pub(super) struct Front {
    /// Bytes at the head of the inbox that were read and may pass.
    held: usize,
    /// Of those, up to the last message behind which the server flushes.
    flushed: usize,
    deciding: Option<Deciding>,
    /// The portal of the Execute that waits for a verdict.
    executing: Bytes,
    verdict: Option<(Verdict, u64)>,
    /// A message was refused: everything up to Sync is dropped, as a server does after an error.
    skips: bool,
    /// Bytes of a refused message that are still to come.
    discards: usize,
    /// Bytes of a passing message that are still to come.
    streams: usize,
    /// Counts Syncs.
    batch: u64,
    /// Something of this batch has been executed.
    executed: bool,
    /// Something of this batch has been bound, so its functions may have run.
    bound: bool,
    /// A statement of this batch changes what later ones mean.
    settles: bool,
    /// Wait for every answer before the next statement is read.
    barrier: bool,
    flush_sent: bool,
}

impl Session {
    pub(super) fn decided(&mut self, verdict: &Verdict, number: u64) {
        self.front.verdict = Some((verdict.clone(), number));
    }

    /// Takes what can be taken from the client's inbox.
    pub(super) fn downstream(&mut self, input: &mut BytesMut, steps: &mut Steps) -> Result<(), WireError> {
        if self.starting || self.fetching {
            return Ok(());
        }
        if let Some(deciding) = self.front.deciding.take() {
            let Some((verdict, number)) = self.front.verdict.take() else {
                self.front.deciding = Some(deciding);
                return Ok(());
            };
            self.resolve(deciding, &verdict, number, input, steps);
        }
        while self.front.deciding.is_none() && self.advance(input, steps)? {}
        if self.front.deciding.is_none() {
            self.send_held(input, steps);
        }
        Ok(())
    }

    /// Takes one message, or a piece of one; false when nothing more can be taken now.
    fn advance(&mut self, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        if self.front.discards > 0 {
            let count = self.front.discards.min(input.len());
            input.advance(count);
            self.front.discards -= count;
            return Ok(count > 0);
        }
        let available = input.len().saturating_sub(self.front.held);
        if self.front.streams > 0 {
            let count = self.front.streams.min(available);
            self.front.held += count;
            self.front.streams -= count;
            return Ok(count > 0);
        }
        if self.is_blocked(input, steps) || self.refresh(steps) {
            return Ok(false);
        }
        let Some(outline) = frame(input.get(self.front.held..).unwrap_or_default())? else {
            return Ok(false);
        };
        if self.front.skips && !matches!(outline.tag, b'S' | b'X') {
            self.drop_message(outline.length, input, steps);
            return Ok(true);
        }
        self.take(outline, input, steps)
    }

    fn take(&mut self, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        if self.queue.copies_in() && matches!(outline.tag, b'B' | b'C' | b'D' | b'E' | b'F' | b'P' | b'Q') {
            return Err(WireError::Unexpected { what: "frontend message among copy data" });
        }
        match outline.tag {
            b'Q' | b'P' if outline.length > STATEMENT_BYTES_MAX + HEADER_BYTES => self.oversized(outline, input, steps),
            b'd' => Ok(self.pass(outline, input)),
            b'F' => {
                self.decide(outline, What::Function, opaque(b"", "a call through the function protocol"), input, steps);
                Ok(true)
            }
            b'B' if outline.length > STREAM_BYTES_MIN => self.big_bind(outline, input),
            b'B' | b'C' | b'D' | b'E' | b'H' | b'P' | b'Q' | b'S' | b'X' | b'c' | b'f' => self.whole(outline, input, steps),
            _ => Err(WireError::Unexpected { what: "frontend message type" }),
        }
    }

    /// Takes a message that must be read as a whole.
    fn whole(&mut self, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        let limit = match outline.tag {
            b'B' => STREAM_BYTES_MIN,
            b'P' | b'Q' => STATEMENT_BYTES_MAX + HEADER_BYTES,
            b'H' | b'S' | b'X' | b'c' => HEADER_BYTES,
            _ => NAMING_BYTES_MAX,
        };
        if outline.length > limit {
            return Err(WireError::Limit { what: "frontend message bytes", actual: outline.length as u64, limit: limit as u64 });
        }
        let Some(body) = outline.body(input.get(self.front.held..).unwrap_or_default()) else {
            return Ok(false);
        };
        match outline.tag {
            b'B' => {
                let bind = postgres::bind(body)?;
                self.bind(bind.portal, bind.statement);
            }
            b'C' => {
                let (statement, name) = match postgres::target(body)? {
                    Target::Portal(name) => (false, name),
                    Target::Statement(name) => (true, name),
                };
                self.expect(Kind::Close { statement, name: Bytes::copy_from_slice(name) }, 0, false);
            }
            b'D' => self.describe(postgres::target(body)?),
            b'E' => {
                let portal = self.portal(postgres::execute(body)?.portal);
                return Ok(self.execute(portal, outline, input, steps));
            }
            b'P' => {
                let parse = postgres::parse(body)?;
                if self.must_wait(parse.text) {
                    return self.wait(input, steps);
                }
                let (name, reading) = (Bytes::copy_from_slice(parse.name), self.read(parse.text));
                return Ok(self.parse(name, &reading, outline, input, steps));
            }
            b'Q' => {
                let text = postgres::text(body)?;
                if self.must_wait(text) {
                    return self.wait(input, steps);
                }
                let reading = self.read(text);
                return Ok(self.query(&reading, outline, input, steps));
            }
            b'S' => self.sync(),
            b'c' | b'f' => self.queue.copy_ended(),
            _ => {}
        }
        self.front.held += outline.length;
        if matches!(outline.tag, b'H' | b'S' | b'X') {
            self.front.flushed = self.front.held;
        }
        Ok(true)
    }

    /// Passes a message on without keeping it, even if most of it is still to come.
    fn pass(&mut self, outline: Frame, input: &BytesMut) -> bool {
        let available = input.len().saturating_sub(self.front.held).min(outline.length);
        self.front.held += available;
        self.front.streams = outline.length - available;
        true
    }

    fn drop_message(&mut self, length: usize, input: &mut BytesMut, steps: &mut Steps) {
        self.send_held(input, steps);
        let count = length.min(input.len());
        input.advance(count);
        self.front.discards = length - count;
    }

    fn send_held(&mut self, input: &mut BytesMut, steps: &mut Steps) {
        let count = self.front.held.min(input.len());
        if count > 0 {
            steps.push_back(Step::Send { to: Side::Upstream, bytes: input.split_to(count).freeze() });
        }
        self.front.held = 0;
        self.front.flushed = 0;
        self.report(steps);
    }

    /// True while earlier answers must come first.
    fn is_blocked(&mut self, input: &mut BytesMut, steps: &mut Steps) -> bool {
        self.front.barrier &= !self.queue.is_empty();
        if self.queue.is_full() || self.front.barrier {
            self.send_held(input, steps);
            if self.queue.needs_flush() && !std::mem::replace(&mut self.front.flush_sent, true) {
                steps.push_back(Step::Send { to: Side::Upstream, bytes: postgres::flush() });
            }
            return true;
        }
        self.front.flush_sent = false;
        false
    }

    /// True if what the text means may depend on a statement that is not answered yet.
    fn must_wait(&self, text: &[u8]) -> bool {
        !self.queue.is_empty() && !text.iter().all(|byte| byte.is_ascii() && *byte != b'\\')
    }

    /// Reads nothing more until every answer has come.
    fn wait(&mut self, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        self.front.barrier = true;
        Ok(!self.is_blocked(input, steps))
    }

    /// Reads a text as the server will. What it would read by other rules than ours is unreadable to us.
    fn read(&self, text: &[u8]) -> Reading {
        let reading = sql::read(text);
        // A server reports a changed setting no earlier than at the end of a batch.
        let doubtful = self.front.bound && text.contains(&b'\\');
        let doubt = "a backslash, which an earlier statement of the same batch may have given another meaning";
        match self.lexing.objection(text).or(doubtful.then_some(doubt)) {
            Some(objection) => reading.made_unreadable(objection),
            None => reading,
        }
    }

    fn expect(&mut self, kind: Kind, number: u64, sensitive: bool) {
        self.queue.push(Expected { kind, number, sensitive });
    }
}

/// A Query or Parse over this is refused without being kept.
pub(super) const STATEMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message that only names things.
const NAMING_BYTES_MAX: usize = 64 * 1024;
