//! One side's byte stream, in the clear or inside TLS, and the buffers in front of it.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{client, server};

/// A connected stream; `Absent` before the upstream was dialled and while TLS is being put on.
#[derive(Debug, Default)]
pub(super) enum Stream {
    #[default]
    Absent,
    Plain(TcpStream),
    TlsClient(Box<client::TlsStream<TcpStream>>),
    TlsServer(Box<server::TlsStream<TcpStream>>),
}

impl Stream {
    #[must_use]
    pub(super) fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// The TCP stream below, for socket options.
    #[must_use]
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Absent => None,
            Self::Plain(stream) => Some(stream),
            Self::TlsClient(stream) => Some(stream.get_ref().0),
            Self::TlsServer(stream) => Some(stream.get_ref().0),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Absent => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::TlsClient(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::TlsServer(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Absent => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::TlsClient(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::TlsServer(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Absent => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::TlsClient(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::TlsServer(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Absent => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::TlsClient(stream) => Pin::new(stream).poll_flush(cx),
            Self::TlsServer(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Absent => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::TlsClient(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::TlsServer(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream with what was read and not yet understood, and what was decided and not yet written.
#[derive(Debug)]
pub(super) struct End {
    pub(super) stream: Stream,
    pub(super) inbox: BytesMut,
    outbox: VecDeque<Bytes>,
    queued_bytes: usize,
    read_chunk_bytes: usize,
    unflushed: bool,
    /// The peer will send no more.
    pub(super) eof: bool,
    /// We told the peer that we will send no more.
    pub(super) is_shut: bool,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

impl End {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            outbox: VecDeque::new(),
            queued_bytes: 0,
            read_chunk_bytes: READ_CHUNK_BYTES_MIN,
            unflushed: false,
            eof: false,
            is_shut: false,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    pub(super) fn queue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued_bytes += bytes.len();
            self.outbox.push_back(bytes);
        }
    }

    /// Tells the peer that we will send no more (TLS: close_notify first). A peer that is gone need not be told.
    pub(super) async fn shut(&mut self) {
        self.is_shut = true;
        let shutdown = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx));
        let _ = timeout(SHUTDOWN_TIMEOUT, shutdown).await;
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && !self.unflushed
    }

    /// True while more may be queued: a reader that outruns the writer stops here (back-pressure by not reading).
    pub(super) fn has_room(&self) -> bool {
        self.queued_bytes < OUTBOX_BYTES_MAX
    }

    /// Writes as much of the outbox as the stream takes. `Ready(Ok(true))` when something went out, `Ready(Ok(false))` when there
    /// was nothing to do.
    pub(super) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut wrote = false;
        while !self.outbox.is_empty() {
            match self.poll_write_once(cx) {
                Poll::Ready(Ok(count)) => self.wrote(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if wrote => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
            wrote = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let mut used = 0;
        for (slot, bytes) in slices.iter_mut().zip(&self.outbox) {
            *slot = IoSlice::new(bytes);
            used += 1;
        }
        let written = match slices.get(..used).unwrap_or_default() {
            // Almost always: `send` is cheaper than `writev`.
            [only] => Pin::new(&mut self.stream).poll_write(cx, only),
            several => Pin::new(&mut self.stream).poll_write_vectored(cx, several),
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn wrote(&mut self, count: usize) {
        self.queued_bytes = self.queued_bytes.saturating_sub(count);
        self.bytes_written += count as u64;
        self.unflushed = !matches!(self.stream, Stream::Plain(_));
        let mut left = count;
        while let Some(front) = self.outbox.front_mut() {
            if front.len() > left {
                front.advance(left);
                break;
            }
            left -= front.len();
            self.outbox.pop_front();
        }
    }

    /// Reads once into the inbox; `Ready(Ok(0))` is the peer's end.
    pub(super) fn poll_read_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = match &mut self.stream {
            // Waiting for readiness first keeps idle connections without a buffer.
            Stream::Plain(stream) => {
                let readiness = stream.poll_read_ready(cx);
                if readiness.is_pending() {
                    release_if_empty(&mut self.inbox, &mut self.read_chunk_bytes);
                }
                ready!(readiness)?;
                self.inbox.reserve(self.read_chunk_bytes);
                // Not `try_read_buf`: a read that does not fill the buffer then costs another one, to hear that there is no more.
                let result = pin!(stream.read_buf(&mut self.inbox)).poll(cx);
                if result.is_pending() {
                    release_if_empty(&mut self.inbox, &mut self.read_chunk_bytes);
                }
                ready!(result)?
            }
            Stream::Absent => return Poll::Pending,
            Stream::TlsClient(_) | Stream::TlsServer(_) => {
                self.inbox.reserve(self.read_chunk_bytes);
                let result = pin!(self.stream.read_buf(&mut self.inbox)).poll(cx);
                if result.is_pending() {
                    release_if_empty(&mut self.inbox, &mut self.read_chunk_bytes);
                }
                ready!(result)?
            }
        };
        self.bytes_read += count as u64;
        self.eof = count == 0;
        if count >= self.read_chunk_bytes {
            self.read_chunk_bytes = (self.read_chunk_bytes * 2).min(READ_CHUNK_BYTES_MAX);
        }
        Poll::Ready(Ok(count))
    }
}

/// An idle connection keeps no buffer.
fn release_if_empty(inbox: &mut BytesMut, read_chunk_bytes: &mut usize) {
    if inbox.is_empty() {
        *inbox = BytesMut::new();
        *read_chunk_bytes = READ_CHUNK_BYTES_MIN;
    }
}

/// Bytes queued towards one side before the other side is no longer read.
const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// First read of a connection: most requests fit.
const READ_CHUNK_BYTES_MIN: usize = 8 * 1024;
/// Reads grow up to this while a peer fills them.
const READ_CHUNK_BYTES_MAX: usize = 128 * 1024;
/// Slices given to one writev.
const WRITE_SLICES_MAX: usize = 16;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
