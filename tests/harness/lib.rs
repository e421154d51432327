//! Real servers, real clients, and an agent between them, for tests, the demo and the benchmark.
//!
//! A [`Scene`] is where a story plays: a scratch directory, a PostgreSQL, an HTTP API, a cgroup for the workload and a place for
//! policies, secrets and the journal. An [`Agent`] is a running `weir agent`. A [`Client`] is a command inside the workload's cgroup.
//! Everything listens on loopback addresses only, on ports that were free, and is stopped by pid when dropped.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let scene = e2e::Scene::with_postgres()?;
//! let agent = scene.agent(&scene.postgres_policy(""))?;
//! let seen = scene.psql("select 1")?;
//! assert_eq!(seen.stdout.trim(), "1");
//! # drop(agent); Ok(()) }
//! ```

mod agent;
mod authority;
mod cgroup;
mod http_api;
mod journal;
mod postgres;
mod process;
mod scene;
mod scratch;

pub use agent::{Agent, Places, use_weir, weir, weir_binary};
pub use authority::{Authority, Leaf};
pub use cgroup::{Cgroup, v2_root};
pub use http_api::HttpApi;
pub use journal::Entry;
pub use postgres::{APP_USERS, AppUser, Postgres, PostgresOptions, postgres_program};
pub use process::{Client, Daemon, Seen, free_port, wait_until};
pub use scene::Scene;
pub use scratch::{Scratch, random_hex};

/// Where "external" servers of the tests live: loopback addresses that policy treats as foreign.
pub const SERVER_V4: &str = "127.0.0.5";
pub const SERVER_V6: &str = "::1";
