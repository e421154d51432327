//! Statements and their verdicts: what policy is asked, and what becomes of the message when it has answered.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{Frame, HEADER_BYTES, TransactionStatus},
};

use super::{
    super::{
        Steps,
        budget::PREPARED_BYTES_MAX,
        consequences::Consequences,
        errors::{self, Complaint},
        names::NAMES_MAX,
        queue::{Kind, Portal, Prepared},
        rows::Mentions,
        session::Session,
        sql::{ByName, Reading},
    },
    STATEMENT_BYTES_MAX,
};
use crate::{
    flow::{Effect, Effects, Request, Side, Statement},
    policy::Verdict,
    protocol::{Observation, StatementResult, Step},
};

/// What waits for a verdict, and how long its message is.
pub(super) struct Deciding {
    length: usize,
    what: What,
}

/// What stands against a statement, whatever policy says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Obstacle {
    /// Masked columns go to another table, a setting, a file, a listener.
    CopiesElsewhere,
    /// Masked columns go to the client, in a form that is not masked.
    CopiesOut,
    Nothing,
    /// Later text could not be read.
    UnsafeSetting(&'static str),
}

pub(super) enum What {
    Execute(Arc<Portal>),
    Function,
    Oversized {
        is_query: bool,
    },
    Parse {
        name: Bytes,
        prepared: Prepared,
        obstacle: Obstacle,
        syntax_error: Option<Arc<str>>,
    },
    Query {
        mentions: Arc<Mentions>,
        sensitive: bool,
        obstacle: Obstacle,
        syntax_error: Option<Arc<str>>,
        consequences: Consequences,
        by_name: Option<Arc<ByName>>,
        /// What PREPARE will have prepared.
        prepared: Option<Arc<Prepared>>,
    },
}

impl Session {
    pub(super) fn query(&mut self, reading: &Reading, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> bool {
        let reading = &*self.executed_by_name(reading);
        let statement = Arc::clone(&reading.statement);
        let what = What::Query {
            mentions: Arc::clone(&reading.mentions),
            sensitive: self.is_sensitive(&reading.mentions),
            obstacle: self.obstacle(reading),
            syntax_error: reading.syntax_error.clone(),
            consequences: Consequences::of(reading),
            by_name: reading.by_name.clone(),
            prepared: self.prepared_by_name(reading),
        };
        self.decide(outline, what, statement, input, steps);
        true
    }

    pub(super) fn obstacle(&self, reading: &Reading) -> Obstacle {
        if let Some(setting) = reading.unsafe_setting.filter(|_| !self.settings.observes) {
            return Obstacle::UnsafeSetting(setting);
        }
        let (masks, mentions) = (&self.settings.masks, &reading.mentions);
        if reading.verbs.iter().any(|verb| verb.copy_out) && self.outputs_masked(Some(mentions)) {
            return Obstacle::CopiesOut;
        }
        // What was redefined in this transaction may read anything: nothing of it can be stored.
        let unknown = self.is_redefined() && !mentions.stored.is_nothing();
        let launders = unknown || self.catalog.as_ref().is_none_or(|catalog| masks.launders(mentions, catalog));
        if !masks.is_empty() && launders { Obstacle::CopiesElsewhere } else { Obstacle::Nothing }
    }

    /// A statement that is not even kept: it is judged as unreadable, for the record, and refused in any case.
    pub(super) fn oversized(&mut self, outline: Frame, input: &mut BytesMut, steps: &mut Steps) -> Result<bool, WireError> {
        let start = input.get(self.front.held + HEADER_BYTES..).unwrap_or_default();
        let Some(excerpt) = start.get(..EXCERPT_BYTES) else {
            return Ok(false);
        };
        let statement = opaque(excerpt, "longer than the limit; only its beginning was kept");
        self.decide(outline, What::Oversized { is_query: outline.tag == b'Q' }, statement, input, steps);
        Ok(true)
    }

    pub(super) fn decide(
        &mut self,
        outline: Frame,
        what: What,
        statement: Arc<Statement>,
        input: &mut BytesMut,
        steps: &mut Steps,
    ) {
        if self.front.flushed > 0 {
            let count = self.front.flushed.min(input.len());
            steps.push_back(Step::Send { to: Side::Upstream, bytes: input.split_to(count).freeze() });
            self.front.held -= count;
            self.front.flushed = 0;
        }
        self.front.deciding = Some(Deciding { length: outline.length, what });
        steps.push_back(Step::Decide(Request::Statement(statement)));
    }

    pub(super) fn resolve(
        &mut self,
        Deciding { length, what }: Deciding,
        verdict: &Verdict,
        number: u64,
        input: &mut BytesMut,
        steps: &mut Steps,
    ) {
        let session = self.settings.session;
        let error = match (verdict, &what) {
            (Verdict::Deny(denied), What::Parse { syntax_error, .. } | What::Query { syntax_error, .. }) => {
                let misspelling = syntax_error.as_ref().filter(|_| denied.rule.ends_with(ON_UNREADABLE));
                Some(match misspelling {
                    Some(syntax_error) => errors::misspelling(denied, syntax_error, session),
                    None => errors::denial(denied, session),
                })
            }
            (Verdict::Deny(denied), What::Oversized { .. }) if denied.rule.ends_with(ON_UNREADABLE) => {
                let detail = format!("Denied by rule {}.", denied.rule);
                Some(Complaint { severity: "ERROR", code: "54000", message: &too_long(), detail: &detail }.encode(session))
            }
            (Verdict::Deny(denied), _) => Some(errors::denial(denied, session)),
            (Verdict::Allow(_), _) => self.objection(&what, number),
        };
        if let Some(error) = error {
            let then_ready = matches!(what, What::Query { .. } | What::Function | What::Oversized { is_query: true });
            self.front.skips = !then_ready;
            self.drop_message(length, input, steps);
            // In a transaction block the client decides what becomes of the statements before.
            if self.front.executed && !then_ready && self.status == TransactionStatus::Idle {
                self.abort(error, steps);
            } else {
                self.refuse(error, then_ready, steps);
            }
            return;
        }
        match what {
            What::Query { mentions, sensitive, consequences, by_name, prepared, .. } => {
                self.quotes_masked |= sensitive;
                self.front.barrier |= self.follow(&consequences);
                let (prepares, deallocates) = self.names_change(by_name.as_deref(), prepared);
                self.runs(Some(&mentions), by_name.as_deref().filter(|by_name| matches!(by_name, ByName::Several(_))));
                self.expect(Kind::Query { mentions: Some(mentions), prepares, deallocates }, number, sensitive);
                self.front.held += length;
                self.front.flushed = self.front.held;
            }
            What::Parse { name, mut prepared, .. } => {
                prepared.number = number;
                let (sensitive, prepared) = (prepared.sensitive, Arc::new(prepared));
                // Constant parts are computed while a statement is planned, and may fail.
                self.quotes_masked |= sensitive;
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
            What::Query { obstacle: Obstacle::CopiesOut, .. } | What::Parse { obstacle: Obstacle::CopiesOut, .. } => {
                ("42501", "COPY TO STDOUT of masked columns is not possible; use SELECT".to_owned())
            }
            What::Query { obstacle: Obstacle::CopiesElsewhere, .. } | What::Parse { obstacle: Obstacle::CopiesElsewhere, .. } => {
                ("42501", "masked columns cannot be copied to where no mask covers them".to_owned())
            }
            What::Query { obstacle: Obstacle::UnsafeSetting(setting), .. }
            | What::Parse { obstacle: Obstacle::UnsafeSetting(setting), .. } => ("42501", errors::unsafe_setting(setting)),
            What::Parse { name, .. } if self.statements.is_full(name) => {
                ("54000", format!("more than {NAMES_MAX} prepared statements in one session"))
            }
            What::Parse { prepared: Prepared { share: None, .. }, .. } => {
                ("54000", format!("prepared statements of more than {PREPARED_BYTES_MAX} bytes in one session"))
            }
            What::Function if !self.settings.observes => ("42501", "function calls that bypass SQL are not permitted".to_owned()),
            What::Oversized { .. } => ("54000", too_long()),
            _ => return None,
        };
        let status = format!("ERROR {code}");
        let result = StatementResult { status, ..StatementResult::default() };
        self.note(Observation::Finished { statement: number, result });
        Some(Complaint { severity: "ERROR", code, message: &message, detail: "" }.encode(self.settings.session))
    }

    /// True if the answer, which no plan for rows covers, may hold masked columns.
    pub(in super::super) fn outputs_masked(&self, mentions: Option<&Arc<Mentions>>) -> bool {
        let masks = &self.settings.masks;
        let known = mentions.zip(self.catalog.as_ref());
        !masks.is_empty() && known.is_none_or(|(mentions, catalog)| masks.outputs(mentions, catalog))
    }

    pub(super) fn is_sensitive(&self, mentions: &Mentions) -> bool {
        let masks = &self.settings.masks;
        !masks.is_empty() && (self.is_redefined() || self.catalog.as_ref().is_none_or(|catalog| masks.touches(mentions, catalog)))
    }
}

fn too_long() -> String {
    format!("statement is over the limit of {STATEMENT_BYTES_MAX} bytes")
}

/// A request whose text is not there to be read.
pub(super) fn opaque(text: &[u8], why: &str) -> Arc<Statement> {
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

/// How the rule ends that refuses what cannot be read.
const ON_UNREADABLE: &str = "/onUnreadable";

/// What of an oversized statement is shown to policy and journal.
const EXCERPT_BYTES: usize = 1024;
