//! Which cells of a result are masked, and the masking of whole rows.
//!
//! Two independent sources are united: the origin that the server reports for each output (table and attribute number, looked up in
//! the [`Catalog`]), and what the statement mentions. Either alone catches a direct read. Where neither can say that an output is
//! harmless, it is masked: ambiguity costs a cell, never a secret.

mod mentions;
mod plan;
mod protect;
mod scope;
#[cfg(test)]
mod tests;

pub use mentions::{Mentions, Reads, Reference, Relabelled, Relation, Target};
pub use plan::RowPlan;
pub use protect::MaskSet;
