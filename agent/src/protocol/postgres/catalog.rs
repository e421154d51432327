//! Names.

/// Names.
#[derive(Debug, Default)]
pub struct Catalog {}
