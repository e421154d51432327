//! The verdict on one request: every policy of the permit speaks, the strictest that enforces wins.

use std::sync::Arc;

use super::{
    Allowed, Denied, Permit, PolicySet, Verdict,
    condition::Facts,
    object::{Mode, OnUnreadable, Policy},
    rule::Action,
};
use crate::flow::{Effect, Reason, Request};

/// What one policy says about one request, whatever its mode.
#[derive(Debug)]
pub(in crate::policy) enum Finding<'p> {
    Allow(Option<&'p Arc<str>>),
    Deny(Denied),
    Hold(Denied),
}

impl PolicySet {
    /// Judges one request under a permit of this set's generation. Pure: the same arguments give the same verdict.
    ///
    /// A permit of another generation is denied: whoever holds it must be admitted anew.
    #[must_use]
    pub fn decide(&self, permit: &Permit, request: &Request) -> Verdict {
        if permit.generation() != self.generation {
            return Verdict::Deny(denied("weir", "generation", "the policies changed since this connection was admitted".into()));
        }
        let facts = Facts::of(permit);
        let mut allowed = Allowed { rule: None, would_deny: permit.would_deny().cloned() };
        let mut held = None;
        for policy in permit.policies() {
            let enforced = policy.spec.mode == Mode::Enforce;
            match policy.judge(request, &facts) {
                Finding::Allow(rule) => allowed.rule = allowed.rule.or_else(|| rule.cloned()),
                Finding::Deny(denied) if enforced => return Verdict::Deny(denied),
                Finding::Hold(denied) if enforced => held = held.or(Some(denied)),
                Finding::Deny(denied) | Finding::Hold(denied) => allowed.would_deny = allowed.would_deny.or(Some(denied)),
            }
        }
        match held {
            Some(denied) => Verdict::Deny(denied),
            None => Verdict::Allow(allowed),
        }
    }
}

impl Policy {
    /// Deny, then hold, then what cannot be read, then allow, then the default.
    pub(in crate::policy) fn judge(&self, request: &Request, facts: &Facts<'_>) -> Finding<'_> {
        let fires = |action| self.spec.rules.iter().find(|rule| rule.action == action && rule.fires(request, facts));
        if let Some(rule) = fires(Action::Deny) {
            return Finding::Deny(rule.denied.clone());
        }
        if let Some(rule) = fires(Action::Hold) {
            return Finding::Hold(rule.denied.clone());
        }
        let allow = fires(Action::Allow);
        if let Some(why) = self.unreadable(request) {
            let named =
                allow.is_some_and(|rule| matches!(request, Request::Statement(it) if rule.matcher.names_effects(it.effects)));
            match self.spec.on_unreadable {
                OnUnreadable::Deny if !named => return Finding::Deny(denied(&self.name, "onUnreadable", why)),
                OnUnreadable::Hold if !named => {
                    return Finding::Hold(denied(&self.name, "onUnreadable", format!("{why}; {NO_DESK}")));
                }
                _ => {}
            }
        }
        match allow {
            Some(rule) => Finding::Allow(Some(&rule.name)),
            None if self.spec.rules.iter().any(|rule| rule.action == Action::Allow && rule.matcher.concerns(request)) => {
                Finding::Deny(denied(&self.name, "default", format!("no rule of policy {} allows this", self.name)))
            }
            None => Finding::Allow(None),
        }
    }

    /// Why the request cannot be seen through, if so. A connection that is not spoken in a protocol that weir reads escapes
    /// every rule and mask: a policy that has some has not been obeyed by letting it pass.
    fn unreadable(&self, request: &Request) -> Option<String> {
        match request {
            Request::Statement(statement) if !statement.readable || statement.effects.contains(Effect::Unreadable) => {
                let why = statement.unreadable_reason.as_deref().unwrap_or("it is not valid SQL");
                Some(format!("this statement cannot be read: {why}"))
            }
            Request::Statement(statement) if statement.effects.contains(Effect::ExecCode) => {
                Some("this statement runs code that cannot be seen through".to_owned())
            }
            // Rows come as a stream of changes, not as results of statements.
            Request::Login(login) if login.replication && self.inspects() => {
                Some(format!("policy {} cannot be applied to what a replication connection carries", self.name))
            }
            Request::Stream if self.inspects() => {
                Some(format!("this connection speaks no protocol that policy {} can be applied to", self.name))
            }
            _ => None,
        }
    }

    /// True if obeying the policy takes reading what is said.
    pub(in crate::policy) fn inspects(&self) -> bool {
        !self.spec.rules.is_empty() || !self.spec.masks.is_empty() || self.spec.inject.is_some()
    }
}

/// A denial by something that has no rule of its own.
pub(in crate::policy) fn denied(policy: &str, what: &str, message: String) -> Denied {
    Denied { rule: format!("{policy}/{what}").into(), message: message.into(), reason: Reason::Denied }
}

/// Said wherever something would wait for a person.
pub(in crate::policy) const NO_DESK: &str = "it needs an approval, and there is no approval desk";
