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
#[cfg(test)]
mod testing;
mod version;

pub use broker::{Broker, CredentialError, Pin};
pub use secret::{SECRET_BYTES_MAX, Secret};
pub use source::check_private;
pub use version::{VersionKey, VersionKeyError};

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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::dumpable_behavior;

    use super::*;

    const CHILD: &str = "WEIR_TEST_HARDEN";

    /// In a process of its own: the other tests may read their own `/proc`.
    #[test]
    fn a_hardened_process_leaves_no_core_behind() {
        if std::env::var_os(CHILD).is_some() {
            harden().unwrap();
            assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
            assert_eq!(getrlimit(Resource::Core).current, Some(0));
            return;
        }
        let name = "credential::tests::a_hardened_process_leaves_no_core_behind";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran no test");
    }
}
