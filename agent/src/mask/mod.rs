//! What must not be seen is replaced here: known secrets in any encoding, JSON values by key, cells by column.

pub mod cell;
mod known;

pub use known::{KnownSecrets, Scrubber};

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that has been through masking: the only free text that the journal takes. Only `mask` makes one.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Masked(String);

impl Masked {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
