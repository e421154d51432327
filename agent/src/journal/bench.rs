//! How many durable records a second: called by `cargo xtask bench`, never by the agent.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{Event, Journal, JournalConfig, JournalError, Record};
use crate::flow::SessionId;

/// What one run measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct BenchResult {
    pub producers: usize,
    pub records_per_second: f64,
    pub frames_per_second: f64,
    pub wait_p50_us: u64,
    pub wait_p99_us: u64,
}

/// Lets `producers` tasks on one thread write a record and wait until it is durable, again and again.
///
/// # Errors
/// The journal cannot be opened or written.
pub fn bench(producers: usize, seconds: f64, directory: impl Into<PathBuf>) -> Result<BenchResult, JournalError> {
    let (journal, committer) = Journal::open(JournalConfig::new(directory))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|cause| JournalError::Unavailable {
        directory: journal.status().directory.display().to_string(),
        operation: "start the benchmark",
        cause: cause.to_string(),
    })?;
    let over = Arc::new(AtomicBool::new(false));
    let frames_before = journal.status().frames;
    let begin = Instant::now();
    let until = begin + Duration::from_secs_f64(seconds);
    let mut waits = runtime.block_on(async {
        let tasks: Vec<_> = (0..producers).map(|_| tokio::spawn(produce(journal.clone(), Arc::clone(&over), until))).collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await.unwrap_or(Ok(Vec::new()))?);
        }
        Ok::<_, JournalError>(waits)
    })?;
    let elapsed = begin.elapsed().as_secs_f64();
    let frames = journal.status().frames - frames_before;
    committer.close()?;
    waits.sort_unstable();
    let quantile = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
    Ok(BenchResult {
        producers,
        records_per_second: waits.len() as f64 / elapsed,
        frames_per_second: frames as f64 / elapsed,
        wait_p50_us: quantile(50),
        wait_p99_us: quantile(99),
    })
}

async fn produce(journal: Journal, over: Arc<AtomicBool>, until: Instant) -> Result<Vec<u64>, JournalError> {
    let session = SessionId::fresh();
    let mut waits = Vec::new();
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let asked = Instant::now();
        let event =
            Event::Finished { number, status: "SELECT 5".into(), rows: Some(5), bytes: 420, duration_us: 77, error: None };
        journal.record(Record { time: SystemTime::now(), session: Some(session), event })?.durable().await?;
        waits.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        if Instant::now() >= until {
            over.store(true, Ordering::Relaxed);
        }
    }
    Ok(waits)
}
