//! What was changed, removed, moved or put in is found.

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
