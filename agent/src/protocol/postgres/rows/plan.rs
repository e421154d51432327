//! The plan for one result: which outputs are masked, and how; and its application to rows.

use bytes::{BufMut, BytesMut};
use weir_wire::{WireError, postgres::FieldDescription};

use super::{
    MaskSet, Mentions, Reads, Target,
    protect::{Protection, is_opaque},
    scope::Scope,
};
use crate::{
    mask::cell::{CellType, carries_text, replacement},
    policy::object::MaskWith,
    protocol::postgres::catalog::Catalog,
};

/// Which outputs of a result are masked. Made from a RowDescription, applied to its DataRows.
#[derive(Debug)]
pub struct RowPlan {
    outputs: usize,
    /// By ordinal, ascending.
    ops: Vec<Op>,
}

#[derive(Debug)]
struct Op {
    ordinal: usize,
    protection: Protection,
    column: String,
    type_oid: u32,
    type_modifier: i32,
    count: u64,
}

impl RowPlan {
    /// Plans a result. `mentions` is `None` when it is not known which statement the result belongs to.
    #[must_use]
    pub fn new(set: &MaskSet, fields: &[FieldDescription], mentions: Option<&Mentions>, catalog: &Catalog) -> Self {
        if set.is_empty() {
            return Self { outputs: fields.len(), ops: Vec::new() };
        }
        let unknown = Mentions::unknown();
        let planner = Planner::new(set, catalog, mentions.unwrap_or(&unknown), fields.len());
        let op = |(ordinal, field): (usize, &FieldDescription)| {
            let protection = planner.protection(ordinal, field)?;
            let column = String::from_utf8_lossy(&field.name).into_owned();
            Some(Op { ordinal, protection, column, type_oid: field.type_oid, type_modifier: field.type_modifier, count: 0 })
        };
        Self { outputs: fields.len(), ops: fields.iter().enumerate().filter_map(op).collect() }
    }

    /// True when rows may be forwarded as they are.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        self.ops.is_empty()
    }

    /// Appends the masked body of a DataRow to `out`.
    ///
    /// `cells` is the body after the length: an i16 count, then an i32 length and the bytes of each value. `formats` are the result
    /// formats of Bind: none for all text, one for all outputs, or one for each.
    ///
    /// # Errors
    /// The row is malformed, does not have the planned number of values, or `formats` do not fit: nothing may be forwarded, and
    /// `out` holds no more than whole cells of the row.
    pub fn mask_row(&mut self, cells: &[u8], formats: &[u16], out: &mut BytesMut) -> Result<(), WireError> {
        let (count, mut rest) = cells.split_first_chunk::<2>().ok_or(malformed("shorter than its count"))?;
        if usize::try_from(i16::from_be_bytes(*count)).ok() != Some(self.outputs) {
            return Err(malformed("not the described number of values"));
        }
        if formats.len() > 1 && formats.len() != self.outputs {
            return Err(malformed("not the bound number of formats"));
        }
        // Values in between are copied in one piece, with their lengths.
        let mut pending = cells;
        let mut ops = self.ops.iter_mut().peekable();
        for ordinal in 0..self.outputs {
            let before = rest.len();
            let (length, after) = rest.split_first_chunk::<4>().ok_or(malformed("shorter than its values"))?;
            let (value, after) = match i32::from_be_bytes(*length) {
                -1 => (None, after),
                length => {
                    let length = usize::try_from(length).map_err(|_| malformed("a negative length"))?;
                    let (value, after) = after.split_at_checked(length).ok_or(malformed("shorter than its values"))?;
                    (Some(value), after)
                }
            };
            rest = after;
            let Some(op) = ops.next_if(|op| op.ordinal == ordinal) else { continue };
            let Some(value) = value else { continue };
            let kept = pending.len() - before;
            out.put_slice(pending.get(..kept).unwrap_or_default());
            pending = rest;
            op.put(value, format_of(formats, ordinal)?, out)?;
        }
        if !rest.is_empty() {
            return Err(malformed("longer than its values"));
        }
        out.put_slice(pending);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn masked_ordinals(&self) -> Vec<usize> {
        self.ops.iter().map(|op| op.ordinal).collect()
    }

    /// What was masked so far: the mask's name, the output's name, how many values.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.ops.iter().map(|op| (op.protection.mask.as_ref(), op.column.as_str(), op.count))
    }
}

impl Op {
    fn put(&mut self, value: &[u8], binary: bool, out: &mut BytesMut) -> Result<(), WireError> {
        self.count += 1;
        let cell = CellType { oid: self.type_oid, modifier: self.type_modifier, binary };
        match replacement(&self.protection.with, cell, value) {
            None => out.put_i32(-1),
            Some(shown) => {
                out.put_i32(i32::try_from(shown.len()).map_err(|_| malformed("a mask is too long"))?);
                out.put_slice(&shown);
            }
        }
        Ok(())
    }
}

/// The format of one output: true is binary.
fn format_of(formats: &[u16], ordinal: usize) -> Result<bool, WireError> {
    let format = match formats {
        [] => 0,
        [all] => *all,
        each => *each.get(ordinal).ok_or(malformed("not the bound number of formats"))?,
    };
    match format {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(malformed("a format that is neither text nor binary")),
    }
}

fn malformed(why: &'static str) -> WireError {
    WireError::Malformed { what: "DataRow", why }
}

/// Outputs times relations with protected columns.
const LOOKUPS_MAX: usize = 100_000;

struct Planner<'a> {
    set: &'a MaskSet,
    catalog: &'a Catalog,
    mentions: &'a Mentions,
    outputs: usize,
    scope: Scope<'a>,
    /// Anything may be in any output.
    is_opaque: bool,
    /// Of what may be anything that the message reads.
    of_message: Option<Protection>,
    /// Too many outputs over too many relations: every output is masked.
    is_excessive: bool,
}

impl<'a> Planner<'a> {
    fn new(set: &'a MaskSet, catalog: &'a Catalog, mentions: &'a Mentions, outputs: usize) -> Self {
        let scope = Scope::new(set, mentions, catalog);
        let is_opaque = is_opaque(&mentions.reads, catalog);
        let of_message = scope.protection(&mentions.reads);
        let is_excessive = scope.len() * outputs > LOOKUPS_MAX;
        Self { set, catalog, mentions, outputs, scope, is_opaque, of_message, is_excessive }
    }

    /// How the output is protected: by its type, its origin, its name, or what its expression may read.
    fn protection(&self, ordinal: usize, field: &FieldDescription) -> Option<Protection> {
        if self.is_excessive {
            return self.whole();
        }
        let of_row = || self.set.holds_protected_row(field.type_oid, self.catalog).then(|| self.whole()).flatten();
        let by_source = match (field.table_oid, field.attribute) {
            (0, _) => self.of_expression(ordinal),
            (table, 0) => (!self.catalog.knows(table) || !self.set.protected(table, self.catalog).columns.is_empty())
                .then(|| self.whole())
                .flatten(),
            (table, attribute) => self.of_origin(table, attribute),
        };
        let candidates = [of_row(), by_source, self.of_name(field)];
        let strongest = candidates.into_iter().flatten().max_by(|a, b| a.with.cmp(&b.with))?;
        // A number or a truth that was computed has no honest replacement: 0 would be believed.
        let is_computed = field.table_oid == 0 && !carries_text(field.type_oid);
        Some(if is_computed { Protection { with: MaskWith::Null, ..strongest } } else { strongest })
    }

    fn whole(&self) -> Option<Protection> {
        self.set.strongest().map(|strongest| Protection { with: MaskWith::Null, ..strongest })
    }

    fn of_origin(&self, table: u32, attribute: i16) -> Option<Protection> {
        let Some(relation) = self.catalog.relation(table) else { return self.set.strongest() };
        // System columns (ctid, xmin) hold nothing of the row's; any other attribute that is not known was added since.
        if attribute > 0 && !relation.columns.contains_key(&attribute) {
            return self.set.strongest();
        }
        self.set.protected(table, self.catalog).columns.get(&attribute).cloned()
    }

    fn of_expression(&self, ordinal: usize) -> Option<Protection> {
        let target = self.target(ordinal);
        if target.map_or(self.is_opaque, |reads| is_opaque(reads, self.catalog)) {
            return self.set.strongest();
        }
        if self.mentions.plan_only {
            return None;
        }
        let read = target.map_or_else(|| self.of_message.clone(), |reads| self.scope.protection(reads));
        read.map(Protection::derived)
    }

    /// What exactly the output's expression reads, if the statement's shape tells. Stars take any number of outputs, so behind one
    /// they are counted from the end.
    fn target(&self, ordinal: usize) -> Option<&Reads> {
        let targets = self.mentions.targets.as_deref()?;
        let is_star = |target: &Target| *target == Target::Star;
        let target = match (targets.iter().position(is_star), targets.iter().rposition(is_star)) {
            (None, _) | (_, None) if targets.len() == self.outputs => targets.get(ordinal),
            (Some(first), _) if ordinal < first => targets.get(ordinal),
            (Some(_), Some(last)) => {
                let from_end = self.outputs.checked_sub(ordinal)?;
                targets.len().checked_sub(from_end).filter(|index| *index > last).and_then(|index| targets.get(index))
            }
            _ => None,
        };
        match target? {
            Target::Star => None,
            Target::Value(reads) => Some(reads),
        }
    }

    /// An output that has a protected column's name, in a statement that mentions its table or may.
    fn of_name(&self, field: &FieldDescription) -> Option<Protection> {
        let name = String::from_utf8_lossy(&field.name);
        if self.is_opaque {
            return self.set.by_column_name(&name);
        }
        if self.mentions.plan_only {
            return None;
        }
        self.scope.of_output(&name)
    }
}
