//! Logins: what is asked of the upstream before a session begins, with the credential that weir holds and the client does not.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::kit::*;
use crate::{
    credential::Pin,
    flow::{Failure, Reason, Side},
    protocol::{Conversation, Observation, TlsFacts},
};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn secure_facts() -> TlsFacts {
    TlsFacts { server_end_point: Some(vec![9; 32]), verified: true }
}

/// A session whose upstream has TLS up and got the startup message.
fn behind_tls(password: &str) -> Talk {
    let mut talk = Talk::new("tls: {mode: verify-full}", "");
    talk.pin = Some(Pin::for_test("orders_rw", Some(password)));
    talk.facts = secure_facts();
    talk.client(&startup(&[("user", "ann"), ("database", "shop"), ("application_name", "psql")]));
    assert_eq!(talk.take_server(), SSL_REQUEST);
    talk.server(b"S");
    assert_eq!(talk.secured, [Side::Upstream]);
    talk
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// The server's side of a whole SCRAM exchange; true if the client proved the password.
fn scram_server(talk: &mut Talk, password: &str, mechanism: &str, header: &str, binding: &[u8]) -> bool {
    let initial = talk.take_server();
    let body = String::from_utf8(initial[5..].to_vec()).unwrap();
    let first = body.strip_prefix(&format!("{mechanism}\0")).unwrap();
    let bare = first[4..].strip_prefix(header).expect("the right GS2 header");
    let nonce = format!("{}server", bare.strip_prefix("n=,r=").unwrap());
    let server_first = format!("r={nonce},s={},i=2", BASE64_STANDARD.encode("salt"));
    talk.server(&auth(11, server_first.as_bytes()));

    let answer = talk.take_server();
    let last = String::from_utf8(answer[5..].to_vec()).unwrap();
    let (without_proof, proof) = last.rsplit_once(",p=").unwrap();
    let channel = BASE64_STANDARD.encode([header.as_bytes(), binding].concat());
    assert_eq!(without_proof, format!("c={channel},r={nonce}"));
    let one = hmac(password.as_bytes(), b"salt\0\0\0\x01");
    let two = hmac(password.as_bytes(), &one);
    let salted: Vec<u8> = one.iter().zip(&two).map(|(one, two)| one ^ two).collect();
    let client_key = hmac(&salted, b"Client Key");
    let signed = format!("{bare},{server_first},{without_proof}");
    let signature = hmac(&Sha256::digest(&client_key), signed.as_bytes());
    let expected: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
    let proved = BASE64_STANDARD.decode(proof).unwrap() == expected;
    let verifier = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
    talk.server(&auth(12, format!("v={}", BASE64_STANDARD.encode(verifier)).as_bytes()));
    proved
}

#[test]
fn lets_the_client_in_without_a_password() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&startup(&[("user", "ann"), ("application_name", "psql")]));
    assert_eq!(talk.asked, ["login ann"]);
    assert_eq!(
        talk.take_server(),
        startup(&[("user", "orders_rw"), ("database", "ann"), ("application_name", "psql")]),
        "the injected user, and the database that the client would have had"
    );
    assert!(talk.to_client.is_empty());
    let greeting = [message(b'S', b"server_version\x0015.3\0"), message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]), ready(b'I')].concat();
    talk.server(&auth_ok()).server(&greeting);
    assert_eq!(talk.take_client(), [auth_ok(), greeting].concat());
    assert_eq!((talk.registered[0].process, &talk.registered[0].key[..]), (7, &[1, 2, 3, 4][..]));
    assert!(!talk.conversation.is_opening());
}

#[test]
fn speaks_the_same_whatever_the_split() {
    let run = |piece| {
        let mut talk = Talk::new("tls: {mode: off}", MASKS);
        talk.piece = piece;
        talk.client(&SSL_REQUEST).client(&startup(&[("user", "ann"), ("database", "shop")]));
        talk.server(&[auth_ok(), ready(b'I')].concat());
        assert_eq!(talk.fetched.len(), 1);
        (talk.take_client(), talk.take_server(), talk.closed)
    };
    let whole = run(usize::MAX);
    assert_eq!(tags(&whole.0[1..]), "RZ");
    for piece in 1..40 {
        assert_eq!(run(piece), whole, "in pieces of {piece}");
    }
}

#[test]
fn offers_tls_or_declines_it_as_the_policy_says() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&GSS_REQUEST).client(&SSL_REQUEST);
    assert_eq!(talk.take_client(), b"NS");
    assert_eq!(talk.secured, [Side::Downstream]);
    talk.client(&startup(&[("user", "ann")]));
    assert_eq!(talk.dials, 1);

    let mut talk = Talk::new("tls: {mode: off}, downstream: {tls: decline}", "");
    talk.client(&SSL_REQUEST).client(&GSS_REQUEST);
    assert_eq!(talk.take_client(), b"NN");
    assert!(talk.secured.is_empty());
}

#[test]
fn refuses_bytes_stuffed_behind_the_request_for_tls() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&[&SSL_REQUEST[..], &startup(&[("user", "ann")])].concat());
    assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
    assert_eq!(tags(&talk.take_client()), "E", "in the clear, and no agreement to TLS before it");
    assert_eq!(talk.dials, 0);
}

#[test]
fn refuses_to_negotiate_for_ever() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&SSL_REQUEST).client(&SSL_REQUEST);
    assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&GSS_REQUEST).client(&GSS_REQUEST);
    assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
}

#[test]
fn answers_other_protocols_in_words() {
    for garbage in [&b"GET / HTTP/1.1\r\n"[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252], &[0, 0, 0x27, 0x11, 0, 3, 0, 0], &[0, 0, 0, 7]] {
        let mut talk = Talk::new("tls: {mode: off}", "");
        talk.client(garbage);
        assert_eq!(talk.closed, Some(Reason::DownstreamMalformed), "{garbage:?}");
        assert_eq!(error_field(&talk.take_client(), b'C'), "08P01");
    }
}

#[test]
fn tells_a_client_of_protocol_2_so() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&[0, 0, 0, 8, 0, 2, 0, 0]);
    assert_eq!(error_field(&talk.take_client(), b'C'), "0A000");
    assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
}

#[test]
fn negotiates_newer_minor_versions_down() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    let body = b"\x00\x03\x00\x02user\0ann\0_pq_.shiny\0on\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    talk.client(&[&length[..], body].concat());
    assert_eq!(talk.take_client(), message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.shiny\0"));
    assert_eq!(talk.take_server(), startup(&[("user", "orders_rw"), ("database", "ann")]));
}

#[test]
fn asks_for_cancellation_and_closes() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&weir_wire::postgres::cancel_request(7, &[1, 2, 3, 4]));
    assert_eq!(talk.cancelled, [(7, vec![1, 2, 3, 4].into())]);
    assert_eq!(talk.closed, Some(Reason::DownstreamClosed));
    assert_eq!(talk.dials, 0);
}

#[test]
fn speaks_a_denied_login_in_the_servers_words() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&startup(&[("user", "mallory")]));
    let heard = talk.take_client();
    assert_eq!(error_field(&heard, b'S'), "FATAL");
    assert_eq!(error_field(&heard, b'C'), "28000");
    assert_eq!(error_field(&heard, b'M'), "Nothing is dropped here.");
    assert!(error_field(&heard, b'D').contains("test/no-drop"));
    assert_eq!((talk.closed, talk.dials), (Some(Reason::Denied), 0));
}

#[test]
fn carries_no_replication() {
    for value in ["true", "database", "1", "on", "whatever"] {
        let mut talk = Talk::new("tls: {mode: off}", "");
        talk.client(&startup(&[("user", "ann"), ("replication", value)]));
        assert_eq!(error_field(&talk.take_client(), b'C'), "42501");
        assert_eq!((talk.closed, talk.dials), (Some(Reason::Denied), 0));
    }
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&startup(&[("user", "ann"), ("replication", "false")]));
    assert_eq!(talk.dials, 1);
}

#[test]
fn logs_in_with_scram_bound_to_the_channel() {
    let mut talk = behind_tls(PASSWORD);
    talk.take_server();
    talk.server(&auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
    assert!(scram_server(&mut talk, PASSWORD, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", &[9; 32]));
    assert!(talk.to_client.is_empty());
    talk.server(&[auth_ok(), ready(b'I')].concat());
    assert_eq!(tags(&talk.take_client()), "RZ");
    assert!(matches!(talk.notes[..], [Observation::Authenticated { method: "scram-sha-256-plus" }]));
}

#[test]
fn says_that_binding_was_possible_when_the_server_offers_none() {
    let mut talk = behind_tls(PASSWORD);
    talk.take_server();
    talk.server(&auth(10, b"SCRAM-SHA-256\0\0"));
    assert!(scram_server(&mut talk, PASSWORD, "SCRAM-SHA-256", "y,,", b""));
    talk.server(&auth_ok());
    assert!(matches!(talk.notes[..], [Observation::Authenticated { method: "scram-sha-256" }]));
}

fn in_the_clear(password: Option<&str>) -> Talk {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.pin = Some(Pin::for_test("orders_rw", password));
    talk.client(&startup(&[("user", "ann"), ("database", "shop")]));
    talk.take_server();
    talk
}

fn rejected(talk: &mut Talk) -> String {
    let heard = talk.take_client();
    assert_eq!(talk.closed, Some(Reason::CredentialRejected));
    assert_eq!(error_field(&heard, b'S'), "FATAL");
    assert_eq!(error_field(&heard, b'C'), "28000");
    assert!(error_field(&heard, b'H').starts_with("weir session "));
    let detail = error_field(&heard, b'D');
    assert!(detail.starts_with("Managed credential orders-db-app, version 0123456789abcdef: "), "{detail}");
    detail
}

#[test]
fn logs_in_with_scram_in_the_clear() {
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&auth(10, b"SCRAM-SHA-256\0\0"));
    assert!(scram_server(&mut talk, PASSWORD, "SCRAM-SHA-256", "n,,", b""));
    talk.server(&auth_ok());
    assert_eq!(tags(&talk.take_client()), "R");
}

#[test]
fn refuses_a_server_that_offers_only_what_cannot_be_used() {
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&auth(10, b"SCRAM-SHA-256-PLUS\0\0"));
    rejected(&mut talk);
}

#[test]
fn refuses_a_server_that_does_not_prove_itself() {
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&auth(10, b"SCRAM-SHA-256\0\0"));
    scram_server(&mut talk, "another password", "SCRAM-SHA-256", "n,,", b"");
    rejected(&mut talk);
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&auth(10, b"SCRAM-SHA-256\0\0")).server(&auth_ok());
    rejected(&mut talk);
}

#[test]
fn refuses_a_server_that_asks_for_nothing() {
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&auth_ok());
    rejected(&mut talk);
}

#[test]
fn answers_md5() {
    let mut talk = in_the_clear(Some("secret"));
    talk.server(&auth(5, &[1, 2, 3, 4]));
    let secret = crate::credential::Secret::new(b"secret".to_vec());
    let response = crate::credential::md5::md5_response("orders_rw", &secret, [1, 2, 3, 4]);
    assert_eq!(talk.take_server(), message(b'p', format!("{}\0", *response).as_bytes()));
    talk.server(&auth_ok());
    assert_eq!(tags(&talk.take_client()), "R");
}

#[test]
fn sends_a_clear_password_only_under_verified_tls() {
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&auth(3, b""));
    rejected(&mut talk);
    assert!(talk.to_server.is_empty());

    let mut talk = behind_tls(PASSWORD);
    talk.take_server();
    talk.server(&auth(3, b""));
    assert_eq!(talk.take_server(), message(b'p', format!("{PASSWORD}\0").as_bytes()));
}

#[test]
fn does_not_send_the_credential_without_the_tls_that_policy_requires() {
    for answer in [&b"N"[..], b"E", b"HTTP/1.1 400", b"Sx"] {
        let mut talk = Talk::new("tls: {mode: verify-full}", "");
        talk.pin = Some(Pin::for_test("orders_rw", Some(PASSWORD)));
        talk.client(&startup(&[("user", "ann")]));
        assert_eq!(talk.take_server(), SSL_REQUEST);
        talk.server(answer);
        assert_eq!(talk.closed, Some(Reason::UpstreamTls), "{answer:?}");
        assert!(talk.to_server.is_empty() && talk.secured.is_empty());
        assert_eq!(error_field(&talk.take_client(), b'C'), "08001");
    }
}

#[test]
fn hides_a_rejected_login_behind_the_name_of_the_credential() {
    let mut talk = in_the_clear(Some(PASSWORD));
    talk.server(&error("28P01", "password authentication failed for user \"orders_rw\"", ""));
    assert!(rejected(&mut talk).contains("28P01"));
}

#[test]
fn passes_other_refusals_of_the_server_on() {
    let mut talk = in_the_clear(Some(PASSWORD));
    let refusal = error("53300", "sorry, too many clients already", "");
    talk.server(&refusal);
    assert_eq!(talk.take_client(), refusal);
    assert_eq!(talk.closed, Some(Reason::UpstreamClosed));
}

#[test]
fn relays_the_clients_own_login_when_nothing_is_injected() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.pin = None;
    talk.client(&startup(&[("user", "ann"), ("database", "shop")]));
    assert_eq!(talk.take_server(), startup(&[("user", "ann"), ("database", "shop")]));
    talk.server(&auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
    assert_eq!(talk.take_client(), auth(10, b"SCRAM-SHA-256\0\0"));
    talk.client(&message(b'p', b"SCRAM-SHA-256\0whatever"));
    assert_eq!(talk.take_server(), message(b'p', b"SCRAM-SHA-256\0whatever"));
    talk.server(&auth_ok());
    assert_eq!(talk.take_client(), auth_ok());
}

#[test]
fn says_farewell_where_the_protocol_allows_it() {
    let failure = Failure::new(Reason::CredentialUnavailable, "credential orders-db-app: file /x: not found");
    let mut talk = Talk::new("tls: {mode: off}", "");
    assert!(talk.conversation.farewell(&failure).is_empty());
    talk.pin = None;
    talk.client(&startup(&[("user", "ann")]));
    let words = talk.conversation.farewell(&failure);
    assert_eq!(error_field(&words, b'C'), "57P03");
    assert_eq!(error_field(&words, b'D'), failure.detail);
    let words = talk.conversation.farewell(&failure.clone().telling("credential orders-db-app"));
    assert_eq!(error_field(&words, b'D'), "credential orders-db-app", "where the secret lies is for the journal");
    let mut session = Talk::session("");
    assert_eq!(error_field(&session.conversation.farewell(&failure), b'S'), "FATAL");
}

#[test]
fn judges_the_settings_of_a_startup_message_before_dialling() {
    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&startup(&[("user", "ann"), ("TimeZone", "UTC"), ("options", "-c role=boss")]));
    assert_eq!(talk.asked, ["login ann", "SET \"role\" = 'boss'"]);
    assert_eq!((talk.dials, talk.closed), (1, None));

    let mut talk = Talk::new("tls: {mode: off}", "");
    talk.client(&startup(&[("user", "ann"), ("search_path", "drop")]));
    assert_eq!((talk.dials, talk.closed), (0, Some(Reason::Denied)));
    let heard = talk.take_client();
    assert_eq!((error_field(&heard, b'S').as_str(), error_field(&heard, b'C').as_str()), ("FATAL", "28000"));
    assert!(error_field(&heard, b'D').contains("test/no-drop"));
}

#[test]
fn refuses_settings_under_which_statements_cannot_be_read() {
    let refused = |name, value| {
        let mut talk = Talk::new("tls: {mode: off}", "");
        talk.client(&startup(&[("user", "ann"), (name, value)]));
        assert_eq!(talk.dials, 0);
        error_field(&talk.take_client(), b'M')
    };
    assert!(refused("client_encoding", "SJIS").starts_with("client_encoding must stay"));
    assert!(refused("options", "-c standard_conforming_strings=off").starts_with("standard_conforming_strings must stay on"));
    assert_eq!(refused("options", "-O"), "options hold something else than settings");
}

#[test]
fn answers_what_is_no_startup_packet_in_words() {
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0; 64],
        &[0, 0, 0, 16, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0, b'a', b'n', b'n'],
    ] {
        let mut talk = Talk::new("tls: {mode: off}", "");
        talk.client(garbage);
        let heard = talk.take_client();
        assert_eq!((error_field(&heard, b'S').as_str(), error_field(&heard, b'C').as_str()), ("FATAL", "08P01"));
        assert_eq!(talk.closed, Some(Reason::DownstreamMalformed));
        assert_eq!(talk.dials, 0);
    }
}
