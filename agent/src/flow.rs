//! The vocabulary: what a connection is, who makes it, what it asks, how it ends.
//!
//! Everything here is plain data without behaviour of its own, so that policy, journal, protocol and proxy
//! can speak about the same things without knowing each other.

pub mod path;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Source address of the workload's socket, as the listener sees it; v4-mapped addresses are normalised to v4.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct PeerAddr(pub SocketAddr);

/// Where the workload wanted to go before the kernel redirected it; v4-mapped addresses are normalised to v4.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct OrigDst(pub SocketAddr);

/// Name of one session in journal, logs and error hints: a version 7 UUID, so ids sort by time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

impl SessionId {
    /// Makes a fresh id from the clock and the system's randomness.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Who connects: what the kernel and `/proc` said at accept time. Cached by (pid, start time).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The name given to `weir run --name`, when this workload was started that way.
    pub name: Option<String>,
    pub pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`; with `pid` it names one process for ever.
    pub start_time_ticks: u64,
    pub uid: u32,
    pub gid: u32,
    /// `None`: the process was gone, or unreadable, before we looked. A rule that asks for an exe then does not match.
    pub exe: Option<PathBuf>,
    /// Lower-case hexadecimal SHA-256 of the executable's content.
    pub exe_sha256: Option<String>,
    pub argv: Vec<String>,
    pub cwd: Option<PathBuf>,
    /// Path below the root of the v2 hierarchy, with a leading slash.
    pub cgroup: String,
    pub cgroup_id: u64,
    /// The systemd unit, read from the cgroup path.
    pub unit: Option<String>,
    /// Parent first.
    pub parents: Vec<Ancestor>,
}

/// One link of a workload's parent chain.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ancestor {
    pub pid: u32,
    pub exe: Option<PathBuf>,
    pub argv: Vec<String>,
}

/// One intercepted connection as the kernel described it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub peer: PeerAddr,
    pub orig_dst: OrigDst,
    pub workload: Arc<Workload>,
}

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http,
    Postgres,
    /// Bytes without meaning: allowed or denied as a whole, and counted.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Postgres => "postgres",
            Self::Tcp => "tcp",
        })
    }
}

/// Origin and what was found out about it before the first decision. Fixed for the session.
#[derive(Clone, Debug)]
pub struct Flow {
    pub session: SessionId,
    pub origin: Origin,
    pub protocol: Protocol,
    pub opened: SystemTime,
}

/// The two ends of a session: `Downstream` is the workload, `Upstream` the real server.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Downstream,
    Upstream,
}

impl Side {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// One thing asked within a flow, in the words that policies match on.
#[derive(Clone, Debug)]
pub enum Request {
    Http(Arc<HttpRequest>),
    /// A login: user and database as the client named them.
    Login(Login),
    Statement(Arc<Statement>),
    /// The whole connection, for protocols without requests.
    Stream,
}

/// What a client said about itself when it logged in. No password: what it sent was dropped.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Login {
    pub user: String,
    pub database: Option<String>,
    pub application: Option<String>,
    /// The startup message asked for a replication connection.
    pub replication: bool,
}

/// One HTTP request head.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Upper case as sent: methods are case-sensitive (RFC 9110, 9.1).
    pub method: String,
    /// Host without port, lower case; from the Host header or an absolute-form target.
    pub host: String,
    /// Path as sent, without the query.
    pub path: String,
    /// Path percent-decoded once, without parameters (`;x`), with dot segments and empty segments resolved: what rules match on besides `path`.
    pub path_normal: String,
    /// What servers make of it that decode more than once or trim names; `None`: the same.
    pub path_lenient: Option<String>,
    pub query: Option<String>,
    /// Names in lower case; the client's credentials for the injected place were already taken out.
    pub headers: Vec<(String, Bytes)>,
}

/// One SQL message (Query or Parse), read.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The text as sent. Not yet masked: only `mask` turns it into something that the journal takes.
    pub text: Bytes,
    pub effects: Effects,
    /// Every object that the message names, over all its statements.
    pub objects: Vec<Object>,
    /// False if any UPDATE or DELETE in the message has no WHERE; true for messages without such statements.
    pub has_where: bool,
    /// True if any UPDATE or DELETE has a WHERE that is constant (`where true`, `where 1=1`).
    pub where_tautology: bool,
    /// False when the text could not be read; `effects` then holds `Unreadable`.
    pub readable: bool,
    /// Why it could not be read, without the text's literals.
    pub unreadable_reason: Option<String>,
    /// Number of statements in the message.
    pub count: u32,
}

/// A thing in a database that a statement names.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub kind: ObjectKind,
    /// `None`: the statement did not say; it may be any schema on the search path.
    pub schema: Option<String>,
    pub name: String,
    pub write: bool,
}

/// Closed set of object kinds that rules can name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    Database,
    Function,
    Index,
    Other,
    Role,
    Schema,
    Sequence,
    Table,
    Type,
    View,
}

macro_rules! effects {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// The closed vocabulary of what a statement does (`reference/masking.md`, 3.1).
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum Effect {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl Effect {
            /// Every effect, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in policies and journals.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

effects! {
    Admin = "admin",
    Alter = "alter",
    Create = "create",
    Delete = "delete",
    Drop = "drop",
    /// DO, CALL, EXECUTE of unknown text, functions that take SQL: code that cannot be seen through.
    ExecCode = "exec-code",
    FileRead = "file-read",
    FileWrite = "file-write",
    Grant = "grant",
    Insert = "insert",
    Network = "network",
    Notify = "notify",
    Program = "program",
    Read = "read",
    Replication = "replication",
    /// Changes how later text is read: standard_conforming_strings, client_encoding, search_path and the like.
    SessionLex = "session-lex",
    SessionRole = "session-role",
    Truncate = "truncate",
    Unreadable = "unreadable",
    Update = "update",
}

/// A set of effects; empty means no effect (BEGIN, SHOW, SELECT 1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Effects(u32);

impl Effects {
    #[must_use]
    pub fn of(effects: &[Effect]) -> Self {
        effects.iter().copied().collect()
    }
    pub fn insert(&mut self, effect: Effect) {
        self.0 |= 1 << effect as u32;
    }
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }
    #[must_use]
    pub fn contains(self, effect: Effect) -> bool {
        self.0 & (1 << effect as u32) != 0
    }
    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    pub fn iter(self) -> impl Iterator<Item = Effect> {
        Effect::ALL.iter().copied().filter(move |effect| self.contains(*effect))
    }
}

impl FromIterator<Effect> for Effects {
    fn from_iter<I: IntoIterator<Item = Effect>>(effects: I) -> Self {
        let mut set = Self::default();
        effects.into_iter().for_each(|effect| set.insert(effect));
        set
    }
}

impl Serialize for Effects {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Effects {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Effect>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// How a session ended. The same words stand in journal, metrics and tests.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    CredentialRejected,
    CredentialUnavailable,
    Denied,
    DownstreamClosed,
    DownstreamMalformed,
    DownstreamReset,
    DownstreamTls,
    Drained,
    Internal,
    JournalUnavailable,
    LimitExceeded,
    /// A mask was due and could not be applied.
    MaskImpossible,
    TimedOut,
    UnknownOrigin,
    UpstreamClosed,
    UpstreamMalformed,
    UpstreamReset,
    UpstreamTls,
    UpstreamUnreachable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A reason with a sentence: what failed, on what, why. Never holds a secret. The client is told `public`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    pub reason: Reason,
    pub detail: String,
    public: Option<String>,
}

impl Failure {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), public: None }
    }

    /// Tells the client less than the journal: the detail names what a workload need not know, such as where a secret lies.
    #[must_use]
    pub fn telling(self, public: impl Into<String>) -> Self {
        Self { public: Some(public.into()), ..self }
    }

    /// What the client is told.
    #[must_use]
    pub fn public(&self) -> &str {
        self.public.as_deref().unwrap_or(&self.detail)
    }
}

/// Folds a v4-mapped IPv6 address to IPv4, so that both spellings of one address compare equal.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

/// As `canonical`, for an address without a port.
#[must_use]
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
