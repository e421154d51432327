//! What the service asks of the session's judge.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    flow::{HttpRequest, Request, SessionId},
    journal::{Event, JournalError, event::VerdictEntry},
    judge::SessionJudge,
    mask::Scrubber,
    policy::{Denied, Permit, Verdict},
};

/// Judges and journals. Two sides: the session's judge, and a test's.
pub(super) trait Gate: Send + Sync {
    fn session(&self) -> SessionId;
    fn decide(&self, request: &Request) -> Result<Decision, JournalError>;
    fn record(&self, event: Event) -> Result<(), JournalError>;
    fn next_number(&self) -> u64;
    /// What a reload changed for the requests from the last verdict on; `None`: there was none.
    fn renewed(&self) -> Option<Permit>;
}

/// A verdict, the journal's number for the request, and what to wait for before it takes effect.
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) number: u64,
    pub(super) barrier: Option<Barrier>,
}

pub(super) type Barrier = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send>>;

impl Gate for SessionJudge {
    fn session(&self) -> SessionId {
        Self::session(self)
    }

    fn decide(&self, request: &Request) -> Result<Decision, JournalError> {
        let judged = Self::decide(self, request)?;
        let (verdict, number) = (judged.verdict.clone(), judged.number);
        // Boxed only when there is a disk to wait for.
        let barrier = judged.barrier().map(|ticket| -> Barrier { Box::pin(async move { ticket.durable().await }) });
        Ok(Decision { verdict, number, barrier })
    }

    fn record(&self, event: Event) -> Result<(), JournalError> {
        Self::record(self, event).map(drop)
    }

    fn next_number(&self) -> u64 {
        Self::next_number(self)
    }

    fn renewed(&self) -> Option<Permit> {
        Self::renewed(self)
    }
}

/// The journal's entry for a request that the protocol itself refuses, before any policy is asked.
pub(super) fn refusal(number: u64, request: &HttpRequest, denied: &Denied, scrubber: &Scrubber) -> Event {
    let target = match &request.query {
        Some(query) => scrubber.text(format!("{}?{query}", request.path).as_bytes()),
        None => scrubber.text(request.path.as_bytes()),
    };
    Event::Request {
        number,
        method: scrubber.text(request.method.as_bytes()),
        host: scrubber.text(request.host.as_bytes()),
        target,
        verdict: VerdictEntry {
            allowed: false,
            rule: Some(Arc::clone(&denied.rule)),
            message: Some(Arc::clone(&denied.message)),
            would_deny: None,
        },
    }
}
