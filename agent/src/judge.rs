//! Policy's verdict, journaled before it takes effect.
//!
//! A verdict comes back at once; with it comes a [`Ticket`]. Whoever forwards what was allowed waits for the ticket first, so
//! that one fdatasync serves everything that one flush carries.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;

use crate::{
    flow::{Flow, Object, Request, SessionId, Statement},
    journal::{
        Event, Journal, JournalError, Record, Ticket,
        event::{LoginEntry, VerdictEntry},
    },
    mask::{KnownSecrets, Masked, Scrubber},
    policy::{Allowed, Denied, Permit, PolicySet, ResolvedHosts, Verdict, object::Durability},
};

/// What every session's judge shares: the policies in force, the journal, the secrets to scrub from it.
pub struct Judge {
    pub policies: Arc<ArcSwap<PolicySet>>,
    pub resolved: Arc<ArcSwap<ResolvedHosts>>,
    pub journal: Journal,
    pub known: Arc<KnownSecrets>,
}

/// One session's judge.
pub struct SessionJudge {
    judge: Arc<Judge>,
    session: SessionId,
    permit: Mutex<Permit>,
    /// Generation of the policies that it began with.
    first: u64,
    requests: AtomicU64,
    durability: Durability,
    said: Mutex<Option<Said>>,
}

/// What the journal says of the statement that was judged last: prepared statements and drivers repeat themselves.
struct Said {
    statement: Arc<Statement>,
    /// Once more secrets are known, the text must be scrubbed again.
    scrubber: Arc<Scrubber>,
    text: Masked,
    objects: Arc<[Object]>,
}

/// A verdict, the journal's number for the request, and the ticket to wait for before forwarding.
#[derive(Debug)]
pub struct Judged {
    pub verdict: Verdict,
    pub number: u64,
    ticket: Ticket,
    durability: Durability,
}

impl Judged {
    /// What to wait for before the request goes on; `None` when policy asks for no more than that it is on its way to disk.
    #[must_use]
    pub fn barrier(self) -> Option<Ticket> {
        (self.durability == Durability::Durable && !self.ticket.is_durable()).then_some(self.ticket)
    }
}

impl Judge {
    /// Admits a flow under the policies in force. Does not journal: the session's opening record carries the verdict.
    ///
    /// # Errors
    /// The denial.
    pub fn admit(&self, flow: &Flow) -> Result<Permit, Denied> {
        self.policies.load().admit(flow, &self.resolved.load())
    }

    /// The judge for a session that was admitted.
    #[must_use]
    pub fn session(self: &Arc<Self>, permit: Permit) -> SessionJudge {
        SessionJudge {
            session: permit.flow().session,
            durability: permit.durability(),
            first: permit.generation(),
            judge: Arc::clone(self),
            permit: Mutex::new(permit),
            requests: AtomicU64::new(0),
            said: Mutex::new(None),
        }
    }
}

impl SessionJudge {
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Judges a request under the policies in force now, and journals it with its verdict.
    ///
    /// # Errors
    /// The journal cannot take the record: the request must not go on.
    pub fn decide(&self, request: &Request) -> Result<Judged, JournalError> {
        let verdict = self.verdict(request);
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let ticket = self.record(self.event(number, request, &verdict))?;
        Ok(Judged { verdict, number, ticket, durability: self.durability })
    }

    /// Journals an event of this session.
    ///
    /// # Errors
    /// The journal cannot take the record: the session must end.
    pub fn record(&self, event: Event) -> Result<Ticket, JournalError> {
        self.judge.journal.record(Record { time: SystemTime::now(), session: Some(self.session), event })
    }

    /// Takes the next request number, for an event that `decide` does not journal.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The permit of the last verdict, if a reload made it another than the one that the session began with.
    #[must_use]
    pub fn renewed(&self) -> Option<Permit> {
        let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        (permit.generation() != self.first).then(|| permit.clone())
    }

    /// The permit of the last verdict, if it is of another generation than this one.
    #[must_use]
    pub fn renewed_since(&self, generation: u64) -> Option<Permit> {
        let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        (permit.generation() != generation).then(|| permit.clone())
    }

    /// A reload since the last request re-admits the flow first: a session does not outlive its permission.
    fn verdict(&self, request: &Request) -> Verdict {
        let policies = self.judge.policies.load();
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        if permit.generation() != policies.generation {
            match policies.admit(permit.flow(), &self.judge.resolved.load()) {
                Ok(fresh) => *permit = fresh,
                Err(denied) => return Verdict::Deny(denied),
            }
        }
        policies.decide(&permit, request)
    }

    fn event(&self, number: u64, request: &Request, verdict: &Verdict) -> Event {
        let scrubber = self.judge.known.scrubber();
        let verdict = VerdictEntry::from(verdict);
        match request {
            Request::Http(request) => Event::Request {
                number,
                method: scrubber.text(request.method.as_bytes()),
                host: scrubber.text(request.host.as_bytes()),
                target: scrubber.text(
                    match &request.query {
                        Some(query) => format!("{}?{query}", request.path),
                        None => request.path.clone(),
                    }
                    .as_bytes(),
                ),
                verdict,
            },
            Request::Login(login) => Event::Login { number, login: LoginEntry::new(login, &scrubber), verdict },
            Request::Statement(statement) => {
                let (text, objects) = self.said(statement, &scrubber);
                Event::Statement { number, text, effects: statement.effects, objects, verdict }
            }
            Request::Stream => Event::Stream { number, verdict },
        }
    }

    /// Text and objects of a statement, for the journal.
    fn said(&self, statement: &Arc<Statement>, scrubber: &Arc<Scrubber>) -> (Masked, Arc<[Object]>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |said: &&Said| Arc::ptr_eq(&said.statement, statement) && Arc::ptr_eq(&said.scrubber, scrubber);
        if let Some(said) = said.as_ref().filter(same) {
            return (said.text.clone(), Arc::clone(&said.objects));
        }
        let (text, objects) = (scrubber.text(&statement.text), Arc::<[Object]>::from(statement.objects.as_slice()));
        *said = (statement.text.len() <= SAID_BYTES_MAX).then(|| Said {
            statement: Arc::clone(statement),
            scrubber: Arc::clone(scrubber),
            text: text.clone(),
            objects: Arc::clone(&objects),
        });
        (text, objects)
    }
}

/// Longer statements are not kept: sessions are idle most of the time.
const SAID_BYTES_MAX: usize = 4 * 1024;

impl From<&Verdict> for VerdictEntry {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Allow(Allowed { rule, would_deny }) => Self {
                allowed: true,
                rule: rule.clone(),
                message: None,
                would_deny: would_deny.as_ref().map(|denied| Arc::clone(&denied.rule)),
            },
            Verdict::Deny(denied) => Self::from(denied),
        }
    }
}

impl From<&Denied> for VerdictEntry {
    fn from(denied: &Denied) -> Self {
        Self {
            allowed: false,
            rule: Some(Arc::clone(&denied.rule)),
            message: Some(Arc::clone(&denied.message)),
            would_deny: None,
        }
    }
}
