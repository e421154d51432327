//! A graceful stop: told once, over at a deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

/// What sessions and listeners ask: shall I stop?
#[derive(Clone, Debug)]
pub struct Drain {
    phase: Arc<AtomicU8>,
    changed: watch::Receiver<()>,
}

/// The other end: starts the drain.
#[derive(Debug)]
pub struct Drainer {
    phase: Arc<AtomicU8>,
    change: watch::Sender<()>,
}

/// Makes the pair.
#[must_use]
pub fn pair() -> (Drainer, Drain) {
    let phase = Arc::new(AtomicU8::new(RUNNING));
    let (change, changed) = watch::channel(());
    (Drainer { phase: Arc::clone(&phase), change }, Drain { phase, changed })
}

impl Drain {
    /// True once nothing may go on: sessions say farewell.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase.load(Ordering::Acquire) == OVER
    }

    /// Waits until no new connection is to be accepted. Cancel safe.
    pub async fn started(&mut self) {
        while self.phase.load(Ordering::Acquire) == RUNNING {
            if self.changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until sessions must end. Cancel safe.
    pub async fn over(&mut self) {
        while !self.is_over() {
            if self.changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drainer {
    /// Stops the listeners.
    pub fn start(&self) {
        self.set(STARTED);
    }

    /// Ends what is still open.
    pub fn end(&self) {
        self.set(OVER);
    }

    fn set(&self, phase: u8) {
        self.phase.store(phase, Ordering::Release);
        let _ = self.change.send(());
    }
}

const RUNNING: u8 = 0;
const STARTED: u8 = 1;
const OVER: u8 = 2;

/// How long open sessions may go on after a stop was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
