//! Descriptions and rows: which masks are due, and the rows under them.

use std::sync::Arc;

use bytes::BytesMut;
use weir_wire::{
    WireError,
    postgres::{self, FieldDescription},
};

use super::{
    super::{Steps, plans::PlanId, queue::Kind, session::Session},
    Passage,
};
use crate::flow::{Failure, Reason};

impl Session {
    pub(super) fn row(&mut self, body: &[u8]) -> Result<Passage, WireError> {
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
    pub(super) fn row_plan(&mut self) -> Result<Option<PlanId>, WireError> {
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
            spread(portal.formats.get().map_or(&[], Vec::as_slice), fields.len())?
        };
        self.running.plan = Some(plan);
        Ok(Some(plan))
    }

    pub(super) fn description(&mut self, body: &[u8], steps: &mut Steps) -> Result<Passage, WireError> {
        let Some(catalog) = self.catalog.clone().filter(|_| !self.settings.masks.is_empty()) else {
            return Ok(self.described(Arc::new([])));
        };
        let fields: Arc<[FieldDescription]> = postgres::row_description(body)?.into();
        let unknown = |oid: &u32| *oid != 0 && !catalog.knows(*oid) && !self.unknowable.contains(oid);
        let missing: Vec<u32> = fields.iter().map(|field| field.table_oid).filter(unknown).collect();
        if !missing.is_empty() {
            self.fetch(missing, steps);
            return Ok(Passage::Wait);
        }
        if let Some(Kind::Query { mentions, .. }) = self.queue.head().map(|head| &head.kind) {
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
    pub(super) fn described(&mut self, fields: Arc<[FieldDescription]>) -> Passage {
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

    pub(super) fn copy_out(&mut self) -> Passage {
        let mentions = self.queue.head().and_then(|head| match &head.kind {
            Kind::Execute { portal } => portal.prepared.mentions.as_ref(),
            Kind::Query { mentions, .. } => mentions.as_ref(),
            _ => None,
        });
        if self.outputs_masked(mentions) {
            return Passage::Stop(Failure::new(Reason::MaskImpossible, "the server copies out what may be masked columns"));
        }
        Passage::Pass
    }
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
