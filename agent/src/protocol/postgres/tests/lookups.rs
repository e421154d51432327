//! The agent's own sessions: they ask the catalog which columns a rule names.

use std::sync::Arc;

use bytes::BytesMut;
use weir_wire::WireError;

use super::{
    super::{lookup::Lookup, rows::Mentions},
    kit::*,
};
use crate::{
    credential::Pin,
    flow::{Failure, Reason, Side},
    mask::KnownSecrets,
    protocol::{Conversation, Step},
};

fn lookup() -> (Lookup, Vec<u8>) {
    let permit = permit("tls: {mode: off}", "");
    let mut lookup = Lookup::new(&permit, "shop".to_owned(), Arc::new(KnownSecrets::default()));
    let sent = sent(lookup.dialled(Some(Pin::for_test("orders_rw", None))));
    (lookup, sent)
}

fn sent(step: Option<Step>) -> Vec<u8> {
    match step {
        Some(Step::Send { to: Side::Upstream, bytes }) => bytes.to_vec(),
        Some(Step::Close(_)) | None => Vec::new(),
        other => panic!("unexpected: {other:?}"),
    }
}

/// Hands over the server's bytes, one at a time; returns what the server is sent.
fn hear(lookup: &mut Lookup, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let (mut inbox, mut answers) = (BytesMut::new(), Vec::new());
    for byte in bytes {
        inbox.extend_from_slice(&[*byte]);
        while let Some(step) = lookup.receive(Side::Upstream, &mut inbox)? {
            answers.extend(sent(Some(step)));
        }
    }
    Ok(answers)
}

#[test]
fn reads_the_catalog_question_by_question() {
    let (mut lookup, startup_message) = lookup();
    let expected = [("user", "orders_rw"), ("database", "shop"), ("application_name", "weir"), ("client_encoding", "UTF8")];
    assert_eq!(startup_message, startup(&expected));
    let greeting = [auth_ok(), message(b'S', b"server_version\x0015.3 (Debian)\0"), message(b'K', &[0; 8]), ready(b'I')].concat();
    let mut question = hear(&mut lookup, &greeting).unwrap();
    let mut questions = 0;
    while question.first() == Some(&b'Q') {
        assert!(lookup.finished().is_none());
        questions += 1;
        let text = String::from_utf8_lossy(&question).into_owned();
        let rows = if text.contains("SELECT c.oid, n.nspname, c.relname") {
            [description(&[]), row(&[Some(b"16385"), Some(b"public"), Some(b"users")])].concat()
        } else {
            description(&[])
        };
        question = hear(&mut lookup, &[rows, complete("SELECT 1"), ready(b'I')].concat()).unwrap();
    }
    assert_eq!(question, message(b'X', b""));
    let catalog = lookup.finished().expect("an answer").expect("a catalog");
    assert_eq!(questions, super::super::Catalog::queries(150_003).len());
    assert!(catalog.knows(16_385) && !catalog.knows(16_386));
}

fn fails(answer: &[u8]) -> Failure {
    let (mut lookup, _) = lookup();
    hear(&mut lookup, answer).unwrap();
    match lookup.finished() {
        Some(Err(failure)) => failure,
        _ => panic!("no failure"),
    }
}

#[test]
fn reports_a_rejected_login_and_a_refused_question() {
    assert_eq!(fails(&error("28P01", "password authentication failed", "")).reason, Reason::CredentialRejected);
    assert_eq!(fails(&error("3D000", "database \"shop\" does not exist", "")).reason, Reason::UpstreamClosed);
    let refused = fails(&[auth_ok(), ready(b'I'), error("42501", "permission denied", "")].concat());
    assert!(refused.detail.contains("42501") && refused.detail.contains("permission denied"));
}

#[test]
fn reports_rows_of_another_shape() {
    let (mut lookup, _) = lookup();
    hear(&mut lookup, &[auth_ok(), ready(b'I')].concat()).unwrap();
    for _ in 0..super::super::Catalog::queries(150_003).len() {
        let answer = [description(&[]), row(&[Some(b"not an oid")]), complete("SELECT 1"), ready(b'I')].concat();
        hear(&mut lookup, &answer).unwrap();
    }
    assert!(matches!(lookup.finished(), Some(Err(failure)) if failure.reason == Reason::UpstreamMalformed));
}

#[test]
fn needs_a_credential_of_its_own() {
    let permit = permit("tls: {mode: off}", "");
    let mut lookup = Lookup::new(&permit, "shop".to_owned(), Arc::new(KnownSecrets::default()));
    assert!(matches!(lookup.dialled(None), Some(Step::Close(Reason::CredentialUnavailable))));
    assert!(matches!(lookup.finished(), Some(Err(_))));
}

#[test]
fn closes_on_garbage() {
    let (mut lookup, _) = lookup();
    assert!(hear(&mut lookup, &[auth_ok(), message(b'D', b"")].concat()).is_err());
}

#[test]
fn reads_on_behind_a_view_that_is_too_long_to_read() {
    let (mut lookup, _) = lookup();
    let mut question = hear(&mut lookup, &[auth_ok(), ready(b'I')].concat()).unwrap();
    let huge = vec![b'x'; 1100 * 1024];
    while question.first() == Some(&b'Q') {
        let text = String::from_utf8_lossy(&question).into_owned();
        let rows = if text.contains("SELECT c.oid, n.nspname, c.relname") {
            row(&[Some(b"16385"), Some(b"public"), Some(b"huge")])
        } else if text.contains("SELECT a.attrelid") {
            row(&[Some(b"16385"), Some(b"1"), Some(b"a"), Some(b"25")])
        } else if text.contains("pg_get_viewdef") {
            row(&[Some(b"16385"), Some(&huge)])
        } else {
            Vec::new()
        };
        question = hear(&mut lookup, &[description(&[]), rows, complete("SELECT 1"), ready(b'I')].concat()).unwrap();
    }
    let catalog = lookup.finished().expect("an answer").expect("a catalog");
    let query = catalog.relation(16_385).and_then(|relation| relation.query.clone());
    assert_eq!(query.as_deref(), Some(&Mentions::unknown()), "it may mean anything");
}
