//! The journal as a whole, on real files.

mod crashes;
mod failing_disk;
mod tampering;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;

use super::{
    event::OpenCause,
    read::{ProblemKind, ReadError, Walk},
    recover::segments,
    segment::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, segment_file_name},
    storage::Storage,
    verify::{Report, State, verify},
    *,
};
use crate::flow::{Reason, SessionId};

fn masked(text: &str) -> crate::mask::Masked {
    serde_json::from_value(text.into()).unwrap()
}

fn closed(detail: &str) -> Record {
    Record {
        time: SystemTime::now(),
        session: Some(SessionId::fresh()),
        event: Event::SessionClosed {
            reason: Reason::DownstreamClosed,
            detail: masked(detail),
            bytes_up: 1,
            bytes_down: 2,
            duration_us: 3,
        },
    }
}

fn durable(ticket: &Ticket) -> Result<(), JournalError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ticket.durable())
}

fn write(directory: &Path, details: &[&str]) {
    let config = JournalConfig { sync: SyncPolicy::Never, ..JournalConfig::new(directory) };
    let (journal, committer) = Journal::open(config).unwrap();
    for detail in details {
        durable(&journal.record(closed(detail)).unwrap()).unwrap();
    }
    committer.close().unwrap();
}

/// A journal whose agent died: the seal is cut off.
fn write_unsealed(directory: &Path, details: &[&str]) {
    write(directory, details);
    let last = directory.join(segment_file_name(*segments(directory).unwrap().last().unwrap()));
    let bytes = fs::read(&last).unwrap();
    let seal = bytes.windows(4).rposition(|window| window == b"WFR1").unwrap();
    fs::write(&last, bytes.get(..seal).unwrap()).unwrap();
}

fn report(directory: &Path) -> Report {
    verify(directory, |_, _| {}).unwrap()
}

fn details(directory: &Path) -> Vec<String> {
    let mut details = Vec::new();
    Walk::open(directory).unwrap().for_each(
        |problem| panic!("{problem:?}"),
        |entry| {
            if let Some(Event::SessionClosed { detail, .. }) = entry.event {
                details.push(detail.as_str().to_owned());
            }
        },
    );
    details
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn reads_back_what_was_written_in_order() {
    let directory = TempDir::with_prefix("weir-journal").unwrap();
    write(directory.path(), &["one", "two \u{1b}[2J \n three"]);
    assert_eq!(details(directory.path()), ["one", "two \u{1b}[2J \n three"]);
    let report = report(directory.path());
    assert_eq!((report.state, report.records, report.problems.len()), (State::Sealed, 4, 0));
}

#[test]
fn files_are_for_their_owner_only() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("a/journal");
    write(&directory, &["x"]);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn refuses_a_directory_that_others_may_write() {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Journal::open(JournalConfig::new(directory.path())).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn a_second_agent_is_told_who_holds_the_directory() {
    let directory = TempDir::new().unwrap();
    let (_journal, _committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    let error = Journal::open(JournalConfig::new(directory.path())).unwrap_err();
    assert!(error.to_string().ends_with(&format!("in use by weir with pid {}", std::process::id())), "{error}");
}

#[test]
fn a_journal_that_is_being_written_can_be_read_and_verified() {
    let directory = TempDir::new().unwrap();
    let (journal, committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    durable(&journal.record(closed("now")).unwrap()).unwrap();
    assert_eq!(details(directory.path()), ["now"]);
    assert_eq!(report(directory.path()).state, State::Running);
    committer.close().unwrap();
    assert_eq!(report(directory.path()).state, State::Sealed);
}

#[test]
fn a_full_segment_is_followed_by_one_that_names_its_end() {
    let directory = TempDir::new().unwrap();
    let config = JournalConfig { segment_bytes_max: 1024, ..JournalConfig::new(directory.path()) };
    let (journal, committer) = Journal::open(config).unwrap();
    let written: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for detail in &written {
        durable(&journal.record(closed(detail)).unwrap()).unwrap();
    }
    committer.close().unwrap();
    assert!(segments(directory.path()).unwrap().len() > 5);
    assert_eq!(details(directory.path()), written);
    assert_eq!(report(directory.path()).state, State::Sealed);
}

#[test]
fn records_that_nobody_waits_for_are_durable_soon() {
    let directory = TempDir::new().unwrap();
    let (journal, _committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    let ticket = journal.record(closed("bounded")).unwrap();
    let asked = Instant::now();
    while !ticket.is_durable() {
        assert!(asked.elapsed() < Duration::from_secs(10), "never committed");
        std::thread::yield_now();
    }
}

#[test]
fn a_dropped_wait_leaves_nothing_behind_and_the_record_is_written() {
    let directory = TempDir::new().unwrap();
    let (journal, committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    let ticket = journal.record(closed("cancelled")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        tokio::select! { biased; _ = ticket.durable() => {}, () = std::future::ready(()) => {} }
    });
    committer.close().unwrap();
    assert_eq!(details(directory.path()), ["cancelled"]);
}

#[test]
fn a_closed_journal_takes_nothing_more() {
    let directory = TempDir::new().unwrap();
    let (journal, committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    let queued = journal.record(closed("last")).unwrap();
    committer.close().unwrap();
    assert!(queued.is_durable());
    assert!(journal.healthy().is_err());
    assert!(journal.record(closed("late")).is_err());
}

#[test]
fn takes_a_record_at_the_limit_and_refuses_one_above() {
    let directory = TempDir::new().unwrap();
    let (journal, committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    let overhead = closed("").encode().unwrap().len();
    let at_limit = journal.record(closed(&"x".repeat(RECORD_BYTES_MAX - overhead))).unwrap();
    let above = journal.record(closed(&"x".repeat(RECORD_BYTES_MAX - overhead + 1)));
    assert!(matches!(above, Err(JournalError::TooLarge { .. })));
    durable(&at_limit).unwrap();
    committer.close().unwrap();
    assert_eq!(report(directory.path()).state, State::Sealed);
}

#[test]
fn events_of_a_newer_weir_are_shown_as_they_are() {
    let line = br#"{"time":"2026-11-21T23:48:33.123456Z","event":"from_the_future","x":1}"#;
    let entry = read::Entry::parse(7, line, time::Stamp::from_nanoseconds(0));
    assert!(entry.event.is_none());
    assert_eq!(entry.to_json(), r#"{"seq":7,"time":"2026-11-21T23:48:33.123456Z","event":"from_the_future","x":1}"#);
}

#[test]
fn verifying_nothing_is_an_error() {
    let directory = TempDir::new().unwrap();
    assert!(matches!(verify(directory.path(), |_, _| {}), Err(ReadError::Empty { .. })));
    assert!(matches!(verify(&directory.path().join("absent"), |_, _| {}), Err(ReadError::Directory { .. })));
}

#[test]
fn every_record_of_many_producers_is_there_once_and_in_its_order() {
    let directory = TempDir::new().unwrap();
    let config = JournalConfig { segment_bytes_max: 64 * 1024, ..JournalConfig::new(directory.path()) };
    let (journal, committer) = Journal::open(config).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let produce = |producer: u32, journal: Journal| async move {
            for number in 0..50 {
                let ticket = journal.record(closed(&format!("{producer} {number}"))).unwrap();
                if number % 3 == 0 {
                    ticket.durable().await.unwrap();
                    assert!(ticket.is_durable());
                }
            }
        };
        let producers: Vec<_> = (0..64).map(|producer| tokio::spawn(produce(producer, journal.clone()))).collect();
        for producer in producers {
            producer.await.unwrap();
        }
    });
    committer.close().unwrap();
    let mut next = [0_u32; 64];
    for detail in details(directory.path()) {
        let (producer, number) = detail.split_once(' ').unwrap();
        let expected = next.get_mut(producer.parse::<usize>().unwrap()).unwrap();
        assert_eq!(number.parse::<u32>().unwrap(), *expected);
        *expected += 1;
    }
    assert!(next.iter().all(|count| *count == 50), "{next:?}");
}

#[test]
#[ignore = "needs a quiet machine"]
fn measures_durable_records_a_second() {
    for producers in [1, 32, 128, 512] {
        let directory = TempDir::with_prefix_in("weir-journal", "/var/tmp").unwrap();
        println!("{:?}", bench::bench(producers, 2.0, directory.path()).unwrap());
    }
}
