//! A disk that fails, fills or hangs never loses a record silently.

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
    let storage = Faulty { disk: Disk(SyncPolicy::Fdatasync), write: Arc::clone(&faults.write), sync: Arc::clone(&faults.sync) };
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
