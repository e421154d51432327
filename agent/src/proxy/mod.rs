//! The socket boundary: accepts what the kernel redirected, asks the six questions, carries the bytes.
//!
//! May use everything but `app`, `control` and `cli`. Start at [`session::serve`].

pub mod listener;
pub mod resolve;
pub mod session;
pub mod sessions;

mod cancel;
mod carry;
pub mod catalog;
mod connect;
mod detect;
mod note;
mod outcome;
mod refuse;
mod relay;
mod stream;
mod web;

use std::{sync::Arc, time::Duration};

use crate::{
    credential::Broker,
    drain::Drain,
    intercept::{Identities, Origins},
    judge::Judge,
    tls::{Authority, Originator},
};

/// What a session may use.
pub struct Context {
    pub origins: Arc<dyn Origins>,
    pub identities: Identities,
    pub judge: Arc<Judge>,
    pub broker: Broker,
    pub authority: Authority,
    pub originator: Originator,
    pub sessions: Arc<sessions::Sessions>,
    pub catalogs: catalog::Catalogs,
    pub resolver: resolve::Resolver,
    pub limits: Limits,
    pub drain: Drain,
}

/// Time and number limits of the proxy.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From accept to the first complete request.
    pub handshake_timeout: Duration,
    /// Sessions at one time; more are refused.
    pub sessions_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(60), sessions_max: 16_384 }
    }
}
