//! The client's side of a connection: a client may say that nothing follows and still wait for its answer.
//!
//! hyper either takes that for the end or does not look at all while it waits. So it is looked for here: after it the answer
//! may take a while, but not for ever, because a client that is gone looks the same until something is written to it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::plan::lock;

/// One handle is hyper's, the other looks for the end.
pub(super) struct Downstream<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    /// What was read while looking; hyper's next.
    peeked: Vec<u8>,
    ended: bool,
    /// Runs from the end of what the client sends, or from what was written last.
    patience: Option<Pin<Box<Sleep>>>,
    half_closed_timeout: Duration,
}

const PEEKED_BYTES_MAX: usize = 4096;

impl<S> Clone for Downstream<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Downstream<S> {
    pub(super) fn new(stream: S, half_closed_timeout: Duration) -> Self {
        let inner = Inner { stream, peeked: Vec::new(), ended: false, patience: None, half_closed_timeout };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Ready once the client is taken for gone.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = lock(&self.0);
        let inner = &mut *inner;
        if !inner.ended && inner.peeked.is_empty() {
            let mut buffer = [0; PEEKED_BYTES_MAX];
            let mut buffer = ReadBuf::new(&mut buffer);
            match Pin::new(&mut inner.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    inner.ended = true;
                    inner.patience = Some(Box::pin(sleep(inner.half_closed_timeout)));
                    // hyper reads the end itself if it waits for a request.
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Ok(())) => {
                    inner.peeked.extend_from_slice(buffer.filled());
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        match &mut inner.patience {
            Some(patience) => patience.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Downstream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if !inner.peeked.is_empty() {
            let count = inner.peeked.len().min(buffer.remaining());
            buffer.put_slice(inner.peeked.get(..count).unwrap_or_default());
            inner.peeked.drain(..count);
            return Poll::Ready(Ok(()));
        }
        if inner.ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Downstream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let count = ready!(Pin::new(&mut inner.stream).poll_write_vectored(cx, slices))?;
        let deadline = Instant::now() + inner.half_closed_timeout;
        if let Some(patience) = &mut inner.patience {
            patience.as_mut().reset(deadline);
        }
        Poll::Ready(Ok(count))
    }
    fn is_write_vectored(&self) -> bool {
        lock(&self.0).stream.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_shutdown(cx)
    }
}
