//! Drives one [`Conversation`] between two streams: the only code that performs steps.
//!
//! One task, no locks, no channels. Nothing is read from a side while the other side's outbox is full; nothing that was allowed is
//! written upstream before the journal's record of it is durable (`barrier`).

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use weir_wire::WireError;

use super::{
    Context, cancel,
    connect::{connect, reset_on_close, tune},
    note::{Clock, event_of},
    outcome::Ending,
    sessions::Listed,
    stream::{End, Stream},
};
use crate::{
    credential::{CredentialError, Pin as Credential},
    flow::{Failure, Reason, Side},
    journal::{Event, JournalError},
    judge::SessionJudge,
    policy::{Permit, Verdict},
    protocol::{Conversation, Step, TlsFacts},
};

/// One session being relayed.
pub(super) struct Relay<'a> {
    pub(super) context: &'a Context,
    pub(super) permit: Permit,
    pub(super) judge: Arc<SessionJudge>,
    pub(super) listed: &'a mut Listed,
    pub(super) conversation: Box<dyn Conversation>,
    pub(super) credential: Option<Arc<Credential>>,
    downstream: End,
    upstream: End,
    barrier: Option<Barrier>,
    clock: Clock,
    deadline: Pin<Box<Sleep>>,
    last_activity: Instant,
    closing: Option<Reason>,
    first_eof: Option<Reason>,
    /// Of the policies that were compared last with those at the beginning.
    generation: u64,
}

type Barrier = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send + Sync>>;

impl<'a> Relay<'a> {
    pub(super) fn new(
        context: &'a Context,
        permit: Permit,
        judge: Arc<SessionJudge>,
        listed: &'a mut Listed,
        conversation: Box<dyn Conversation>,
        downstream: Stream,
    ) -> Self {
        Self {
            generation: permit.generation(),
            deadline: Box::pin(sleep(context.limits.handshake_timeout)),
            context,
            permit,
            judge,
            listed,
            conversation,
            credential: None,
            downstream: End::new(downstream),
            upstream: End::new(Stream::Absent),
            barrier: None,
            clock: Clock::default(),
            last_activity: Instant::now(),
            closing: None,
            first_eof: None,
        }
    }

    /// Relays until one side, the policy or a failure ends the session; says farewell in the protocol's own words.
    pub(super) async fn run(mut self) -> Ending {
        let (reason, detail) = match self.drive().await {
            Ok(reason) => (reason, String::new()),
            Err(failure) => {
                self.forget_rejected(failure.reason);
                self.say_farewell(&failure).await;
                (failure.reason, failure.detail)
            }
        };
        Ending { reason, detail, bytes_up: self.upstream.bytes_written, bytes_down: self.downstream.bytes_written }
    }

    async fn drive(&mut self) -> Result<Reason, Failure> {
        loop {
            self.advance().await?;
            if let Some(reason) = self.closing {
                self.forget_rejected(reason);
                self.flush_both().await;
                return Ok(reason);
            }
            if let Some(reason) = self.pass_on_half_close().await {
                return Ok(reason);
            }
            self.exchange().await?;
        }
    }

    /// Lets the conversation take its input and performs its steps until it wants more bytes.
    async fn advance(&mut self) -> Result<(), Failure> {
        loop {
            let mut moved = false;
            for side in [Side::Upstream, Side::Downstream] {
                while self.closing.is_none() && self.end(side.other()).has_room() {
                    let Some(step) = self.receive(side)? else { break };
                    self.perform(step).await?;
                    moved = true;
                }
            }
            if !moved || self.closing.is_some() {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, side: Side) -> Result<Option<Step>, Failure> {
        let inbox = match side {
            Side::Downstream => &mut self.downstream.inbox,
            Side::Upstream => &mut self.upstream.inbox,
        };
        self.conversation.receive(side, inbox).map_err(|error| blame(side, &error))
    }

    async fn perform(&mut self, step: Step) -> Result<(), Failure> {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            next = match step {
                Step::Send { to, bytes } => {
                    self.end_mut(to).queue(bytes);
                    None
                }
                Step::Decide(request) => {
                    let judged = self.judge.decide(&request).map_err(|error| journal_failure(&error))?;
                    self.listed.session.asked(matches!(judged.verdict, Verdict::Allow(_)));
                    self.clock.start(judged.number);
                    self.follow_reload()?;
                    let answer = self.conversation.decided(&judged.verdict, judged.number);
                    // Also for denials: the record of an attempt is as durable as the record of an act.
                    if let Some(ticket) = judged.barrier() {
                        self.barrier = Some(Box::pin(async move { ticket.durable().await }));
                    }
                    answer
                }
                Step::Note(observation) => {
                    let event = event_of(observation, &self.judge, self.credential.as_ref(), &mut self.clock);
                    if let Some(event) = event {
                        self.record(event)?;
                    }
                    None
                }
                Step::Dial => self.dial().await?,
                Step::Secure(side) => self.secure(side).await?,
                Step::Fetch(query) => {
                    let answer = self.context.catalogs.fetch(self.context, &self.permit, self.credential.clone(), query).await;
                    self.conversation.catalog(answer)
                }
                Step::Cancel { process, key } => {
                    cancel::forward(self.context, self.permit.flow(), process, key).await;
                    None
                }
                Step::Register(backend) => {
                    self.listed.register(&self.permit, backend.process, backend.key);
                    None
                }
                Step::Close(reason) => {
                    self.closing = Some(reason);
                    None
                }
            };
        }
        Ok(())
    }

    /// A conversation keeps its masks for the whole session: it cannot go on under others.
    fn follow_reload(&mut self) -> Result<(), Failure> {
        let Some(permit) = self.judge.renewed_since(self.generation) else { return Ok(()) };
        self.generation = permit.generation();
        let masks = |permit: &Permit| permit.masks().map(|mask| format!("{mask:?}")).collect::<Vec<_>>();
        if masks(&permit) == masks(&self.permit) {
            return Ok(());
        }
        Err(Failure::new(Reason::Drained, "the policies' masks have changed since this session began: connect again"))
    }

    async fn dial(&mut self) -> Result<Option<Step>, Failure> {
        let unavailable =
            |error: CredentialError| Failure::new(Reason::CredentialUnavailable, error.to_string()).telling(error.public());
        let credential = self.context.broker.acquire(&self.permit).await.map_err(unavailable)?;
        self.upstream.stream = Stream::Plain(connect(&self.permit).await?);
        self.credential.clone_from(&credential);
        Ok(self.conversation.dialled(credential))
    }

    async fn secure(&mut self, side: Side) -> Result<Option<Step>, Failure> {
        self.flush(side).await?;
        let Stream::Plain(stream) = mem::take(&mut self.end_mut(side).stream) else {
            return Err(Failure::new(Reason::Internal, "tls: asked for on a stream that is not in the clear"));
        };
        let handshake = async {
            match side {
                Side::Downstream => self.terminate(stream).await,
                Side::Upstream => self.originate(stream).await,
            }
        };
        let (stream, facts) = timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| {
            let detail = format!("tls handshake: no end within {} s", TLS_HANDSHAKE_TIMEOUT.as_secs());
            Failure::new(tls_reason(side), detail)
        })??;
        self.end_mut(side).stream = stream;
        Ok(self.conversation.secured(side, facts))
    }

    async fn terminate(&self, stream: tokio::net::TcpStream) -> Result<(Stream, TlsFacts), Failure> {
        let fail = |cause: String| Failure::new(Reason::DownstreamTls, format!("tls with the client: {cause}"));
        let names = leaf_names(&self.permit);
        let address = self.permit.flow().origin.orig_dst.0.ip();
        let config = self.context.authority.server_config(&names, address).map_err(|error| fail(error.to_string()))?;
        let stream = TlsAcceptor::from(config).accept(stream).await.map_err(|error| fail(error.to_string()))?;
        Ok((Stream::TlsServer(Box::new(stream)), TlsFacts::default()))
    }

    async fn originate(&self, stream: tokio::net::TcpStream) -> Result<(Stream, TlsFacts), Failure> {
        let tls = &self.permit.upstream().tls;
        let name = server_name(&self.permit);
        let result = self.context.originator.handshake(stream, tls, &name, &[]).await;
        let (stream, facts) = result.map_err(|error| Failure::new(Reason::UpstreamTls, format!("tls with {name}: {error}")))?;
        Ok((Stream::TlsClient(Box::new(stream)), facts))
    }

    /// Waits until bytes came in, bytes went out, or a time limit passed.
    async fn exchange(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll_exchange(cx)).await
    }

    fn poll_exchange(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Failure>> {
        if let Some(barrier) = &mut self.barrier
            && let Poll::Ready(result) = barrier.as_mut().poll(cx)
        {
            self.barrier = None;
            result.map_err(|error| journal_failure(&error))?;
        }
        let (mut moved, mut progressed) = (false, false);
        for side in [Side::Upstream, Side::Downstream] {
            let had_room = self.end(side).has_room();
            let wrote = self.poll_write(side, cx)?;
            moved |= wrote;
            // Otherwise nobody waited for it: neither input that had no room, nor an end to pass on.
            progressed |= wrote && (!had_room || self.downstream.eof || self.upstream.eof);
        }
        for side in [Side::Downstream, Side::Upstream] {
            let read = self.poll_read(side, cx)?;
            progressed |= read;
        }
        // The clock is not free: an open session has no limit that asks for it.
        if (moved || progressed) && self.limit().0.is_some() {
            self.last_activity = Instant::now();
        }
        if progressed {
            return Poll::Ready(Ok(()));
        }
        self.poll_deadline(cx)
    }

    fn poll_write(&mut self, side: Side, cx: &mut TaskContext<'_>) -> Result<bool, Failure> {
        if side == Side::Upstream && self.barrier.is_some() {
            return Ok(false);
        }
        match self.end_mut(side).poll_write_out(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(wrote)) => Ok(wrote),
            Poll::Ready(Err(error)) => Err(reset(side, "write", &error)),
        }
    }

    fn poll_read(&mut self, side: Side, cx: &mut TaskContext<'_>) -> Result<bool, Failure> {
        let inbox_bytes_max = self.conversation.inbox_bytes_max();
        let opening = self.conversation.is_opening();
        let room = self.end(side.other()).has_room();
        let end = self.end_mut(side);
        if end.eof || !room || !end.stream.is_present() {
            return Ok(false);
        }
        // The conversation has just taken all it could: what is left is one unfinished message.
        if end.inbox.len() >= inbox_bytes_max {
            // Before the session is open, input may have to wait for the other side: the handshake has its own time limit.
            if opening {
                return Ok(false);
            }
            let detail = format!("a message of more than {inbox_bytes_max} bytes");
            return Err(Failure::new(Reason::LimitExceeded, detail));
        }
        match end.poll_read_in(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(error)) => Err(reset(side, "read", &error)),
        }
    }

    fn poll_deadline(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Failure>> {
        if self.context.drain.is_over() {
            return Poll::Ready(Err(Failure::new(Reason::Drained, "weir is shutting down")));
        }
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let (limit, what) = self.limit();
        let quiet = self.last_activity.elapsed();
        if let Some(limit) = limit
            && quiet >= limit
        {
            return Poll::Ready(Err(Failure::new(Reason::TimedOut, format!("{what}: nothing for {} s", limit.as_secs()))));
        }
        let again = limit.map_or(DEADLINE_CHECK, |limit| limit.saturating_sub(quiet)).min(DEADLINE_CHECK);
        self.deadline.as_mut().reset((Instant::now() + again).into());
        // The fresh timer must know this task.
        let _ = self.deadline.as_mut().poll(cx);
        Poll::Pending
    }

    fn limit(&self) -> (Option<Duration>, &'static str) {
        if self.conversation.is_opening() {
            (Some(self.context.limits.handshake_timeout), "handshake")
        } else if self.downstream.eof || self.upstream.eof {
            (Some(HALF_CLOSED_TIMEOUT), "half-closed connection")
        } else {
            (None, "")
        }
    }

    /// Tells a side that the other one has ended, once everything is delivered. Both ended: so has the session.
    async fn pass_on_half_close(&mut self) -> Option<Reason> {
        if self.downstream.eof && !self.upstream.stream.is_present() {
            return Some(Reason::DownstreamClosed);
        }
        if self.upstream.eof && self.downstream.is_flushed() {
            if self.downstream.eof {
                return Some(self.first_eof.unwrap_or(Reason::UpstreamClosed));
            }
            self.first_eof.get_or_insert(Reason::UpstreamClosed);
            if !self.downstream.is_shut {
                self.downstream.shut().await;
            }
        }
        if self.downstream.eof && self.upstream.is_flushed() && self.barrier.is_none() {
            self.first_eof.get_or_insert(Reason::DownstreamClosed);
            if !self.upstream.is_shut {
                self.upstream.shut().await;
            }
        }
        None
    }

    async fn flush(&mut self, side: Side) -> Result<(), Failure> {
        if side == Side::Upstream
            && let Some(barrier) = self.barrier.take()
        {
            barrier.await.map_err(|error| journal_failure(&error))?;
        }
        let end = self.end_mut(side);
        if !end.stream.is_present() {
            return Ok(());
        }
        let flushing = poll_fn(|cx| {
            while !end.is_flushed() {
                match end.poll_write_out(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(()))
        });
        match timeout(FLUSH_TIMEOUT, flushing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(reset(side, "write", &error)),
            Err(_) => Err(reset(side, "write", &io::ErrorKind::TimedOut.into())),
        }
    }

    /// The session is over: what cannot be delivered any more is not an error of its own.
    async fn flush_both(&mut self) {
        let _ = self.flush(Side::Upstream).await;
        let _ = self.flush(Side::Downstream).await;
        self.downstream.shut().await;
    }

    async fn say_farewell(&mut self, failure: &Failure) {
        if failure.reason == Reason::DownstreamReset {
            return;
        }
        let words = self.conversation.farewell(failure);
        if words.is_empty() {
            // No words in this protocol state: a reset is closer to the truth than a clean end.
            if let Some(tcp) = self.downstream.stream.tcp() {
                reset_on_close(tcp);
            }
            return;
        }
        self.downstream.queue(words);
        let _ = self.flush(Side::Downstream).await;
        self.downstream.shut().await;
        // Closing with unread input would reset the connection and could destroy the farewell on its way.
        let _ = timeout(FAREWELL_READ_TIMEOUT, self.discard_input()).await;
    }

    async fn discard_input(&mut self) {
        let mut discarded = 0;
        while !self.downstream.eof && discarded < FAREWELL_DISCARD_BYTES_MAX {
            self.downstream.inbox = BytesMut::new();
            match poll_fn(|cx| self.downstream.poll_read_in(cx)).await {
                Ok(count) => discarded += count,
                Err(_) => return,
            }
        }
    }

    /// The next session reads the credential's source again: it may have been rotated.
    fn forget_rejected(&self, reason: Reason) {
        if let (Reason::CredentialRejected, Some(pin)) = (reason, &self.credential) {
            self.context.broker.reject(pin);
        }
    }

    fn record(&self, event: Event) -> Result<(), Failure> {
        self.judge.record(event).map(drop).map_err(|error| journal_failure(&error))
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Downstream => &self.downstream,
            Side::Upstream => &self.upstream,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        }
    }
}

/// The name that the server's certificate must carry: what the policy says, else the host by which it was recognised, else the address.
pub(super) fn server_name(permit: &Permit) -> String {
    let address = || permit.flow().origin.orig_dst.0.ip().to_string();
    let host = || permit.host().map(|host| host.to_string());
    permit.upstream().tls.server_name.clone().or_else(host).unwrap_or_else(address)
}

/// Every name under which the client may know this server.
fn leaf_names(permit: &Permit) -> Vec<String> {
    use crate::policy::object::Host;
    let names = permit.upstream().hosts.iter().filter_map(|host| match host {
        Host::Name(name) => Some(name.to_string()),
        Host::Address(_) | Host::Cidr(_) => None,
    });
    let mut names: Vec<String> = names.take(LEAF_NAMES_MAX).collect();
    names.sort();
    names
}

fn tls_reason(side: Side) -> Reason {
    match side {
        Side::Downstream => Reason::DownstreamTls,
        Side::Upstream => Reason::UpstreamTls,
    }
}

fn blame(side: Side, error: &WireError) -> Failure {
    let reason = match (error, side) {
        (WireError::Limit { .. }, _) => Reason::LimitExceeded,
        (_, Side::Downstream) => Reason::DownstreamMalformed,
        (_, Side::Upstream) => Reason::UpstreamMalformed,
    };
    let who = match side {
        Side::Downstream => "client",
        Side::Upstream => "server",
    };
    Failure::new(reason, format!("from the {who}: {error}"))
}

fn reset(side: Side, operation: &str, error: &io::Error) -> Failure {
    let (reason, who) = match side {
        Side::Downstream => (Reason::DownstreamReset, "client"),
        Side::Upstream => (Reason::UpstreamReset, "server"),
    };
    Failure::new(reason, format!("{operation} {who}: {error}"))
}

pub(super) fn journal_failure(error: &JournalError) -> Failure {
    Failure::new(Reason::JournalUnavailable, error.to_string())
}

/// A stream that was just accepted, ready for a relay.
pub(super) fn accepted(stream: tokio::net::TcpStream) -> Stream {
    tune(&stream);
    Stream::Plain(stream)
}

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
const FAREWELL_READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Input that is read and dropped after a farewell, so that the client gets to read it.
const FAREWELL_DISCARD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// One side has ended and the other says nothing: neither will.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(600);
/// How often a quiet session looks whether a limit or the drain applies.
const DEADLINE_CHECK: Duration = Duration::from_secs(30);
/// Names in one leaf.
const LEAF_NAMES_MAX: usize = 64;
