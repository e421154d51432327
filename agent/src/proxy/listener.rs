//! The one accept loop: a slot, a span, a task.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tracing::{Instrument, debug, info_span, warn};

use super::{Context, connect::reset_on_close, session::serve};
use crate::flow::{PeerAddr, canonical};

/// Accepts until the drain starts; every connection becomes a task of its own.
pub async fn listen(context: Arc<Context>, listener: TcpListener, slots: Arc<Semaphore>) {
    let mut drain = context.drain.clone();
    loop {
        let accepted = tokio::select! {
            () = drain.started() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&context, stream, PeerAddr(canonical(peer)), &slots),
            Err(error) => survive(&error).await,
        }
    }
}

fn admit(context: &Arc<Context>, stream: TcpStream, peer: PeerAddr, slots: &Arc<Semaphore>) {
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        warn!(peer = %peer.0, limit = context.limits.sessions_max, "refused: every session slot is taken");
        context.sessions.refused();
        reset_on_close(&stream);
        return;
    };
    let context = Arc::clone(context);
    let span = info_span!("connection", peer = %peer.0);
    let task = async move {
        if let Err(error) = serve(&context, stream, peer).await {
            debug!(%error, "refused");
            context.sessions.refused();
        }
        drop(slot);
    };
    tokio::spawn(task.instrument(span));
}

/// Out of descriptors or memory, most likely: others must be able to finish first.
async fn survive(error: &io::Error) {
    warn!(%error, "accept failed");
    sleep(ACCEPT_BACKOFF).await;
}

const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
