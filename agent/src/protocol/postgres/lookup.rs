//! Reads a catalog over a connection of weir's own: logs in, asks its questions, leaves.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use weir_wire::{
    Reader, WireError,
    postgres::{self, Frame, HEADER_BYTES, frame},
};

use super::{
    Catalog, Steps, errors,
    login::{Login, Turn},
};
use crate::{
    credential::Pin,
    flow::{Failure, Reason, Side},
    mask::{KnownSecrets, Scrubber},
    policy::{Permit, Verdict, object::TlsMode},
    protocol::{Conversation, Step, TlsFacts},
};

/// One look into a catalog. Only the upstream side exists: whoever drives it performs `Send` and `Secure` towards upstream and
/// `Close`, and then takes the result from [`Lookup::finished`].
pub struct Lookup {
    database: String,
    mode: TlsMode,
    known: Arc<KnownSecrets>,
    scrubber: Arc<Scrubber>,
    state: State,
    steps: Steps,
    outcome: Option<Result<Catalog, Failure>>,
}

enum State {
    Idle,
    LoggingIn(Box<Login>),
    Asking(Asking),
    Over,
}

/// Rows of the questions so far.
#[derive(Default)]
struct Asking {
    /// As `server_version_num`: 150003.
    server_version: u32,
    /// `None` until the server is ready for the first question.
    questions: Option<VecDeque<&'static str>>,
    results: Vec<Vec<Vec<Option<Bytes>>>>,
    bytes: usize,
    /// Bytes of a row that is too long to keep which are still to come.
    discards: usize,
}

impl Lookup {
    /// `database` as the client's session has it.
    #[must_use]
    pub fn new(permit: &Permit, database: String, known: Arc<KnownSecrets>) -> Self {
        Self::with_tls(permit.upstream().tls.mode, database, known)
    }

    fn with_tls(mode: TlsMode, database: String, known: Arc<KnownSecrets>) -> Self {
        let scrubber = known.scrubber();
        Self { database, mode, known, scrubber, state: State::Idle, steps: Steps::new(), outcome: None }
    }

    /// The catalog, or why it cannot be had, once there is an answer. An end of the connection before that is a failure.
    pub fn finished(&mut self) -> Option<Result<Catalog, Failure>> {
        self.outcome.take()
    }

    fn end(&mut self, outcome: Result<Catalog, Failure>) {
        let reason = match &outcome {
            Ok(_) => Reason::DownstreamClosed,
            Err(failure) => failure.reason,
        };
        self.state = State::Over;
        self.outcome = Some(outcome);
        self.steps.push_back(Step::Close(reason));
    }

    fn turn(&mut self, turn: Result<Turn, Failure>, message: &[u8]) {
        match turn {
            Ok(Turn::Accepted(_)) => self.state = State::Asking(Asking::default()),
            Ok(Turn::Nothing) => {}
            Ok(Turn::Secure) => self.steps.push_back(Step::Secure(Side::Upstream)),
            Ok(Turn::Send(bytes)) => self.send(bytes),
            Ok(Turn::Refused) => {
                let failure = self.said(message);
                self.end(Err(failure));
            }
            Ok(Turn::Offer(_) | Turn::Pass) => self.end(Err(no_credential())),
            Err(failure) => self.end(Err(failure)),
        }
    }

    fn send(&mut self, bytes: Bytes) {
        self.steps.push_back(Step::Send { to: Side::Upstream, bytes });
    }

    /// The server's refusal, from its ErrorResponse.
    fn said(&self, body: &[u8]) -> Failure {
        let fields = postgres::error_fields(body).unwrap_or_default();
        let code = String::from_utf8_lossy(errors::field(&fields, b'C').unwrap_or_default()).into_owned();
        let message = self.scrubber.text(errors::field(&fields, b'M').unwrap_or_default());
        Failure::new(Reason::UpstreamClosed, format!("catalog of {}: the server said {code}: {message}", self.database))
    }

    fn upstream(&mut self, input: &mut BytesMut) -> Result<(), WireError> {
        loop {
            if let State::LoggingIn(login) = &mut self.state
                && login.is_before_startup()
            {
                let turn = login.tls_answer(input);
                let waits = matches!(turn, Ok(Turn::Nothing));
                self.turn(turn, &[]);
                if waits {
                    return Ok(());
                }
                continue;
            }
            if matches!(self.state, State::Idle | State::Over) {
                input.clear();
                return Ok(());
            }
            if let State::Asking(asking) = &mut self.state
                && asking.discards > 0
            {
                let count = asking.discards.min(input.len());
                input.advance(count);
                asking.discards -= count;
                if count == 0 {
                    return Ok(());
                }
                continue;
            }
            let Some(outline) = frame(input)? else {
                return Ok(());
            };
            if let (State::Asking(asking), b'D') = (&mut self.state, outline.tag)
                && outline.length > MESSAGE_BYTES_MAX
            {
                if input.len() < LONG_ROW_BYTES {
                    return Ok(());
                }
                asking.long_row(input.get(HEADER_BYTES..LONG_ROW_BYTES).unwrap_or_default())?;
                asking.discards = outline.length;
                continue;
            }
            if outline.length > MESSAGE_BYTES_MAX {
                let (actual, limit) = (outline.length as u64, MESSAGE_BYTES_MAX as u64);
                return Err(WireError::Limit { what: "catalog message bytes", actual, limit });
            }
            if input.len() < outline.length {
                return Ok(());
            }
            let message = input.split_to(outline.length);
            self.message(outline, outline.body(&message).unwrap_or_default())?;
        }
    }

    fn message(&mut self, outline: Frame, body: &[u8]) -> Result<(), WireError> {
        let asking = match &mut self.state {
            State::LoggingIn(login) => {
                let turn = login.message(outline, body);
                self.turn(turn, body);
                return Ok(());
            }
            State::Asking(asking) => asking,
            State::Idle | State::Over => return Ok(()),
        };
        match outline.tag {
            b'D' => asking.row(body)?,
            b'E' => {
                let failure = self.said(body);
                self.end(Err(failure));
            }
            b'S' => asking.parameter(body)?,
            b'Z' => match asking.next() {
                Some(question) => self.send(postgres::query(question.as_bytes())),
                None => {
                    let results = std::mem::take(&mut asking.results);
                    self.send(postgres::terminate());
                    let database = &self.database;
                    let catalog = Catalog::from_rows(results)
                        .map_err(|why| Failure::new(Reason::UpstreamMalformed, format!("catalog of {database}: {why}")));
                    self.end(catalog);
                }
            },
            b'A' | b'C' | b'I' | b'K' | b'N' | b'T' => {}
            _ => return Err(WireError::Unexpected { what: "backend message in a catalog lookup" }),
        }
        Ok(())
    }
}

impl Asking {
    fn parameter(&mut self, body: &[u8]) -> Result<(), WireError> {
        let (name, value) = postgres::parameter_status(body)?;
        if name == b"server_version" {
            self.server_version = version_number(value);
        }
        Ok(())
    }

    fn next(&mut self) -> Option<&'static str> {
        let version = self.server_version;
        let question = self.questions.get_or_insert_with(|| Catalog::queries(version).into()).pop_front()?;
        // One result a question, also for those that answer without rows.
        self.results.push(Vec::new());
        Some(question)
    }

    /// Keeps a row whose last value is too long, the text of a huge view: as one that cannot be read, so that it may mean anything.
    fn long_row(&mut self, beginning: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new("DataRow", beginning);
        let columns = reader.u16()?;
        let mut row = Vec::new();
        for _ in 1..columns {
            let length = usize::try_from(reader.i32()?).map_err(|_| WireError::Malformed { what: "DataRow", why: "no value" })?;
            row.push(Some(Bytes::copy_from_slice(reader.bytes(length)?)));
        }
        row.push(Some(Bytes::from_static(UNREADABLE)));
        self.results.last_mut().ok_or(WireError::Unexpected { what: "DataRow without RowDescription" })?.push(row);
        Ok(())
    }

    fn row(&mut self, body: &[u8]) -> Result<(), WireError> {
        self.bytes += body.len();
        if self.bytes > CATALOG_BYTES_MAX {
            let (actual, limit) = (self.bytes as u64, CATALOG_BYTES_MAX as u64);
            return Err(WireError::Limit { what: "catalog bytes", actual, limit });
        }
        let result = self.results.last_mut().ok_or(WireError::Unexpected { what: "DataRow without RowDescription" })?;
        let cells = postgres::cells(body)?.map(|cell| Ok(cell?.map(Bytes::copy_from_slice)));
        result.push(cells.collect::<Result<_, WireError>>()?);
        Ok(())
    }
}

impl Conversation for Lookup {
    fn receive(&mut self, from: Side, input: &mut BytesMut) -> Result<Option<Step>, WireError> {
        if self.steps.is_empty() && from == Side::Upstream {
            self.upstream(input)?;
        }
        Ok(self.steps.pop_front())
    }

    /// Nothing is asked, so nothing is decided.
    fn decided(&mut self, _verdict: &Verdict, _number: u64) -> Option<Step> {
        None
    }

    fn dialled(&mut self, credential: Option<Arc<Pin>>) -> Option<Step> {
        if credential.as_ref().is_none_or(|pin| pin.user().is_none()) {
            self.end(Err(no_credential()));
            return self.steps.pop_front();
        }
        let parameters: [(&[u8], &[u8]); 3] =
            [(b"database", self.database.as_bytes()), (b"application_name", b"weir"), (b"client_encoding", b"UTF8")];
        let mut login = Login::new(credential, "", &parameters, self.mode, self.known.scrubber());
        let turn = login.begin();
        self.state = State::LoggingIn(Box::new(login));
        self.turn(Ok(turn), &[]);
        self.steps.pop_front()
    }

    fn secured(&mut self, _side: Side, facts: TlsFacts) -> Option<Step> {
        if let State::LoggingIn(login) = &mut self.state {
            let turn = login.secured(facts);
            self.turn(Ok(turn), &[]);
        }
        self.steps.pop_front()
    }

    /// There is no client to speak to.
    fn farewell(&mut self, _failure: &Failure) -> Bytes {
        Bytes::new()
    }

    fn inbox_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn is_opening(&self) -> bool {
        !matches!(self.state, State::Over)
    }
}

fn no_credential() -> Failure {
    Failure::new(Reason::CredentialUnavailable, "weir has no credential of its own to read the catalog with")
}

/// `15.3 (Debian 15.3-0+deb12u1)` as `server_version_num` counts it; 0 when it is not a number.
fn version_number(text: &[u8]) -> u32 {
    let mut numbers = text.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        digits.parse::<u32>().unwrap_or(0).min(999)
    });
    let major = numbers.next().unwrap_or(0);
    major * 10_000 + numbers.next().unwrap_or(0)
}

/// One message of the server.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Of a longer row, everything but its last value stands within this: OIDs.
const LONG_ROW_BYTES: usize = 256;

/// No SQL.
const UNREADABLE: &[u8] = b"(";

/// Rows of a catalog: about 100 bytes a column.
const CATALOG_BYTES_MAX: usize = 256 * 1024 * 1024;
