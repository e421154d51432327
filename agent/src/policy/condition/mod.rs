//! `when:` conditions: CEL, read by the `cel` crate, checked and compiled at load, evaluated natively.
//!
//! The crate's interpreter checks nothing before it runs and copies every variable into its own values (tens of microseconds a
//! request). Here each expression becomes a small tree over the fields that exist: unknown names and wrong types are errors
//! at load, evaluation borrows from the request, and its cost is bounded.

mod compile;
mod evaluate;
mod fields;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr};

use crate::{
    flow::{Protocol, Request, Workload},
    policy::Permit,
};
use compile::Node;

pub(in crate::policy) use compile::compile;
pub(in crate::policy) use fields::OBJECT_KINDS;

/// A checked boolean expression.
#[derive(Debug)]
pub(in crate::policy) struct Condition {
    root: Node,
    /// The kind of request that it asks about, if it asks about one.
    pub(in crate::policy) about: Option<About>,
}

/// Kinds of request that have fields of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::policy) enum About {
    Http,
    Login,
    Sql,
}

/// What is true of the session as a whole.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Facts<'p> {
    pub(in crate::policy) workload: &'p Workload,
    pub(in crate::policy) protocol: Protocol,
    pub(in crate::policy) upstream: &'p str,
    pub(in crate::policy) address: IpAddr,
    pub(in crate::policy) port: u16,
}

/// The expression could not be evaluated: a key that is not there, or more work than a condition may make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::policy) struct Fault;

impl Condition {
    /// # Errors
    /// See [`Fault`]; the caller decides what that means.
    pub(in crate::policy) fn holds(&self, request: &Request, facts: &Facts<'_>) -> Result<bool, Fault> {
        evaluate::holds(&self.root, request, facts)
    }
}

impl<'p> Facts<'p> {
    pub(in crate::policy) fn of(permit: &'p Permit) -> Self {
        let flow = permit.flow();
        let dst = flow.origin.orig_dst.0;
        Self {
            workload: &flow.origin.workload,
            protocol: flow.protocol,
            upstream: &permit.upstream().name,
            address: dst.ip(),
            port: dst.port(),
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP requests",
            Self::Login => "logins",
            Self::Sql => "SQL statements",
        })
    }
}
