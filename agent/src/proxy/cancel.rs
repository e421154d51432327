//! Forwards a cancel request to the backend that it names, if that backend serves the same workload.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tracing::debug;
use weir_wire::postgres::{cancel_request, ssl_request};

use super::{Context, connect::connect, relay::server_name, stream::Stream};
use crate::{
    flow::{Failure, Flow, Reason},
    policy::{Permit, object::TlsMode},
};

/// Sends the request; an unknown key is ignored in silence, as PostgreSQL does.
pub(super) async fn forward(context: &Context, asker: &Flow, process: i32, key: Bytes) {
    let Some(backend) = context.sessions.backend(asker, process, &key) else {
        debug!(process, "cancel: no session of this workload has this key");
        return;
    };
    match timeout(CANCEL_TIMEOUT, send(context, &backend.permit, process, &key)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => debug!(process, %failure, "cancel failed"),
        Err(_) => debug!(process, "cancel: no end in time"),
    }
}

async fn send(context: &Context, permit: &Permit, process: i32, key: &[u8]) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::new(Reason::UpstreamReset, format!("cancel: {error}"));
    let plain = connect(permit).await?;
    let mut stream = secure_as_the_session(context, permit, plain).await?;
    stream.write_all(&cancel_request(process, key)).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    // The server closes when it has passed the signal on: only then is the client told, by closing its connection.
    let _ = stream.read(&mut [0; 1]).await;
    Ok(())
}

async fn secure_as_the_session(context: &Context, permit: &Permit, mut stream: TcpStream) -> Result<Stream, Failure> {
    let tls = &permit.upstream().tls;
    if tls.mode == TlsMode::Off {
        return Ok(Stream::Plain(stream));
    }
    let failed = |cause: String| Failure::new(Reason::UpstreamTls, format!("cancel: {cause}"));
    stream.write_all(&ssl_request()).await.map_err(|error| failed(error.to_string()))?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await.map_err(|error| failed(error.to_string()))?;
    if answer != *b"S" {
        return Err(failed("the server declines TLS".to_owned()));
    }
    let (stream, _) =
        context.originator.handshake(stream, tls, &server_name(permit), &[]).await.map_err(|error| failed(error.to_string()))?;
    Ok(Stream::TlsClient(Box::new(stream)))
}

const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
