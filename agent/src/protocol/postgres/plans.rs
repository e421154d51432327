//! Row plans that were worked out lately, by the description that they were made for.

use std::sync::Arc;

use bytes::BytesMut;
use weir_wire::{
    WireError,
    postgres::{self, FieldDescription},
};

use super::{
    Catalog,
    rows::{MaskSet, Mentions, RowPlan},
};
use crate::protocol::Observation;

/// A few plans, the latest last. A session runs few statements at a time.
#[derive(Default)]
pub(super) struct Plans {
    slots: Vec<Slot>,
    next: usize,
    /// The last RowDescription and what it says: drivers ask for it with every execution.
    described: Option<Described>,
}

/// Names a plan until `Plans` changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PlanId(usize);

struct Described {
    body: Box<[u8]>,
    fields: Arc<[FieldDescription]>,
}

struct Slot {
    fields: Arc<[FieldDescription]>,
    mentions: Option<Arc<Mentions>>,
    /// Which snapshot it was made with.
    catalog: u64,
    plan: RowPlan,
    /// What was reported of the plan's counts so far.
    reported: Vec<u64>,
}

impl Plans {
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Reads a RowDescription.
    pub(super) fn fields(&mut self, body: &[u8]) -> Result<Arc<[FieldDescription]>, WireError> {
        if let Some(known) = self.described.as_ref().filter(|known| *known.body == *body) {
            return Ok(Arc::clone(&known.fields));
        }
        let fields: Arc<[FieldDescription]> = postgres::row_description(body)?.into();
        if body.len() <= DESCRIBED_BYTES_MAX {
            self.described = Some(Described { body: body.into(), fields: Arc::clone(&fields) });
        }
        Ok(fields)
    }

    /// Finds or makes the plan for these columns.
    pub(super) fn plan(
        &mut self,
        set: &MaskSet,
        fields: &Arc<[FieldDescription]>,
        mentions: Option<&Arc<Mentions>>,
        catalog: &Catalog,
    ) -> PlanId {
        let same = |slot: &Slot| {
            slot.catalog == catalog.id()
                && (Arc::ptr_eq(&slot.fields, fields) || slot.fields == *fields)
                && match (&slot.mentions, mentions) {
                    (Some(known), Some(asked)) => Arc::ptr_eq(known, asked),
                    (None, None) => true,
                    _ => false,
                }
        };
        if let Some(at) = self.slots.iter().position(same) {
            return PlanId(at);
        }
        let plan = RowPlan::new(set, fields, mentions.map(AsRef::as_ref), catalog);
        let slot =
            Slot { fields: Arc::clone(fields), mentions: mentions.cloned(), catalog: catalog.id(), plan, reported: Vec::new() };
        let at = self.next % PLANS_MAX;
        self.next = self.next.wrapping_add(1);
        match self.slots.get_mut(at) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        PlanId(at.min(self.slots.len().saturating_sub(1)))
    }

    pub(super) fn is_noop(&self, id: PlanId) -> bool {
        self.slots.get(id.0).is_some_and(|slot| slot.plan.is_noop())
    }

    /// Appends the masked body of one row.
    pub(super) fn mask(&mut self, id: PlanId, body: &[u8], formats: &[u16], out: &mut BytesMut) -> Result<(), WireError> {
        let slot = self.slots.get_mut(id.0).ok_or(WireError::Unexpected { what: "DataRow" })?;
        slot.plan.mask_row(body, formats, out)
    }

    /// What the plan masked since it was asked last.
    pub(super) fn report(&mut self, id: PlanId) -> Vec<Observation> {
        let Some(slot) = self.slots.get_mut(id.0) else {
            return Vec::new();
        };
        let mut observations = Vec::new();
        for (at, (mask, column, count)) in slot.plan.counts().enumerate() {
            if slot.reported.len() <= at {
                slot.reported.push(0);
            }
            let Some(reported) = slot.reported.get_mut(at) else { continue };
            let fresh = count.saturating_sub(*reported);
            *reported = count;
            if fresh > 0 {
                observations.push(Observation::Masked { mask: mask.to_owned(), what: column.to_owned(), count: fresh });
            }
        }
        observations
    }
}

const PLANS_MAX: usize = 16;

/// A longer RowDescription is read anew each time: an idle session keeps the last.
const DESCRIBED_BYTES_MAX: usize = 4 * 1024;
