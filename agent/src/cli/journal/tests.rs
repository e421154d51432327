use std::{fs, sync::Arc, time::SystemTime};

use clap::Parser;
use tempfile::TempDir;

use super::{ls::Sessions, show::Teller, *};
use crate::{
    flow::{Effect, Effects, OrigDst, PeerAddr, Protocol, Reason, SessionId, Workload},
    journal::{
        Event, Journal, JournalConfig, Record,
        event::VerdictEntry,
        segment::Link,
        verify::{State, verify, verify_expecting},
    },
    mask::{KnownSecrets, Masked},
};

fn masked(text: &str) -> Masked {
    KnownSecrets::default().scrubber().text(text.as_bytes())
}

fn verdict(allowed: bool) -> VerdictEntry {
    let rule = (!allowed).then(|| "orders/no-drop".into());
    VerdictEntry { allowed, rule, message: None, would_deny: None }
}

fn story(directory: &TempDir) -> SessionId {
    let session = SessionId::fresh();
    let workload = Workload { name: Some("demo".to_owned()), pid: 7, exe: Some("/usr/bin/psql".into()), ..Workload::default() };
    let statement = |number, text: &str, allowed| Event::Statement {
        number,
        text: masked(text),
        effects: Effects::of(&[Effect::Drop]),
        objects: [].into(),
        verdict: verdict(allowed),
    };
    let events = [
        Event::SessionOpened {
            peer: PeerAddr("127.0.0.1:4000".parse().unwrap()),
            orig_dst: OrigDst("[::1]:5432".parse().unwrap()),
            protocol: Protocol::Postgres,
            upstream: Some("orders-db".into()),
            workload: KnownSecrets::default().scrubber().workload(&Arc::new(workload)),
            verdict: verdict(true),
        },
        statement(1, "select '\u{1b}]0;owned\u{7}\u{202e}'", true),
        Event::Finished { number: 1, status: "SELECT 5".into(), rows: Some(5), bytes: 90, duration_us: 1500, error: None },
        Event::Masks { mask: "orders/pii".into(), what: "email".into(), count: 5 },
        statement(2, "drop\ntable x", false),
        Event::SessionClosed {
            reason: Reason::DownstreamClosed,
            detail: Masked::default(),
            bytes_up: 1,
            bytes_down: 2,
            duration_us: 3,
        },
    ];
    let (journal, committer) = Journal::open(JournalConfig::new(directory.path())).unwrap();
    for event in events {
        journal.record(Record { time: SystemTime::now(), session: Some(session), event }).unwrap();
    }
    committer.close().unwrap();
    session
}

fn told(directory: &TempDir, colour: bool) -> String {
    let mut teller = Teller::new(colour, false);
    let mut text = String::new();
    Walk::open(directory.path()).unwrap().for_each(|problem| panic!("{problem:?}"), |entry| text += &teller.tell(&entry));
    text
}

fn weir(arguments: &[&str], directory: &TempDir) -> Exit {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let journal = directory.path().to_str().unwrap();
    let line = ["journal"].iter().chain(arguments).copied().chain(["--journal", journal]);
    run(Line::try_parse_from(line).map_err(|error| error.to_string()).unwrap().args)
}

#[test]
fn a_session_is_one_line_of_the_list() {
    let directory = TempDir::new().unwrap();
    let id = story(&directory);
    let mut sessions = Sessions::default();
    Walk::open(directory.path()).unwrap().for_each(|problem| panic!("{problem:?}"), |entry| sessions.add(entry));
    let sessions: Vec<_> = sessions.in_order().collect();
    let [session] = sessions.as_slice() else { panic!("{sessions:?}") };
    assert_eq!((session.session, session.requests, session.denied, session.masked), (id, 2, 1, 5));
    assert_eq!(session.reason, Some(Reason::DownstreamClosed));
}

#[test]
fn show_tells_statements_verdicts_and_results() {
    let directory = TempDir::new().unwrap();
    story(&directory);
    let text = told(&directory, false);
    assert!(text.contains("[2] DENIED by orders/no-drop [drop]  drop\n    table x\n"), "{text}");
    assert!(text.contains("[1] finished SELECT 5, 5 rows, 90 bytes, 1.500 ms\n"), "{text}");
    assert!(text.contains("exe /usr/bin/psql"), "{text}");
}

#[test]
fn hostile_text_reaches_the_terminal_escaped() {
    let directory = TempDir::new().unwrap();
    story(&directory);
    let text = told(&directory, false);
    assert!(text.contains("\\u{1b}]0;owned\\u{7}\\u{202e}"), "{text}");
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()));
    let coloured = told(&directory, true);
    assert!(coloured.contains("\u{1b}[31mDENIED\u{1b}[0m"));
    assert!(!coloured.contains("\u{1b}]"));
}

#[test]
fn exit_codes_tell_good_from_bad_from_absent() {
    let directory = TempDir::new().unwrap();
    let session = story(&directory).to_string();
    assert_eq!(weir(&["verify"], &directory), Exit::Fine);
    assert_eq!(weir(&["verify", "--sealed", "--json"], &directory), Exit::Fine);
    assert_eq!(weir(&["ls", "--denied", "--since", "10m", "--workload", "psql"], &directory), Exit::Fine);
    assert_eq!(weir(&["show", &session], &directory), Exit::Fine);
    assert_eq!(weir(&["show", "--json", session.split('-').next().unwrap()], &directory), Exit::Fine);
    assert_eq!(weir(&["show", "ffffffff"], &directory), Exit::Failed);
    assert_eq!(weir(&["verify"], &TempDir::new().unwrap()), Exit::Usage);

    let segment = directory.path().join("0000000000000001.wj");
    let mut bytes = fs::read(&segment).unwrap();
    let whole = bytes.clone();
    *bytes.get_mut(whole.len() / 2).unwrap() ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert_eq!(weir(&["verify"], &directory), Exit::Failed);

    let seal = whole.windows(4).rposition(|window| window == b"WFR1").unwrap();
    fs::write(&segment, whole.get(..seal).unwrap()).unwrap();
    assert_eq!(verify(directory.path(), |_, _| {}).unwrap().state, State::Unsealed);
    assert_eq!(weir(&["verify"], &directory), Exit::Fine);
    assert_eq!(weir(&["verify", "--sealed"], &directory), Exit::Failed);
}

#[test]
fn a_head_that_was_noted_tells_that_the_last_segment_was_removed() {
    let directory = TempDir::new().unwrap();
    story(&directory);
    let older = verify(directory.path(), |_, _| {}).unwrap().head.unwrap();
    story(&directory);
    let report = verify(directory.path(), |_, _| {}).unwrap();
    let newer = report.head.clone().unwrap();
    assert_eq!((older.segment, newer.segment), (1, 2));
    let text = verify::text(&report);
    assert!(text.contains(&format!("head: segment 2 frame {} hash {}\n", newer.frame, newer.hash)), "{text}");
    let json: serde_json::Value = serde_json::from_str(&verify::json(&report)).unwrap();
    assert_eq!(json.pointer("/head/hash").unwrap(), newer.hash.as_str());
    assert_eq!(weir(&["verify", "--expect", &newer.hash], &directory), Exit::Fine);
    assert_eq!(weir(&["verify", "--expect", &older.hash], &directory), Exit::Fine, "an older head is in the chain");

    fs::remove_file(directory.path().join("0000000000000002.wj")).unwrap();
    let report = verify(directory.path(), |_, _| {}).unwrap();
    let text = verify::text(&report);
    assert!(text.contains("only a head noted elsewhere can tell") && !text.contains("nothing is missing"), "{text}");
    assert_eq!(weir(&["verify"], &directory), Exit::Fine);
    assert_eq!(weir(&["verify", "--expect", &older.hash], &directory), Exit::Fine);
    assert_eq!(weir(&["verify", "--expect", &newer.hash], &directory), Exit::Failed);
    let report = verify_expecting(directory.path(), Link::parse(&newer.hash), |_, _| {}).unwrap();
    assert!(verify::text(&report).starts_with("TAMPERED"), "{}", verify::text(&report));
}

#[test]
fn a_report_names_file_frame_and_byte() {
    let directory = TempDir::new().unwrap();
    story(&directory);
    let segment = directory.path().join("0000000000000001.wj");
    let mut bytes = fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let report = verify(directory.path(), |_, _| {}).unwrap();
    let text = verify::text(&report);
    assert!(text.starts_with("TAMPERED") && text.contains("tampered: 0000000000000001.wj frame 2 byte "), "{text}");
    let json: serde_json::Value = serde_json::from_str(&verify::json(&report)).unwrap();
    assert_eq!(json.pointer("/problems/0/kind").unwrap(), "tampered");
    assert_eq!(json.pointer("/state").unwrap(), "tampered");
}
