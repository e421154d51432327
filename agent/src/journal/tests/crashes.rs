//! What a crash leaves behind is classified, recorded and survived.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

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

const CHILD: &str = "WEIR_TEST_JOURNAL";

#[test]
fn what_was_durable_survives_a_kill() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (journal, _committer) = Journal::open(JournalConfig::new(directory)).unwrap();
        for number in 0_u32.. {
            durable(&journal.record(closed(&number.to_string())).unwrap()).unwrap();
            println!("durable {number}");
        }
    }
    let directory = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "journal::tests::crashes::what_was_durable_survives_a_kill"])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told: Vec<String> = lines.filter_map(|line| line.strip_prefix("durable ").map(str::to_owned)).take(300).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(told.len(), 300);
    assert!(matches!(report(directory.path()).state, State::Unsealed | State::Torn));

    write(directory.path(), &["after"]);
    let kept = details(directory.path());
    assert!(told.iter().all(|detail| kept.contains(detail)));
    let recovered = report(directory.path());
    assert_eq!((recovered.state, recovered.unclean_stops.len()), (State::Sealed, 1));
}
