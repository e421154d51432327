//! A relay for tests: performs steps into buffers, answers decisions by a rule, and plays the server's part.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use weir_wire::postgres as wire;

use super::super::{BackendKey, Catalog, CatalogQuery, Postgres, PostgresConfig};
use crate::{
    credential::Pin,
    flow::{Effects, Failure, Flow, OrigDst, Origin, PeerAddr, Protocol, Reason, Request, SessionId, Side, Workload},
    mask::KnownSecrets,
    policy::{
        Allowed, Denied, Permit, Verdict,
        load::{SourceFile, load_sources},
    },
    protocol::{Conversation, Observation, Step, TlsFacts},
};

pub(super) const PASSWORD: &str = "correct horse battery staple";

/// What a test sees of a session.
pub(super) struct Talk {
    pub(super) conversation: Postgres,
    inbox_down: BytesMut,
    inbox_up: BytesMut,
    /// What the client and the server were sent since they were last asked.
    pub(super) to_client: BytesMut,
    pub(super) to_server: BytesMut,
    pub(super) asked: Vec<String>,
    /// What the last statement does, and to which objects, as policy was told.
    pub(super) effects: Effects,
    pub(super) objects: Vec<String>,
    /// Why statements could not be read, as policy was told.
    pub(super) unreadable: Vec<String>,
    pub(super) notes: Vec<Observation>,
    pub(super) secured: Vec<Side>,
    pub(super) fetched: Vec<CatalogQuery>,
    pub(super) registered: Vec<BackendKey>,
    pub(super) cancelled: Vec<(i32, Bytes)>,
    pub(super) closed: Option<Reason>,
    pub(super) dials: usize,
    pub(super) pin: Option<Arc<Pin>>,
    pub(super) facts: TlsFacts,
    pub(super) catalog: Result<Arc<Catalog>, Failure>,
    /// Decisions stay open until `decide`.
    pub(super) holds: bool,
    pub(super) held: bool,
    /// Bytes are handed over in pieces of this size.
    pub(super) piece: usize,
    number: u64,
}

/// What the policy of a test says beyond its rules, which are: a statement with `drop` is denied, and so is the user `mallory`.
pub(super) fn permit(upstream: &str, policy: &str) -> Permit {
    let text = format!(
        "apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: db}}\nspec: {{hosts: [10.0.0.5], ports: [5432], protocol: postgres, {upstream}}}\n\
         ---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: test}}\nspec:\n  workloads: [{{name: demo}}]\n  upstreams: [{{name: db}}]\n{policy}"
    );
    let source = SourceFile { name: "test.yaml".into(), text };
    let read = |text: &[u8]| super::super::sql::read(text).statement;
    let set = load_sources(&[source], &read, 1).expect("the test's policy loads").set;
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let workload = Workload { name: Some("demo".to_owned()), ..Workload::default() };
    let flow = Flow {
        // Fixed, so that two runs can be compared byte for byte.
        session: SessionId(uuid::Uuid::from_u128(7)),
        origin: Origin {
            peer: PeerAddr(address("10.0.0.9:40000")),
            orig_dst: OrigDst(address("10.0.0.5:5432")),
            workload: Arc::new(workload),
        },
        protocol: Protocol::Postgres,
        opened: SystemTime::now(),
    };
    set.admit(&flow, &std::collections::HashMap::default()).expect("the test's flow is admitted")
}

pub(super) const MASKS: &str = "  mask:\n    - {name: pii, columns: [\"public.users.email\"], with: {constant: \"***\"}}\n";

/// `users (id int4, email text)` has the OID 16385, `notes` 16390.
pub(super) fn catalog() -> Arc<Catalog> {
    let row = |cells: &[&str]| cells.iter().map(|cell| Some(Bytes::copy_from_slice(cell.as_bytes()))).collect::<Vec<_>>();
    let relations = vec![row(&["16385", "public", "users"]), row(&["16390", "public", "notes"])];
    let columns = vec![row(&["16385", "1", "id", "23"]), row(&["16385", "2", "email", "25"]), row(&["16390", "1", "body", "25"])];
    let functions = vec![row(&["operator", "="])];
    let nothing = Vec::new;
    let results = vec![nothing(), relations, columns, nothing(), nothing(), nothing(), functions, nothing()];
    Arc::new(Catalog::from_rows(results).unwrap())
}

impl Talk {
    pub(super) fn new(upstream: &str, policy: &str) -> Self {
        let known = Arc::new(KnownSecrets::default());
        known.register(PASSWORD.as_bytes()).unwrap();
        let permit = permit(upstream, policy);
        let conversation = Postgres::new(PostgresConfig { session: permit.flow().session, permit, known });
        Self {
            conversation,
            inbox_down: BytesMut::new(),
            inbox_up: BytesMut::new(),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            asked: Vec::new(),
            effects: Effects::default(),
            objects: Vec::new(),
            unreadable: Vec::new(),
            notes: Vec::new(),
            secured: Vec::new(),
            fetched: Vec::new(),
            registered: Vec::new(),
            cancelled: Vec::new(),
            closed: None,
            dials: 0,
            pin: Some(Pin::for_test("orders_rw", None)),
            facts: TlsFacts::default(),
            catalog: Ok(catalog()),
            holds: false,
            held: false,
            piece: usize::MAX,
            number: 0,
        }
    }

    /// A session past its login, with a server that trusts everyone.
    pub(super) fn session(policy: &str) -> Self {
        Self::session_in_pieces(policy, usize::MAX)
    }

    pub(super) fn session_in_pieces(policy: &str, piece: usize) -> Self {
        let mut talk = Self::new("tls: {mode: off}", policy);
        talk.piece = piece;
        talk.client(&startup(&[("user", "ann"), ("database", "shop")]));
        talk.server(&[auth_ok(), message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]), ready(b'I')].concat());
        assert_eq!(talk.closed, None);
        talk.to_client.clear();
        talk.to_server.clear();
        talk.asked.clear();
        talk.notes.clear();
        talk
    }

    pub(super) fn client(&mut self, bytes: &[u8]) -> &mut Self {
        for piece in bytes.chunks(self.piece.min(bytes.len().max(1))) {
            self.inbox_down.extend_from_slice(piece);
            self.pump();
        }
        self
    }

    pub(super) fn server(&mut self, bytes: &[u8]) -> &mut Self {
        for piece in bytes.chunks(self.piece.min(bytes.len().max(1))) {
            self.inbox_up.extend_from_slice(piece);
            self.pump();
        }
        self
    }

    pub(super) fn decide(&mut self, verdict: &Verdict) {
        assert!(std::mem::take(&mut self.held), "nothing to decide");
        self.number += 1;
        let step = self.conversation.decided(verdict, self.number);
        step.into_iter().for_each(|step| self.perform(step));
        self.pump();
    }

    pub(super) fn take_client(&mut self) -> Vec<u8> {
        self.to_client.split().to_vec()
    }

    pub(super) fn take_server(&mut self) -> Vec<u8> {
        self.to_server.split().to_vec()
    }

    pub(super) fn masked(&self) -> u64 {
        self.notes.iter().map(|note| if let Observation::Masked { count, .. } = note { *count } else { 0 }).sum()
    }

    /// Numbers and states of the statements that ended.
    pub(super) fn finished(&self) -> Vec<(u64, String, Option<u64>)> {
        let finished = |note: &Observation| match note {
            Observation::Finished { statement, result } => Some((*statement, result.status.clone(), result.rows)),
            _ => None,
        };
        self.notes.iter().filter_map(finished).collect()
    }

    fn pump(&mut self) {
        let mut progress = true;
        while progress && self.closed.is_none() {
            progress = false;
            for side in [Side::Downstream, Side::Upstream] {
                let inbox = match side {
                    Side::Downstream => &mut self.inbox_down,
                    Side::Upstream => &mut self.inbox_up,
                };
                match self.conversation.receive(side, inbox) {
                    Ok(Some(step)) => {
                        progress = true;
                        self.perform(step);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let reason =
                            if side == Side::Downstream { Reason::DownstreamMalformed } else { Reason::UpstreamMalformed };
                        let words = self.conversation.farewell(&Failure::new(reason, error.to_string()));
                        self.to_client.extend_from_slice(&words);
                        self.closed = Some(reason);
                    }
                }
                if self.closed.is_some() {
                    return;
                }
            }
        }
    }

    fn perform(&mut self, step: Step) {
        assert_eq!(self.closed, None, "a step after the end");
        let next = match step {
            Step::Cancel { process, key } => {
                self.cancelled.push((process, key));
                None
            }
            Step::Close(reason) => {
                self.closed = Some(reason);
                None
            }
            Step::Decide(request) => {
                assert!(!self.held, "a decision while another is pending");
                let verdict = self.judge(&request);
                if self.holds {
                    self.held = true;
                    return;
                }
                self.number += 1;
                self.conversation.decided(&verdict, self.number)
            }
            Step::Dial => {
                self.dials += 1;
                self.conversation.dialled(self.pin.clone())
            }
            Step::Fetch(query) => {
                self.fetched.push(query);
                self.conversation.catalog(self.catalog.clone())
            }
            Step::Note(note) => {
                self.notes.push(note);
                None
            }
            Step::Register(key) => {
                self.registered.push(key);
                None
            }
            Step::Secure(side) => {
                self.secured.push(side);
                self.conversation.secured(side, self.facts.clone())
            }
            Step::Send { to: Side::Downstream, bytes } => {
                self.to_client.extend_from_slice(&bytes);
                None
            }
            Step::Send { to: Side::Upstream, bytes } => {
                self.to_server.extend_from_slice(&bytes);
                None
            }
        };
        next.into_iter().for_each(|step| self.perform(step));
    }

    fn judge(&mut self, request: &Request) -> Verdict {
        let denied = match request {
            Request::Login(login) => {
                self.asked.push(format!("login {}", login.user));
                login.user == "mallory"
            }
            Request::Statement(statement) => {
                let text = String::from_utf8_lossy(&statement.text).into_owned();
                let denied = text.contains("drop");
                self.asked.push(text);
                self.effects = statement.effects;
                self.objects = statement.objects.iter().map(|object| object.name.clone()).collect();
                self.unreadable.extend(statement.unreadable_reason.clone());
                denied
            }
            _ => false,
        };
        if denied { deny() } else { allow() }
    }
}

pub(super) fn allow() -> Verdict {
    Verdict::Allow(Allowed::default())
}

pub(super) fn deny() -> Verdict {
    Verdict::Deny(Denied { rule: "test/no-drop".into(), message: "Nothing is dropped here.".into(), reason: Reason::Denied })
}

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    wire::message(&mut out, tag, |out| out.extend_from_slice(body));
    out.to_vec()
}

pub(super) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    wire::startup_message(parameters.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).to_vec()
}

pub(super) fn auth_ok() -> Vec<u8> {
    wire::authentication_ok().to_vec()
}

pub(super) fn auth(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
}

pub(super) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub(super) fn query(text: &str) -> Vec<u8> {
    wire::query(text.as_bytes()).to_vec()
}

pub(super) fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

/// No parameters; result formats as given.
pub(super) fn bind(portal: &str, statement: &str, formats: &[u16]) -> Vec<u8> {
    let mut body = BytesMut::from(format!("{portal}\0{statement}\0").as_bytes());
    body.put_u16(0);
    body.put_u16(0);
    body.put_u16(u16::try_from(formats.len()).unwrap());
    formats.iter().for_each(|format| body.put_u16(*format));
    message(b'B', &body)
}

pub(super) fn describe(kind: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{kind}{name}\0").as_bytes())
}

pub(super) fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

pub(super) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

/// Columns: name, table OID, attribute, type OID, format.
pub(super) fn description(columns: &[(&str, u32, i16, u32, u16)]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u16(u16::try_from(columns.len()).unwrap());
    for (name, table, attribute, type_oid, format) in columns {
        body.put_slice(name.as_bytes());
        body.put_u8(0);
        body.put_u32(*table);
        body.put_i16(*attribute);
        body.put_u32(*type_oid);
        body.put_i16(-1);
        body.put_i32(-1);
        body.put_u16(*format);
    }
    message(b'T', &body)
}

pub(super) fn row(cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u16(u16::try_from(cells.len()).unwrap());
    for cell in cells {
        match cell {
            None => body.put_i32(-1),
            Some(cell) => {
                body.put_i32(i32::try_from(cell.len()).unwrap());
                body.put_slice(cell);
            }
        }
    }
    message(b'D', &body)
}

pub(super) fn error(code: &str, text: &str, detail: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    let fields = [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', code), (b'M', text), (b'D', detail)];
    wire::error_response(&mut out, b'E', fields.map(|(code, value)| (code, value.as_bytes())));
    out.to_vec()
}

/// Tags of the messages in a run.
pub(super) fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let Some(frame) = wire::frame(bytes).unwrap() {
        tags.push(char::from(frame.tag));
        bytes = &bytes[frame.length..];
    }
    assert!(bytes.is_empty(), "part of a message");
    tags
}

/// The value of one field of the first error in a run.
pub(super) fn error_field(mut bytes: &[u8], code: u8) -> String {
    while let Some(frame) = wire::frame(bytes).unwrap() {
        if frame.tag == b'E' {
            let fields = wire::error_fields(frame.body(bytes).unwrap()).unwrap();
            let value = fields.iter().find(|(known, _)| *known == code).map(|(_, value)| *value);
            return String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
        }
        bytes = &bytes[frame.length..];
    }
    panic!("no error");
}

/// The cells of the rows in a run.
pub(super) fn rows(mut bytes: &[u8]) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rows = Vec::new();
    while let Some(frame) = wire::frame(bytes).unwrap() {
        if frame.tag == b'D' {
            let cells = wire::cells(frame.body(bytes).unwrap()).unwrap();
            rows.push(cells.map(|cell| cell.unwrap().map(<[u8]>::to_vec)).collect());
        }
        bytes = &bytes[frame.length..];
    }
    rows
}
