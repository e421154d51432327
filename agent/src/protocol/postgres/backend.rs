//! From the server to the client: rows masked, errors that may quote masked values made canonical, everything else in runs.

mod endings;
mod results;

use std::sync::Arc;

use bytes::BytesMut;
use weir_wire::{
    WireError,
    postgres::{self, Frame, TransactionStatus, frame},
};

use super::{BODY_BYTES_MAX, BackendKey, STREAM_BYTES_MIN, Steps, errors, plans::PlanId, queue::Kind, session::Session};
use crate::{
    flow::{Failure, Reason, Side},
    mask::Masked,
    protocol::Step,
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
            (b'T', Some(Kind::DescribePortal { .. } | Kind::DescribeStatement | Kind::Query { .. })) => {
                self.description(body, steps)
            }
            (b'n', Some(Kind::DescribePortal { .. } | Kind::DescribeStatement)) => Ok(self.described(Arc::new([]))),
            (b't', Some(Kind::DescribeStatement)) | (b'V', Some(Kind::Function)) => Ok(Passage::Pass),
            (b'1', Some(Kind::Parse { .. })) | (b'2', Some(Kind::Bind { .. })) | (b'3', Some(Kind::Close { .. })) => {
                self.confirmed();
                Ok(Passage::Pass)
            }
            (b'I', Some(Kind::Query { .. })) => Ok(Passage::Pass),
            (b'I', Some(Kind::Execute { .. })) => Ok(self.executed("EMPTY")),
            (b's', Some(Kind::Execute { .. })) => Ok(self.executed("SUSPENDED")),
            (b'G', Some(Kind::Execute { .. } | Kind::Query { .. })) => {
                if !self.queue.copy_started() {
                    let detail = "messages of the client stand where the server expects copy data";
                    return Ok(Passage::Stop(Failure::new(Reason::DownstreamMalformed, detail)));
                }
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

/// Stays behind between two pieces of a large value: longer than a password or token in its longest spelling.
const STREAM_OVERLAP_BYTES: usize = 8 * 1024;
