//! What the first bytes say, without taking them: bounded and timed.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use weir_wire::{Guess, detect as guess};

use crate::flow::Protocol;

/// Peeks until the first bytes name a protocol. A client that waits for the server to speak first is opaque.
/// `None`: the client is gone.
pub(super) async fn detect(stream: &TcpStream, limit: Duration) -> Option<Protocol> {
    match timeout(limit.min(SILENCE_MAX), peek(stream)).await {
        Err(_) => Some(Protocol::Tcp),
        Ok(found) => found,
    }
}

async fn peek(stream: &TcpStream) -> Option<Protocol> {
    let mut buffer = vec![0; PEEK_BYTES_MAX];
    let mut seen = 0;
    loop {
        let count = stream.peek(&mut buffer).await.ok().filter(|count| *count > 0)?;
        match guess(buffer.get(..count).unwrap_or_default()) {
            Some(Guess::Http) => return Some(Protocol::Http),
            Some(Guess::Postgres) => return Some(Protocol::Postgres),
            Some(Guess::Tls | Guess::Unknown) => return Some(Protocol::Tcp),
            None if count >= PEEK_BYTES_MAX => return Some(Protocol::Tcp),
            // A socket with unread bytes is always ready: without new ones, wait a little instead of spinning.
            None if count == seen => sleep(PEEK_AGAIN).await,
            None => seen = count,
        }
    }
}

/// A request line or a startup message's head fits many times over.
const PEEK_BYTES_MAX: usize = 4 * 1024;
const PEEK_AGAIN: Duration = Duration::from_millis(2);
/// After this much silence the client is taken to wait for the server's greeting.
const SILENCE_MAX: Duration = Duration::from_secs(3);
