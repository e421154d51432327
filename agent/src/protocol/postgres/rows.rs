//! Column masks. (Placeholder until the masks are merged.)

use bytes::{BufMut, BytesMut};
use weir_wire::{
    WireError,
    postgres::{FieldDescription, cells},
};

use super::Catalog;
use crate::policy::{Permit, object::MaskWith};

#[derive(Debug, Default)]
pub struct Mentions {
    pub(super) sensitive: bool,
}

#[derive(Debug, Default)]
pub struct MaskSet {
    masks: Vec<crate::policy::object::Mask>,
}

impl MaskSet {
    #[must_use]
    pub fn from_permit(permit: &Permit) -> Self {
        Self { masks: permit.masks().filter(|mask| !mask.columns.is_empty()).cloned().collect() }
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }
    #[must_use]
    pub fn touches(&self, mentions: &Mentions, _catalog: &Catalog) -> bool {
        mentions.sensitive
    }
}

pub struct RowPlan {
    columns: Vec<Option<(String, String, u64)>>,
    constant: String,
}

impl RowPlan {
    #[must_use]
    pub fn new(set: &MaskSet, fields: &[FieldDescription], _mentions: Option<&Mentions>, _catalog: &Catalog) -> Self {
        let column = |field: &FieldDescription| {
            let name = String::from_utf8_lossy(&field.name).into_owned();
            let mask = set.masks.iter().find(|mask| mask.columns.iter().any(|column| column.column.matcher.is_match(&name)))?;
            Some((mask.name.to_string(), name, 0))
        };
        let constant = set.masks.iter().find_map(|mask| match &mask.with {
            MaskWith::Constant(text) => Some(text.clone()),
            _ => None,
        });
        Self { columns: fields.iter().map(column).collect(), constant: constant.unwrap_or_default() }
    }
    #[must_use]
    pub fn is_noop(&self) -> bool {
        self.columns.iter().all(Option::is_none)
    }
    /// # Errors
    /// The row is malformed.
    pub fn mask_row(&mut self, body: &[u8], _formats: &[u16], out: &mut BytesMut) -> Result<(), WireError> {
        let cells = cells(body)?;
        out.put_u16(cells.left());
        for (cell, column) in cells.zip(self.columns.iter_mut()) {
            match (cell?, column) {
                (None, _) => out.put_i32(-1),
                (Some(_), Some(column)) => {
                    column.2 += 1;
                    out.put_i32(i32::try_from(self.constant.len()).unwrap_or(0));
                    out.put_slice(self.constant.as_bytes());
                }
                (Some(cell), None) => {
                    out.put_i32(i32::try_from(cell.len()).unwrap_or(0));
                    out.put_slice(cell);
                }
            }
        }
        Ok(())
    }
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.columns.iter().flatten().map(|(mask, column, count)| (mask.as_str(), column.as_str(), *count))
    }
}
