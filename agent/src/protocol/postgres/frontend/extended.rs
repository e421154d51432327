//! The extended protocol: statements that are prepared, bound and executed one message at a time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{self, Frame, HEADER_BYTES, Target},
};

use super::{
    super::{
        Steps,
        budget::{excerpt, weigh},
        consequences::Consequences,
        queue::{Kind, Portal, Prepared},
        session::Session,
        sql::Reading,
    },
    NAMING_BYTES_MAX,
    verdict::{What, opaque},
};
use crate::{flow::Side, protocol::Step};

impl Session {
    pub(super) fn parse(
        &mut self,
        name: Bytes,
        reading: &Reading,
        outline: Frame,
        input: &mut BytesMut,
        steps: &mut Steps,
    ) -> bool {
        let statement = Arc::clone(&reading.statement);
        let kept = excerpt(&statement);
        let prepared = Prepared {
            mentions: Some(Arc::clone(&reading.mentions)),
            sensitive: self.is_sensitive(&reading.mentions),
            consequences: Consequences::of(reading),
            by_name: reading.by_name.clone(),
            share: self.budget.take(weigh(&kept, &reading.mentions)),
            statement: kept,
            number: 0,
            batch: self.front.batch,
            fresh: AtomicBool::new(true),
        };
        let (obstacle, syntax_error) = (self.obstacle(reading), reading.syntax_error.clone());
        self.decide(outline, What::Parse { name, prepared, obstacle, syntax_error }, statement, input, steps);
        true
    }

    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8]) {
        let prepared = match self.statements.find(statement) {
            Some(prepared) => Arc::clone(prepared),
            None => self.unknown("a prepared statement that was not prepared on the wire"),
        };
        let sensitive = prepared.sensitive;
        self.front.bound = true;
        self.quotes_masked |= sensitive;
        let portal_name = Bytes::copy_from_slice(portal);
        let portal = Portal::new(prepared);
        if !self.portals.is_full(&portal_name) {
            self.portals.propose(&portal_name, Arc::clone(&portal));
        }
        self.expect(Kind::Bind { name: portal_name, portal }, 0, sensitive);
    }

    /// A Bind that is too large to keep: only its names are read. What formats it asks for, the description of its portal tells.
    pub(super) fn big_bind(&mut self, outline: Frame, input: &mut BytesMut) -> Result<bool, WireError> {
        let start = input.get(self.front.held + HEADER_BYTES..).unwrap_or_default();
        let Some((portal, statement)) = postgres::bind_names(start) else {
            if start.len() > NAMING_BYTES_MAX {
                return Err(WireError::Malformed { what: "Bind", why: "names over their limit" });
            }
            return Ok(false);
        };
        self.bind(portal, statement);
        Ok(self.pass(outline, input))
    }

    pub(super) fn describe(&mut self, target: Target<'_>) {
        let kind = match target {
            Target::Portal(name) => {
                let portal = self.portals.find(name).cloned();
                if let Some(portal) = &portal {
                    portal.described.store(true, Ordering::Relaxed);
                }
                Kind::DescribePortal { portal, ours: false }
            }
            Target::Statement(_) => Kind::DescribeStatement,
        };
        self.expect(kind, 0, false);
    }

    /// A portal by name; one that SQL declared (a cursor) is not known, and what it reads is not either.
    pub(super) fn portal(&mut self, name: &[u8]) -> (Bytes, Arc<Portal>) {
        let portal = match self.portals.find(name) {
            Some(portal) => Arc::clone(portal),
            None => Portal::new(self.unknown("a portal that was not bound on the wire")),
        };
        (Bytes::copy_from_slice(name), portal)
    }

    pub(super) fn execute(
        &mut self,
        (name, portal): (Bytes, Arc<Portal>),
        outline: Frame,
        input: &mut BytesMut,
        steps: &mut Steps,
    ) -> bool {
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
    pub(super) fn run(
        &mut self,
        name: &Bytes,
        portal: Arc<Portal>,
        number: u64,
        length: usize,
        input: &mut BytesMut,
        steps: &mut Steps,
    ) {
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
        let waits = self.follow(&portal.prepared.consequences);
        self.front.settles |= waits;
        self.runs(portal.prepared.mentions.as_deref(), portal.prepared.by_name.as_deref());
        let sensitive = portal.prepared.sensitive;
        self.front.executed = true;
        self.front.bound = true;
        self.expect(Kind::Execute { portal }, number, sensitive);
        self.front.held += length;
    }

    pub(super) fn sync(&mut self) {
        self.front.skips = false;
        self.front.executed = false;
        self.front.bound = false;
        self.front.batch += 1;
        self.front.barrier |= std::mem::take(&mut self.front.settles);
        self.expect(Kind::Sync, 0, false);
    }

    fn unknown(&self, why: &str) -> Arc<Prepared> {
        Arc::new(Prepared {
            statement: opaque(b"", why),
            by_name: None,
            share: None,
            mentions: None,
            sensitive: !self.settings.masks.is_empty(),
            consequences: Consequences::default(),
            number: 0,
            batch: 0,
            fresh: AtomicBool::new(false),
        })
    }
}
