//! `tests:` inside policies: a policy that does not do what its author said is not loaded.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::Bytes;
use serde::Serialize;

use super::{
    SqlReader,
    fields::{Map, list, short, start_of, text, word},
    policy::header_name,
    source::Reporter,
    tree::{Node, Span, Value as Yaml},
};
use crate::{
    flow::{HttpRequest, Login, Protocol, Request, Workload, path},
    policy::{condition::Facts, decide::Finding, object::Policy},
};

pub(in crate::policy) const TEST_KEYS: &[&str] =
    &["proto", "expect", "sql", "user", "database", "application", "method", "host", "path", "headers"];

/// What a test expects, or what came out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    Allow,
    Deny,
    Hold,
}

/// How one test ended.
#[derive(Clone, Debug, Serialize)]
pub struct TestOutcome {
    pub policy: Arc<str>,
    pub file: Arc<str>,
    pub line: usize,
    /// The request, in short.
    pub request: String,
    pub expect: Expectation,
    pub got: Expectation,
    /// `policy/rule` that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// What the client would be told.
    pub message: Option<Arc<str>>,
    #[serde(skip)]
    pub(super) span: Span,
}

/// One entry of `tests:`.
pub(super) struct Test {
    file: Arc<str>,
    span: Span,
    expect: Expectation,
    protocol: Protocol,
    ask: Ask,
}

enum Ask {
    Http(Arc<HttpRequest>),
    Login(Login),
    Sql { login: Option<Login>, text: String },
}

impl TestOutcome {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.expect == self.got
    }

    pub(super) fn failure(&self) -> String {
        let by = match (&self.rule, &self.message) {
            (Some(rule), Some(message)) => format!("by {rule}: {message}"),
            (Some(rule), None) => format!("by {rule}"),
            (None, _) => "because no rule names it".to_owned(),
        };
        format!("the policy's own test fails: expected {}, got {} {by}", self.expect.verb(), self.got.verb())
    }
}

impl Expectation {
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
        }
    }
}

/// Reads the `tests:` of a policy's spec.
pub(super) fn tests(reporter: &Reporter<'_>, spec: &Node) -> Vec<Test> {
    let Yaml::Map(entries) = &spec.value else { return Vec::new() };
    let node = entries.iter().find(|(key, _)| matches!(&key.value, Yaml::Scalar { text, .. } if text == "tests"));
    node.map(|(_, node)| list(reporter, node, "tests").iter().filter_map(|node| test(reporter, node)).collect())
        .unwrap_or_default()
}

fn test(reporter: &Reporter<'_>, node: &Node) -> Option<Test> {
    let what = "a test";
    let map = Map::read(reporter, node, what, TEST_KEYS)?;
    let protocols = &[("postgres", Protocol::Postgres), ("http", Protocol::Http)];
    let protocol = map.require(reporter, what, "proto", TEST_KEYS).and_then(|node| word(reporter, node, "proto", protocols));
    let expectations = &[("deny", Expectation::Deny), ("allow", Expectation::Allow), ("hold", Expectation::Hold)];
    let expect = map.require(reporter, what, "expect", TEST_KEYS).and_then(|node| word(reporter, node, "expect", expectations));
    let protocol = protocol?;
    let other = if protocol == Protocol::Http {
        &["sql", "user", "database", "application"][..]
    } else {
        &["method", "host", "path", "headers"]
    };
    for key in other {
        if let Some(span) = map.key_span(key) {
            reporter.error(span, format!("`{key}` is not part of a test of {protocol}"));
        }
    }
    let ask = if protocol == Protocol::Http { http(reporter, &map) } else { postgres(reporter, node, &map) };
    Some(Test { file: Arc::clone(&reporter.source().name), span: start_of(node.span), expect: expect?, protocol, ask: ask? })
}

fn postgres(reporter: &Reporter<'_>, node: &Node, map: &Map<'_>) -> Option<Ask> {
    let field = |key: &str| map.get(key).and_then(|node| text(reporter, node, key)).map(str::to_owned);
    let login = ["user", "database", "application"].iter().any(|key| map.get(key).is_some()).then(|| Login {
        user: field("user").unwrap_or_default(),
        database: field("database"),
        application: field("application"),
        replication: false,
    });
    match (map.get("sql"), login) {
        (Some(sql), login) => {
            // Empty text is a statement too.
            let Yaml::Scalar { text, .. } = &sql.value else {
                reporter.error(sql.span, "sql must be text");
                return None;
            };
            Some(Ask::Sql { login, text: text.clone() })
        }
        (None, Some(login)) => Some(Ask::Login(login)),
        (None, None) => {
            reporter.error(start_of(node.span), "a test of postgres needs `sql:`, or a `user:` for the login");
            None
        }
    }
}

fn http(reporter: &Reporter<'_>, map: &Map<'_>) -> Option<Ask> {
    let what = "a test of http";
    let method = map.require(reporter, what, "method", TEST_KEYS).and_then(|node| text(reporter, node, "method"));
    let target = map.require(reporter, what, "path", TEST_KEYS).and_then(|node| text(reporter, node, "path"));
    let host = map.get("host").and_then(|node| text(reporter, node, "host")).unwrap_or("test.invalid").to_ascii_lowercase();
    let mut headers = Vec::new();
    if let Some(sent) = map.get("headers").and_then(|node| Map::read_open(reporter, node, "headers")) {
        for (_, key, value) in sent.entries() {
            let pair = header_name(reporter, key).zip(text(reporter, value, "a header"));
            headers.extend(pair.map(|(name, value)| (name, Bytes::copy_from_slice(value.as_bytes()))));
        }
    }
    Some(Ask::Http(Arc::new(request(method?, &host, target?, headers))))
}

/// A request as the HTTP side would read it.
pub(in crate::policy) fn request(method: &str, host: &str, target: &str, headers: Vec<(String, Bytes)>) -> HttpRequest {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    HttpRequest {
        method: method.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        path_normal: path::normal(path),
        path_lenient: path::lenient(path),
        query,
        headers,
    }
}

impl Test {
    /// Asks the one policy, as if it enforced.
    pub(super) fn run(&self, policy: &Policy, reader: &SqlReader) -> TestOutcome {
        let (got, rule, message) = match &self.ask {
            Ask::Http(request) => self.judge(policy, &Request::Http(Arc::clone(request))),
            Ask::Login(login) => self.judge(policy, &Request::Login(login.clone())),
            Ask::Sql { login, text } => {
                let login = login.as_ref().map(|login| self.judge(policy, &Request::Login(login.clone())));
                match login {
                    Some(refused) if refused.0 != Expectation::Allow => refused,
                    _ => self.judge(policy, &Request::Statement(reader(text.as_bytes()))),
                }
            }
        };
        TestOutcome {
            policy: Arc::clone(&policy.name),
            file: Arc::clone(&self.file),
            line: self.span.start.line,
            request: self.request(),
            expect: self.expect,
            got,
            rule,
            message,
            span: self.span,
        }
    }

    fn judge(&self, policy: &Policy, request: &Request) -> (Expectation, Option<Arc<str>>, Option<Arc<str>>) {
        let workload = Workload::default();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let facts = Facts { workload: &workload, protocol: self.protocol, upstream: "test", address, port: 0 };
        match policy.judge(request, &facts) {
            Finding::Allow(rule) => (Expectation::Allow, rule.cloned(), None),
            Finding::Deny(denied) => (Expectation::Deny, Some(denied.rule), Some(denied.message)),
            Finding::Hold(denied) => (Expectation::Hold, Some(denied.rule), Some(denied.message)),
        }
    }

    fn request(&self) -> String {
        match &self.ask {
            Ask::Http(request) => format!("{} {}", request.method, short(&request.path)),
            Ask::Login(login) => format!("login as {}", short(&login.user)),
            Ask::Sql { text, .. } => short(text),
        }
    }
}
