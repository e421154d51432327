//! Pure decisions: who may reach what, what may be asked, what is masked. No tokio, no sockets, no clock; `load` alone reads files.
//!
//! [`load::load`] makes a [`PolicySet`] of files, or says everything that is wrong with them. [`PolicySet::admit`] judges a
//! connection and gives a [`Permit`]; [`PolicySet::decide`] judges each request under it:
//!
//! ```no_run
//! # fn example(flow: &weir::flow::Flow, request: &weir::flow::Request, read_sql: &weir::policy::load::SqlReader) {
//! use weir::policy::{ResolvedHosts, Verdict, load};
//!
//! let loaded = load::load(&["/etc/weir/policies".into()], read_sql, 1).expect("the policies are right");
//! let permit = loaded.set.admit(flow, &ResolvedHosts::new()).expect("the flow is admitted");
//! if let Verdict::Deny(denied) = loaded.set.decide(&permit, request) {
//!     println!("{}: {}", denied.rule, denied.message);
//! }
//! # }
//! ```

mod admit;
mod condition;
mod decide;
pub mod explain;
pub mod load;
pub mod object;
mod pattern;
pub mod rule;
pub mod schema;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
pub mod verdict;

pub use verdict::{Allowed, Denied, Permit, Verdict};

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use object::{Durability, Inject, Mask, Policy, Upstream};

/// Every object that was loaded together. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct PolicySet {
    pub generation: u64,
    /// Hexadecimal SHA-256 over the loaded files, for journal and status.
    pub digest: String,
    pub upstreams: Vec<Arc<Upstream>>,
    pub policies: Vec<Arc<Policy>>,
}

/// Addresses of the names in `Upstream.hosts`, as resolved last.
pub type ResolvedHosts = HashMap<Arc<str>, Vec<IpAddr>>;

impl PolicySet {
    /// Every host name that must be resolved.
    pub fn host_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.upstreams.iter().flat_map(|upstream| &upstream.hosts).filter_map(|host| match host {
            object::Host::Name(name) => Some(name),
            object::Host::Address(_) | object::Host::Cidr(_) => None,
        })
    }
}

impl PolicySet {
    /// Makes every policy observe, whatever it says: for a run that must change nothing.
    #[must_use]
    pub fn observing(mut self) -> Self {
        for policy in &mut self.policies {
            // Nobody else holds a set that was just loaded.
            if let Some(policy) = Arc::get_mut(policy) {
                policy.spec.mode = object::Mode::Observe;
            }
        }
        self
    }
}

impl Permit {
    /// What to inject; at most one, `admit` saw to it.
    #[must_use]
    pub fn inject(&self) -> Option<&Inject> {
        self.injecting().next().map(|(_, inject)| inject)
    }

    /// The policies that inject. One that matches only by a wider upstream does not: its credential is for another server.
    pub(in crate::policy) fn injecting(&self) -> impl Iterator<Item = (&Arc<Policy>, &Inject)> {
        let selecting = self.policies().iter().filter(|policy| policy.selects_upstream(self.upstream()));
        selecting.filter_map(|policy| Some((policy, policy.spec.inject.as_ref()?)))
    }

    /// Every mask of the policies that enforce; observing policies mask nothing.
    pub fn masks(&self) -> impl Iterator<Item = &Mask> {
        self.policies().iter().filter(|policy| policy.spec.mode == object::Mode::Enforce).flat_map(|policy| &policy.spec.masks)
    }

    /// The strictest durability that a matching policy asks for.
    #[must_use]
    pub fn durability(&self) -> Durability {
        let bounded = |policy: &Arc<Policy>| policy.spec.journal.statements == Durability::Bounded;
        if !self.policies().is_empty() && self.policies().iter().all(bounded) { Durability::Bounded } else { Durability::Durable }
    }
}
