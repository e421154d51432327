//! HTTP/1.1: hyper owns the framing; this is the service between its server and its client.
//!
//! ```text
//!  downstream ─▶ head ─▶ strip ─▶ judge ─▶ journal durable ─▶ inject ─▶ upstream
//!             ◀─ body ◀─ mask by key ◀─ scrub known secrets ◀──────────┘
//! ```
//!
//! One upstream connection serves one downstream connection, and both are driven by the same task. Nothing is added to a
//! message that a client or a server could notice: no `Via`, no `Date`; names keep their case and their order. What a transparent
//! proxy must not pass on (RFC 9110, 7.6.1) is taken out.

mod body;
mod downstream;
mod gate;
mod head;
mod inject;
mod plan;
mod problem;
mod respond;
mod service;
mod upstream;

use std::{
    future::{Future, poll_fn},
    pin::{Pin as Pinned, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    credential::Pin,
    flow::{Failure, Reason, SessionId},
    judge::SessionJudge,
    mask::{KnownSecrets, Scrubber},
    policy::Permit,
    protocol::Refused,
};
use downstream::Downstream;
use plan::Plan;
use service::Service;

/// What one session's HTTP is served with.
pub struct HttpConfig {
    pub permit: Permit,
    pub judge: Arc<SessionJudge>,
    /// `None` although the policy injects: every request is refused with 503.
    pub pin: Option<Arc<Pin>>,
    pub known: Arc<KnownSecrets>,
    pub connect: Connect,
    pub limits: Limits,
}

/// A byte stream to the upstream, TLS included.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}
pub type BoxedIo = Box<dyn Io>;

/// Dials the permitted upstream and originates TLS to it; called again whenever the upstream closed between requests.
pub type Connect = Arc<dyn Fn() -> Pinned<Box<dyn Future<Output = Result<BoxedIo, Failure>> + Send>> + Send + Sync>;

/// The most that one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's or response's head, and of its trailers.
    pub head_bytes_max: usize,
    /// Time for a request head to arrive, counted from the end of the request before: also how long a connection may idle.
    pub head_read_timeout: Duration,
    /// Time without an answer for a client that said that it sends no more: it may have gone.
    pub half_closed_timeout: Duration,
    /// Time for the upstream to accept a connection, TLS included.
    pub connect_timeout: Duration,
    /// Bodies with at most this Content-Length are masked whole, so that they keep a Content-Length.
    pub whole_body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            head_read_timeout: Duration::from_secs(60),
            half_closed_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            whole_body_bytes_max: 64 * 1024,
        }
    }
}

/// What a client hears whose connection is refused before it has a service: one response, then the end.
#[must_use]
pub fn refusal(refused: &Refused, session: SessionId, scrubber: &Scrubber) -> Bytes {
    problem::Problem::of(refused).bytes(session, scrubber)
}

/// Bytes that hyper buffers for each direction of each leg.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// How a session ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub reason: Reason,
    pub detail: String,
}

/// Serves one intercepted connection until either side ends it. Dropping the future ends both legs.
pub async fn serve(downstream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, config: HttpConfig) -> Outcome {
    carry(downstream, Plan::new(config)).await
}

async fn carry(downstream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, plan: Plan) -> Outcome {
    let limits = plan.limits;
    let service = Arc::new(Service::new(plan));
    let downstream = Downstream::new(downstream, limits.half_closed_timeout);
    let connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(limits.head_bytes_max)
        .preserve_header_case(true)
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(downstream.clone()),
            service_fn(|request| {
                let service = Arc::clone(&service);
                async move { service.serve(request).await }
            }),
        );
    let mut connection = pin!(connection);
    let served = poll_fn(|cx| {
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(served));
        }
        if downstream.poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        // After the service: what it just handed to the upstream leaves in the same turn.
        service.poll_upstream(cx);
        Poll::Pending
    })
    .await;
    outcome(service.ending(), served)
}

/// What the service ended the session for outranks what hyper saw of it.
fn outcome(ending: Option<Failure>, served: Option<hyper::Result<()>>) -> Outcome {
    if let Some(Failure { reason, detail, .. }) = ending {
        return Outcome { reason, detail };
    }
    let Some(Err(error)) = served else {
        return Outcome { reason: Reason::DownstreamClosed, detail: "the client closed the connection".to_owned() };
    };
    let reason = if error.is_timeout() {
        Reason::TimedOut
    } else if error.is_parse() || error.is_parse_too_large() {
        Reason::DownstreamMalformed
    } else if error.is_incomplete_message() {
        Reason::DownstreamClosed
    } else if error.is_user() {
        Reason::UpstreamClosed
    } else {
        Reason::DownstreamReset
    };
    Outcome { reason, detail: format!("downstream http: {error}") }
}

#[cfg(test)]
mod tests;
