//! From the server to the client: rows masked, errors that may quote masked values made canonical, everything else in runs.

use std::sync::Arc;

use bytes::BytesMut;
use weir_wire::{
    WireError,
    postgres::{self, FieldDescription, Frame, TransactionStatus, frame},
};

use super::{
    BODY_BYTES_MAX, BackendKey, STREAM_BYTES_MIN, Steps, errors,
    plans::PlanId,
    queue::{Expected, Kind},
    session::Session,
};
use crate::{
    flow::{Failure, Reason, Side},
    mask::Masked,
    protocol::{Observation, StatementResult, Step},
};

/// The answer that is being given to the head of the queue.
#[derive(Default)]
pub(super) struct Running {
    rows: u64,
    bytes: u64,
    /// Of the last statement that completed, with the rows that the tags counted.
    tag: String,
    counted: Option<u64>,
    error: Option<(String, Masked)>,
    plan: Option<PlanId>,
    formats: Vec<u16>,
}

/// What becomes of one message.
enum Passage {
    Drop,
    /// Said to the client instead.
    Instead(BytesMut),
    Pass,
    /// The session ends.
    Stop(Failure),
    /// The message waits in the inbox for the catalog.
    Wait,
}

impl Session {
    /// Takes what can be taken from the server's inbox.
    pub(super) fn upstream(&mut self, input: &mut BytesMut, steps: &mut Steps) -> Result<(), WireError> {
        let mut out = BytesMut::new();
        let mut held = 0;
        let mut failure = None;
        while !self.fetching {
            if self.back_streams > 0 {
                spill(input, &mut held, &mut out);
                self.send_down(std::mem::take(&mut out).freeze(), steps);
                match self.stream(input, steps) {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(stop) => {
                        failure = Some(stop);
                        break;
                    }
                }
            }
            let rest = input.get(held..).unwrap_or_default();
            let Some(outline) = frame(rest)? else {
                break;
            };
            let Some(body) = outline.body(rest) else {
                if self.streams(outline)? {
                    continue;
                }
                failure = self.too_long(outline)?;
                break;
            };
            match self.answer(outline, body, steps)? {
                Passage::Pass => held += outline.length,
                Passage::Wait => break,
                Passage::Stop(stop) => {
                    failure = Some(stop);
                    break;
                }
                Passage::Drop => {
                    spill(input, &mut held, &mut out);
                    let _ = input.split_to(outline.length);
                }
                Passage::Instead(bytes) => {
                    spill(input, &mut held, &mut out);
                    let _ = input.split_to(outline.length);
                    out.extend_from_slice(&bytes);
                }
            }
            if self.queue.head().is_some_and(|head| matches!(head.kind, Kind::CopyEnd | Kind::Denied { .. })) {
                spill(input, &mut held, &mut out);
                self.speak(&mut out);
            }
        }
        // Nothing was rewritten: what came goes on as it is, without a copy.
        if out.is_empty() {
            out = input.split_to(held.min(input.len()));
        } else {
            spill(input, &mut held, &mut out);
        }
        self.send_down(out.freeze(), steps);
        self.report(steps);
        if let Some(failure) = failure {
            self.fail(&failure, steps);
        }
        Ok(())
    }

    /// Decides about a message that is not complete yet: true when it will be passed on in pieces.
    fn streams(&mut self, outline: Frame) -> Result<bool, WireError> {
        let may_stream = match outline.tag {
            b'D' if !self.settings.masks.is_empty() => self.row_plan()?.is_some_and(|plan| self.plans.is_noop(plan)),
            b'D' | b'd' => self.is_running(),
            _ => false,
        };
        if may_stream && outline.length > STREAM_BYTES_MIN {
            self.back_streams = outline.length;
            self.running.rows += u64::from(outline.tag == b'D');
            self.running.bytes += outline.length as u64;
            return Ok(true);
        }
        Ok(false)
    }

    /// Refuses to wait for the rest of a message that will not be kept.
    fn too_long(&self, outline: Frame) -> Result<Option<Failure>, WireError> {
        if outline.length <= BODY_BYTES_MAX {
            return Ok(None);
        }
        if outline.tag == b'D' && !self.settings.masks.is_empty() {
            let detail = format!("a row of {} bytes is over the limit of {BODY_BYTES_MAX} for masking", outline.length);
            return Ok(Some(Failure::new(Reason::MaskImpossible, detail)));
        }
        let (actual, limit) = (outline.length as u64, BODY_BYTES_MAX as u64);
        Err(WireError::Limit { what: "backend message bytes", actual, limit })
    }

    /// Passes on a piece of a large value. The end of a piece stays in the inbox until more has come, so that a secret that
    /// lies across two pieces is seen; it cannot be replaced any more, because the length was sent.
    fn stream(&mut self, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, Failure> {
        let there = self.back_streams.min(input.len());
        let piece = if there == self.back_streams { there } else { there.saturating_sub(STREAM_OVERLAP_BYTES) };
        if piece == 0 {
            return Ok(false);
        }
        if self.scrubber.finds(input.get(..there).unwrap_or_default()) {
            return Err(Failure::new(Reason::MaskImpossible, "a value too large to rewrite holds a known secret"));
        }
        self.back_streams -= piece;
        steps.push_back(Step::Send { to: Side::Downstream, bytes: input.split_to(piece).freeze() });
        Ok(true)
    }

    fn answer(&mut self, outline: Frame, body: &[u8], steps: &mut Steps) -> Result<Passage, WireError> {
        self.running.bytes += outline.length as u64;
        match outline.tag {
            b'A' => return Ok(Passage::Pass),
            b'E' => return self.error(body),
            b'N' if self.quotes_masked => return canonical(b'N', body),
            b'N' => return Ok(Passage::Pass),
            b'S' => return self.parameter(body),
            b'Z' => return self.ready(body, steps),
            b'K' if self.starting => {
                let (process, key) = postgres::backend_key(body)?;
                steps.push_back(Step::Register(BackendKey { process, key }));
                return Ok(Passage::Pass);
            }
            _ => {}
        }
        let head = self.queue.head().map(|head| &head.kind);
        match (outline.tag, head) {
            (b'D', Some(Kind::Execute { .. } | Kind::Query { .. })) => self.row(body),
            (b'C', Some(Kind::Execute { .. } | Kind::Query { .. })) => self.completed(body),
            (b'T', Some(Kind::DescribePortal { .. } | Kind::DescribeStatement { .. } | Kind::Query { .. })) => {
                self.description(body, steps)
            }
            (b'n', Some(Kind::DescribePortal { .. } | Kind::DescribeStatement { .. })) => Ok(self.described(Arc::new([]))),
            (b't', Some(Kind::DescribeStatement { .. })) | (b'V', Some(Kind::Function)) => Ok(Passage::Pass),
            (b'1', Some(Kind::Parse { .. })) | (b'2', Some(Kind::Bind { .. })) | (b'3', Some(Kind::Close { .. })) => {
                self.confirmed();
                Ok(Passage::Pass)
            }
            (b'I', Some(Kind::Query { .. })) => Ok(Passage::Pass),
            (b'I', Some(Kind::Execute { .. })) => Ok(self.executed("EMPTY")),
            (b's', Some(Kind::Execute { .. })) => Ok(self.executed("SUSPENDED")),
            (b'G', Some(Kind::Execute { .. } | Kind::Query { .. })) => {
                self.queue.copy_started();
                Ok(Passage::Pass)
            }
            (b'H', Some(Kind::Execute { .. } | Kind::Query { .. })) => Ok(self.copy_out()),
            (b'c' | b'd', Some(Kind::Execute { .. } | Kind::Query { .. })) => Ok(Passage::Pass),
            _ => Err(WireError::Unexpected { what: "backend message" }),
        }
    }

    fn is_running(&self) -> bool {
        self.queue.head().is_some_and(|head| matches!(head.kind, Kind::Execute { .. } | Kind::Query { .. }))
    }

    fn row(&mut self, body: &[u8]) -> Result<Passage, WireError> {
        self.running.rows += 1;
        if self.settings.masks.is_empty() {
            return Ok(Passage::Pass);
        }
        let Some(plan) = self.row_plan()? else {
            return Ok(Passage::Stop(Failure::new(Reason::MaskImpossible, "the server sent rows without a description")));
        };
        if self.plans.is_noop(plan) {
            return Ok(Passage::Pass);
        }
        let mut masked = BytesMut::with_capacity(body.len() + 64);
        let mut outcome = Ok(());
        postgres::message(&mut masked, b'D', |out| {
            outcome = self.plans.mask(plan, body, &self.running.formats, out);
        });
        outcome?;
        Ok(Passage::Instead(masked))
    }

    /// The plan for the head's rows. A Query's was made when they were described; an Execute's is made before its first row.
    fn row_plan(&mut self) -> Result<Option<PlanId>, WireError> {
        if let Some(plan) = self.running.plan {
            return Ok(Some(plan));
        }
        let (Some(Kind::Execute { portal }), Some(catalog)) = (self.queue.head().map(|head| &head.kind), &self.catalog) else {
            return Ok(None);
        };
        let Some(fields) = portal.layout() else {
            return Ok(None);
        };
        let plan = self.plans.plan(&self.settings.masks, fields, portal.prepared.mentions.as_ref(), catalog);
        self.running.formats = if portal.layout.get().is_some() {
            fields.iter().map(|field| field.format).collect()
        } else {
            spread(&portal.formats, fields.len())?
        };
        self.running.plan = Some(plan);
        Ok(Some(plan))
    }

    fn description(&mut self, body: &[u8], steps: &mut Steps) -> Result<Passage, WireError> {
        let Some(catalog) = self.catalog.clone().filter(|_| !self.settings.masks.is_empty()) else {
            return Ok(self.described(Arc::new([])));
        };
        let fields = self.plans.fields(body)?;
        let unknown = |oid: &u32| *oid != 0 && !catalog.knows(*oid) && !self.unknowable.contains(oid);
        let missing: Vec<u32> = fields.iter().map(|field| field.table_oid).filter(unknown).collect();
        if !missing.is_empty() {
            self.fetch(missing, steps);
            return Ok(Passage::Wait);
        }
        if let Some(Kind::Query { mentions }) = self.queue.head().map(|head| &head.kind) {
            let plan = self.plans.plan(&self.settings.masks, &fields, mentions.as_ref(), &catalog);
            if self.running.plan != Some(plan) {
                self.report_masks();
            }
            self.running.formats = fields.iter().map(|field| field.format).collect();
            self.running.plan = Some(plan);
            return Ok(Passage::Pass);
        }
        Ok(self.described(fields))
    }

    /// Ends a Describe; its fields matter to the rows that follow.
    fn described(&mut self, fields: Arc<[FieldDescription]>) -> Passage {
        if matches!(self.queue.head().map(|head| &head.kind), Some(Kind::Query { .. })) {
            return Passage::Pass;
        }
        let learned = !self.settings.masks.is_empty();
        match self.pop().map(|head| head.kind) {
            Some(Kind::DescribePortal { portal, ours }) => {
                if let Some(portal) = portal.filter(|_| learned) {
                    let _ = portal.layout.set(fields);
                }
                if ours { Passage::Drop } else { Passage::Pass }
            }
            Some(Kind::DescribeStatement { prepared }) => {
                if let Some(prepared) = prepared.filter(|_| learned) {
                    let _ = prepared.layout.set(fields);
                }
                Passage::Pass
            }
            _ => Passage::Pass,
        }
    }

    fn confirmed(&mut self) {
        match self.pop().map(|head| head.kind) {
            Some(Kind::Bind { name, portal }) => self.portals.confirm(&name, portal),
            Some(Kind::Close { statement: true, name }) => self.statements.close(&name),
            Some(Kind::Close { statement: false, name }) => self.portals.close(&name),
            Some(Kind::Parse { name, prepared }) => self.statements.confirm(&name, prepared),
            _ => {}
        }
    }

    fn completed(&mut self, body: &[u8]) -> Result<Passage, WireError> {
        let tag = postgres::command_tag(body)?;
        if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.statements.close_all();
        }
        if let Some(rows) = postgres::tag_rows(tag) {
            self.running.counted = Some(self.running.counted.unwrap_or(0).saturating_add(rows));
        }
        let tag = String::from_utf8_lossy(tag).into_owned();
        if matches!(self.queue.head().map(|head| &head.kind), Some(Kind::Execute { .. })) {
            return Ok(self.executed(&tag));
        }
        self.report_masks();
        self.running.plan = None;
        self.running.tag = tag;
        Ok(Passage::Pass)
    }

    fn executed(&mut self, status: &str) -> Passage {
        status.clone_into(&mut self.running.tag);
        if let Some(head) = self.pop_running() {
            self.finish(head);
        }
        Passage::Pass
    }

    fn copy_out(&mut self) -> Passage {
        let sensitive = self.queue.head().is_some_and(|head| head.sensitive);
        if sensitive && !self.settings.masks.is_empty() {
            return Passage::Stop(Failure::new(Reason::MaskImpossible, "the server copies out what may be masked columns"));
        }
        Passage::Pass
    }

    fn error(&mut self, body: &[u8]) -> Result<Passage, WireError> {
        let fields = postgres::error_fields(body)?;
        let code = errors::field(&fields, b'C').unwrap_or_default();
        let message = if self.quotes_masked {
            errors::condition_name(code).as_bytes()
        } else {
            errors::field(&fields, b'M').unwrap_or_default()
        };
        self.server_left |= matches!(errors::field(&fields, b'V').or(errors::field(&fields, b'S')), Some(b"FATAL" | b"PANIC"));
        let status = format!("ERROR {}", String::from_utf8_lossy(code));
        self.running.error = Some((status, self.scrubber.text(message)));
        for (position, skipped) in self.queue.failed().into_iter().enumerate() {
            if position > 0 {
                self.running = Running { error: Some(("SKIPPED".to_owned(), Masked::default())), ..Running::default() };
            }
            self.skipped(skipped);
        }
        if self.quotes_masked { canonical(b'E', body) } else { Ok(Passage::Pass) }
    }

    /// The server failed at this message, or skipped it.
    fn skipped(&mut self, expected: Expected) {
        match &expected.kind {
            Kind::Bind { name, portal } => self.portals.withdraw(name, portal),
            Kind::Parse { name, prepared } => self.statements.withdraw(name, prepared),
            _ => {}
        }
        self.finish(expected);
    }

    fn parameter(&mut self, body: &[u8]) -> Result<Passage, WireError> {
        let (name, value) = postgres::parameter_status(body)?;
        self.lexing.reported(name, value);
        // set_config('application_name', (select password ...)) would be told back here.
        if self.quotes_masked && name == b"application_name" {
            let mut blank = BytesMut::new();
            postgres::message(&mut blank, b'S', |out| out.extend_from_slice(b"application_name\0\0"));
            return Ok(Passage::Instead(blank));
        }
        Ok(Passage::Pass)
    }

    fn ready(&mut self, body: &[u8], steps: &mut Steps) -> Result<Passage, WireError> {
        let status = postgres::ready_for_query(body)?;
        if self.starting {
            if !self.settings.masks.is_empty() && self.catalog.is_none() {
                self.fetch(Vec::new(), steps);
                return Ok(Passage::Wait);
            }
            self.starting = false;
            self.status = status;
            return Ok(Passage::Pass);
        }
        match self.queue.head().map(|head| &head.kind) {
            Some(Kind::Sync) => {
                self.pop();
            }
            Some(Kind::Function | Kind::Query { .. }) => {
                if let Some(head) = self.pop_running() {
                    self.finish(head);
                }
            }
            _ => return Err(WireError::Unexpected { what: "ReadyForQuery" }),
        }
        self.status = status;
        if status == TransactionStatus::Idle {
            // Portals end with their transaction, and what it made is now there for everyone to see.
            self.portals.close_all();
            self.unknowable.clear();
            self.quotes_masked = self.quotes_masked && self.queue.holds_sensitive();
        }
        Ok(Passage::Pass)
    }

    /// Takes the head away; the next answer starts from nothing.
    fn pop(&mut self) -> Option<Expected> {
        self.running = Running::default();
        self.queue.pop()
    }

    /// Takes the head away and keeps what was counted for `finish`.
    fn pop_running(&mut self) -> Option<Expected> {
        self.queue.pop()
    }

    /// Reports how a statement ended.
    fn finish(&mut self, expected: Expected) {
        self.report_masks();
        let running = std::mem::take(&mut self.running);
        if expected.number == 0 {
            return;
        }
        let (status, error) = match running.error {
            Some((status, error)) => (status, Some(error).filter(|error| !error.as_str().is_empty())),
            None => (running.tag, None),
        };
        let rows = running.counted.or((running.rows > 0).then_some(running.rows));
        let result = StatementResult { status, rows, bytes: running.bytes, error };
        self.note(Observation::Finished { statement: expected.number, result });
    }

    fn report_masks(&mut self) {
        let Some(plan) = self.running.plan else {
            return;
        };
        for observation in self.plans.report(plan) {
            self.note(observation);
        }
    }
}

/// Moves what may pass behind what was rewritten before it.
fn spill(input: &mut BytesMut, held: &mut usize, out: &mut BytesMut) {
    let count = (*held).min(input.len());
    out.extend_from_slice(&input.split_to(count));
    *held = 0;
}

fn canonical(tag: u8, body: &[u8]) -> Result<Passage, WireError> {
    let mut out = BytesMut::new();
    errors::canonical(tag, body, &mut out)?;
    Ok(Passage::Instead(out))
}

/// Spreads a Bind's result formats over the columns: none is all text, one is for all.
fn spread(formats: &[u16], columns: usize) -> Result<Vec<u16>, WireError> {
    match formats {
        [] => Ok(vec![0; columns]),
        [all] => Ok(vec![*all; columns]),
        each if each.len() == columns => Ok(each.to_vec()),
        _ => Err(WireError::Malformed { what: "Bind", why: "as many result formats as columns were expected" }),
    }
}

/// Stays behind between two pieces of a large value: longer than a password or token in its longest spelling.
const STREAM_OVERLAP_BYTES: usize = 8 * 1024;
