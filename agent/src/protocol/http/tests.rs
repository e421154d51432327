//! The service over real sockets, against upstreams that send scripted bytes.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    gate::{Decision, Gate},
    inject::{Held, Injection},
    plan::{JsonMask, Masks, Purpose, lock},
    *,
};
use crate::{
    flow::{HttpRequest, Request, SessionId},
    journal::{Event, JournalError},
    policy::{
        Allowed, Denied, Verdict,
        object::{CredentialSpec, HttpPlace, Inject, SecretSource, Value},
        testkit::{permit, set},
    },
};

mod bad;
mod credentials;
mod masks;
mod wire;

/// Denies paths that begin with `/denied`; remembers what it was told.
#[derive(Default)]
struct FakeGate {
    events: Mutex<Vec<Event>>,
    asked: Mutex<Vec<Arc<HttpRequest>>>,
    numbers: AtomicU64,
    journal_down: bool,
    barrier_down: bool,
    renewed: Mutex<Option<Permit>>,
}

fn down() -> JournalError {
    JournalError::Unavailable { directory: "/journal".into(), operation: "write", cause: "no space left on device".into() }
}

impl Gate for FakeGate {
    fn session(&self) -> SessionId {
        SessionId(uuid::Uuid::nil())
    }
    fn decide(&self, request: &Request) -> Result<Decision, JournalError> {
        if self.journal_down {
            return Err(down());
        }
        let Request::Http(request) = request else { panic!("not http") };
        lock(&self.asked).push(Arc::clone(request));
        let denied = request.path_normal.starts_with("/denied");
        let verdict = if denied {
            Verdict::Deny(Denied { rule: "shop/no".into(), message: "Ask #ops first.".into(), reason: Reason::Denied })
        } else {
            Verdict::Allow(Allowed::default())
        };
        let down = self.barrier_down;
        let barrier: gate::Barrier = Box::pin(async move { if down { Err(super::tests::down()) } else { Ok(()) } });
        Ok(Decision { verdict, number: self.next_number(), barrier: Some(barrier) })
    }
    fn record(&self, event: Event) -> Result<(), JournalError> {
        lock(&self.events).push(event);
        Ok(())
    }
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
    fn renewed(&self) -> Option<Permit> {
        lock(&self.renewed).clone()
    }
}

/// What an upstream does with its nth connection.
type Script = Arc<dyn Fn(usize, TcpStream) -> Pinned<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

struct Kit {
    gate: FakeGate,
    script: Script,
    masks: Masks,
    place: Option<HttpPlace>,
    credential: Option<(Option<&'static str>, Option<&'static str>, Option<&'static str>)>,
    known: Arc<KnownSecrets>,
    names: Vec<Arc<str>>,
    limits: Limits,
    unreachable: bool,
    purpose: Purpose,
}

/// A running session: what the client holds, what the upstream saw, what the judge and the journal were told.
struct Session {
    client: TcpStream,
    gate: Arc<FakeGate>,
    dials: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<u8>>>,
    served: JoinHandle<Outcome>,
}

thread_local! {
    static SEEN: Arc<Mutex<Vec<u8>>> = Arc::default();
}

/// An upstream that reads heads (and bodies with a Content-Length, or chunked to the end) and answers each with the next of `answers`, `piece` bytes at a time;
/// after the last it closes.
fn upstream(answers: &[&str], piece: usize) -> Kit {
    let answers: Arc<Vec<Vec<u8>>> = Arc::new(answers.iter().map(|answer| answer.as_bytes().to_vec()).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let seen = SEEN.with(Arc::clone);
    scripted(Arc::new(move |_, mut stream| {
        let (answers, next, seen) = (Arc::clone(&answers), Arc::clone(&next), Arc::clone(&seen));
        Box::pin(async move {
            stream.set_nodelay(true).unwrap();
            let mut inbox = Vec::new();
            while let Some(request) = read_message(&mut stream, &mut inbox).await {
                lock(&seen).extend_from_slice(&request);
                let Some(answer) = answers.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
                for piece in answer.chunks(piece) {
                    if stream.write_all(piece).await.is_err() {
                        return;
                    }
                    if piece.len() < 64 {
                        tokio::task::yield_now().await;
                    }
                }
                let head = String::from_utf8_lossy(answer).to_lowercase();
                let framed = head.contains("content-length")
                    || head.contains("chunked")
                    || head.contains(" 304 ")
                    || head.contains(" 204 ");
                if !framed || head.contains("connection: close") {
                    return;
                }
            }
        })
    }))
}

fn scripted(script: Script) -> Kit {
    Kit {
        gate: FakeGate::default(),
        script,
        masks: Masks::default(),
        place: None,
        credential: None,
        known: Arc::default(),
        names: Vec::new(),
        limits: Limits::default(),
        unreachable: false,
        purpose: Purpose::default(),
    }
}

/// One request off the wire, as it came.
async fn read_message(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = memchr::memmem::find(inbox, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&inbox[..end]).to_lowercase();
            let length =
                head.split("content-length: ").nth(1).map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            let whole = match length {
                Some(length) => Some(end + 4 + length),
                None if head.contains("chunked") => memchr::memmem::find(&inbox[end..], b"\r\n0\r\n").and_then(|zero| {
                    let tail = &inbox[end + zero + 2..];
                    memchr::memmem::find(tail, b"\r\n\r\n").map(|last| end + zero + 2 + last + 4)
                }),
                None => Some(end + 4),
            };
            if let Some(whole) = whole.filter(|whole| *whole <= inbox.len()) {
                return Some(inbox.drain(..whole).collect());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => inbox.extend_from_slice(&buffer[..count]),
        }
    }
}

impl Kit {
    fn keys(mut self, keys: &[&str]) -> Self {
        self.masks.json = JsonMask::new(keys.iter().map(|key| (Arc::from("shop/api"), Arc::from(*key))).collect());
        self
    }
    fn headers(mut self, names: &[&'static str]) -> Self {
        self.masks.headers = names.iter().map(|name| (http::HeaderName::from_static(name), Arc::from("shop/api"))).collect();
        self
    }
    fn token(mut self, token: &'static str) -> Self {
        self.credential = Some((None, None, Some(token)));
        self.known(token)
    }
    fn login(mut self, user: &'static str, password: &'static str) -> Self {
        self.credential = Some((Some(user), Some(password), None));
        self.known(password)
    }
    fn known(self, secret: &str) -> Self {
        self.known.register(secret.as_bytes()).unwrap();
        self
    }
    fn no_credential(mut self) -> Self {
        self.credential = Some((None, None, None));
        self
    }
    fn at(mut self, place: HttpPlace) -> Self {
        self.place = Some(place);
        self
    }

    fn injection(&self) -> Option<Injection> {
        let (user, password, token) = self.credential?;
        let source = |value: Option<&str>| value.map(|_| SecretSource::Env("X".into()));
        let spec = CredentialSpec {
            name: "shop-api".into(),
            user: user.map(|user| Value::Literal(user.into())),
            password: source(password),
            token: source(token.or(Some("absent").filter(|_| password.is_none()))),
        };
        let held = (token.is_some() || password.is_some()).then(|| Held {
            version: "v1",
            user,
            password: password.map(str::as_bytes),
            token: token.map(str::as_bytes),
        });
        Some(Injection::new(&Inject { credential: Arc::new(spec), http: self.place.clone() }, held, &self.known))
    }

    async fn start(self) -> Session {
        let seen = SEEN.with(Arc::clone);
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = upstream.local_addr().unwrap();
        let dials = Arc::new(AtomicUsize::new(0));
        let (script, injection) = (Arc::clone(&self.script), self.injection());
        if self.unreachable {
            drop(upstream);
        } else {
            tokio::spawn(async move {
                for count in 0.. {
                    let (stream, _) = upstream.accept().await.unwrap();
                    tokio::spawn(script(count, stream));
                }
            });
        }
        let dialled = Arc::clone(&dials);
        let connect: Connect = Arc::new(move || {
            dialled.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                let stream = TcpStream::connect(address).await;
                let stream =
                    stream.map_err(|error| Failure::new(Reason::UpstreamUnreachable, format!("connect upstream: {error}")))?;
                stream.set_nodelay(true).unwrap();
                Ok(Box::new(stream) as BoxedIo)
            })
        });
        let gate = Arc::new(self.gate);
        let plan = Plan {
            gate: Arc::clone(&gate) as Arc<dyn Gate>,
            known: self.known,
            connect,
            limits: self.limits,
            injection,
            masks: Arc::new(self.masks),
            purpose: self.purpose,
            names: self.names,
            default_host: "127.0.0.1".into(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (downstream, _) = listener.accept().await.unwrap();
        let served = tokio::spawn(carry(downstream, plan));
        Session { client, gate, dials, seen, served }
    }

    /// Sends `request`, says that nothing follows by asking for a close, and returns everything that came back.
    async fn ask(self, request: &str) -> (String, Session) {
        let mut session = self.start().await;
        session.client.write_all(request.as_bytes()).await.unwrap();
        let answer = session.rest().await;
        (answer, session)
    }
}

impl Session {
    /// Everything until the connection ends; also when it is reset.
    async fn rest(&mut self) -> String {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.client.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(answer).unwrap()
    }

    /// One response with a Content-Length.
    async fn one(&mut self) -> String {
        let mut inbox = Vec::new();
        let answer = read_message(&mut self.client, &mut inbox).await.unwrap();
        assert!(inbox.is_empty(), "more than one response: {}", String::from_utf8_lossy(&inbox));
        String::from_utf8(answer).unwrap()
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&lock(&self.seen)).into_owned()
    }

    async fn outcome(self) -> (Outcome, Arc<FakeGate>) {
        drop(self.client);
        (self.served.await.unwrap(), self.gate)
    }
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// Removes chunked framing.
fn dechunk(answer: &str) -> String {
    let mut rest = body_of(answer);
    let mut body = String::new();
    loop {
        let (size, tail) = rest.split_once("\r\n").expect("a chunk size");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.push_str(&tail[..size]);
        rest = tail[size..].strip_prefix("\r\n").unwrap();
    }
}

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: api.internal\r\nConnection: close\r\n\r\n";
