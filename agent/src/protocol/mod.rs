//! Meaning, without sockets: what a protocol's messages ask, how a denial is spoken, where secrets go in and values are masked.
//!
//! A [`Conversation`] takes bytes from either side and answers with [`Step`]s; `proxy/relay.rs` performs them. It may use
//! `wire`, `flow`, verdicts, `mask` and the operations of a credential; it never sees a socket, a clock or the journal.
//! HTTP is the exception: hyper owns its framing, so `http/` is a service that asks the same judge and uses the same masks.

pub mod http;
pub mod opaque;
pub mod postgres;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_wire::WireError;

use crate::{
    credential::Pin,
    flow::{Failure, Reason, Request, Side},
    mask::Masked,
    policy::{Denied, Verdict},
};

/// What a conversation wants done next. Steps are performed in the order in which they are returned.
#[derive(Debug)]
pub enum Step {
    /// Carry a request to cancel to the server process that this key names: look it up among the registered sessions of the
    /// same workload, dial that session's server address, send `weir_wire::postgres::cancel_request`, close. Unknown keys are
    /// dropped in silence, as servers do. Only PostgreSQL asks.
    Cancel { process: i32, key: Bytes },
    /// End the session after what was sent before has been flushed.
    Close(Reason),
    /// A whole request was read and waits for a verdict: nothing more is taken from downstream before `decided`.
    Decide(Request),
    /// Everything the client must say first is known: fetch the credential and dial upstream; ends in `dialled`.
    Dial,
    /// Names for table OIDs are needed from weir's own connection to this database; ends in `catalog`. Nothing more is taken
    /// from upstream before that.
    Fetch(postgres::CatalogQuery),
    /// Something to journal.
    Note(Observation),
    /// The upstream named the key by which this session's statements can be cancelled; forget it when the session ends.
    Register(postgres::BackendKey),
    /// Start TLS on this side once everything sent to it is flushed; ends in `secured`. Plaintext that was received
    /// behind the request for TLS is an attack (buffer stuffing) and must have been refused by the conversation.
    Secure(Side),
    /// As many whole messages as the input held, not one by one.
    Send { to: Side, bytes: Bytes },
}

/// Why a connection is refused before it has a conversation.
#[derive(Clone, Debug)]
pub enum Refused {
    /// Policy says no.
    Denied(Denied),
    /// Something that must work does not.
    Failed(Failure),
}

/// What a conversation saw and the journal should know. Free text has been through `mask`.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The upstream accepted the injected login; method such as `scram-sha-256-plus`.
    Authenticated { method: &'static str },
    /// A prepared statement or portal ran again; `statement` is the journal's number of the decided statement.
    Executed { statement: u64 },
    /// Values were masked: rule or mask name, column or key, how often.
    Masked { mask: String, what: String, count: u64 },
    /// A statement or request ended.
    Finished { statement: u64, result: StatementResult },
}

/// How one statement ended.
#[derive(Clone, Debug, Default)]
pub struct StatementResult {
    /// `SELECT 5`, `ERROR 42P01`, `200`.
    pub status: String,
    pub rows: Option<u64>,
    /// Bytes sent downstream for it.
    pub bytes: u64,
    /// The server's error text, masked.
    pub error: Option<Masked>,
}

/// What the relay found out when it made a side secure.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// tls-server-end-point channel binding (RFC 5929, section 4.1): the hash of the server's leaf certificate.
    pub server_end_point: Option<Vec<u8>>,
    /// True when the peer's certificate chain was verified (verify-ca, verify-full).
    pub verified: bool,
}

/// One protocol session between two peers: bytes in, steps out.
///
/// The relay calls `receive` for a side whenever it has new input for it, and for both sides (input possibly empty) after
/// any other method was called or any step was returned, again and again until it returns `Ok(None)` for both. A conversation
/// may therefore queue steps internally and hand them out from `receive`, and what one side said may unblock the other.
pub trait Conversation: Send + Sync {
    /// Takes what it can from `input`, leaving partial messages in place. After `Step::Decide`, takes nothing more from
    /// downstream until `decided`.
    ///
    /// # Errors
    /// The input is malformed or over a limit: the relay sends what `farewell` says, and closes.
    fn receive(&mut self, from: Side, input: &mut BytesMut) -> Result<Option<Step>, WireError>;

    /// Answers the last `Decide`; a denial is spoken in the protocol's own words. `number` is the journal's number of
    /// the request, for later `Observation`s.
    fn decided(&mut self, verdict: &Verdict, number: u64) -> Option<Step>;

    /// Upstream is connected in clear text; `credential` is what to log in with, `None` when the policy injects nothing.
    fn dialled(&mut self, credential: Option<Arc<Pin>>) -> Option<Step>;

    /// TLS is up on `side`.
    fn secured(&mut self, side: Side, facts: TlsFacts) -> Option<Step>;

    /// Answers the last `Fetch`. Only PostgreSQL asks.
    fn catalog(&mut self, answer: Result<Arc<postgres::Catalog>, Failure>) -> Option<Step> {
        let _ = answer;
        None
    }

    /// The last words to the client, in the protocol's own form, when the session must end for `failure`. Empty when the
    /// protocol's state allows none.
    fn farewell(&mut self, failure: &Failure) -> Bytes;

    /// The most bytes of one side's input that may wait for the rest of a message before the relay gives up.
    fn inbox_bytes_max(&self) -> usize;

    /// True while the conversation waits for the first complete request: the relay then applies the handshake deadline
    /// instead of the idle one.
    fn is_opening(&self) -> bool;
}
