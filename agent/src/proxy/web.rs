//! HTTP's sockets: hyper owns the framing, so the service gets a stream and a way to reach the upstream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::warn;

use super::{Context, connect::connect, outcome::Ending, relay::server_name, stream::Stream};
use crate::{
    flow::{Failure, Reason},
    judge::SessionJudge,
    policy::{Permit, object::TlsMode},
    protocol::http::{self, BoxedIo, Connect, HttpConfig, Outcome},
};

/// Carries one HTTP connection: downstream in the clear, upstream as the policy says.
pub(super) async fn carry(context: &Arc<Context>, permit: Permit, judge: Arc<SessionJudge>, stream: Stream) -> Ending {
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // Without a pin the service refuses every request of a policy that injects, in HTTP's own words.
    let pin = match context.broker.acquire(&permit).await {
        Ok(pin) => pin,
        Err(error) => {
            warn!(session = %permit.flow().session, %error, "credential unavailable");
            None
        }
    };
    let config = HttpConfig {
        permit: permit.clone(),
        judge,
        pin,
        known: Arc::clone(&context.judge.known),
        connect: dialler(Arc::clone(context), permit, Arc::clone(&up)),
        limits: http::Limits { head_read_timeout: context.limits.handshake_timeout, ..http::Limits::default() },
    };
    let mut drain = context.drain.clone();
    let outcome = tokio::select! {
        outcome = http::serve(Counted { stream, written: Arc::clone(&down) }, config) => outcome,
        () = drain.over() => Outcome { reason: Reason::Drained, detail: "weir is shutting down".to_owned() },
    };
    Ending {
        reason: outcome.reason,
        detail: outcome.detail,
        bytes_up: up.load(Ordering::Relaxed),
        bytes_down: down.load(Ordering::Relaxed),
    }
}

fn dialler(context: Arc<Context>, permit: Permit, written: Arc<AtomicU64>) -> Connect {
    Arc::new(move || {
        let (context, permit, written) = (Arc::clone(&context), permit.clone(), Arc::clone(&written));
        Box::pin(async move {
            let plain = connect(&permit).await?;
            let stream = match permit.upstream().tls.mode {
                TlsMode::Off => Stream::Plain(plain),
                _ => {
                    let name = server_name(&permit);
                    let tls = &permit.upstream().tls;
                    let secured = context.originator.handshake(plain, tls, &name, &[b"http/1.1"]).await;
                    let (stream, _) =
                        secured.map_err(|error| Failure::new(Reason::UpstreamTls, format!("tls with {name}: {error}")))?;
                    Stream::TlsClient(Box::new(stream))
                }
            };
            Ok(Box::new(Counted { stream, written }) as BoxedIo)
        })
    })
}

/// A stream that counts what is written to it.
struct Counted {
    stream: Stream,
    written: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.written.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [only] = slices {
            return self.poll_write(cx, only);
        }
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.written.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
