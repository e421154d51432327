//! What policy's tests say in one line: statements, requests, flows, sets.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{
    Allowed, Denied, Permit, PolicySet, ResolvedHosts, Verdict, explain,
    load::{self, LoadErrors, Loaded, SourceFile},
};
use crate::flow::{
    Effect, Effects, Flow, Object, ObjectKind, OrigDst, Origin, PeerAddr, Protocol, Request, SessionId, Statement, Workload,
};

/// Reads `[drop read] public.users orders !where`: effects, tables, and no WHERE. Anything else is unreadable.
pub(super) fn read(text: &[u8]) -> Arc<Statement> {
    let text = String::from_utf8_lossy(text).into_owned();
    let mut statement = Statement {
        text: Bytes::from(text.clone()),
        effects: Effects::default(),
        objects: Vec::new(),
        has_where: !text.contains("!where"),
        where_tautology: text.contains("!real"),
        readable: true,
        unreadable_reason: None,
        count: 1,
    };
    let Some((effects, objects)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        statement.effects = Effects::of(&[Effect::Unreadable]);
        statement.readable = false;
        return Arc::new(statement);
    };
    statement.effects =
        effects.split_whitespace().map(|word| *Effect::ALL.iter().find(|effect| effect.word() == word).unwrap()).collect();
    for name in objects.split_whitespace().filter(|word| !word.starts_with('!')) {
        let (schema, name) = name.split_once('.').map_or((None, name), |(schema, name)| (Some(schema.to_owned()), name));
        let kind = if name.ends_with("()") { ObjectKind::Function } else { ObjectKind::Table };
        statement.objects.push(Object { kind, schema, name: name.trim_end_matches("()").to_owned(), write: false });
    }
    Arc::new(statement)
}

pub(super) fn sql(text: &str) -> Request {
    Request::Statement(read(text.as_bytes()))
}

pub(super) fn http(method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = explain::http_request(method, "api.internal", target);
    request.headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect();
    Request::Http(Arc::new(request))
}

pub(super) fn load(text: &str) -> Result<Loaded, LoadErrors> {
    load::load_sources(&[SourceFile { name: "test.yaml".into(), text: text.to_owned() }], &read, 1)
}

pub(super) const UPSTREAM: &str = "apiVersion: weir/v1\nkind: Upstream\nmetadata: {name: db}\nspec: {hosts: [10.0.0.1]}\n---\n";

/// A set with one upstream at 10.0.0.1 and the given policy specs, each in flow style, named p0, p1, ...
pub(crate) fn set(specs: &[&str]) -> PolicySet {
    let mut text = UPSTREAM.to_owned();
    for (index, spec) in specs.iter().enumerate() {
        text += &format!(
            "apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p{index}}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: db}}], {spec}}}\n---\n"
        );
    }
    load(&text).unwrap_or_else(|errors| panic!("{errors}")).set
}

pub(super) fn workload() -> Workload {
    Workload { name: Some("w".into()), uid: 1000, cgroup: "/weir.slice/w".into(), ..Workload::default() }
}

pub(super) fn flow_of(workload: Workload, dst: &str) -> Flow {
    let origin = Origin {
        peer: PeerAddr(SocketAddr::from(([127, 0, 0, 1], 40_000))),
        orig_dst: OrigDst(dst.parse().unwrap()),
        workload: Arc::new(workload),
    };
    Flow { session: SessionId::fresh(), origin, protocol: Protocol::Postgres, opened: SystemTime::UNIX_EPOCH }
}

pub(super) fn flow(dst: &str) -> Flow {
    flow_of(workload(), dst)
}

pub(crate) fn permit(set: &PolicySet) -> Permit {
    set.admit(&flow("10.0.0.1:5432"), &ResolvedHosts::new()).unwrap()
}

/// The rule that denied, or `None`.
pub(super) fn denied(set: &PolicySet, request: &Request) -> Option<String> {
    match set.decide(&permit(set), request) {
        Verdict::Deny(Denied { rule, .. }) => Some(rule.to_string()),
        Verdict::Allow(_) => None,
    }
}

pub(super) fn allowed(set: &PolicySet, request: &Request) -> Allowed {
    match set.decide(&permit(set), request) {
        Verdict::Allow(allowed) => allowed,
        Verdict::Deny(denied) => panic!("denied by {}: {}", denied.rule, denied.message),
    }
}
