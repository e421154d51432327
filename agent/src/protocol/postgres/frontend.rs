//! From the client to the server: every statement is judged before it is forwarded, everything else passes in runs.
//!
//! What was read and may pass is held at the head of the inbox and sent in one piece: at the latest where the server would
//! flush, so that holding cannot be noticed.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::{Buf, Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{self, Frame, HEADER_BYTES, Target, frame},
};

use super::{
    BODY_BYTES_MAX, STREAM_BYTES_MIN, Steps,
    errors::{self, Complaint},
    names::NAMES_MAX,
    queue::{Expected, Kind, Portal, Prepared},
    rows::Mentions,
    session::Session,
    sql::{self, Reading},
};
use crate::{
    flow::{Effect, Effects, Request, Side, Statement},
    policy::Verdict,
    protocol::{Observation, StatementResult, Step},
};

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
    /// A statement of this batch changes how text is read.
    lexing_changes: bool,
    /// Wait for every answer before the next statement is read.
    barrier: bool,
    flush_sent: bool,
}

/// What waits for a verdict, and how long its message is.
struct Deciding {
    length: usize,
    what: What,
}

enum What {
    Execute(Arc<Portal>),
    Function,
    Oversized { is_query: bool },
    Parse { name: Bytes, prepared: Prepared, copies_out: bool },
    Query { mentions: Arc<Mentions>, sensitive: bool, copies_out: bool, changes_lexing: bool },
}

/// How the server reads text, as far as ours depends on it.
#[derive(Default)]
pub(super) struct Lexing {
    plain_backslashes_off: bool,
    unsafe_encoding: bool,
}

impl Lexing {
    /// Follows the server's reports.
    pub(super) fn reported(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.plain_backslashes_off = value != b"on",
            b"client_encoding" => self.unsafe_encoding = UNSAFE_ENCODINGS.contains(&value),
            _ => {}
        }
    }

    fn objection(&self) -> Option<&'static str> {
        if self.plain_backslashes_off {
            return Some("standard_conforming_strings is off");
        }
        self.unsafe_encoding.then_some("client_encoding has characters that hold ASCII bytes")
    }
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
        if self.is_blocked(input, steps) {
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
        match outline.tag {
            b'Q' | b'P' if outline.length > STATEMENT_BYTES_MAX + HEADER_BYTES => self.oversized(outline, input, steps),
            b'd' => Ok(self.pass(outline, input)),
            b'F' => {
                self.decide(outline, What::Function, opaque(b"", "a call through the function protocol"), input, steps);
                Ok(true)
            }
            b'B' if outline.length > STREAM_BYTES_MIN && self.settings.masks.is_empty() => self.big_bind(outline, input),
            b'B' | b'C' | b'D' | b'E' | b'H' | b'P' | b'Q' | b'S' | b'X' | b'c' | b'f' => self.whole(outline, input, steps),
            _ => Err(WireError::Unexpected { what: "frontend message type" }),
        }
    }

    /// Takes a message that must be read as a whole.
    fn whole(&mut self, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        let limit = match outline.tag {
            b'B' => BODY_BYTES_MAX,
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
                self.bind(bind.portal, bind.statement, bind.formats);
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
                let (name, reading) = (Bytes::copy_from_slice(parse.name), sql::read(parse.text));
                return Ok(self.parse(name, &reading, outline, input, steps));
            }
            b'Q' => {
                let reading = sql::read(postgres::text(body)?);
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

    fn query(&mut self, reading: &Reading, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> bool {
        let statement = self.as_read(reading);
        let what = What::Query {
            mentions: Arc::clone(&reading.mentions),
            sensitive: self.is_sensitive(&reading.mentions),
            copies_out: reading.verbs.iter().any(|verb| verb.copy_out),
            changes_lexing: statement.effects.contains(Effect::SessionLex),
        };
        self.decide(outline, what, statement, input, steps);
        true
    }

    fn parse(&mut self, name: Bytes, reading: &Reading, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> bool {
        let statement = self.as_read(reading);
        let prepared = Prepared {
            mentions: Some(Arc::clone(&reading.mentions)),
            sensitive: self.is_sensitive(&reading.mentions),
            changes_lexing: statement.effects.contains(Effect::SessionLex),
            statement: Arc::clone(&statement),
            number: 0,
            batch: self.front.batch,
            fresh: AtomicBool::new(true),
            described: AtomicBool::new(false),
            layout: OnceLock::new(),
        };
        let copies_out = reading.verbs.iter().any(|verb| verb.copy_out);
        self.decide(outline, What::Parse { name, prepared, copies_out }, statement, input, steps);
        true
    }

    fn bind(&mut self, portal: &[u8], statement: &[u8], formats: Vec<u16>) {
        let prepared = match self.statements.find(statement) {
            Some(prepared) => Arc::clone(prepared),
            None => self.unknown("a prepared statement that was not prepared on the wire"),
        };
        let sensitive = prepared.sensitive;
        let portal_name = Bytes::copy_from_slice(portal);
        let portal = Portal::new(prepared, formats);
        if !self.portals.is_full(&portal_name) {
            self.portals.propose(&portal_name, Arc::clone(&portal));
        }
        self.expect(Kind::Bind { name: portal_name, portal }, 0, sensitive);
    }

    /// A Bind that is too large to keep, with nothing to mask in its answer: only its names are read.
    fn big_bind(&mut self, outline: Frame, input: &mut BytesMut) -> Result<bool, WireError> {
        let start = input.get(self.front.held + HEADER_BYTES..).unwrap_or_default();
        let Some((portal, statement)) = postgres::bind_names(start) else {
            if start.len() > NAMING_BYTES_MAX {
                return Err(WireError::Malformed { what: "Bind", why: "names over their limit" });
            }
            return Ok(false);
        };
        self.bind(portal, statement, Vec::new());
        Ok(self.pass(outline, input))
    }

    fn describe(&mut self, target: Target<'_>) {
        let kind = match target {
            Target::Portal(name) => {
                let portal = self.portals.find(name).cloned();
                if let Some(portal) = &portal {
                    portal.described.store(true, Ordering::Relaxed);
                }
                Kind::DescribePortal { portal, ours: false }
            }
            Target::Statement(name) => {
                let prepared = self.statements.find(name).cloned();
                if let Some(prepared) = &prepared {
                    prepared.described.store(true, Ordering::Relaxed);
                }
                Kind::DescribeStatement { prepared }
            }
        };
        self.expect(kind, 0, false);
    }

    /// A portal by name; one that SQL declared (a cursor) is not known, and what it reads is not either.
    fn portal(&mut self, name: &[u8]) -> (Bytes, Arc<Portal>) {
        let portal = match self.portals.find(name) {
            Some(portal) => Arc::clone(portal),
            None => Portal::new(self.unknown("a portal that was not bound on the wire"), Vec::new()),
        };
        (Bytes::copy_from_slice(name), portal)
    }

    fn execute(&mut self, (name, portal): (Bytes, Arc<Portal>), outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> bool {
        let prepared = &portal.prepared;
        let is_first_of_batch = prepared.batch == self.front.batch && prepared.fresh.swap(false, Ordering::Relaxed);
        let judged = match portal.started.load(Ordering::Relaxed) {
            0 if is_first_of_batch => prepared.number,
            started => started,
        };
        if judged > 0 {
            self.run(&name, portal, judged, outline.length, input, steps);
        } else {
            let statement = Arc::clone(&prepared.statement);
            self.front.executing = name;
            self.decide(outline, What::Execute(portal), statement, input, steps);
        }
        true
    }

    /// Forwards an Execute that may pass.
    fn run(&mut self, name: &Bytes, portal: Arc<Portal>, number: u64, length: usize, input: &mut BytesMut, steps: &mut Steps) {
        portal.started.store(number, Ordering::Relaxed);
        if !self.settings.masks.is_empty() && !portal.is_described() {
            // Without a description the rows would come without names: ask for it ourselves and keep the answer.
            portal.described.store(true, Ordering::Relaxed);
            self.send_held(input, steps);
            let mut describe = BytesMut::new();
            postgres::describe_portal(&mut describe, name);
            steps.push_back(Step::Send { to: Side::Upstream, bytes: describe.freeze() });
            self.expect(Kind::DescribePortal { portal: Some(Arc::clone(&portal)), ours: true }, 0, portal.prepared.sensitive);
        }
        self.quotes_masked |= portal.prepared.sensitive;
        self.front.lexing_changes |= portal.prepared.changes_lexing;
        let sensitive = portal.prepared.sensitive;
        self.expect(Kind::Execute { portal }, number, sensitive);
        self.front.held += length;
    }

    fn sync(&mut self) {
        self.front.skips = false;
        self.front.batch += 1;
        self.front.barrier |= std::mem::take(&mut self.front.lexing_changes);
        self.expect(Kind::Sync, 0, false);
    }

    /// Passes a message on without keeping it, even if most of it is still to come.
    fn pass(&mut self, outline: Frame, input: &BytesMut) -> bool {
        let available = input.len().saturating_sub(self.front.held).min(outline.length);
        self.front.held += available;
        self.front.streams = outline.length - available;
        true
    }

    /// A statement that is not even kept: it is judged as unreadable, for the record, and refused in any case.
    fn oversized(&mut self, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        let start = input.get(self.front.held + HEADER_BYTES..).unwrap_or_default();
        let Some(excerpt) = start.get(..EXCERPT_BYTES) else {
            return Ok(false);
        };
        let statement = opaque(excerpt, "longer than the limit; only its beginning was kept");
        self.decide(outline, What::Oversized { is_query: outline.tag == b'Q' }, statement, input, steps);
        Ok(true)
    }

    fn decide(&mut self, outline: Frame, what: What, statement: Arc<Statement>, input: &mut BytesMut, steps: &mut Steps) {
        if self.front.flushed > 0 {
            let count = self.front.flushed.min(input.len());
            steps.push_back(Step::Send { to: Side::Upstream, bytes: input.split_to(count).freeze() });
            self.front.held -= count;
            self.front.flushed = 0;
        }
        self.front.deciding = Some(Deciding { length: outline.length, what });
        steps.push_back(Step::Decide(Request::Statement(statement)));
    }

    fn resolve(
        &mut self,
        Deciding { length, what }: Deciding,
        verdict: &Verdict,
        number: u64,
        input: &mut BytesMut,
        steps: &mut Steps,
    ) {
        let session = self.settings.session;
        let error = match (verdict, &what) {
            (Verdict::Deny(denied), _) => Some(errors::denial(denied, session)),
            (Verdict::Allow(_), _) => self.objection(&what, number),
        };
        if let Some(error) = error {
            let then_ready = matches!(what, What::Query { .. } | What::Function | What::Oversized { is_query: true });
            self.front.skips = !then_ready;
            self.drop_message(length, input, steps);
            self.refuse(error, then_ready, steps);
            return;
        }
        match what {
            What::Query { mentions, sensitive, changes_lexing, .. } => {
                self.quotes_masked |= sensitive;
                self.front.barrier |= changes_lexing;
                self.expect(Kind::Query { mentions: Some(mentions) }, number, sensitive);
                self.front.held += length;
                self.front.flushed = self.front.held;
            }
            What::Parse { name, mut prepared, .. } => {
                prepared.number = number;
                let (sensitive, prepared) = (prepared.sensitive, Arc::new(prepared));
                self.statements.propose(&name, Arc::clone(&prepared));
                self.expect(Kind::Parse { name, prepared }, number, sensitive);
                self.front.held += length;
            }
            What::Execute(portal) => {
                let name = std::mem::take(&mut self.front.executing);
                self.run(&name, portal, number, length, input, steps);
            }
            What::Function => {
                self.expect(Kind::Function, number, false);
                let available = input.len().saturating_sub(self.front.held).min(length);
                self.front.held += available;
                self.front.streams = length - available;
                self.front.flushed = self.front.held;
            }
            What::Oversized { .. } => {}
        }
    }

    /// What weir refuses although policy allows it: the error for the client.
    fn objection(&mut self, what: &What, number: u64) -> Option<Bytes> {
        let (code, message) = match what {
            What::Query { sensitive: true, copies_out: true, .. } => {
                ("42501", "COPY TO STDOUT of masked columns is not possible; use SELECT".to_owned())
            }
            What::Parse { prepared, copies_out: true, .. } if prepared.sensitive => {
                ("42501", "COPY TO STDOUT of masked columns is not possible; use SELECT".to_owned())
            }
            What::Parse { name, .. } if self.statements.is_full(name) => {
                ("54000", format!("more than {NAMES_MAX} prepared statements in one session"))
            }
            What::Function if !self.settings.observes => ("42501", "function calls that bypass SQL are not permitted".to_owned()),
            What::Oversized { .. } => ("54000", format!("statement is over the limit of {STATEMENT_BYTES_MAX} bytes")),
            _ => return None,
        };
        let status = format!("ERROR {code}");
        let result = StatementResult { status, ..StatementResult::default() };
        self.note(Observation::Finished { statement: number, result });
        Some(Complaint { severity: "ERROR", code, message: &message, detail: "" }.encode(self.settings.session))
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
        if self.queue.is_full() {
            self.send_held(input, steps);
            if self.queue.needs_flush() && !std::mem::replace(&mut self.front.flush_sent, true) {
                steps.push_back(Step::Send { to: Side::Upstream, bytes: postgres::flush() });
            }
            return true;
        }
        self.front.flush_sent = false;
        self.front.barrier &= !self.queue.is_empty();
        self.front.barrier
    }

    fn expect(&mut self, kind: Kind, number: u64, sensitive: bool) {
        self.queue.push(Expected { kind, number, sensitive });
    }

    fn is_sensitive(&self, mentions: &Mentions) -> bool {
        let masks = &self.settings.masks;
        !masks.is_empty() && self.catalog.as_ref().is_none_or(|catalog| masks.touches(mentions, catalog))
    }

    /// The statement as policy should see it: what the server would read by other rules than ours is unreadable to us.
    fn as_read(&self, reading: &Reading) -> Arc<Statement> {
        let Some(objection) = self.lexing.objection() else {
            return Arc::clone(&reading.statement);
        };
        let mut statement = Statement::clone(&reading.statement);
        statement.effects.insert(Effect::Unreadable);
        statement.readable = false;
        statement.unreadable_reason = Some(objection.to_owned());
        Arc::new(statement)
    }

    fn unknown(&self, why: &str) -> Arc<Prepared> {
        Arc::new(Prepared {
            statement: opaque(b"", why),
            mentions: None,
            sensitive: !self.settings.masks.is_empty(),
            changes_lexing: false,
            number: 0,
            batch: 0,
            fresh: AtomicBool::new(false),
            described: AtomicBool::new(false),
            layout: OnceLock::new(),
        })
    }
}

/// A request whose text is not there to be read.
fn opaque(text: &[u8], why: &str) -> Arc<Statement> {
    Arc::new(Statement {
        text: Bytes::copy_from_slice(text),
        effects: Effects::of(&[Effect::Unreadable]),
        objects: Vec::new(),
        has_where: true,
        where_tautology: false,
        readable: false,
        unreadable_reason: Some(why.to_owned()),
        count: 1,
    })
}

/// A Query or Parse over this is refused without being kept.
pub(super) const STATEMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What of an oversized statement is shown to policy and journal.
const EXCERPT_BYTES: usize = 1024;

/// A message that only names things.
const NAMING_BYTES_MAX: usize = 64 * 1024;

/// Client encodings in which a byte below 128 may be part of another character, so that a quote is not what it seems.
const UNSAFE_ENCODINGS: &[&[u8]] = &[b"BIG5", b"GB18030", b"GBK", b"JOHAB", b"SHIFT_JIS_2004", b"SJIS", b"UHC"];
