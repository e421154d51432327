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
    let (journal, committer) = Journal::open(JournalConfig::new(directory)).unwrap();
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

mod tampering {
    use super::*;

    #[test]
    fn every_flipped_byte_is_found() {
        for (name, prepare) in [("sealed", write as fn(&Path, &[&str])), ("unsealed", write_unsealed)] {
            let directory = TempDir::new().unwrap();
            prepare(directory.path(), &["first session"]);
            prepare(directory.path(), &["second session"]);
            for segment in segments(directory.path()).unwrap() {
                let path = directory.path().join(segment_file_name(segment));
                let file = File::options().write(true).open(&path).unwrap();
                for (offset, byte) in fs::read(&path).unwrap().into_iter().enumerate() {
                    file.write_all_at(&[byte ^ 0x20], offset as u64).unwrap();
                    let found = report(directory.path());
                    assert_eq!(found.state, State::Tampered, "{name} segment {segment} offset {offset}");
                    assert!(found.problems.iter().all(|problem| problem.offset <= offset as u64 || problem.segment > segment));
                    file.write_all_at(&[byte], offset as u64).unwrap();
                }
            }
            assert!(report(directory.path()).problems.is_empty());
        }
    }

    fn five_segments() -> TempDir {
        let directory = TempDir::new().unwrap();
        for detail in ["a", "b", "c", "d", "e"] {
            write(directory.path(), &[detail, detail]);
        }
        directory
    }

    #[test]
    fn a_missing_segment_is_found() {
        for segment in 1..5 {
            let directory = five_segments();
            fs::remove_file(directory.path().join(segment_file_name(segment))).unwrap();
            assert_eq!(report(directory.path()).state, State::Tampered, "segment {segment}");
        }
    }

    #[test]
    fn a_renamed_segment_is_found() {
        let directory = five_segments();
        fs::rename(directory.path().join(segment_file_name(5)), directory.path().join(segment_file_name(6))).unwrap();
        assert_eq!(report(directory.path()).state, State::Tampered);
        let swapped = five_segments();
        let path = |segment| swapped.path().join(segment_file_name(segment));
        fs::rename(path(2), swapped.path().join("x")).unwrap();
        fs::rename(path(3), path(2)).unwrap();
        fs::rename(swapped.path().join("x"), path(3)).unwrap();
        assert_eq!(report(swapped.path()).state, State::Tampered);
    }

    #[test]
    fn a_segment_of_another_log_is_found() {
        let (directory, other) = (five_segments(), five_segments());
        fs::copy(other.path().join(segment_file_name(3)), directory.path().join(segment_file_name(3))).unwrap();
        assert_eq!(report(directory.path()).state, State::Tampered);
        fs::copy(other.path().join(segment_file_name(5)), directory.path().join(segment_file_name(5))).unwrap();
        assert_eq!(report(directory.path()).state, State::Tampered);
    }

    #[test]
    fn a_segment_cut_between_frames_is_found_by_the_next() {
        let directory = five_segments();
        let path = directory.path().join(segment_file_name(2));
        let bytes = fs::read(&path).unwrap();
        let seal = bytes.windows(4).rposition(|window| window == b"WFR1").unwrap();
        fs::write(&path, bytes.get(..seal).unwrap()).unwrap();
        assert_eq!(report(directory.path()).state, State::Tampered);
    }

    fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
        let starts: Vec<usize> = memchr::memmem::find_iter(bytes, b"WFR1").collect();
        let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
        starts.iter().zip(ends).map(|(start, end)| bytes.get(*start..end).unwrap().to_vec()).collect()
    }

    fn with_frames(rearrange: impl FnOnce(&mut Vec<Vec<u8>>)) -> State {
        let directory = TempDir::new().unwrap();
        write(directory.path(), &["a", "b", "c"]);
        let path = directory.path().join(segment_file_name(1));
        let bytes = fs::read(&path).unwrap();
        let mut frames = frames(&bytes);
        rearrange(&mut frames);
        fs::write(&path, [bytes.get(..SEGMENT_HEADER_BYTES).unwrap(), &frames.concat()].concat()).unwrap();
        report(directory.path()).state
    }

    #[test]
    fn a_removed_repeated_or_moved_frame_is_found() {
        assert_eq!(with_frames(|_| {}), State::Sealed);
        assert_eq!(with_frames(|frames| drop(frames.remove(2))), State::Tampered);
        assert_eq!(with_frames(|frames| frames.swap(1, 2)), State::Tampered);
        assert_eq!(with_frames(|frames| frames.insert(2, frames.get(1).cloned().unwrap())), State::Tampered);
        assert_eq!(with_frames(|frames| frames.push(frames.last().cloned().unwrap())), State::Tampered);
    }

    #[test]
    fn whole_frames_cut_off_the_end_leave_the_log_unsealed() {
        assert_eq!(with_frames(|frames| drop(frames.pop())), State::Unsealed);
        assert_eq!(with_frames(|frames| frames.truncate(2)), State::Unsealed);
    }

    #[test]
    fn damage_found_at_start_stays_on_record() {
        let directory = TempDir::new().unwrap();
        write_unsealed(directory.path(), &["a", "b"]);
        let file = File::options().write(true).open(directory.path().join(segment_file_name(1))).unwrap();
        file.write_all_at(b"#", (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + 400) as u64).unwrap();
        write(directory.path(), &["c"]);
        let report = report(directory.path());
        assert_eq!(report.state, State::Tampered);
        assert!(report.problems.iter().any(|problem| problem.detail.contains("found damaged")));
    }
}

mod crashes {
    use super::*;

    #[test]
    fn every_truncation_is_classified_and_recovered_from() {
        let directory = TempDir::new().unwrap();
        write(directory.path(), &["before"]);
        write_unsealed(directory.path(), &["a", "b"]);
        let name = segment_file_name(2);
        let whole = fs::read(directory.path().join(&name)).unwrap();
        let scratch = TempDir::new().unwrap();
        for length in 0..=whole.len() {
            let copied = scratch.path().join(length.to_string());
            copy(directory.path(), &copied);
            fs::write(copied.join(&name), whole.get(..length).unwrap()).unwrap();

            let bytes = whole.get(..length).unwrap();
            let at_boundary = length == whole.len()
                || length == SEGMENT_HEADER_BYTES
                || (length > SEGMENT_HEADER_BYTES && whole.get(length..length + 4) == Some(b"WFR1"));
            let expected = if at_boundary { State::Unsealed } else { State::Torn };
            assert_eq!(report(&copied).state, expected, "cut to {length}");

            write(&copied, &["after"]);
            let recovered = report(&copied);
            assert_eq!((recovered.state, recovered.unclean_stops.len()), (State::Sealed, 1), "cut to {length}: {recovered:?}");
            assert_eq!(fs::read(copied.join(&name)).unwrap(), bytes, "a torn file is never touched");
            let details = details(&copied);
            assert_eq!((details.first().unwrap().as_str(), details.last().unwrap().as_str()), ("before", "after"));
            fs::remove_dir_all(&copied).unwrap();
        }
    }

    #[test]
    fn a_torn_tail_that_changes_later_is_found() {
        let directory = TempDir::new().unwrap();
        write(directory.path(), &["a"]);
        let path = directory.path().join(segment_file_name(1));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, bytes.get(..bytes.len() - 10).unwrap()).unwrap();
        write(directory.path(), &["b"]);
        assert_eq!(report(directory.path()).state, State::Sealed);
        fs::write(&path, bytes.get(..bytes.len() - 11).unwrap()).unwrap();
        assert_eq!(report(directory.path()).state, State::Tampered);
    }

    #[test]
    fn a_tail_of_zeros_is_a_crash() {
        let directory = TempDir::new().unwrap();
        write_unsealed(directory.path(), &["a"]);
        let path = directory.path().join(segment_file_name(1));
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize(bytes.len() + 5000, 0);
        fs::write(&path, bytes).unwrap();
        assert_eq!(report(directory.path()).state, State::Torn);
        write(directory.path(), &["b"]);
        assert_eq!(report(directory.path()).state, State::Sealed);
    }

    #[test]
    fn several_crashes_in_a_row_stay_readable() {
        let directory = TempDir::new().unwrap();
        write_unsealed(directory.path(), &["a"]);
        for segment in 2..5 {
            fs::write(directory.path().join(segment_file_name(segment)), b"WEIRJ").unwrap();
        }
        write(directory.path(), &["b"]);
        let report = report(directory.path());
        assert_eq!((report.state, report.unclean_stops.len()), (State::Sealed, 4));
        assert_eq!(details(directory.path()), ["a", "b"]);
    }
}

mod failing_disk {
    use super::*;

    /// Fails the next `left` operations of one kind; what is written on failure is half of what was asked.
    struct Faulty {
        disk: Disk,
        write: Arc<AtomicU32>,
        sync: Arc<AtomicU32>,
    }

    fn due(faults: &AtomicU32) -> bool {
        faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    impl Storage for Faulty {
        fn create(&mut self, path: &Path) -> io::Result<File> {
            self.disk.create(path)
        }
        fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            if due(&self.write) {
                self.disk.write(file, bytes.get(..bytes.len() / 2).unwrap())?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.disk.write(file, bytes)
        }
        fn sync(&mut self, file: &File) -> io::Result<()> {
            if due(&self.sync) { Err(io::Error::from_raw_os_error(5)) } else { self.disk.sync(file) }
        }
        fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
            self.disk.sync_directory(directory)
        }
        fn remove(&mut self, path: &Path) -> io::Result<()> {
            self.disk.remove(path)
        }
    }

    struct Faults {
        write: Arc<AtomicU32>,
        sync: Arc<AtomicU32>,
    }

    fn open(directory: &Path) -> (Journal, CommitterHandle, Faults) {
        let faults = Faults { write: Arc::default(), sync: Arc::default() };
        let storage =
            Faulty { disk: Disk(SyncPolicy::Fdatasync), write: Arc::clone(&faults.write), sync: Arc::clone(&faults.sync) };
        let (journal, committer) = Journal::open_on(JournalConfig::new(directory), Box::new(storage)).unwrap();
        (journal, committer, faults)
    }

    fn causes(directory: &Path) -> Vec<OpenCause> {
        let mut causes = Vec::new();
        Walk::open(directory).unwrap().for_each(
            |problem| panic!("{problem:?}"),
            |entry| {
                if let Some(Event::JournalOpened { cause, .. }) = entry.event {
                    causes.push(cause);
                }
            },
        );
        causes
    }

    #[test]
    fn a_segment_that_failed_once_is_left_and_its_frame_written_again() {
        for kind in ["write", "sync"] {
            let directory = TempDir::new().unwrap();
            let (journal, committer, faults) = open(directory.path());
            durable(&journal.record(closed("a")).unwrap()).unwrap();
            if kind == "write" { &faults.write } else { &faults.sync }.store(1, Ordering::Relaxed);
            durable(&journal.record(closed("b")).unwrap()).unwrap();
            assert!(journal.healthy().is_ok());
            committer.close().unwrap();
            assert_eq!(details(directory.path()), ["a", "b"], "{kind}");
            assert_eq!(causes(directory.path()), [OpenCause::Start, OpenCause::WriteFailure]);
            assert_eq!(report(directory.path()).state, State::Sealed);
        }
    }

    #[test]
    fn a_disk_that_stays_full_makes_the_journal_unavailable_until_there_is_room() {
        let directory = TempDir::new().unwrap();
        let (journal, committer, faults) = open(directory.path());
        faults.write.store(u32::MAX, Ordering::Relaxed);
        let kept = journal.record(closed("kept")).unwrap();
        let error = durable(&kept).unwrap_err();
        assert!(error.to_string().contains("no storage space"), "{error}");
        assert!(journal.healthy().is_err());
        assert!(journal.record(closed("refused")).is_err());
        assert!(journal.record(closed("refused")).is_err());

        faults.write.store(0, Ordering::Relaxed);
        let asked = Instant::now();
        while !kept.is_durable() || journal.healthy().is_err() {
            assert!(asked.elapsed() < Duration::from_secs(20), "service did not resume");
            std::thread::yield_now();
        }
        durable(&journal.record(closed("after")).unwrap()).unwrap();
        committer.close().unwrap();
        assert_eq!(details(directory.path()), ["kept", "after"]);
        let mut gaps = Vec::new();
        Walk::open(directory.path()).unwrap().for_each(
            |problem| panic!("{problem:?}"),
            |entry| {
                if let Some(Event::Gap { records, .. }) = entry.event {
                    gaps.push(records);
                }
            },
        );
        assert_eq!(gaps, [2]);
        assert_eq!(report(directory.path()).state, State::Sealed);
    }

    /// Every sync waits until the gate is opened.
    struct Stuck {
        disk: Disk,
        gate: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Storage for Stuck {
        fn create(&mut self, path: &Path) -> io::Result<File> {
            self.disk.create(path)
        }
        fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            self.disk.write(file, bytes)
        }
        fn sync(&mut self, file: &File) -> io::Result<()> {
            let (open, opened) = &*self.gate;
            drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            self.disk.sync(file)
        }
        fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
            self.disk.sync_directory(directory)
        }
        fn remove(&mut self, path: &Path) -> io::Result<()> {
            self.disk.remove(path)
        }
    }

    #[test]
    fn a_disk_that_does_not_answer_fills_the_queue_and_then_refuses_without_blocking() {
        let directory = TempDir::new().unwrap();
        let gate = Arc::new((Mutex::new(true), Condvar::new()));
        let set = |to: bool| {
            *gate.0.lock().unwrap() = to;
            gate.1.notify_all();
        };
        let storage = Stuck { disk: Disk(SyncPolicy::Never), gate: Arc::clone(&gate) };
        let (journal, committer) = Journal::open_on(JournalConfig::new(directory.path()), Box::new(storage)).unwrap();
        set(false);
        let stuck = journal.record(closed("stuck")).unwrap();
        let begin = Instant::now();
        while journal.healthy().is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(20), "a slow disk counts as healthy");
            std::thread::yield_now();
        }
        let big = "x".repeat(RECORD_BYTES_MAX - 1024);
        let accepted = (0..5).map_while(|_| journal.record(closed(&big)).ok()).count();
        assert_eq!(accepted, QUEUE_BYTES_MAX / RECORD_BYTES_MAX);
        let refused = journal.record(closed(&big)).unwrap_err();
        assert!(refused.to_string().contains("journal slow"), "{refused}");
        assert!(!stuck.is_durable());
        set(true);
        durable(&stuck).unwrap();
        committer.close().unwrap();
        let mut gap = 0;
        Walk::open(directory.path()).unwrap().for_each(
            |problem| panic!("{problem:?}"),
            |entry| {
                if let Some(Event::Gap { records, .. }) = entry.event {
                    gap += records;
                }
            },
        );
        assert_eq!(gap, 2);
        assert_eq!(report(directory.path()).state, State::Sealed);
    }

    #[test]
    fn closing_while_the_disk_refuses_says_so() {
        let directory = TempDir::new().unwrap();
        let (journal, committer, faults) = open(directory.path());
        faults.write.store(u32::MAX, Ordering::Relaxed);
        let lost = journal.record(closed("lost")).unwrap();
        durable(&lost).unwrap_err();
        assert!(committer.close().is_err());
        drop(journal);
        assert_eq!(report(directory.path()).problems.first().map(|problem| problem.kind), Some(ProblemKind::Torn));
    }

    #[test]
    fn a_full_file_system_refuses_and_recovers() {
        let directory = TempDir::new().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k,mode=0700", "weir-test"])
            .arg(directory.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: may not mount a tmpfs here");
            return;
        }
        let _mount = Unmount(directory.path());
        let ballast = directory.path().join("ballast");
        let (journal, committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
        durable(&journal.record(closed("a")).unwrap()).unwrap();
        fs::write(&ballast, vec![1; 1024 * 1024]).unwrap_err();
        let mut tickets = Vec::new();
        let refused = loop {
            match journal.record(closed(&"x".repeat(3000))) {
                Ok(ticket) => match durable(&ticket) {
                    Ok(()) => tickets.push(ticket),
                    Err(error) => break error,
                },
                Err(error) => break error,
            }
        };
        assert!(refused.to_string().contains("No space left"), "{refused}");
        fs::remove_file(&ballast).unwrap();
        let asked = Instant::now();
        while journal.healthy().is_err() {
            assert!(asked.elapsed() < Duration::from_secs(20), "service did not resume");
            std::thread::yield_now();
        }
        durable(&journal.record(closed("b")).unwrap()).unwrap();
        committer.close().unwrap();
        assert_eq!(report(directory.path()).state, State::Sealed);
        assert!(tickets.iter().all(Ticket::is_durable));
    }

    struct Unmount<'a>(&'a Path);

    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0).status();
        }
    }
}

#[test]
#[ignore = "needs a quiet machine"]
fn measures_durable_records_a_second() {
    for producers in [1, 32, 128, 512] {
        let directory = TempDir::with_prefix_in("weir-journal", "/var/tmp").unwrap();
        println!("{:?}", bench::bench(producers, 2.0, directory.path()).unwrap());
    }
}
