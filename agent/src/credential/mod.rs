//! Secrets: read from their sources when they are needed, pinned to a session by version, used by operation.
//!
//! ```no_run
//! # async fn example(broker: weir::credential::Broker, permit: weir::policy::Permit) -> Result<(), weir::credential::CredentialError> {
//! weir::credential::harden().ok(); // first thing in the process
//! if let Some(pin) = broker.acquire(&permit).await? {
//!     println!("{} is at version {}", pin.name(), pin.version());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It may use `flow`, `policy::Permit` and `mask::KnownSecrets`; it must not use the journal, protocols or the proxy.

mod broker;
pub mod md5;
pub mod scram;
mod secret;
mod source;

pub use broker::{Broker, CredentialError, Pin};
pub use secret::{SECRET_BYTES_MAX, Secret};

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Keeps this process's memory to itself: no core dump, no ptrace and no `/proc/PID/mem` for other users' processes.
///
/// Undone by `execve`, but for the soft core limit: a program that weir starts for somebody else must get its own limit back.
///
/// # Errors
/// The kernel refuses.
pub fn harden() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })?)
}
