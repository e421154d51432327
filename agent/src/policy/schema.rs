//! The JSON Schema of policy files, for editors. The loader is stricter: it also checks what a schema cannot say.
//!
//! The types here exist for their schema alone; a test compares their keys with the loader's.

#![expect(dead_code, reason = "fields are read by the schema derive only")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};

use super::object::{DownstreamTls, Durability, Mode, OnUnreadable, TlsMode, Unmatched};
use crate::flow::{Effect, ObjectKind};

/// The schema of one document of a policy file.
#[must_use]
pub fn document() -> serde_json::Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document>().to_value()
}

/// One object of weir's policy language.
#[derive(JsonSchema)]
#[serde(tag = "kind")]
enum Document {
    /// How a secret is had, never the secret itself.
    Credential(Object<CredentialSpec>),
    /// Which workloads may ask what of which upstreams.
    Policy(Object<Box<PolicySpec>>),
    /// A server, or a group of servers.
    Upstream(Object<UpstreamSpec>),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}Object")]
struct Object<T> {
    api_version: ApiVersion,
    metadata: Metadata,
    spec: T,
}

#[derive(JsonSchema)]
enum ApiVersion {
    #[serde(rename = "weir/v1")]
    V1,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpstreamSpec {
    /// Names, addresses, networks in CIDR form.
    #[schemars(length(min = 1))]
    hosts: Vec<String>,
    /// Every port when left out.
    ports: Option<Vec<u16>>,
    protocol: Option<UpstreamProtocol>,
    /// The leg to the server.
    tls: Option<UpstreamTlsSpec>,
    /// The leg to the workload.
    downstream: Option<DownstreamSpec>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UpstreamProtocol {
    Auto,
    Http,
    Postgres,
    Tcp,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UpstreamTlsSpec {
    mode: Option<TlsMode>,
    /// Path of a PEM bundle; the system's roots when left out.
    ca: Option<String>,
    server_name: Option<String>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct DownstreamSpec {
    tls: Option<DownstreamTls>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct CredentialSpec {
    user: Option<UserSpec>,
    password: Option<SourceSpec>,
    token: Option<SourceSpec>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum UserSpec {
    Name(String),
    From(SourceSpec),
}

/// Where a secret is read from when it is needed.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SourceSpec {
    /// The name of a variable of the agent's environment.
    Env(String),
    /// Program and arguments; what it prints is the secret.
    Exec(#[schemars(length(min = 1))] Vec<String>),
    File(String),
    /// A name below $CREDENTIALS_DIRECTORY.
    Systemd(String),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PolicySpec {
    /// Any entry; within an entry, every field.
    #[schemars(length(min = 1))]
    workloads: Vec<WorkloadSpec>,
    upstreams: Option<Vec<UpstreamSelectorSpec>>,
    unmatched: Option<Unmatched>,
    mode: Option<Mode>,
    on_unreadable: Option<OnUnreadable>,
    inject: Option<InjectSpec>,
    rules: Option<Vec<RuleSpec>>,
    mask: Option<Vec<MaskSpec>>,
    journal: Option<JournalSpec>,
    tests: Option<Vec<TestSpec>>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkloadSpec {
    /// The name given to `weir run --name`.
    name: Option<String>,
    /// Glob over the path below the root of the v2 hierarchy; matches the cgroup or an ancestor.
    cgroup: Option<String>,
    /// systemd unit, in full.
    unit: Option<String>,
    /// Absolute path of the executable.
    exe: Option<String>,
    uid: Option<u32>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UpstreamSelectorSpec {
    Labels(BTreeMap<String, String>),
    Name(String),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct InjectSpec {
    credential: String,
    /// HTTP only: where the credential goes.
    r#as: Option<PlaceSpec>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum PlaceSpec {
    Basic,
    Bearer,
    Header(String),
    Query(String),
}

/// Exactly one of deny, hold and allow.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleSpec {
    name: String,
    deny: Option<MatcherSpec>,
    /// Until there is an approval desk, what is held is denied.
    hold: Option<MatcherSpec>,
    allow: Option<MatcherSpec>,
    /// A CEL expression over stmt, http or login, workload and session.
    when: Option<String>,
    /// What the client is told.
    message: Option<String>,
    approval: Option<ApprovalSpec>,
}

/// Fields of one kind of request: SQL (effects, objects, kinds), HTTP (methods, hosts, paths, headers) or login (users, databases).
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct MatcherSpec {
    effects: Option<Vec<Effect>>,
    /// Globs over `name` or `schema.name`.
    objects: Option<Vec<String>>,
    kinds: Option<Vec<ObjectKind>>,
    methods: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    /// Globs: `*` within a segment, `**` across.
    paths: Option<Vec<String>>,
    /// Header name to a glob over its value.
    headers: Option<BTreeMap<String, String>>,
    users: Option<Vec<String>>,
    databases: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalSpec {
    group: String,
    /// 500ms, 30s, 10m, 1h.
    timeout: String,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MaskSpec {
    name: String,
    /// schema.table.column, each a glob.
    columns: Option<Vec<String>>,
    json_keys: Option<Vec<String>>,
    headers: Option<Vec<String>>,
    with: Option<WithSpec>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum WithSpec {
    Word(WithWord),
    KeepDomain(KeepDomainSpec),
    Constant(ConstantSpec),
    Null(()),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WithWord {
    Last4,
    Null,
    Redact,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeepDomainSpec {
    /// true
    keep_domain: bool,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct ConstantSpec {
    constant: String,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct JournalSpec {
    statements: Option<Durability>,
    rows: Option<NoneWord>,
    bodies: Option<NoneWord>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum NoneWord {
    None,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct TestSpec {
    proto: TestProtocol,
    expect: TestExpectation,
    sql: Option<String>,
    user: Option<String>,
    database: Option<String>,
    application: Option<String>,
    method: Option<String>,
    host: Option<String>,
    path: Option<String>,
    headers: Option<BTreeMap<String, String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TestProtocol {
    Http,
    Postgres,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TestExpectation {
    Allow,
    Deny,
    Hold,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::load::{objects, policy, rules, selftest};

    fn keys(definition: &str) -> Vec<String> {
        let schema = document();
        let properties = schema["$defs"][definition]["properties"].as_object().unwrap_or_else(|| panic!("{definition}"));
        let mut keys: Vec<String> = properties.keys().cloned().collect();
        keys.sort();
        keys
    }

    fn sorted(lists: &[&[&str]]) -> Vec<String> {
        let mut keys: Vec<String> = lists.concat().iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    }

    #[test]
    fn has_the_keys_that_the_loader_accepts() {
        assert_eq!(keys("UpstreamSpec"), sorted(&[objects::UPSTREAM_KEYS]));
        assert_eq!(keys("UpstreamTlsSpec"), sorted(&[objects::UPSTREAM_TLS_KEYS]));
        assert_eq!(keys("DownstreamSpec"), sorted(&[objects::DOWNSTREAM_KEYS]));
        assert_eq!(keys("CredentialSpec"), sorted(&[objects::CREDENTIAL_KEYS]));
        assert_eq!(keys("PolicySpec"), sorted(&[policy::POLICY_KEYS]));
        assert_eq!(keys("WorkloadSpec"), sorted(&[policy::WORKLOAD_KEYS]));
        assert_eq!(keys("InjectSpec"), sorted(&[policy::INJECT_KEYS]));
        assert_eq!(keys("MaskSpec"), sorted(&[policy::MASK_KEYS]));
        assert_eq!(keys("JournalSpec"), sorted(&[policy::JOURNAL_KEYS]));
        assert_eq!(keys("RuleSpec"), sorted(&[rules::RULE_KEYS]));
        assert_eq!(keys("MatcherSpec"), sorted(&[rules::SQL_KEYS, rules::HTTP_KEYS, rules::LOGIN_KEYS]));
        assert_eq!(keys("ApprovalSpec"), sorted(&[rules::APPROVAL_KEYS]));
        assert_eq!(keys("TestSpec"), sorted(&[selftest::TEST_KEYS]));
    }

    #[test]
    fn names_every_effect() {
        let text = document().to_string();
        Effect::ALL.iter().for_each(|effect| assert!(text.contains(&format!("\"{}\"", effect.word())), "{effect:?}"));
    }
}
