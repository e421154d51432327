//! One connection, from accept to close: six questions, answered in order, each answer journaled.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::net::TcpStream;

use super::{
    Context,
    carry::carry,
    connect::{reachable, reset_on_close},
    detect::detect,
    outcome::Outcome,
    refuse::refuse,
    relay::{accepted, journal_failure},
};
use crate::{
    flow::{Failure, Flow, OrigDst, Origin, PeerAddr, Reason, SessionId, canonical},
    journal::{Event, Record, event::VerdictEntry},
    policy::{Denied, Permit},
    protocol::Refused,
};

/// Why a connection did not even become a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{0:?}: no record of where this connection wanted to go")]
    UnknownOrigin(PeerAddr),
    #[error("{0:?}: closed before it said anything")]
    Vanished(PeerAddr),
}

/// Serves one intercepted connection, from accept to close.
///
/// # Errors
/// The connection has no origin record (somebody dialled the listener directly) or is gone: it was reset.
pub async fn serve(context: &Arc<Context>, stream: TcpStream, peer: PeerAddr) -> Result<(), SessionError> {
    let origin = who(context, &stream, peer).await?;
    let flow = what(context, &stream, origin).await?;
    let admitted = may_it(context, &flow).await;
    let opened = open(context, &flow, admitted.as_ref()).await;

    let mut outcome = Outcome {
        journal: &context.judge.journal,
        known: &context.judge.known,
        flow: flow.clone(),
        started: Instant::now(),
        ending: None,
    };
    let upstream = admitted.as_ref().ok().map(|permit| Arc::clone(&permit.upstream().name));
    let mut listed = context.sessions.list(&flow, upstream);
    let stream = accepted(stream);
    outcome.ending = Some(match (opened, admitted) {
        (Err(failure), _) => refuse(context, &flow, stream, Refused::Failed(failure)).await,
        (Ok(()), Err(denied)) => refuse(context, &flow, stream, Refused::Denied(denied)).await,
        (Ok(()), Ok(permit)) => carry(context, permit, &mut listed, stream).await,
    });
    Ok(())
}

/// Who connects, and where to: the kernel's record, taken once.
async fn who(context: &Context, stream: &TcpStream, peer: PeerAddr) -> Result<Origin, SessionError> {
    let taken = stream.local_addr().ok().and_then(|local| context.origins.take(peer, canonical(local)));
    let Some(taken) = taken else {
        // Somebody dialled the listener itself: where to is never read from the client.
        reset_on_close(stream);
        let event = Event::ConnectionRefused { peer, reason: Reason::UnknownOrigin };
        let _ = context.judge.journal.record(Record { time: SystemTime::now(), session: None, event });
        return Err(SessionError::UnknownOrigin(peer));
    };
    let workload = context.identities.identify(&taken).await;
    let orig_dst = OrigDst(reachable(canonical(taken.orig_dst.0)));
    Ok(Origin { peer, orig_dst, workload })
}

/// What it speaks.
async fn what(context: &Context, stream: &TcpStream, origin: Origin) -> Result<Flow, SessionError> {
    let session = SessionId::fresh();
    let opened = SystemTime::now();
    let hint = {
        let policies = context.judge.policies.load();
        policies.protocol_hint(&origin.workload, origin.orig_dst, &context.judge.resolved.load())
    };
    let protocol = match hint {
        Some(protocol) => protocol,
        None => detect(stream, context.limits.handshake_timeout).await.ok_or(SessionError::Vanished(origin.peer))?,
    };
    Ok(Flow { session, origin, protocol, opened })
}

/// May it. A destination that nobody knows may be a name whose address has just changed: those are looked up once more.
async fn may_it(context: &Context, flow: &Flow) -> Result<Permit, Denied> {
    match context.judge.admit(flow) {
        Err(denied) if context.resolver.refresh_on_miss().await => context.judge.admit(flow).map_err(|_| denied),
        verdict => verdict,
    }
}

/// Journals who asked for what and what was decided, before anything takes effect.
async fn open(context: &Context, flow: &Flow, admitted: Result<&Permit, &Denied>) -> Result<(), Failure> {
    let verdict = match admitted {
        Ok(_) => VerdictEntry { allowed: true, rule: None, message: None, would_deny: None },
        Err(denied) => VerdictEntry::from(denied),
    };
    let event = Event::SessionOpened {
        peer: flow.origin.peer,
        orig_dst: flow.origin.orig_dst,
        protocol: flow.protocol,
        upstream: admitted.ok().map(|permit| Arc::clone(&permit.upstream().name)),
        workload: context.judge.known.scrubber().workload(&flow.origin.workload),
        verdict,
    };
    // Durable alone is not enough: a disk that has stopped answering must not collect sessions.
    context.judge.journal.healthy().map_err(|error| journal_failure(&error))?;
    let record = Record { time: flow.opened, session: Some(flow.session), event };
    let ticket = context.judge.journal.record(record).map_err(|error| journal_failure(&error))?;
    ticket.durable().await.map_err(|error| journal_failure(&error))
}
