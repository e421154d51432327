//! The one upstream connection of a session: dialled when first needed, and again when the server closed it between requests.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, header::EXPECT};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep, timeout},
};

use super::{BUFFER_BYTES_MAX, BoxedIo, Connect, Limits, plan::lock};
use crate::flow::{Failure, Reason};

/// Where the connection is kept between requests. `poll` drives it.
#[derive(Default)]
pub(super) struct Upstream {
    link: Mutex<Option<Link>>,
    driver: Mutex<Option<Pin<Box<Driver>>>>,
}

type Driver = Connection<TokioIo<BoxedIo>, RequestBody>;

struct Link {
    sender: SendRequest<RequestBody>,
    /// It carried a request before: the server may close it at any moment.
    used: bool,
    /// Its last request was answered before its body was asked for: the connection cannot go on.
    spent: bool,
}

impl Upstream {
    /// Reads and writes what can be. Wakes the task of `cx` when more can be done.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        let mut driver = lock(&self.driver);
        if driver.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *driver = None;
        }
    }

    /// Sends a request and waits for the response's head. A request is sent twice only if the first connection had been used
    /// before and the server cannot have acted on it, or acting twice is acting once (RFC 9110, 9.2.2) and there is no body.
    pub(super) async fn send(
        &self,
        request: Request<Incoming>,
        connect: &Connect,
        limits: &Limits,
    ) -> Result<Response<Incoming>, Failure> {
        let (request, asked) = RequestBody::wrap(request);
        let mut link = match self.kept().await {
            Some(link) => link,
            None => self.dial(connect, limits).await?,
        };
        let (reused, copy) = (link.used, if link.used { replayable(&request) } else { None });
        link.used = true;
        let mut sent = match link.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut error) => match error.take_message().or(copy) {
                Some(request) if reused => {
                    link = self.dial(connect, limits).await?;
                    link.used = true;
                    link.sender.send_request(request).await
                }
                _ => Err(error.into_error()),
            },
        };
        if let Ok(response) = &mut sent {
            link.spent = asked.is_some_and(|asked| !asked.load(Ordering::Relaxed));
            // A connection of which the server said that it ends here is not worth a look.
            link.spent |= response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
            *lock(&self.link) = Some(link);
        }
        sent.map_err(|error| failure(&error))
    }

    /// The connection of the request before, if it can take another.
    async fn kept(&self) -> Option<Link> {
        let mut link = lock(&self.link).take().filter(|link| !link.spent && !link.sender.is_closed())?;
        link.sender.ready().await.ok().map(|()| link)
    }

    async fn dial(&self, connect: &Connect, limits: &Limits) -> Result<Link, Failure> {
        let late = |_| {
            Failure::new(
                Reason::UpstreamUnreachable,
                format!("connect upstream: no answer in {} s", limits.connect_timeout.as_secs()),
            )
        };
        let io = timeout(limits.connect_timeout, connect()).await.map_err(late)??;
        let mut builder = Builder::new();
        builder.preserve_header_case(true).max_buf_size(BUFFER_BYTES_MAX).max_header_size(limits.head_bytes_max);
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await.map_err(|error| failure(&error))?;
        *lock(&self.driver) = Some(Box::pin(driver));
        Ok(Link { sender, used: false, spent: false })
    }
}

/// A copy to send again, if that is safe.
fn replayable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody { incoming: None, hold: None });
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

fn failure(error: &hyper::Error) -> Failure {
    let (reason, detail) = if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        (Reason::UpstreamMalformed, "the upstream's answer is not HTTP/1.1 as it must be")
    } else if error.is_user() || error.is_body_write_aborted() {
        (Reason::DownstreamClosed, "the request's body broke off")
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        (Reason::UpstreamClosed, "the upstream closed the connection before it answered")
    } else {
        (Reason::UpstreamReset, "the upstream's connection broke before it answered")
    };
    Failure::new(reason, detail)
}

/// The client's body on its way up. With `Expect: 100-continue` the client is asked for it only when the server asks.
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    hold: Option<Hold>,
}

struct Hold {
    invited: Option<oneshot::Receiver<()>>,
    /// Servers that do not know the expectation never invite (RFC 9110, 10.1.1).
    patience: Pin<Box<Sleep>>,
    asked: Arc<AtomicBool>,
}

const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

impl RequestBody {
    /// The request as it is sent; and, when its body is held back, whether it has been asked for since.
    fn wrap(request: Request<Incoming>) -> (Request<Self>, Option<Arc<AtomicBool>>) {
        let expects = request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if !expects || request.body().is_end_stream() {
            return (request.map(|incoming| Self { incoming: Some(incoming), hold: None }), None);
        }
        let (invite, invited) = oneshot::channel();
        let asked = Arc::new(AtomicBool::new(false));
        let hold = Hold { invited: Some(invited), patience: Box::pin(sleep(CONTINUE_PATIENCE)), asked: Arc::clone(&asked) };
        let mut request = request.map(|incoming| Self { incoming: Some(incoming), hold: Some(hold) });
        let invite = Mutex::new(Some(invite));
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == http::StatusCode::CONTINUE
                && let Some(invite) = lock(&invite).take()
            {
                // Nobody waits any more when patience ended first.
                let _ = invite.send(());
            }
        });
        (request, Some(asked))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(hold) = &mut this.hold {
            let invited = match hold.invited.as_mut().map(|invited| Pin::new(invited).poll(cx)) {
                Some(Poll::Pending) => hold.patience.as_mut().poll(cx).is_ready(),
                Some(Poll::Ready(Ok(()))) => true,
                // The final answer came first: the body is never asked for. Letting go of it tells hyper's server, which would
                // otherwise take the client's next request for it.
                Some(Poll::Ready(Err(_))) | None => {
                    hold.invited = None;
                    this.incoming = None;
                    false
                }
            };
            if !invited {
                return Poll::Pending;
            }
            hold.asked.store(true, Ordering::Relaxed);
            this.hold = None;
        }
        match &mut this.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.hold.is_none() && self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
