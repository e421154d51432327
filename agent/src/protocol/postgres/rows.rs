//! Which cells of a result are masked, and the masking of whole rows.

mod mentions;

pub use mentions::{Mentions, Reads, Relation, Target};
