//! Weir: the kernel brings a connection; six questions are answered about it in order; every answer is journaled.
//!
//! ```text
//!   accept      who?      what?        may it?        as whom?      reach it     carry it
//!  listener ─▶ origins ─▶ detect ─▶ judge(policy) ─▶ credential ─▶ connect ─▶ carry
//!     └───────────┴──────────┴───────────┴──── journal ─────┴────────────┴───────────┘
//! ```
//!
//! Start reading at `proxy::session::serve`.

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod credential;
pub mod drain;
pub mod flow;
pub mod intercept;
pub mod journal;
pub mod judge;
pub mod mask;
pub mod policy;
pub mod protocol;
pub mod proxy;
pub mod telemetry;
pub mod tls;
