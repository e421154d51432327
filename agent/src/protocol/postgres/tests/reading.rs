//! What cannot be read, and what would make later text unreadable.

use super::{super::frontend::STATEMENT_BYTES_MAX, kit::*};
use crate::{
    flow::Reason,
    policy::{Denied, Verdict},
};

fn refused(rule: &str) -> Verdict {
    let message = "this statement cannot be read: the text is not valid SQL for PostgreSQL 17".into();
    Verdict::Deny(Denied { rule: rule.into(), message, reason: Reason::Denied })
}

#[test]
fn answers_a_typing_error_as_a_server_does() {
    let mut talk = Talk::session("");
    talk.holds = true;
    for message in [query("selct 1"), [parse("", "selct 1"), sync()].concat()] {
        talk.client(&message).decide(&refused("test/onUnreadable"));
        let heard = talk.take_client();
        assert_eq!(error_field(&heard, b'C'), "42601");
        assert_eq!(error_field(&heard, b'M'), "weir cannot read this statement: syntax error at or near \"selct\"");
        assert!(error_field(&heard, b'D').contains("test/onUnreadable"));
    }
    assert!(talk.unreadable.iter().all(|reason| !reason.contains("selct")), "the journal does not quote the text");
}

#[test]
fn keeps_the_code_of_a_rule_that_forbids_what_cannot_be_read() {
    let mut talk = Talk::session("");
    talk.holds = true;
    talk.client(&query("selct 1")).decide(&refused("test/no-code"));
    assert_eq!(error_field(&talk.take_client(), b'C'), "42501");
    talk.client(&query("do $$begin null; end$$")).decide(&refused("test/onUnreadable"));
    assert_eq!(error_field(&talk.take_client(), b'C'), "42501", "it can be parsed");
}

#[test]
fn refuses_settings_under_which_nothing_could_be_read() {
    for text in [
        "set standard_conforming_strings = off",
        "set local Standard_Conforming_Strings to 0",
        "set session standard_conforming_strings to 'false'",
        "set client_encoding = 'SJIS'",
        "set names 'Windows-949'",
        "select set_config('client_encoding', 'big5', false)",
        "select pg_catalog.set_config('standard_conforming_strings', $1, false)",
        "select 1; set client_encoding to gbk",
    ] {
        let mut talk = Talk::session("");
        talk.client(&query(text));
        let heard = talk.take_client();
        assert_eq!(tags(&heard), "EZ", "{text}");
        assert_eq!(error_field(&heard, b'C'), "42501");
        assert!(error_field(&heard, b'M').contains("weir could not read later statements"));
        assert!(talk.to_server.is_empty());
        talk.client(&[parse("", text), sync()].concat());
        assert_eq!(tags(&talk.take_server()), "S", "{text}");
    }
    for text in [
        "set standard_conforming_strings = on",
        "set standard_conforming_strings to 1",
        "reset client_encoding",
        "set client_encoding to default",
        "set names 'LATIN1'",
        "set search_path = off",
        "select set_config('client_encoding', 'UTF8', false)",
    ] {
        let mut talk = Talk::session("");
        talk.client(&query(text));
        assert_eq!(talk.take_server(), query(text), "{text}");
    }
    let mut talk = Talk::session("  mode: observe\n");
    talk.client(&query("set standard_conforming_strings = off"));
    assert_eq!(tags(&talk.take_server()), "Q");
}

#[test]
fn refuses_a_login_with_settings_under_which_nothing_could_be_read() {
    for (name, value) in [
        ("client_encoding", "SJIS"),
        ("standard_conforming_strings", "off"),
        ("options", "-c geqo=on -c standard_conforming_strings=off"),
    ] {
        let mut talk = Talk::new("tls: {mode: off}", "");
        talk.client(&startup(&[("user", "ann"), (name, value)]));
        let heard = talk.take_client();
        assert_eq!((error_field(&heard, b'S').as_str(), error_field(&heard, b'C').as_str()), ("FATAL", "42501"), "{name}");
        assert_eq!((talk.dials, talk.closed), (0, Some(Reason::Denied)));
    }
}

#[test]
fn a_session_whose_server_reads_otherwise_can_be_brought_back() {
    let mut talk = Talk::session("");
    talk.server(&message(b'S', b"standard_conforming_strings\0off\0"));
    for text in ["rollback", "commit", "reset standard_conforming_strings", "set standard_conforming_strings = on"] {
        talk.client(&query(text));
        assert_eq!(talk.take_server(), query(text));
        talk.server(&[complete("SET"), ready(b'I')].concat());
    }
    assert!(talk.unreadable.is_empty());
    talk.client(&query(r"select '\'"));
    assert_eq!(talk.unreadable, ["standard_conforming_strings is off"]);
}

#[test]
fn names_the_limit_to_a_statement_that_is_too_long() {
    let mut talk = Talk::session("");
    talk.holds = true;
    talk.client(&query(&"x".repeat(STATEMENT_BYTES_MAX))).decide(&refused("test/onUnreadable"));
    assert_eq!(error_field(&talk.take_client(), b'C'), "54000");
}
