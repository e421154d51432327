//! Names of tables and columns, read over weir's own connection and kept for a while.
//!
//! One snapshot per (server, database, credential). It is read again when a session meets an OID that it does not hold, and when it
//! is older than [`KEPT`].

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Mutex,
    time::timeout,
};

use super::{Context, connect::connect, relay::server_name, stream::Stream};
use crate::{
    credential::Pin,
    flow::{Failure, Reason, Side},
    policy::Permit,
    protocol::{
        Conversation, Step, TlsFacts,
        postgres::{Catalog, CatalogQuery, Lookup},
    },
};

/// The snapshots of every database that masks look at.
#[derive(Default)]
pub struct Catalogs {
    known: Mutex<HashMap<Key, Arc<Slot>>>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    server: SocketAddr,
    database: String,
    credential: Option<Arc<str>>,
}

#[derive(Default)]
struct Slot {
    snapshot: Mutex<Option<Snapshot>>,
    /// What sessions changed in the database, counted.
    changes: Arc<AtomicU64>,
}

impl Slot {
    fn outdate(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

struct Snapshot {
    catalog: Arc<Catalog>,
    /// When its look-up began.
    read: Instant,
}

impl Catalogs {
    /// The catalog of a session's database, from the cache when it is fresh and holds what is missing. One look-up per database at
    /// a time: the others wait for it and take its answer.
    ///
    /// # Errors
    /// The look-up failed: masks cannot be applied.
    pub(super) async fn fetch(
        &self,
        context: &Context,
        permit: &Permit,
        credential: Option<Arc<Pin>>,
        query: CatalogQuery,
    ) -> Result<Arc<Catalog>, Failure> {
        let key = Key {
            server: permit.flow().origin.orig_dst.0,
            database: query.database.clone(),
            credential: credential.as_ref().map(|pin| Arc::clone(pin.name())),
        };
        let slot = {
            let mut known = self.known.lock().await;
            if known.len() >= CATALOGS_MAX && !known.contains_key(&key) {
                known.drain().for_each(|(_, slot)| slot.outdate());
            }
            if query.fresh {
                // Also for sessions that look at the database with another credential.
                let same = |other: &&Key| other.server == key.server && other.database == key.database;
                let slots = known.iter().filter(|(other, _)| same(other)).map(|(_, slot)| slot);
                slots.for_each(|slot| slot.outdate());
            }
            Arc::clone(known.entry(key).or_default())
        };
        let asked = Instant::now();
        let mut snapshot = slot.snapshot.lock().await;
        if let Some(Snapshot { catalog, read }) = &*snapshot {
            let complete = !catalog.is_stale() && query.missing.iter().all(|oid| catalog.knows(*oid));
            // A snapshot that was read after we asked is the newest there is, even if an OID is still unknown to it.
            if *read > asked || (complete && read.elapsed() < KEPT) {
                return Ok(Arc::clone(catalog));
            }
        }
        let (read, seen) = (Instant::now(), slot.changes.load(Ordering::Acquire));
        let catalog = look_up(context, permit, credential, &query.database).await?;
        let catalog = Arc::new(catalog.dated(read, Arc::clone(&slot.changes), seen));
        *snapshot = Some(Snapshot { catalog: Arc::clone(&catalog), read });
        Ok(catalog)
    }
}

async fn look_up(context: &Context, permit: &Permit, credential: Option<Arc<Pin>>, database: &str) -> Result<Catalog, Failure> {
    let failed = |cause: String| Failure::new(Reason::MaskImpossible, format!("read the catalog of {database}: {cause}"));
    let Some(credential) = credential else {
        return Err(failed("masks by column need an injected credential to look names up with".to_owned()));
    };
    timeout(LOOKUP_TIMEOUT, drive(context, permit, credential, database))
        .await
        .map_err(|_| failed(format!("no end within {} s", LOOKUP_TIMEOUT.as_secs())))?
        .map_err(|failure| failed(failure.detail))
}

/// Performs the few kinds of steps that a look-up has: it has no downstream.
async fn drive(context: &Context, permit: &Permit, credential: Arc<Pin>, database: &str) -> Result<Catalog, Failure> {
    let broken = |error: std::io::Error| Failure::new(Reason::UpstreamReset, error.to_string());
    let mut stream = Stream::Plain(connect(permit).await?);
    let mut lookup = Lookup::new(permit, database.to_owned(), Arc::clone(&context.judge.known));
    let mut input = BytesMut::new();
    let mut next = lookup.dialled(Some(credential));
    loop {
        while let Some(step) = take(&mut lookup, &mut input, next.take())? {
            match step {
                Step::Send { to: Side::Upstream, bytes } => stream.write_all(&bytes).await.map_err(broken)?,
                Step::Secure(Side::Upstream) => {
                    let (secured, facts) = secure(context, permit, stream).await?;
                    stream = secured;
                    next = lookup.secured(Side::Upstream, facts);
                }
                Step::Close(_) => break,
                _ => return Err(Failure::new(Reason::Internal, "a look-up asked for a step that it cannot have")),
            }
        }
        if let Some(result) = lookup.finished() {
            return result;
        }
        stream.flush().await.map_err(broken)?;
        if input.len() >= lookup.inbox_bytes_max() {
            return Err(Failure::new(Reason::LimitExceeded, "a catalog message that is too large"));
        }
        if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(Failure::new(Reason::UpstreamClosed, "the server closed the connection"));
        }
    }
}

fn take(lookup: &mut Lookup, input: &mut BytesMut, next: Option<Step>) -> Result<Option<Step>, Failure> {
    match next {
        Some(step) => Ok(Some(step)),
        None => lookup.receive(Side::Upstream, input).map_err(|error| Failure::new(Reason::UpstreamMalformed, error.to_string())),
    }
}

async fn secure(context: &Context, permit: &Permit, stream: Stream) -> Result<(Stream, TlsFacts), Failure> {
    let Stream::Plain(plain) = stream else {
        return Err(Failure::new(Reason::Internal, "tls asked for twice"));
    };
    let secured = context.originator.handshake(plain, &permit.upstream().tls, &server_name(permit), &[]).await;
    let (secured, facts) = secured.map_err(|error| Failure::new(Reason::UpstreamTls, error.to_string()))?;
    Ok((Stream::TlsClient(Box::new(secured)), facts))
}

/// A snapshot this old is read again before a new session relies on it.
const KEPT: Duration = Duration::from_secs(30);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
const CATALOGS_MAX: usize = 256;
