//! Rules and their matchers.
//!
//! Whatever is uncertain counts against the request: a deny matches if anything it names could be meant, an allow only if
//! everything that the request does is covered.

use std::{sync::Arc, time::Duration};

use super::{
    condition::{Condition, Facts},
    pattern::Pattern,
    verdict::Denied,
};
use crate::flow::{Effects, HttpRequest, Login, Object, ObjectKind, Request, Statement};

/// One entry of `rules:`.
#[derive(Debug)]
pub struct Rule {
    /// `policy/rule`.
    pub name: Arc<str>,
    pub action: Action,
    pub(in crate::policy) matcher: Matcher,
    /// Evaluated only when the matcher matches.
    pub(in crate::policy) when: Option<Condition>,
    /// What a request hears that this rule denies or holds.
    pub(in crate::policy) denied: Denied,
    /// Who may release what this rule holds.
    pub approval: Option<Approval>,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Allow,
    Deny,
    Hold,
}

/// `approval:` of a hold rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Approval {
    pub group: String,
    pub timeout: Duration,
}

/// What a rule's fields say about one kind of request.
#[derive(Debug)]
pub(in crate::policy) enum Matcher {
    /// No fields and a condition that only asks about the workload or the session: every kind.
    Any,
    Http(HttpMatcher),
    Login(LoginMatcher),
    Sql(SqlMatcher),
}

/// Empty lists match everything.
#[derive(Debug, Default)]
pub(in crate::policy) struct HttpMatcher {
    pub(in crate::policy) methods: Vec<String>,
    pub(in crate::policy) hosts: Vec<Pattern>,
    pub(in crate::policy) paths: Vec<Pattern>,
    pub(in crate::policy) headers: Vec<(String, Pattern)>,
}

#[derive(Debug, Default)]
pub(in crate::policy) struct LoginMatcher {
    pub(in crate::policy) users: Vec<Pattern>,
    pub(in crate::policy) databases: Vec<Pattern>,
}

#[derive(Debug, Default)]
pub(in crate::policy) struct SqlMatcher {
    /// `None`: any effect, or none.
    pub(in crate::policy) effects: Option<Effects>,
    pub(in crate::policy) objects: Vec<ObjectPattern>,
    pub(in crate::policy) kinds: Vec<ObjectKind>,
}

/// `schema.name`, or `name` in any schema.
#[derive(Debug)]
pub(in crate::policy) struct ObjectPattern {
    pub(in crate::policy) schema: Option<Pattern>,
    pub(in crate::policy) name: Pattern,
}

impl Rule {
    /// True if the rule speaks about this request. A condition that fails to evaluate counts against the request.
    pub(in crate::policy) fn fires(&self, request: &Request, facts: &Facts<'_>) -> bool {
        self.matcher.matches(request, self.action)
            && match &self.when {
                None => true,
                Some(condition) => condition.holds(request, facts).unwrap_or(self.action != Action::Allow),
            }
    }
}

impl Matcher {
    /// True if rules with this matcher are about this kind of request at all.
    pub(in crate::policy) fn concerns(&self, request: &Request) -> bool {
        matches!(
            (self, request),
            (Self::Any, _)
                | (Self::Http(_), Request::Http(_))
                | (Self::Login(_), Request::Login(_))
                | (Self::Sql(_), Request::Statement(_))
        )
    }

    pub(in crate::policy) fn matches(&self, request: &Request, action: Action) -> bool {
        match (self, request) {
            (Self::Any, _) => true,
            (Self::Http(matcher), Request::Http(request)) => matcher.matches(request, action),
            (Self::Login(matcher), Request::Login(login)) => matcher.matches(login),
            (Self::Sql(matcher), Request::Statement(statement)) => matcher.matches(statement, action),
            _ => false,
        }
    }

    /// True if the rule names an effect of the statement that says "cannot be seen through" in so many words.
    pub(in crate::policy) fn names_effects(&self, effects: Effects) -> bool {
        matches!(self, Self::Sql(SqlMatcher { effects: Some(named), .. }) if effects.iter().all(|effect| named.contains(effect)))
    }
}

impl HttpMatcher {
    fn matches(&self, request: &HttpRequest, action: Action) -> bool {
        let allow = action == Action::Allow;
        let method = |method: &String| {
            // Methods are case-sensitive, but not every server knows.
            if allow { *method == request.method } else { method.eq_ignore_ascii_case(&request.method) }
        };
        let host = request.host.strip_suffix('.').unwrap_or(&request.host);
        (self.methods.is_empty() || self.methods.iter().any(method))
            && any(&self.hosts, host)
            && self.paths_match(request, allow)
            && self.headers.iter().all(|(name, pattern)| header_matches(request, name, pattern, allow))
    }

    /// The server may resolve the path or not, and decode it more than once: a deny takes any reading, an allow needs all.
    fn paths_match(&self, request: &HttpRequest, allow: bool) -> bool {
        let (raw, normal) = (any(&self.paths, &request.path), any(&self.paths, &request.path_normal));
        let lenient = request.path_lenient.as_ref().map_or(normal, |path| any(&self.paths, path));
        if allow { raw && normal && lenient } else { raw || normal || lenient }
    }
}

/// A header may be sent several times: a deny takes any of the values, an allow needs all.
fn header_matches(request: &HttpRequest, name: &str, pattern: &Pattern, allow: bool) -> bool {
    let mut values =
        request.headers.iter().filter(|(sent, _)| sent == name).map(|(_, value)| pattern.matches_bytes(value)).peekable();
    values.peek().is_some() && if allow { values.all(|matched| matched) } else { values.any(|matched| matched) }
}

impl LoginMatcher {
    /// Without a database the server takes the one named like the user.
    fn matches(&self, login: &Login) -> bool {
        any(&self.users, &login.user) && any(&self.databases, login.database.as_deref().unwrap_or(&login.user))
    }
}

impl SqlMatcher {
    fn matches(&self, statement: &Statement, action: Action) -> bool {
        if action == Action::Allow { self.covers(statement) } else { self.touches(statement) }
    }

    /// For deny and hold: any effect, and any one object that satisfies both `objects` and `kinds`.
    fn touches(&self, statement: &Statement) -> bool {
        self.effects.is_none_or(|effects| effects.intersects(statement.effects))
            && (!self.names_objects() || statement.objects.iter().any(|object| self.names(object, true)))
    }

    /// For allow: all effects, all objects. A statement that names no object does not pass a rule that is only about objects
    /// unless it has no effect either.
    fn covers(&self, statement: &Statement) -> bool {
        self.effects.is_none_or(|effects| statement.effects.iter().all(|effect| effects.contains(effect)))
            && (!self.names_objects()
                || (statement.objects.iter().all(|object| self.names(object, false))
                    && (!statement.objects.is_empty() || statement.effects.is_empty() || self.effects.is_some())))
    }

    fn names_objects(&self) -> bool {
        !self.objects.is_empty() || !self.kinds.is_empty()
    }

    fn names(&self, object: &Object, unknown_schema_matches: bool) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&object.kind))
            && (self.objects.is_empty() || self.objects.iter().any(|pattern| pattern.matches(object, unknown_schema_matches)))
    }
}

impl ObjectPattern {
    /// A name without a schema may be in any schema of the search path.
    fn matches(&self, object: &Object, unknown_schema_matches: bool) -> bool {
        let schema = match (&self.schema, &object.schema) {
            (None, _) => true,
            (Some(pattern), Some(schema)) => pattern.matches(schema),
            (Some(pattern), None) => unknown_schema_matches || pattern.is_any(),
        };
        schema && self.name.matches(&object.name)
    }
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
}
