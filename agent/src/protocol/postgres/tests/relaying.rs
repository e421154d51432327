//! Sessions without masks: every statement is judged; everything else is relayed as it came, but for known secrets.

use super::{super::frontend::STATEMENT_BYTES_MAX, kit::*};
use crate::flow::Reason;

fn selects_one(status: u8) -> Vec<u8> {
    [description(&[("?column?", 0, 0, 23, 0)]), row(&[Some(b"1")]), complete("SELECT 1"), ready(status)].concat()
}

#[test]
fn relays_a_simple_query_unchanged() {
    let mut talk = Talk::session("");
    talk.client(&query("select 1"));
    assert_eq!(talk.take_server(), query("select 1"));
    assert_eq!(talk.asked, ["select 1"]);
    talk.server(&selects_one(b'I'));
    assert_eq!(talk.take_client(), selects_one(b'I'));
    assert_eq!(talk.finished(), [(2, "SELECT 1".to_owned(), Some(1))]);
}

#[test]
fn denies_a_simple_query_and_lives_on() {
    let mut talk = Talk::session("");
    talk.client(&query("drop table x"));
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "EZ");
    assert_eq!(error_field(&heard, b'S'), "ERROR");
    assert_eq!(error_field(&heard, b'C'), "42501");
    assert_eq!(error_field(&heard, b'M'), "Nothing is dropped here.");
    assert!(error_field(&heard, b'D').contains("test/no-drop"));
    assert!(error_field(&heard, b'H').starts_with("weir session "));
    assert!(heard.ends_with(&ready(b'I')));
    assert!(talk.to_server.is_empty());
    talk.client(&query("select 1")).server(&selects_one(b'I'));
    assert_eq!(talk.take_client(), selects_one(b'I'));
}

#[test]
fn tells_the_true_transaction_status_after_a_denial() {
    let mut talk = Talk::session("");
    talk.client(&query("begin")).server(&[complete("BEGIN"), ready(b'T')].concat());
    talk.take_client();
    talk.client(&query("drop table x"));
    assert!(talk.take_client().ends_with(&ready(b'T')));
}

#[test]
fn answers_a_pipelined_denial_in_its_turn() {
    let mut talk = Talk::session("");
    talk.client(&[query("begin"), query("drop table x"), query("select 1")].concat());
    assert_eq!(talk.take_server(), [query("begin"), query("select 1")].concat());
    assert!(talk.to_client.is_empty());
    talk.server(&[complete("BEGIN"), ready(b'T')].concat());
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "CZEZ");
    assert!(heard.ends_with(&ready(b'T')));
    talk.server(&selects_one(b'T'));
    assert_eq!(talk.take_client(), selects_one(b'T'));
}

#[test]
fn holds_what_stands_behind_a_pending_decision() {
    let mut talk = Talk::session("");
    talk.client(&query("select 1"));
    talk.holds = true;
    talk.client(&[query("select 2"), query("select 3")].concat());
    assert_eq!(talk.take_server(), query("select 1"), "what came before is not held up");
    talk.server(&selects_one(b'I'));
    assert_eq!(talk.take_client(), selects_one(b'I'));
    talk.decide(&allow());
    assert_eq!(talk.take_server(), query("select 2"));
    talk.decide(&deny());
    assert!(talk.to_server.is_empty());
    talk.server(&selects_one(b'I'));
    assert_eq!(tags(&talk.take_client()), "TDCZEZ");
}

fn extended(text: &str) -> Vec<u8> {
    [parse("", text), bind("", "", &[]), describe('P', ""), execute(""), sync()].concat()
}

#[test]
fn relays_the_extended_protocol_in_one_piece() {
    let mut talk = Talk::session("");
    talk.client(&extended("select 1"));
    assert_eq!(talk.take_server(), extended("select 1"));
    assert_eq!(talk.asked, ["select 1"], "the first Execute needs no second verdict");
    let answers = [
        message(b'1', b""),
        message(b'2', b""),
        description(&[("?column?", 0, 0, 23, 0)]),
        row(&[Some(b"1")]),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat();
    talk.server(&answers);
    assert_eq!(talk.take_client(), answers);
    assert_eq!(talk.finished(), [(2, "SELECT 1".to_owned(), Some(1))]);
}

#[test]
fn judges_every_later_execution_of_a_prepared_statement() {
    let mut talk = Talk::session("");
    talk.client(&[parse("s1", "select 1"), sync()].concat());
    talk.server(&[message(b'1', b""), ready(b'I')].concat());
    for _ in 0..2 {
        talk.client(&[bind("", "s1", &[]), execute(""), sync()].concat());
        talk.server(&[message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat());
    }
    assert_eq!(talk.asked, ["select 1", "select 1", "select 1"]);
    assert_eq!(talk.finished().iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn denies_a_parse_and_skips_to_sync() {
    let mut talk = Talk::session("");
    talk.client(&extended("drop table x"));
    assert_eq!(tags(&talk.take_server()), "S");
    assert_eq!(tags(&talk.take_client()), "E");
    talk.server(&ready(b'I'));
    assert_eq!(talk.take_client(), ready(b'I'));
    talk.client(&query("select 1")).server(&selects_one(b'I'));
    assert_eq!(tags(&talk.take_client()), "TDCZ");
}

#[test]
fn says_a_denial_behind_the_answers_to_the_same_batch() {
    let mut talk = Talk::session("");
    let first = [parse("", "insert into t values (1)"), bind("", "", &[]), execute("")].concat();
    let denied = [parse("", "drop table x"), bind("", "", &[]), execute("")].concat();
    talk.client(&[first.clone(), denied, sync()].concat());
    assert_eq!(tags(&talk.take_server()), "PBEPS", "a Parse that fails, so that the server undoes the batch");
    assert!(talk.to_client.is_empty());
    talk.server(&[message(b'1', b""), message(b'2', b""), complete("INSERT 0 1")].concat());
    assert_eq!(tags(&talk.take_client()), "12C");
    talk.server(&error("42601", "syntax error at or near weir", ""));
    let told = talk.take_client();
    assert_eq!(tags(&told), "E");
    assert!(String::from_utf8_lossy(&told).contains("42501"), "the refusal, not the server's own error");
    talk.server(&ready(b'I'));
    assert_eq!(tags(&talk.take_client()), "Z");
}

#[test]
fn leaves_a_transaction_block_as_it_is_behind_a_denial_in_a_batch() {
    let mut talk = Talk::session("");
    talk.client(&query("begin")).server(&[complete("BEGIN"), ready(b'T')].concat());
    talk.take_client();
    talk.take_server();
    let first = [parse("", "insert into t values (1)"), bind("", "", &[]), execute("")].concat();
    talk.client(&[first, parse("", "drop table x"), sync()].concat());
    assert_eq!(tags(&talk.take_server()), "PBEHS", "a Flush, so that the first answers come without waiting for Sync");
    talk.server(&[message(b'1', b""), message(b'2', b""), complete("INSERT 0 1")].concat());
    assert_eq!(tags(&talk.take_client()), "12CE");
    talk.server(&ready(b'T'));
    assert_eq!(tags(&talk.take_client()), "Z");
}

#[test]
fn keeps_a_denial_to_itself_when_the_server_failed_before_it() {
    let mut talk = Talk::session("");
    talk.client(&[parse("", "selec"), bind("", "", &[]), execute(""), parse("", "drop table x"), sync()].concat());
    talk.server(&error("42601", "syntax error", ""));
    assert_eq!(tags(&talk.take_client()), "E", "a server that skips to Sync would not have read the denied one");
    talk.server(&ready(b'I'));
    assert_eq!(tags(&talk.take_client()), "Z");
    assert_eq!(talk.closed, None);
}

#[test]
fn keeps_the_judged_text_when_a_parse_fails() {
    let mut talk = Talk::session("");
    talk.client(&[parse("s1", "select 'old'"), sync()].concat());
    talk.server(&[message(b'1', b""), ready(b'I')].concat());
    talk.client(&[parse("s1", "select 'new'"), sync()].concat());
    talk.server(&[error("42P05", "prepared statement \"s1\" already exists", ""), ready(b'I')].concat());
    talk.asked.clear();
    talk.client(&[bind("", "s1", &[]), execute(""), sync()].concat());
    assert_eq!(talk.asked, ["select 'old'"], "what the server will run");
}

#[test]
fn judges_a_portal_that_it_does_not_know_as_unreadable() {
    let mut talk = Talk::session("");
    talk.client(&[execute("cursor_made_in_sql"), sync()].concat());
    assert_eq!(talk.asked, [""]);
    assert_eq!(tags(&talk.take_server()), "ES");
}

#[test]
fn asks_once_for_a_portal_that_is_fetched_in_parts() {
    let mut talk = Talk::session("");
    talk.client(&[parse("", "select 1"), bind("p", "", &[]), execute("p"), message(b'H', b"")].concat());
    talk.server(&[message(b'1', b""), message(b'2', b""), row(&[Some(b"1")]), message(b's', b"")].concat());
    talk.client(&[execute("p"), sync()].concat());
    talk.server(&[complete("SELECT 0"), ready(b'I')].concat());
    assert_eq!(talk.asked.len(), 1);
    assert_eq!(tags(&talk.take_client()), "12DsCZ");
}

#[test]
fn ignores_the_sync_that_a_server_in_copy_in_mode_ignores() {
    let mut talk = Talk::session("");
    talk.client(&[parse("", "copy t from stdin"), bind("", "", &[]), execute(""), sync()].concat());
    talk.server(&[message(b'1', b""), message(b'2', b""), message(b'G', &[0, 0, 1, 0, 0])].concat());
    talk.client(&[message(b'd', b"1\n"), message(b'c', b""), sync()].concat());
    talk.server(&[complete("COPY 1"), ready(b'I')].concat());
    talk.client(&query("select 1")).server(&selects_one(b'I'));
    assert_eq!(tags(&talk.take_client()), "12GCZTDCZ");
    assert_eq!(talk.closed, None);
}

#[test]
fn copies_in_and_out_with_simple_queries() {
    let mut talk = Talk::session("");
    talk.client(&query("copy t from stdin")).server(&message(b'G', &[0, 0, 1, 0, 0]));
    talk.client(&[message(b'd', b"1\n"), message(b'f', b"no\0")].concat());
    talk.server(&[error("57014", "COPY from stdin failed: no", ""), ready(b'I')].concat());
    talk.client(&query("copy t to stdout"));
    talk.server(
        &[message(b'H', &[0, 0, 1, 0, 0]), message(b'd', b"1\n"), message(b'c', b""), complete("COPY 1"), ready(b'I')].concat(),
    );
    assert_eq!(tags(&talk.take_client()), "GEZHdcCZ");
    assert_eq!(tags(&talk.take_server()), "QdfQ");
}

#[test]
fn denies_calls_through_the_function_protocol() {
    let mut talk = Talk::session("");
    talk.client(&message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "EZ");
    assert_eq!(error_field(&heard, b'C'), "42501");
    assert!(talk.to_server.is_empty());
}

#[test]
fn refuses_a_statement_over_the_limit_without_keeping_it() {
    let mut talk = Talk::session("");
    talk.client(&query(&"x".repeat(STATEMENT_BYTES_MAX - 1)));
    assert_eq!(tags(&talk.take_server()), "Q");
    talk.server(&[complete("SELECT 0"), ready(b'I')].concat());
    talk.take_client();
    talk.piece = 100_000;
    talk.client(&query(&"x".repeat(STATEMENT_BYTES_MAX)));
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "EZ");
    assert_eq!(error_field(&heard, b'C'), "54000");
    assert!(talk.to_server.is_empty());
    talk.client(&query("select 1")).server(&selects_one(b'I'));
    assert_eq!(tags(&talk.take_client()), "TDCZ");
}

#[test]
fn passes_large_values_in_pieces() {
    let mut talk = Talk::session("");
    let value = vec![b'v'; 3_000_000];
    let mut large_bind = b"\0\0\0\0\0\x01".to_vec();
    large_bind.extend_from_slice(&3_000_000_u32.to_be_bytes());
    large_bind.extend_from_slice(&value);
    large_bind.extend_from_slice(&[0, 0]);
    let batch = [parse("", "insert into t values ($1)"), message(b'B', &large_bind), execute(""), sync()].concat();
    talk.piece = 50_000;
    talk.client(&batch[..1_000_000]);
    assert!(talk.to_server.len() > 900_000, "a large Bind is not kept");
    talk.client(&batch[1_000_000..]);
    assert_eq!(talk.take_server(), batch);
    talk.server(&[message(b'1', b""), message(b'2', b"")].concat());
    let answers = row(&[Some(&value)]);
    talk.server(&answers[..1_000_000]);
    assert!(talk.to_client.len() > 900_000, "a large row is not kept");
    talk.server(&answers[1_000_000..]).server(&[complete("INSERT 0 1"), ready(b'I')].concat());
    assert_eq!(tags(&talk.take_client()), "12DCZ");
}

#[test]
fn ends_the_session_when_a_streamed_value_holds_a_known_secret() {
    let mut talk = Talk::session("");
    let mut value = vec![b'v'; 300_000];
    value.splice(150_000..150_000, PASSWORD.bytes());
    talk.client(&query("select big")).piece = 1_000;
    talk.server(&row(&[Some(&value)]));
    assert_eq!(talk.closed, Some(Reason::MaskImpossible));
    let heard = talk.take_client();
    assert!(!String::from_utf8_lossy(&heard).contains(PASSWORD));
    assert!(!heard.ends_with(&[0]), "no words in the middle of a message");
}

#[test]
fn scrubs_known_secrets_from_whatever_comes_back() {
    let mut talk = Talk::session("");
    talk.client(&query("select password"));
    talk.server(
        &[
            row(&[Some(b"before"), Some(format!("<{PASSWORD}>").as_bytes()), None]),
            error("XX000", PASSWORD, PASSWORD),
            ready(b'I'),
        ]
        .concat(),
    );
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "DEZ");
    assert!(!String::from_utf8_lossy(&heard).contains(PASSWORD));
    let cells = &rows(&heard)[0];
    assert_eq!((cells[0].as_deref(), cells[2].as_deref()), (Some(&b"before"[..]), None));
    assert!(cells[1].as_ref().is_some_and(|cell| cell.starts_with(b"<") && cell.ends_with(b">")));
}

#[test]
fn closes_on_lying_lengths() {
    for lie in [[b'Q', 0, 0, 0, 3], [b'Q', 0xff, 0xff, 0xff, 0xff], [b'd', 0x7f, 0xff, 0xff, 0xff], [b'S', 0, 0, 0, 5]] {
        let mut talk = Talk::session("");
        talk.client(&lie);
        assert_eq!(talk.closed, Some(Reason::DownstreamMalformed), "{lie:?}");
        assert_eq!(error_field(&talk.take_client(), b'C'), "08P01");
    }
    let mut talk = Talk::session("");
    talk.server(&[b'D', 0, 0, 0, 3]);
    assert_eq!(talk.closed, Some(Reason::UpstreamMalformed));
}

#[test]
fn closes_on_unknown_and_misplaced_messages() {
    for tag in [b'p', b'z', 0, 0xff, b'1'] {
        let mut talk = Talk::session("");
        talk.client(&message(tag, b""));
        assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
    }
    for tag in [b'D', b'Z', b'1', b'2', b'C', b'R', b'K', b'W', 0xff] {
        let mut talk = Talk::session("");
        talk.server(&message(tag, b"I"));
        assert_eq!(talk.closed, Some(Reason::UpstreamMalformed), "{tag}");
    }
}

#[test]
fn closes_on_a_query_with_bytes_behind_its_end() {
    let mut talk = Talk::session("");
    talk.client(&message(b'Q', b"select 1\0drop table x\0"));
    assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
    assert!(talk.to_server.is_empty() && talk.asked.is_empty());
}

#[test]
fn passes_what_the_server_says_unasked() {
    let mut talk = Talk::session("");
    let unasked = [
        message(b'A', b"\0\0\0\x07channel\0payload\0"),
        message(b'S', b"TimeZone\0UTC\0"),
        error("57P01", "terminating connection", ""),
    ];
    talk.server(&unasked.concat());
    assert_eq!(talk.take_client(), unasked.concat());
}

#[test]
fn says_the_same_whatever_the_split() {
    let run = |piece| {
        let mut talk = Talk::session_in_pieces("", piece);
        talk.client(&[query("begin"), query("drop table x"), extended("select 1"), extended("drop table y")].concat());
        talk.server(&[complete("BEGIN"), ready(b'T')].concat());
        talk.server(
            &[message(b'1', b""), message(b'2', b""), message(b'n', b""), complete("SELECT 0"), ready(b'T'), ready(b'T')]
                .concat(),
        );
        (talk.take_client(), talk.take_server(), talk.finished(), talk.closed)
    };
    let whole = run(usize::MAX);
    assert_eq!(tags(&whole.0), "CZEZ12nCZEZ");
    assert_eq!(tags(&whole.1), "QPBDESS");
    for piece in 1..60 {
        assert_eq!(run(piece), whole, "in pieces of {piece}");
    }
}

/// A real session (`wire/testdata`), all of it sent ahead and answered at once, passes as it is.
#[test]
fn passes_a_real_session_unchanged() {
    const FRONTEND: &[u8] = include_bytes!("../../../../wire/testdata/session.frontend");
    const BACKEND: &[u8] = include_bytes!("../../../../wire/testdata/session.backend");
    let (_, startup_length) = weir_wire::postgres::first(FRONTEND).unwrap().unwrap();
    for piece in [1, 2, 3, 5, 7, 64, 1000, usize::MAX] {
        let mut talk = Talk::new("tls: {mode: off}", "");
        talk.piece = piece;
        talk.client(FRONTEND);
        // The server does not answer what it was not sent: first its greeting, then the rest.
        let greeting = BACKEND.windows(6).position(|window| window == ready(b'I')).unwrap() + 6;
        talk.server(&BACKEND[..greeting]).server(&BACKEND[greeting..]);
        assert_eq!(talk.take_server()[talk_startup_length()..], FRONTEND[startup_length..], "in pieces of {piece}");
        assert_eq!(talk.take_client(), BACKEND, "in pieces of {piece}");
        assert_eq!(talk.closed, None);
        let states: Vec<_> = talk.finished().into_iter().map(|(_, status, _)| status).collect();
        assert_eq!(
            states,
            [
                "CREATE TABLE",
                "INSERT 0 2",
                "SELECT 1",
                "SUSPENDED",
                "SELECT 1",
                "ERROR 23514",
                "DO",
                "NOTIFY",
                "COPY 2",
                "COPY 1",
                "",
                "ERROR 42601",
                "SKIPPED",
                "SET"
            ],
        );
    }
}

/// What weir's own startup message is long.
fn talk_startup_length() -> usize {
    startup(&[("user", "orders_rw"), ("database", "postgres")]).len()
}

#[test]
fn adds_nothing_to_the_servers_own_last_words() {
    let mut talk = Talk::session("");
    let last = String::from_utf8(error("57P01", "terminating connection", "")).unwrap().replace("ERROR", "FATAL");
    talk.server(last.as_bytes());
    assert_eq!(talk.take_client(), last.as_bytes());
    let failure = crate::flow::Failure::new(Reason::UpstreamClosed, "closed");
    assert!(crate::protocol::Conversation::farewell(&mut talk.conversation, &failure).is_empty());
}

#[test]
fn reads_nothing_behind_a_change_of_the_rules_before_it_has_taken_effect() {
    let mut talk = Talk::session("");
    talk.client(&[query("set search_path = x"), query(r"select '\'")].concat());
    assert_eq!(talk.asked, ["set search_path = x"]);
    talk.server(&[complete("SET"), message(b'S', b"standard_conforming_strings\0off\0"), ready(b'I')].concat());
    assert_eq!(talk.asked.len(), 2);
    assert!(talk.unreadable.ends_with(&["standard_conforming_strings is off".to_owned()]));
}

#[test]
fn reads_a_backslash_only_when_it_knows_what_the_server_takes_it_for() {
    let mut talk = Talk::session("");
    let tail = r"select '\', '; delete from victim; --'";
    talk.client(&[query("table off"), query(tail), query("select 1")].concat());
    assert_eq!(talk.take_server(), query("table off"), "the view may have changed how text is read");
    assert_eq!(talk.asked, ["table off"]);
    let off = message(b'S', b"standard_conforming_strings\0off\0");
    talk.server(&[complete("SELECT 1"), off, ready(b'I')].concat());
    assert_eq!(talk.asked, ["table off", tail, "select 1"]);
    assert_eq!(talk.unreadable, ["standard_conforming_strings is off"], "the last text means the same either way");
}

#[test]
fn flushes_what_a_text_with_a_backslash_waits_for() {
    let mut talk = Talk::session("");
    talk.client(&[parse("a", "select 1"), parse("b", r"select '\d'"), sync()].concat());
    assert_eq!(tags(&talk.take_server()), "PH");
    talk.server(&message(b'1', b""));
    assert_eq!(tags(&talk.take_server()), "PS");
    assert!(talk.unreadable.is_empty(), "nothing has run that could change a setting");
}

#[test]
fn does_not_trust_a_backslash_behind_a_statement_of_the_same_batch() {
    let mut talk = Talk::session("");
    talk.client(&[parse("", "table off"), bind("", "", &[]), execute(""), message(b'H', b"")].concat());
    talk.server(&[message(b'1', b""), message(b'2', b""), complete("SELECT 1")].concat());
    talk.client(&parse("", r"select '\', '; delete from victim; --'"));
    assert_eq!(talk.unreadable.len(), 1, "a server reports settings no earlier than at Sync");
}

#[test]
fn reads_plain_text_without_waiting() {
    let mut talk = Talk::session("");
    let run = [query("select 1"), query("select 'x'")].concat();
    talk.client(&run);
    assert_eq!(talk.take_server(), run);
}

#[test]
fn ends_the_session_on_a_statement_among_copy_data() {
    let starts = [query("copy t from stdin"), message(b'd', b"1\n")].concat();
    for statement in [query("select 1"), parse("", "select 1"), bind("", "", &[]), execute(""), message(b'F', &[0; 10])] {
        let mut talk = Talk::session("");
        talk.client(&starts).server(&message(b'G', &[0, 0, 0]));
        talk.take_server();
        talk.client(&statement);
        assert_eq!((talk.closed, talk.take_server()), (Some(Reason::DownstreamMalformed), Vec::new()));
        assert_eq!(error_field(&talk.take_client()[8..], b'C'), "08P01");

        let mut talk = Talk::session("");
        talk.client(&[starts.clone(), query("select 1")].concat()).server(&message(b'G', &[0, 0, 0]));
        assert_eq!(talk.closed, Some(Reason::DownstreamMalformed), "sent before the server asked for the data");
    }
}

#[test]
fn keeps_little_of_long_prepared_statements_and_no_more_than_its_budget() {
    let mut talk = Talk::session("");
    let long = format!("select '{}'", "x".repeat(100_000));
    talk.client(&[parse("s", &long), sync()].concat()).server(&[message(b'1', b""), ready(b'I')].concat());
    assert_eq!(talk.asked.last().map(String::len), Some(long.len()), "judged as a whole");
    talk.client(&[bind("", "s", &[]), execute(""), sync()].concat());
    talk.server(&[message(b'2', b""), complete("SELECT 1"), ready(b'I')].concat());
    assert!(talk.asked.last().is_some_and(|text| text.len() < 5_000 && text.starts_with("select 'xxx")));
    talk.take_client();

    let columns: Vec<String> = (0..10_000).map(|number| format!("c{number}")).collect();
    let wide = format!("select {} from t", columns.join(","));
    let refused = (0..100).find(|number| {
        talk.client(&[parse(&format!("p{number}"), &wide), sync()].concat());
        let is_refused = talk.take_client().first() == Some(&b'E');
        talk.server(&if is_refused { ready(b'I') } else { [message(b'1', b""), ready(b'I')].concat() });
        talk.take_client();
        is_refused
    });
    assert!(refused.is_some_and(|number| number > 3), "{refused:?}");
    assert_eq!(talk.finished().last().map(|(_, status, _)| status.as_str()), Some("ERROR 54000"));
}
