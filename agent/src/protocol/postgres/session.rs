//! A session after the login: what both directions share. The directions are `frontend` and `backend`.

use std::{collections::HashSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use weir_wire::postgres::{self, TransactionStatus};

use super::{
    Catalog, CatalogQuery, Settings, Steps,
    backend::Running,
    budget::Budget,
    consequences::Freshness,
    errors,
    frontend::Front,
    lexing::Lexing,
    names::Names,
    plans::Plans,
    queue::{Expected, Kind, Portal, Prepared, Queue},
    scrub,
};
use crate::{
    flow::{Failure, Side},
    mask::Scrubber,
    protocol::{Observation, Step},
};

/// The relay of whole messages, both ways.
pub(super) struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) scrubber: Arc<Scrubber>,
    pub(super) database: String,
    pub(super) catalog: Option<Arc<Catalog>>,
    pub(super) freshness: Freshness,
    /// The server has not said for the first time that it is ready.
    pub(super) starting: bool,
    /// A `Step::Fetch` is not answered yet.
    pub(super) fetching: bool,
    /// OIDs that even a fresh catalog does not know: tables of a transaction that is not committed yet.
    pub(super) unknowable: HashSet<u32>,
    pub(super) status: TransactionStatus,
    /// Statements that may read masked columns ran in this transaction: whatever fails in it may quote them.
    pub(super) quotes_masked: bool,
    /// Later text would be read by other rules than ours.
    pub(super) lexing: Lexing,
    pub(super) queue: Queue,
    pub(super) statements: Names<Prepared>,
    pub(super) budget: Budget,
    pub(super) portals: Names<Portal>,
    /// SQL prepared statements by name.
    pub(super) named_by_sql: bool,
    /// Code that cannot be seen through ran since: it may have prepared others under their names.
    pub(super) names_uncertain: bool,
    pub(super) plans: Plans,
    pub(super) front: Front,
    pub(super) running: Running,
    /// Bytes of the server's message that is being passed on in pieces which are still to come.
    pub(super) back_streams: usize,
    /// The server said its own last words.
    pub(super) server_left: bool,
    /// What was observed and is reported after the bytes that it was observed on.
    pub(super) notes: Vec<Step>,
}

impl Session {
    pub(super) fn new(settings: Arc<Settings>, scrubber: Arc<Scrubber>, database: String) -> Self {
        Self {
            settings,
            scrubber,
            database,
            catalog: None,
            freshness: Freshness::default(),
            starting: true,
            fetching: false,
            unknowable: HashSet::new(),
            status: TransactionStatus::Idle,
            quotes_masked: false,
            lexing: Lexing::default(),
            queue: Queue::default(),
            statements: Names::default(),
            budget: Budget::default(),
            portals: Names::default(),
            named_by_sql: false,
            names_uncertain: false,
            plans: Plans::default(),
            front: Front::default(),
            running: Running::default(),
            back_streams: 0,
            server_left: false,
            notes: Vec::new(),
        }
    }

    /// True while the client could not read an ErrorResponse, because part of another message was sent, or needs none.
    pub(super) fn is_beyond_words(&self) -> bool {
        self.back_streams > 0 || self.server_left
    }

    pub(super) fn catalog_arrived(&mut self, catalog: Arc<Catalog>) {
        self.fetching = false;
        self.catalog = Some(catalog);
        self.plans.clear();
    }

    pub(super) fn fetch(&mut self, missing: Vec<u32>, steps: &mut Steps) {
        self.fetching = true;
        if self.unknowable.len() + missing.len() > UNKNOWABLE_MAX {
            self.unknowable.clear();
        }
        self.unknowable.extend(&missing);
        steps.push_back(Step::Fetch(CatalogQuery { database: self.database.clone(), missing, fresh: false }));
    }

    /// Puts weir's own refusal in its place behind what the server still owes.
    pub(super) fn refuse(&mut self, error: Bytes, then_ready: bool, steps: &mut Steps) {
        if self.queue.needs_flush() {
            // Without it, the answers that stand before ours would stay in the server until a Sync that may never come.
            steps.push_back(Step::Send { to: Side::Upstream, bytes: postgres::flush() });
        }
        self.queue.push(Expected { kind: Kind::Denied { error, then_ready }, number: 0, sensitive: false });
        let mut out = BytesMut::new();
        self.speak(&mut out);
        self.send_down(out.freeze(), steps);
    }

    /// Refuses a statement behind others of the same batch. They run in one transaction, which a server undoes when one of them
    /// fails: it is given something that fails.
    pub(super) fn abort(&mut self, error: Bytes, steps: &mut Steps) {
        let mut out = BytesMut::new();
        postgres::message(&mut out, b'P', |out| out.extend_from_slice(ABORT));
        steps.push_back(Step::Send { to: Side::Upstream, bytes: out.freeze() });
        self.queue.push(Expected { kind: Kind::Abort { error }, number: 0, sensitive: false });
    }

    /// Says refusals whose turn has come, and drops entries that nobody answers.
    pub(super) fn speak(&mut self, out: &mut BytesMut) {
        while let Some(head) = self.queue.head() {
            match &head.kind {
                Kind::Denied { error, then_ready } => {
                    out.extend_from_slice(error);
                    if *then_ready {
                        postgres::encode_ready_for_query(out, self.status);
                    }
                }
                Kind::CopyEnd => {}
                _ => return,
            }
            self.queue.pop();
        }
    }

    /// Sends to the client, without known secrets.
    pub(super) fn send_down(&mut self, bytes: Bytes, steps: &mut Steps) {
        if bytes.is_empty() {
            return;
        }
        let bytes = if self.scrubber.finds(&bytes) { scrub::messages(&bytes, &self.scrubber) } else { bytes };
        steps.push_back(Step::Send { to: Side::Downstream, bytes });
    }

    /// Ends the session with words, if the client can hear them.
    pub(super) fn fail(&mut self, failure: &Failure, steps: &mut Steps) {
        if !self.is_beyond_words() {
            let bytes = errors::farewell(failure, self.settings.session);
            steps.push_back(Step::Send { to: Side::Downstream, bytes });
        }
        steps.push_back(Step::Close(failure.reason));
    }

    /// Reports what was observed on the bytes before.
    pub(super) fn report(&mut self, steps: &mut Steps) {
        if !self.notes.is_empty() {
            steps.extend(self.notes.drain(..));
        }
    }

    pub(super) fn note(&mut self, observation: Observation) {
        self.notes.push(Step::Note(observation));
    }
}

/// OIDs remembered as unknowable; a transaction that makes more tables asks for the catalog again.
const UNKNOWABLE_MAX: usize = 1024;

/// Body of a Parse with a name, a text that is not SQL (a server's log shows it), and no parameter types.
const ABORT: &[u8] = b"weir\0weir refused a statement of this batch\0\0\0";
