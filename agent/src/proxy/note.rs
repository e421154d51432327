//! What a conversation observed, as the journal's events. The conversation has no clock: the times are taken here.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{credential::Pin, journal::Event, judge::SessionJudge, protocol::Observation};

/// When the requests that are under way were decided.
#[derive(Debug, Default)]
pub(super) struct Clock {
    running: VecDeque<(u64, Instant)>,
}

impl Clock {
    pub(super) fn start(&mut self, number: u64) {
        if self.running.len() >= RUNNING_MAX {
            self.running.pop_front();
        }
        self.running.push_back((number, Instant::now()));
    }

    /// Time since `start`; zero for a request that was never started or fell out of the window.
    fn stop(&mut self, number: u64) -> Duration {
        let Some(index) = self.running.iter().position(|(running, _)| *running == number) else {
            return Duration::ZERO;
        };
        self.running.remove(index).map_or(Duration::ZERO, |(_, started)| started.elapsed())
    }
}

/// The event for an observation, if it is one of its own.
pub(super) fn event_of(
    observation: Observation,
    judge: &SessionJudge,
    credential: Option<&Arc<Pin>>,
    clock: &mut Clock,
) -> Option<Event> {
    Some(match observation {
        Observation::Authenticated { method } => {
            let pin = credential?;
            Event::CredentialInjected {
                credential: Arc::clone(pin.name()),
                version: Arc::from(pin.version()),
                method: Arc::from(method),
            }
        }
        Observation::Executed { statement } => Event::Executed { number: judge.next_number(), statement },
        Observation::Finished { statement, result } => Event::Finished {
            number: statement,
            status: Arc::from(result.status),
            rows: result.rows,
            bytes: result.bytes,
            duration_us: u64::try_from(clock.stop(statement).as_micros()).unwrap_or(u64::MAX),
            error: result.error,
        },
        Observation::Masked { mask, what, count } => Event::Masks { mask: Arc::from(mask), what: Arc::from(what), count },
    })
}

/// Requests whose start is remembered: a deeper pipeline loses the oldest times, nothing else.
const RUNNING_MAX: usize = 4096;
