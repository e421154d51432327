//! PostgreSQL, protocol 3.0: the session as a [`Conversation`].
//!
//! ```text
//!  opening ─▶ judging ─▶ dialling ─▶ logging in ─▶ session
//!  startup    login      login       login         frontend, backend, queue, names, plans, lexing, scrub
//! ```
//!
//! The client is let in without a password; the server is answered from the credential. After that, whole messages are relayed:
//! `frontend` holds every statement until it was judged, `backend` masks rows and errors, `queue` knows which answer belongs to
//! which question.

mod backend;
mod budget;
mod catalog;
mod consequences;
mod errors;
mod frontend;
mod lexing;
mod login;
mod lookup;
mod names;
mod plans;
mod queue;
pub mod rows;
mod scrub;
mod session;
mod settings;
pub mod sql;
mod startup;
#[cfg(test)]
mod tests;

pub use catalog::Catalog;
pub use lookup::Lookup;

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{self, STARTUP_BYTES_MAX, Startup, frame},
};

use self::{
    login::{Login, Turn},
    rows::MaskSet,
    session::Session,
    settings::Wanted,
    startup::Opening,
};
use super::{Conversation, Observation, Refused, StatementResult, Step, TlsFacts};
use crate::{
    credential::Pin,
    flow::{Failure, Reason, Request, SessionId, Side},
    mask::KnownSecrets,
    policy::{
        Denied, Permit, Verdict,
        object::{DownstreamTls, TlsMode},
    },
};

/// What a session needs to know about a database's catalog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CatalogQuery {
    pub database: String,
    /// OIDs that the last snapshot did not know: it must be read again, not taken from the cache.
    pub missing: Vec<u32>,
    /// The session changed what the catalog holds: only what is read from now on will do.
    pub fresh: bool,
}

/// The key by which a client may cancel what its session runs. Whoever has it can: it is never shown.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct BackendKey {
    pub process: i32,
    pub key: Bytes,
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendKey").field("process", &self.process).finish_non_exhaustive()
    }
}

/// What a client hears whose connection is refused before it has a conversation: FATAL, with the rule that refused it.
#[must_use]
pub fn refusal(refused: &Refused, session: SessionId) -> Bytes {
    match refused {
        Refused::Denied(denied) => errors::login_denial(denied, session),
        Refused::Failed(failure) => errors::farewell(failure, session),
    }
}

/// What a conversation is made of.
pub struct PostgresConfig {
    pub session: SessionId,
    pub permit: Permit,
    pub known: Arc<KnownSecrets>,
}

/// One client's session with one server.
pub struct Postgres {
    settings: Arc<Settings>,
    known: Arc<KnownSecrets>,
    phase: Phase,
    steps: Steps,
}

/// What does not change during a session.
struct Settings {
    session: SessionId,
    upstream_tls: TlsMode,
    downstream_tls: DownstreamTls,
    /// Nothing is refused, only journaled.
    observes: bool,
    masks: MaskSet,
}

type Steps = VecDeque<Step>;

enum Phase {
    Opening(Opening),
    /// The login waits for its verdict.
    Judging {
        startup: Startup,
        replication: bool,
    },
    /// The settings of the startup message wait for theirs.
    JudgingSettings(Startup),
    Dialling(Startup),
    LoggingIn {
        startup: Startup,
        login: Box<Login>,
    },
    Session(Box<Session>),
    Over,
}

impl Postgres {
    #[must_use]
    pub fn new(config: PostgresConfig) -> Self {
        let upstream = config.permit.upstream();
        let settings = Settings {
            session: config.session,
            upstream_tls: upstream.tls.mode,
            downstream_tls: upstream.downstream_tls,
            observes: config.permit.observes(),
            masks: MaskSet::from_permit(&config.permit),
        };
        Self::with_settings(settings, config.known)
    }

    fn with_settings(settings: Settings, known: Arc<KnownSecrets>) -> Self {
        Self { settings: Arc::new(settings), known, phase: Phase::Opening(Opening::default()), steps: Steps::new() }
    }

    fn downstream(&mut self, input: &mut BytesMut) -> Result<(), WireError> {
        match &mut self.phase {
            Phase::Opening(opening) => {
                let (settings, steps) = (&self.settings, &mut self.steps);
                if let Some(startup) = opening.receive(input, settings.downstream_tls, settings.session, steps)? {
                    self.judge(startup);
                }
            }
            Phase::LoggingIn { login, .. } if login.relays_answers() => return self.answers(input),
            Phase::Session(session) => return session.downstream(input, &mut self.steps),
            Phase::Over => input.clear(),
            Phase::Judging { .. } | Phase::JudgingSettings(_) | Phase::Dialling(_) | Phase::LoggingIn { .. } => {}
        }
        Ok(())
    }

    fn judge(&mut self, startup: Startup) {
        self.phase = Phase::Over;
        if let Some(login) = startup::login(&startup, self.settings.observes, self.settings.session, &mut self.steps) {
            self.phase = Phase::Judging { startup, replication: login.replication };
            self.steps.push_back(Step::Decide(Request::Login(login)));
        }
    }

    fn login_decided(&mut self, startup: Startup, replication: bool, verdict: &Verdict) {
        self.phase = Phase::Over;
        match verdict {
            Verdict::Deny(denied) => self.deny_login(denied),
            Verdict::Allow(_) if replication => {
                let message = "replication connections are not carried";
                startup::refuse(&mut self.steps, self.settings.session, "42501", message);
            }
            Verdict::Allow(_) => self.judge_settings(startup),
        }
    }

    /// What the startup message sets is judged as if it were set by a statement.
    fn judge_settings(&mut self, startup: Startup) {
        let session = self.settings.session;
        let wanted = match Wanted::of(&startup) {
            Ok(wanted) => wanted,
            Err(why) => return startup::refuse(&mut self.steps, session, "28000", why),
        };
        match (wanted.objection, wanted.reading()) {
            (Some(why), _) if !self.settings.observes => startup::refuse(&mut self.steps, session, "28000", why),
            (_, Some(reading)) => {
                self.phase = Phase::JudgingSettings(startup);
                self.steps.push_back(Step::Decide(Request::Statement(reading.statement)));
            }
            (_, None) => self.dial(startup),
        }
    }

    fn settings_decided(&mut self, startup: Startup, verdict: &Verdict, number: u64) {
        if let Verdict::Deny(denied) = verdict {
            return self.deny_login(denied);
        }
        let result = StatementResult { status: "SET".to_owned(), ..StatementResult::default() };
        self.steps.push_back(Step::Note(Observation::Finished { statement: number, result }));
        self.dial(startup);
    }

    fn deny_login(&mut self, denied: &Denied) {
        let bytes = errors::login_denial(denied, self.settings.session);
        self.steps.push_back(Step::Send { to: Side::Downstream, bytes });
        self.steps.push_back(Step::Close(denied.reason));
    }

    fn dial(&mut self, startup: Startup) {
        self.phase = Phase::Dialling(startup);
        self.steps.push_back(Step::Dial);
    }

    /// Passes the client's own answers to the server: policy injects nothing.
    fn answers(&mut self, input: &mut BytesMut) -> Result<(), WireError> {
        while let Some(outline) = frame(input)? {
            if outline.tag != b'p' {
                return Err(WireError::Unexpected { what: "frontend message during authentication" });
            }
            if outline.length > ANSWER_BYTES_MAX {
                let (actual, limit) = (outline.length as u64, ANSWER_BYTES_MAX as u64);
                return Err(WireError::Limit { what: "password message bytes", actual, limit });
            }
            if input.len() < outline.length {
                break;
            }
            let bytes = input.split_to(outline.length).freeze();
            self.steps.push_back(Step::Send { to: Side::Upstream, bytes });
        }
        Ok(())
    }

    fn upstream(&mut self, input: &mut BytesMut) -> Result<(), WireError> {
        while let Phase::LoggingIn { login, .. } = &mut self.phase {
            if login.is_before_startup() {
                let turn = login.tls_answer(input);
                let waits = matches!(turn, Ok(Turn::Nothing));
                self.turn(turn, Bytes::new());
                if waits {
                    return Ok(());
                }
                continue;
            }
            let Some(outline) = frame(input)? else {
                return Ok(());
            };
            if outline.length > ANSWER_BYTES_MAX {
                let (actual, limit) = (outline.length as u64, ANSWER_BYTES_MAX as u64);
                return Err(WireError::Limit { what: "login message bytes", actual, limit });
            }
            let Some(body) = outline.body(input) else {
                return Ok(());
            };
            let turn = login.message(outline, body);
            let message = input.split_to(outline.length).freeze();
            self.turn(turn, message);
        }
        match &mut self.phase {
            Phase::Session(session) => session.upstream(input, &mut self.steps),
            Phase::Over => {
                input.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Performs what the login wants; `message` is the server's, which led to it.
    fn turn(&mut self, turn: Result<Turn, Failure>, message: Bytes) {
        let mut down = |bytes| self.steps.push_back(Step::Send { to: Side::Downstream, bytes });
        match turn {
            Ok(Turn::Nothing) => {}
            Ok(Turn::Offer(bytes)) => down(bytes),
            Ok(Turn::Pass) => down(message),
            Ok(Turn::Send(bytes)) => self.steps.push_back(Step::Send { to: Side::Upstream, bytes }),
            Ok(Turn::Secure) => self.steps.push_back(Step::Secure(Side::Upstream)),
            Ok(Turn::Accepted(method)) => self.accepted(method),
            Ok(Turn::Refused) => {
                down(scrub::messages(&message, &self.known.scrubber()));
                self.steps.push_back(Step::Close(Reason::UpstreamClosed));
                self.phase = Phase::Over;
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn accepted(&mut self, method: &'static str) {
        let Phase::LoggingIn { startup, .. } = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        self.steps.push_back(Step::Send { to: Side::Downstream, bytes: postgres::authentication_ok() });
        self.steps.push_back(Step::Note(Observation::Authenticated { method }));
        let database = database(&startup);
        let session = Session::new(Arc::clone(&self.settings), self.known.scrubber(), database);
        self.phase = Phase::Session(Box::new(session));
    }

    /// Ends the session with words, if the client can hear them.
    fn fail(&mut self, failure: &Failure) {
        let bytes = self.farewell(failure);
        self.steps.push_back(Step::Send { to: Side::Downstream, bytes });
        self.steps.push_back(Step::Close(failure.reason));
        self.phase = Phase::Over;
    }
}

impl Conversation for Postgres {
    fn receive(&mut self, from: Side, input: &mut BytesMut) -> Result<Option<Step>, WireError> {
        if self.steps.is_empty() {
            match from {
                Side::Downstream => self.downstream(input)?,
                Side::Upstream => self.upstream(input)?,
            }
        }
        Ok(self.steps.pop_front())
    }

    fn decided(&mut self, verdict: &Verdict, number: u64) -> Option<Step> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Judging { startup, replication } => self.login_decided(startup, replication, verdict),
            Phase::JudgingSettings(startup) => self.settings_decided(startup, verdict, number),
            Phase::Session(mut session) => {
                session.decided(verdict, number);
                self.phase = Phase::Session(session);
            }
            other => self.phase = other,
        }
        self.steps.pop_front()
    }

    fn dialled(&mut self, credential: Option<Arc<Pin>>) -> Option<Step> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let Phase::Dialling(startup) = phase else {
            self.phase = phase;
            return self.steps.pop_front();
        };
        let unknown = startup::unknown_options(&startup);
        if startup.minor > 0 || !unknown.is_empty() {
            let mut out = BytesMut::new();
            postgres::negotiate_protocol_version(&mut out, 0, &unknown);
            self.steps.push_back(Step::Send { to: Side::Downstream, bytes: out.freeze() });
        }
        let user = startup.parameter(b"user").map(|user| String::from_utf8_lossy(user).into_owned()).unwrap_or_default();
        let database = database(&startup);
        let kept = startup
            .parameters
            .iter()
            .filter(|(name, _)| !matches!(name.as_ref(), b"user" | b"database" | b"replication") && !name.starts_with(b"_pq_."))
            .map(|(name, value)| (name.as_ref(), value.as_ref()));
        let parameters: Vec<_> = std::iter::once((&b"database"[..], database.as_bytes())).chain(kept).collect();
        let mut login = Login::new(credential, &user, &parameters, self.settings.upstream_tls, self.known.scrubber());
        let turn = login.begin();
        self.phase = Phase::LoggingIn { startup, login: Box::new(login) };
        self.turn(Ok(turn), Bytes::new());
        self.steps.pop_front()
    }

    fn secured(&mut self, side: Side, facts: TlsFacts) -> Option<Step> {
        match (side, &mut self.phase) {
            (Side::Downstream, Phase::Opening(opening)) => opening.secured(),
            (Side::Upstream, Phase::LoggingIn { login, .. }) => {
                let turn = login.secured(facts);
                self.turn(Ok(turn), Bytes::new());
            }
            _ => {}
        }
        self.steps.pop_front()
    }

    fn catalog(&mut self, answer: Result<Arc<Catalog>, Failure>) -> Option<Step> {
        match (answer, &mut self.phase) {
            (Ok(catalog), Phase::Session(session)) => session.catalog_arrived(catalog),
            (Err(failure), Phase::Session(_)) => {
                let because = |why: &str| format!("the catalog, which masks need, could not be read: {why}");
                let detail = because(&failure.detail);
                self.fail(&Failure::new(Reason::MaskImpossible, detail).telling(because(failure.public())));
            }
            _ => {}
        }
        self.steps.pop_front()
    }

    fn farewell(&mut self, failure: &Failure) -> Bytes {
        match &self.phase {
            Phase::Opening(opening) if opening.hears() => errors::invalid_startup(failure, self.settings.session),
            Phase::Opening(_) | Phase::Over => Bytes::new(),
            Phase::Session(session) if session.is_beyond_words() => Bytes::new(),
            _ => errors::farewell(failure, self.settings.session),
        }
    }

    fn inbox_bytes_max(&self) -> usize {
        match &self.phase {
            Phase::Session(_) => BODY_BYTES_MAX + INBOX_SLACK_BYTES,
            _ => STARTUP_BYTES_MAX.max(ANSWER_BYTES_MAX) + INBOX_SLACK_BYTES,
        }
    }

    fn is_opening(&self) -> bool {
        match &self.phase {
            Phase::Session(session) => session.starting,
            _ => true,
        }
    }
}

/// The database that the client means: its own user's name when it names none, whoever weir logs in as.
fn database(startup: &Startup) -> String {
    let named = startup.parameter(b"database").filter(|name| !name.is_empty());
    let name = named.or_else(|| startup.parameter(b"user"));
    name.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
}

/// A message that must be kept whole (a row to mask) may be this long; an answer over it ends the session.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A longer Bind, and a longer value with nothing in it to be masked, passes in pieces.
const STREAM_BYTES_MIN: usize = 64 * 1024;

/// One message of a login; libpq and servers stay below 2,000 bytes unless tokens are long.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Room for the messages before the one that is not complete, which are held to be sent with it.
const INBOX_SLACK_BYTES: usize = 256 * 1024;
