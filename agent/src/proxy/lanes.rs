//! One thread a core for sessions: a session stays where it began.
//!
//! A statement through a proxy is a handful of microseconds; a runtime whose threads steal from one another spends as much again
//! on waking them. Nothing is shared between lanes but what sessions share anyway.

use std::{
    future::{Future, pending},
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
};

/// A thread with a runtime, and how many sessions it carries.
struct Lane {
    runtime: Handle,
    sessions: AtomicUsize,
}

/// Runs a session on the lane that carries the fewest; `serve` gets the stream there.
///
/// # Errors
/// No lane could be started, or the stream cannot change its runtime.
pub(super) fn spawn<F>(stream: TcpStream, serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let lane = LANES.get_or_init(start).iter().min_by_key(|lane| lane.sessions.load(Ordering::Relaxed));
    let lane = Arc::clone(lane.ok_or_else(|| io::Error::other("no thread for sessions could be started"))?);
    let stream = stream.into_std()?;
    let place = Place::take(&lane);
    lane.runtime.spawn(async move {
        let _place = place;
        if let Ok(stream) = TcpStream::from_std(stream) {
            serve(stream).await;
        }
    });
    Ok(())
}

/// A session's place on a lane; given back when the session ends, however it ends.
struct Place(Arc<Lane>);

impl Place {
    fn take(lane: &Arc<Lane>) -> Self {
        lane.sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lane))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lanes live as long as the process: sessions outlast the listener while they drain.
static LANES: OnceLock<Vec<Arc<Lane>>> = OnceLock::new();

fn start() -> Vec<Arc<Lane>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (0..cores.min(LANES_MAX)).filter_map(|number| lane(number).ok()).collect()
}

fn lane(number: usize) -> io::Result<Arc<Lane>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let lane = Arc::new(Lane { runtime: runtime.handle().clone(), sessions: AtomicUsize::new(0) });
    thread::Builder::new().name(format!("weir-lane-{number}")).spawn(move || runtime.block_on(pending::<()>()))?;
    Ok(lane)
}

/// Threads for sessions, on however many cores.
const LANES_MAX: usize = 64;
