//! Pure decisions: who may reach what, what may be asked, what is masked. No tokio (but `watch`), no I/O of its own clock.

pub mod object;
pub mod rule;
pub mod verdict;

pub use verdict::{Allowed, Denied, Permit, Verdict};

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use crate::flow::{Flow, OrigDst, Protocol, Request, Workload};
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
    /// Judges a flow: which upstream it reaches, under which policies.
    ///
    /// Every policy whose workloads and upstreams match applies. With none, `unmatched` of the policies that match the workload
    /// decides (deny wins; deny when no policy matches the workload at all). Two policies that would inject different
    /// credentials deny the flow.
    ///
    /// # Errors
    /// The denial, with the rule and the sentence for the client.
    pub fn admit(&self, flow: &Flow, resolved: &ResolvedHosts) -> Result<Permit, Denied> {
        let _ = (flow, resolved);
        todo!()
    }

    /// Judges one request under a permit of this set's generation. Pure: the same arguments give the same verdict.
    #[must_use]
    pub fn decide(&self, permit: &Permit, request: &Request) -> Verdict {
        let _ = (permit, request);
        todo!()
    }

    /// The protocol that the upstream at this destination declares, if any: asked before the first byte is peeked, because in
    /// some protocols the server speaks first. `Ok(None)`: detect.
    #[must_use]
    pub fn protocol_hint(&self, workload: &Workload, dst: OrigDst, resolved: &ResolvedHosts) -> Option<Protocol> {
        let _ = (workload, dst, resolved);
        todo!()
    }

    /// Every host name that must be resolved.
    pub fn host_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.upstreams.iter().flat_map(|upstream| &upstream.hosts).filter_map(|host| match host {
            object::Host::Name(name) => Some(name),
            object::Host::Address(_) | object::Host::Cidr(_) => None,
        })
    }
}

impl Permit {
    /// What to inject; at most one, `admit` saw to it.
    #[must_use]
    pub fn inject(&self) -> Option<&Inject> {
        self.policies().iter().find_map(|policy| policy.spec.inject.as_ref())
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
