//! How messages of the client end: done, failed or skipped, and what is reported of it.

use std::sync::Arc;

use bytes::BytesMut;
use weir_wire::{WireError, postgres};

use super::{
    super::{
        errors,
        queue::{Expected, Kind},
        session::Session,
    },
    Passage, Running, canonical,
};
use crate::{
    mask::Masked,
    protocol::{Observation, StatementResult},
};

impl Session {
    pub(super) fn confirmed(&mut self) {
        match self.pop().map(|head| head.kind) {
            Some(Kind::Bind { name, portal }) => self.portals.confirm(&name, portal),
            Some(Kind::Close { statement: true, name }) => self.statements.close(&name),
            Some(Kind::Close { statement: false, name }) => self.portals.close(&name),
            Some(Kind::Parse { name, prepared }) => self.statements.confirm(&name, prepared),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, body: &[u8]) -> Result<Passage, WireError> {
        let tag = postgres::command_tag(body)?;
        if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.statements.close_all();
            self.named_by_sql = false;
            self.names_uncertain = false;
        }
        if let Some(rows) = postgres::tag_rows(tag) {
            self.running.counted = Some(self.running.counted.unwrap_or(0).saturating_add(rows));
        }
        let tag = String::from_utf8_lossy(tag).into_owned();
        if matches!(self.queue.head().map(|head| &head.kind), Some(Kind::Execute { .. })) {
            return Ok(self.executed(&tag));
        }
        if let Some(Kind::Query { prepares, deallocates, .. }) = self.queue.head().map(|head| &head.kind) {
            if let Some((name, prepared)) = prepares.as_ref().filter(|_| tag == "PREPARE") {
                self.statements.insert(name.clone(), Arc::clone(prepared));
                self.named_by_sql = true;
            }
            deallocates.iter().filter(|_| tag == "DEALLOCATE").for_each(|name| self.statements.close(name));
        }
        self.report_masks();
        self.running.plan = None;
        self.running.tag = tag;
        Ok(Passage::Pass)
    }

    pub(super) fn executed(&mut self, status: &str) -> Passage {
        status.clone_into(&mut self.running.tag);
        if let Some(head) = self.pop_running() {
            self.finish(head);
        }
        Passage::Pass
    }

    pub(super) fn error(&mut self, body: &[u8]) -> Result<Passage, WireError> {
        let fields = postgres::error_fields(body)?;
        let code = errors::field(&fields, b'C').unwrap_or_default();
        let message = if self.quotes_masked {
            errors::condition_name(code).as_bytes()
        } else {
            errors::field(&fields, b'M').unwrap_or_default()
        };
        self.server_left |= matches!(errors::field(&fields, b'V').or(errors::field(&fields, b'S')), Some(b"FATAL" | b"PANIC"));
        let refusal = match self.queue.head().map(|head| &head.kind) {
            Some(Kind::Abort { error }) => Some(BytesMut::from(&error[..])),
            _ => None,
        };
        let status = format!("ERROR {}", String::from_utf8_lossy(code));
        self.running.error = Some((status, self.scrubber.text(message)));
        for (position, skipped) in self.queue.failed().into_iter().enumerate() {
            if position > 0 {
                self.running = Running { error: Some(("SKIPPED".to_owned(), Masked::default())), ..Running::default() };
            }
            self.skipped(skipped);
        }
        match refusal {
            Some(refusal) => Ok(Passage::Instead(refusal)),
            None if self.quotes_masked => canonical(b'E', body),
            None => Ok(Passage::Pass),
        }
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

    /// Takes the head away; the next answer starts from nothing.
    pub(super) fn pop(&mut self) -> Option<Expected> {
        self.running = Running::default();
        self.queue.pop()
    }

    /// Takes the head away and keeps what was counted for `finish`.
    pub(super) fn pop_running(&mut self) -> Option<Expected> {
        self.queue.pop()
    }

    /// Reports how a statement ended.
    pub(super) fn finish(&mut self, expected: Expected) {
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

    pub(super) fn report_masks(&mut self) {
        let Some(plan) = self.running.plan else {
            return;
        };
        for observation in self.plans.report(plan) {
            self.note(observation);
        }
    }
}
