//! The validated objects that an operator wrote: what `load` makes and everyone else reads.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::flow::Protocol;

/// A server, or a group of servers, that workloads talk to.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub labels: Vec<(String, String)>,
    pub hosts: Vec<Host>,
    /// Empty: every port.
    pub ports: Vec<u16>,
    /// `None`: detect from the first bytes (`protocol: auto`).
    pub protocol: Option<Protocol>,
    pub tls: UpstreamTls,
    /// The workload's leg.
    pub downstream_tls: DownstreamTls,
}

/// One entry of `hosts:`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    Address(IpAddr),
    Cidr(ipnet::IpNet),
    /// Lower case; resolved by the agent and kept fresh.
    Name(Arc<str>),
}

/// The upstream leg.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    pub mode: TlsMode,
    /// PEM bundle; `None` means the system's roots.
    pub ca: Option<PathBuf>,
    /// The name to verify instead of the host by which the upstream was recognised.
    pub server_name: Option<String>,
}

/// How much of TLS the upstream leg demands (libpq's words). `Require` encrypts without verifying.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    Off,
    Require,
    VerifyCa,
    #[default]
    VerifyFull,
}

/// What the workload's leg is offered when its client asks for TLS.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DownstreamTls {
    /// TLS with a leaf from weir's own authority.
    #[default]
    Accept,
    /// Decline, as a server without TLS does.
    Decline,
}

/// A credential's declaration. Values stay in their sources until the broker reads them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialSpec {
    pub name: Arc<str>,
    /// The user is not a secret: it is written in the policy, or read from a source.
    pub user: Option<Value>,
    pub password: Option<SecretSource>,
    /// Bearer token or API key.
    pub token: Option<SecretSource>,
}

impl CredentialSpec {
    /// True when reading it starts a process.
    #[must_use]
    pub fn runs_a_program(&self) -> bool {
        self.sources().any(|source| matches!(source, SecretSource::Exec(_)))
    }

    /// Names of the variables of the agent's environment that hold its values.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.sources().filter_map(|source| match source {
            SecretSource::Env(name) => Some(name.as_str()),
            SecretSource::Exec(_) | SecretSource::File(_) | SecretSource::Systemd(_) => None,
        })
    }

    fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        let user = match &self.user {
            Some(Value::From(source)) => Some(source),
            Some(Value::Literal(_)) | None => None,
        };
        [user, self.password.as_ref(), self.token.as_ref()].into_iter().flatten()
    }
}

/// Something that is written in the policy or read from a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    Literal(String),
    From(SecretSource),
}

/// Where a secret is read from, at the moment when it is needed.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SecretSource {
    Env(String),
    /// Program and arguments; the secret is its standard output without the last line feed.
    Exec(Vec<String>),
    File(PathBuf),
    /// A name below `$CREDENTIALS_DIRECTORY` (systemd's LoadCredential=).
    Systemd(String),
}

/// One `kind: Policy`.
#[derive(Debug)]
pub struct Policy {
    pub name: Arc<str>,
    pub spec: PolicySpec,
}

#[derive(Debug)]
pub struct PolicySpec {
    /// Any entry; within an entry, every field.
    pub workloads: Vec<WorkloadSelector>,
    pub upstreams: Vec<UpstreamSelector>,
    pub unmatched: Unmatched,
    pub mode: Mode,
    pub on_unreadable: OnUnreadable,
    pub inject: Option<Inject>,
    pub rules: Vec<crate::policy::rule::Rule>,
    pub masks: Vec<Mask>,
    pub journal: JournalSpec,
}

/// Names workloads: every field that is given must match.
#[derive(Clone, Debug, Default)]
pub struct WorkloadSelector {
    /// `weir run --name`.
    pub name: Option<String>,
    /// Glob over the cgroup path below the v2 root (`/weir.slice/**`); matches the cgroup or any ancestor of it.
    pub cgroup: Option<Glob>,
    /// systemd unit, exact (`orders.service`).
    pub unit: Option<String>,
    pub exe: Option<PathBuf>,
    pub uid: Option<u32>,
}

/// A compiled glob that remembers its text.
#[derive(Clone, Debug)]
pub struct Glob {
    pub text: Arc<str>,
    pub matcher: globset::GlobMatcher,
}

#[derive(Clone, Debug)]
pub enum UpstreamSelector {
    Labels(Vec<(String, String)>),
    Name(Arc<str>),
}

/// What happens towards destinations that no policy of the workload names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    Allow,
    #[default]
    Deny,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Journal what would have happened, change nothing. Credentials are still injected: without them nothing works.
    Observe,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnreadable {
    Allow,
    #[default]
    Deny,
    Hold,
}

/// Which credential goes in, and for HTTP where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inject {
    pub credential: Arc<CredentialSpec>,
    /// `None`: bearer when the credential has a token, basic when it has a user and password.
    pub http: Option<HttpPlace>,
}

/// Where an HTTP credential is put; the client's own value for the same place is removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpPlace {
    Basic,
    Bearer,
    /// Lower-case header name; the token is its whole value.
    Header(String),
    Query(String),
}

/// One entry of `mask:`.
#[derive(Clone, Debug)]
pub struct Mask {
    /// `policy/mask`.
    pub name: Arc<str>,
    pub columns: Vec<ColumnPattern>,
    /// JSON object keys, compared without case, at any depth.
    pub json_keys: Vec<String>,
    /// Lower-case response header names.
    pub headers: Vec<String>,
    pub with: MaskWith,
}

/// `schema.table.column`, each a glob (`*`, `?`, `{a,b}`) over lower-case names.
#[derive(Clone, Debug)]
pub struct ColumnPattern {
    pub text: Arc<str>,
    pub schema: Glob,
    pub table: Glob,
    pub column: Glob,
}

/// What a masked value becomes; the replacement is valid for the type, else NULL.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum MaskWith {
    /// `***@example.com`. Weakest first: when several masks meet, the greatest wins.
    KeepDomain,
    Last4,
    Constant(String),
    #[default]
    Redact,
    Null,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct JournalSpec {
    pub statements: Durability,
}

/// How far a statement's record must have come before the statement is forwarded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written before forwarding, synced within 20 ms.
    Bounded,
    /// fdatasync has returned.
    #[default]
    Durable,
}
