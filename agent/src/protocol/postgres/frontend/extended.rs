//! The extended protocol: statements that are prepared, bound and executed one message at a time.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{self, BindPieces, Frame, HEADER_BYTES, Target},
};

use super::{
    super::{
        Steps,
        queue::{Kind, Portal, Prepared},
        session::Session,
        sql::Reading,
    },
    NAMING_BYTES_MAX,
    verdict::{What, opaque},
};
use crate::{
    flow::{Effect, Side},
    protocol::Step,
};

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
        let prepared = Prepared {
            mentions: Some(Arc::clone(&reading.mentions)),
            sensitive: self.is_sensitive(&reading.mentions),
            changes_lexing: statement.effects.contains(Effect::SessionLex),
            statement: Arc::clone(&statement),
            by_name: reading.by_name.clone(),
            number: 0,
            batch: self.front.batch,
            fresh: AtomicBool::new(true),
            described: AtomicBool::new(false),
            layout: OnceLock::new(),
        };
        let (obstacle, syntax_error) = (self.obstacle(reading), reading.syntax_error.clone());
        self.decide(outline, What::Parse { name, prepared, obstacle, syntax_error }, statement, input, steps);
        true
    }

    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8], formats: Option<Vec<u16>>) -> Arc<Portal> {
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
        self.expect(Kind::Bind { name: portal_name, portal: Arc::clone(&portal) }, 0, sensitive);
        portal
    }

    /// A Bind that is too large to keep: its names are read at once, its result formats when they have come.
    pub(super) fn big_bind(&mut self, outline: Frame, input: &mut BytesMut) -> Result<bool, WireError> {
        let start = input.get(self.front.held + HEADER_BYTES..).unwrap_or_default();
        let Some((portal, statement)) = postgres::bind_names(start) else {
            if start.len() > NAMING_BYTES_MAX {
                return Err(WireError::Malformed { what: "Bind", why: "names over their limit" });
            }
            return Ok(false);
        };
        let behind_names = HEADER_BYTES + portal.len() + statement.len() + 2;
        let portal = self.bind(portal, statement, None);
        let start = self.front.held;
        let passes = self.pass(outline, input);
        self.front.binding = Some((portal, BindPieces::default()));
        self.bind_piece(input.get(start + behind_names..self.front.held).unwrap_or_default())?;
        Ok(passes)
    }

    /// Reads a piece of a large Bind that is passed on.
    pub(super) fn bind_piece(&mut self, piece: &[u8]) -> Result<(), WireError> {
        let Some((portal, mut pieces)) = self.front.binding.take() else {
            return Ok(());
        };
        pieces.take(piece)?;
        if self.front.streams > 0 {
            self.front.binding = Some((portal, pieces));
        } else {
            let _ = portal.formats.set(pieces.finish()?);
        }
        Ok(())
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
    pub(super) fn portal(&mut self, name: &[u8]) -> (Bytes, Arc<Portal>) {
        let portal = match self.portals.find(name) {
            Some(portal) => Arc::clone(portal),
            None => Portal::new(self.unknown("a portal that was not bound on the wire"), None),
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
        self.front.lexing_changes |= portal.prepared.changes_lexing;
        self.runs(portal.prepared.mentions.as_deref(), portal.prepared.by_name.as_deref());
        let sensitive = portal.prepared.sensitive;
        self.front.executed = true;
        self.expect(Kind::Execute { portal }, number, sensitive);
        self.front.held += length;
    }

    pub(super) fn sync(&mut self) {
        self.front.skips = false;
        self.front.executed = false;
        self.front.batch += 1;
        self.front.barrier |= std::mem::take(&mut self.front.lexing_changes);
        self.expect(Kind::Sync, 0, false);
    }

    fn unknown(&self, why: &str) -> Arc<Prepared> {
        Arc::new(Prepared {
            statement: opaque(b"", why),
            by_name: None,
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
