//! Secrets: read from their sources when they are needed, pinned to a session by version, used by operation.

mod broker;
pub mod md5;
pub mod scram;
mod secret;
mod source;
#[cfg(test)]
mod testing;

pub use broker::{Broker, CredentialError, Pin};
pub use secret::{SECRET_BYTES_MAX, Secret};
