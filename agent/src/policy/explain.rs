//! Which rule fires on a request, and why the others do not: for `weir policy explain`.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use serde::Serialize;

use super::{
    PolicySet,
    condition::Facts,
    decide::Finding,
    load::selftest,
    object::{Mode, Policy},
    rule::{Action, Rule},
};
use crate::flow::{HttpRequest, Protocol, Request, Workload};

/// What one policy says about a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub policy: Arc<str>,
    pub mode: Mode,
    /// `allow`, `deny` or `hold`.
    pub verdict: &'static str,
    /// What decided; `None` when nothing named the request.
    pub rule: Option<Arc<str>>,
    pub message: Option<Arc<str>>,
    pub rules: Vec<RuleExplanation>,
}

/// What one rule says about it.
#[derive(Clone, Debug, Serialize)]
pub struct RuleExplanation {
    pub rule: Arc<str>,
    pub action: &'static str,
    pub fires: bool,
    pub why: &'static str,
}

impl PolicySet {
    /// Asks every policy about a request, whatever workloads and upstreams it selects, for a workload of which nothing is known.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Vec<Explanation> {
        let workload = Workload::default();
        let protocol = match request {
            Request::Http(_) => Protocol::Http,
            Request::Login(_) | Request::Statement(_) => Protocol::Postgres,
            Request::Stream => Protocol::Tcp,
        };
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let facts = Facts { workload: &workload, protocol, upstream: "", address, port: 0 };
        self.policies.iter().map(|policy| policy.explain(request, &facts)).collect()
    }
}

/// An HTTP request as `explain` and `tests:` make it: the path with its query, normalised as the HTTP side does.
#[must_use]
pub fn http_request(method: &str, host: &str, target: &str) -> HttpRequest {
    selftest::request(method, &host.to_ascii_lowercase(), target, Vec::new())
}

impl Policy {
    fn explain(&self, request: &Request, facts: &Facts<'_>) -> Explanation {
        let (verdict, rule, message) = match self.judge(request, facts) {
            Finding::Allow(rule) => ("allow", rule.cloned(), None),
            Finding::Deny(denied) => ("deny", Some(denied.rule), Some(denied.message)),
            Finding::Hold(denied) => ("hold", Some(denied.rule), Some(denied.message)),
        };
        let rules = self.spec.rules.iter().map(|rule| rule.explain(request, facts)).collect();
        Explanation { policy: Arc::clone(&self.name), mode: self.spec.mode, verdict, rule, message, rules }
    }
}

impl Rule {
    fn explain(&self, request: &Request, facts: &Facts<'_>) -> RuleExplanation {
        let allow = self.action == Action::Allow;
        let why = if !self.matcher.concerns(request) {
            "it is about another kind of request"
        } else if !self.matcher.matches(request, self.action) {
            if allow { "its fields do not cover all that the request does" } else { "its fields match nothing in the request" }
        } else {
            match self.when.as_ref().map(|condition| condition.holds(request, facts)) {
                None => "its fields match",
                Some(Ok(true)) => "its fields match and its condition holds",
                Some(Ok(false)) => "its condition does not hold",
                Some(Err(_)) if allow => "its condition cannot be evaluated, which allows nothing",
                Some(Err(_)) => "its condition cannot be evaluated, which counts against the request",
            }
        };
        let action = match self.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Hold => "hold",
        };
        RuleExplanation { rule: Arc::clone(&self.name), action, fires: self.fires(request, facts), why }
    }
}
