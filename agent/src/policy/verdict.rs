//! Verdicts, and the permit that proves one.

use std::sync::Arc;

use crate::{
    flow::{Flow, Reason},
    policy::object::{Mode, Policy, Upstream},
};

/// What policy says about one request, after modes and combination (deny > hold > mask > allow).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    Allow(Allowed),
    Deny(Denied),
}

/// An allowed request: which rule said so, and what observe mode would have refused.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Allowed {
    /// `policy/rule`; `None` when no rule named the request.
    pub rule: Option<Arc<str>>,
    /// In observe mode: the denial that was not enforced.
    pub would_deny: Option<Denied>,
}

/// A refused request, with what the client is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denied {
    /// `policy/rule`, or `policy/unmatched`, `policy/onUnreadable`, `policy/default`.
    pub rule: Arc<str>,
    /// One sentence for the client: the rule's `message:` or a default one.
    pub message: Arc<str>,
    pub reason: Reason,
}

/// Proof that policy admitted a flow, and what was decided about it. Only `policy` can make one.
#[derive(Clone, Debug)]
pub struct Permit {
    /// Generation of the policy set that admitted the flow; a newer set judges anew.
    generation: u64,
    upstream: Arc<Upstream>,
    /// The name among the upstream's hosts by which the destination was recognised, if it was a name.
    host: Option<Arc<str>>,
    policies: Arc<[Arc<Policy>]>,
    flow: Flow,
    /// An observing policy would not have admitted the flow.
    would_deny: Option<Denied>,
}

impl Permit {
    pub(in crate::policy) fn new(
        generation: u64,
        upstream: Arc<Upstream>,
        host: Option<Arc<str>>,
        policies: Arc<[Arc<Policy>]>,
        flow: Flow,
    ) -> Self {
        Self { generation, upstream, host, policies, flow, would_deny: None }
    }

    pub(in crate::policy) fn with_would_deny(self, would_deny: Option<Denied>) -> Self {
        Self { would_deny, ..self }
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }
    #[must_use]
    pub fn host(&self) -> Option<&Arc<str>> {
        self.host.as_ref()
    }
    /// Every policy that matched workload and upstream, in load order; never empty unless the flow was admitted by `unmatched: allow`.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }
    #[must_use]
    pub fn flow(&self) -> &Flow {
        &self.flow
    }
    /// What an observing policy would have said about the flow itself.
    #[must_use]
    pub fn would_deny(&self) -> Option<&Denied> {
        self.would_deny.as_ref()
    }
    /// True when every matching policy only observes: nothing is injected, masked or refused.
    #[must_use]
    pub fn observes(&self) -> bool {
        !self.policies.is_empty() && self.policies.iter().all(|policy| policy.spec.mode == Mode::Observe)
    }
}
