//! The kernel boundary, and the only user of aya.
//!
//! [`Interceptor`] loads the programs of `ebpf/`, attaches them once at the top cgroup and pins them, so that designated workloads
//! are refused, never let through, while no agent runs. [`Designator`] keeps the set of designated cgroups equal to what the
//! policies select. [`Origins`] tells where an accepted connection wanted to go, once; [`Identities`] tells who made it.
//!
//! ```no_run
//! # fn main() -> Result<(), weir::intercept::InterceptError> {
//! use weir::intercept::{InterceptConfig, Interceptor, cgroup2_root};
//!
//! let interceptor = Interceptor::attach(InterceptConfig { top_cgroup: cgroup2_root()?, pin_dir: "/sys/fs/bpf/weir".into() })?;
//! // Bind first, publish then: nobody, not even the agent, may bind a published port.
//! let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
//! interceptor.publish(Some(listener.local_addr().expect("bound").port()), None)?;
//! interceptor.heartbeat()?; // and again every `HEARTBEAT_PERIOD`
//! # Ok(()) }
//! ```
//!
//! May use: `flow`, `weir-abi`, aya. Must not use anything above it.

mod cgroup;
mod designate;
mod error;
mod interceptor;
mod origins;
mod pins;
mod probe;
mod programs;
mod workload;

pub use cgroup::{cgroup_id, cgroup2_root, is_populated};
pub use designate::{Designator, Designators, Selector};
pub use error::InterceptError;
pub use interceptor::{Cgroups, HEARTBEAT_PERIOD, HEARTBEAT_TTL, InterceptConfig, Interceptor, Stats};
pub use origins::{MapOrigins, Origins, TakenOrigin};
pub use pins::{PIN_DIR_DEFAULT, PinState, is_bpffs, pin_directories, remove_abandoned};
pub use probe::{Feature, Finding, features};
pub use programs::{OBJECT, ProgramSize, verify};
pub use workload::Identities;
