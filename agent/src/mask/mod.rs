//! What must not be seen is replaced here: known secrets in any encoding, JSON values by key, cells by column.
//!
//! ```
//! use weir::mask::KnownSecrets;
//! let known = KnownSecrets::default();
//! known.register(b"correct-horse").unwrap();
//! assert_eq!(&*known.scrubber().scrub(b"token=correct%2Dhorse;"), b"token=***;");
//! ```

mod argv;
pub mod cell;
mod embedded;
mod forms;
mod json;
mod known;
mod scan;
mod stream;
mod workload;

pub use embedded::{Dialect, EmbeddedMasker};
pub use json::{JsonError, JsonKeys, JsonMasker, KEY_BYTES_MAX, NESTING_MAX};
pub use known::{KnownSecrets, SECRET_BYTES_MIN, Scrubber, Unmaskable};
pub use stream::ScrubStream;
pub use workload::MaskedWorkload;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Text that has been through masking: the only free text that the journal takes. Only `mask` makes one.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Masked(Arc<str>);

impl Masked {
    /// A text of our own: it was compiled in, so it holds nothing of anyone's.
    #[must_use]
    pub fn plain(text: &'static str) -> Self {
        Self(text.into())
    }

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

/// What stands in place of whatever was masked. The same everywhere, so that it tells nothing about the value.
pub const REPLACEMENT: &[u8] = b"***";
