//! Tells a client, in its protocol's own words, that its connection is refused.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use weir_wire::postgres::{First, first};

use super::{Context, connect::reset_on_close, outcome::Ending, stream::Stream};
use crate::{
    flow::{Flow, Protocol},
    protocol::{Refused, http, postgres},
};

/// Speaks the refusal and ends the connection. Bounded in time and bytes; a client that hangs up misses its answer.
pub(super) async fn refuse(context: &Context, flow: &Flow, mut stream: Stream, refused: Refused) -> Ending {
    let spoken = timeout(context.limits.handshake_timeout.min(REFUSAL_TIMEOUT), async {
        match flow.protocol {
            Protocol::Http => say_http(context, &mut stream, flow, &refused).await,
            Protocol::Postgres => say_postgres(context, &mut stream, flow, &refused).await,
            Protocol::Tcp => None,
        }
    })
    .await
    .ok()
    .flatten();
    match &spoken {
        Some(words) => say(&mut stream, words).await,
        None => {
            if let Some(tcp) = stream.tcp() {
                reset_on_close(tcp);
            }
        }
    }
    let bytes_down = spoken.map_or(0, |words| words.len() as u64);
    let (reason, detail) = match refused {
        Refused::Denied(denied) => (denied.reason, format!("{} (rule {})", denied.message, denied.rule)),
        Refused::Failed(failure) => (failure.reason, failure.detail),
    };
    Ending { reason, detail, bytes_up: 0, bytes_down }
}

async fn say(stream: &mut Stream, words: &Bytes) {
    let farewell = async {
        if stream.write_all(words).await.is_ok() && stream.shutdown().await.is_ok() {
            // Closing with unread input would reset the connection before the client has read why.
            let mut sink = vec![0; 4096];
            let mut discarded = 0;
            while discarded < DISCARD_BYTES_MAX {
                match stream.read(&mut sink).await {
                    Ok(count) if count > 0 => discarded += count,
                    _ => return,
                }
            }
        }
    };
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
}

/// Waits for the end of a request's head: an answer before the question confuses clients.
async fn say_http(context: &Context, stream: &mut Stream, flow: &Flow, refused: &Refused) -> Option<Bytes> {
    let mut head = BytesMut::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(http::refusal(refused, flow.session, &context.judge.known.scrubber()))
}

/// Goes through the negotiation as a server would, so that the client gets to read the error.
async fn say_postgres(context: &Context, stream: &mut Stream, flow: &Flow, refused: &Refused) -> Option<Bytes> {
    let mut input = BytesMut::new();
    for _ in 0..NEGOTIATIONS_MAX {
        let packet = loop {
            if let Some((packet, length)) = first(&input).ok()? {
                let _ = input.split_to(length);
                break packet;
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        match packet {
            First::Cancel { .. } => return None,
            First::GssEncryption => stream.write_all(b"N").await.ok()?,
            First::Ssl => {
                // Bytes behind the request were sent before there was encryption: an attack.
                if !input.is_empty() {
                    return None;
                }
                stream.write_all(b"S").await.ok()?;
                let Stream::Plain(plain) = std::mem::take(stream) else { return None };
                let config = context.authority.server_config(&[], flow.origin.orig_dst.0.ip()).ok()?;
                *stream = Stream::TlsServer(Box::new(TlsAcceptor::from(config).accept(plain).await.ok()?));
            }
            First::Startup(_) | First::Unsupported { .. } => return Some(postgres::refusal(refused, flow.session)),
        }
    }
    None
}

const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
const DISCARD_BYTES_MAX: usize = 1024 * 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// SSLRequest, GSSENCRequest and the startup message, in any order.
const NEGOTIATIONS_MAX: usize = 4;
