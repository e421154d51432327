//! Statements that SQL prepares: judged when they are executed, under the name that they have then.

use super::kit::*;
use crate::flow::Effect::{Delete, ExecCode, Read};

const USERS: &[(&str, u32, i16, u32, u16)] = &[("id", 16385, 1, 23, 0), ("upper", 0, 0, 25, 0)];

/// A session in which the server took this PREPARE.
fn prepared(policy: &str, text: &str) -> Talk {
    let mut talk = Talk::session(policy);
    talk.client(&query(text)).server(&[complete("PREPARE"), ready(b'I')].concat());
    talk.take_client();
    talk.take_server();
    talk
}

fn is_seen_through(talk: &mut Talk, text: &str) -> bool {
    talk.client(&query(text));
    !talk.effects.contains(ExecCode)
}

#[test]
fn judges_an_execute_by_what_it_executes() {
    let mut talk = prepared("", "prepare p(int) as delete from victims where id = $1");
    for text in ["execute p(1)", "explain analyze execute p(1)"] {
        assert!(is_seen_through(&mut talk, text));
        assert_eq!(talk.asked.last().map(String::as_str), Some(text), "the journal has its own text");
        assert!(talk.effects.contains(Delete));
        assert_eq!(talk.objects, ["victims"]);
        talk.server(&[complete("DELETE 1"), ready(b'I')].concat());
    }
    assert!(is_seen_through(&mut talk, "explain execute p(1)"));
    assert_eq!(talk.effects, crate::flow::Effects::of(&[Read]));
}

#[test]
fn sees_through_no_name_that_is_not_known() {
    let mut talk = prepared("", "prepare p as select 1");
    assert!(!is_seen_through(&mut talk, "execute q"));
    assert!(!is_seen_through(&mut talk, "execute \"P\""));
    assert!(!is_seen_through(&mut talk, "execute p; select 1"));
}

#[test]
fn learns_a_name_only_when_the_server_says_so() {
    let mut talk = Talk::session("");
    talk.client(&query("prepare p as select 1"));
    talk.client(&query("execute p"));
    assert_eq!(talk.asked.len(), 1, "what stands behind waits");
    talk.server(&[error("42P05", "prepared statement \"p\" already exists", ""), ready(b'I')].concat());
    assert_eq!(talk.asked.len(), 2);
    assert!(talk.effects.contains(ExecCode));
}

#[test]
fn forgets_what_is_deallocated() {
    for (text, tag) in [("deallocate p", "DEALLOCATE"), ("deallocate all", "DEALLOCATE ALL"), ("discard all", "DISCARD ALL")] {
        let mut talk = prepared("", "prepare p as select 1");
        assert!(is_seen_through(&mut talk, "execute p"));
        talk.server(&[complete("SELECT 1"), ready(b'I')].concat());
        talk.client(&query(text)).server(&[complete(tag), ready(b'I')].concat());
        assert!(!is_seen_through(&mut talk, "execute p"), "{text}");
    }
}

#[test]
fn forgets_names_that_several_statements_or_the_extended_protocol_change() {
    let mut talk = prepared("", "prepare p as select 1");
    talk.client(&query("deallocate p; prepare p as select 2"));
    talk.server(&[complete("DEALLOCATE"), complete("PREPARE"), ready(b'I')].concat());
    assert!(!is_seen_through(&mut talk, "execute p"));

    let mut talk = prepared("", "prepare p as select 1");
    talk.client(&[parse("", "deallocate p"), bind("", "", &[]), execute(""), sync()].concat());
    talk.server(&[message(b'1', b""), message(b'2', b""), complete("DEALLOCATE"), ready(b'I')].concat());
    assert!(!is_seen_through(&mut talk, "execute p"));
}

#[test]
fn executes_what_was_prepared_on_the_wire() {
    let mut talk = Talk::session("");
    talk.client(&[parse("s", "delete from victims"), sync()].concat());
    talk.server(&[message(b'1', b""), ready(b'I')].concat());
    assert!(is_seen_through(&mut talk, "execute s"));
    assert!(talk.effects.contains(Delete));
}

#[test]
fn masks_the_rows_of_an_execute() {
    let mut talk = prepared(MASKS, "prepare p as select id, upper(email) from users");
    talk.client(&query("execute p"));
    talk.server(&[description(USERS), row(&[Some(b"1"), Some(b"ANN@X.IO")]), complete("SELECT 1"), ready(b'I')].concat());
    assert_eq!(rows(&talk.take_client()), [[Some(b"1".to_vec()), Some(b"***".to_vec())]]);
    talk.client(&query("create table copied as execute p"));
    assert_eq!(error_field(&talk.take_client(), b'C'), "42501");
}
