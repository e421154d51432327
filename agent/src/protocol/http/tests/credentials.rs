//! Credentials go in; the client's own never go on.

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn request(head: &str) -> String {
    format!("GET /v1?api_key=mine&a=1&api%5fkey=too HTTP/1.1\r\nHost: a\r\n{head}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn a_bearer_token_replaces_every_value_of_the_client() {
    let (answer, session) = upstream(&[OK], 4096)
        .token("tok-12345678")
        .ask(&request("Authorization: mine\r\nauthorization: Basic bWluZQ==\r\n"))
        .await;
    assert!(answer.ends_with("ok"), "{answer}");
    let seen = session.seen();
    assert!(seen.contains(": Bearer tok-12345678\r\n") && !seen.contains("mine\r\n") && !seen.contains("bWluZQ"), "{seen}");
    assert!(lock(&session.gate.asked)[0].headers.iter().all(|(name, _)| name != "authorization"));
    let events = lock(&session.gate.events);
    assert!(
        matches!(&events[0], Event::CredentialInjected { credential, method, .. } if &**credential == "shop-api" && &**method == "http-bearer")
    );
}

#[tokio::test]
async fn user_and_password_go_in_as_basic_and_their_encoding_is_masked() {
    let echo = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nConnection: close\r\n\r\nyou sent Basic YW5uOnB3MTI= YW5uOnB3MTI,";
    let (answer, session) = upstream(&[echo], 4096).login("ann", "pw12").ask(&request("Authorization: mine\r\n")).await;
    assert!(session.seen().contains(": Basic YW5uOnB3MTI=\r\n"), "{}", session.seen());
    assert_eq!(body_of(&answer), "you sent Basic ***= ***,");
}

#[tokio::test]
async fn a_header_place_is_replaced() {
    let place = HttpPlace::Header("x-api-key".into());
    let (_, session) =
        upstream(&[OK], 4096).token("tok-12345678").at(place).ask(&request("X-Api-Key: mine\r\nx-api-key: two\r\n")).await;
    let seen = session.seen();
    assert!(seen.contains("X-Api-Key: tok-12345678\r\n") && !seen.contains("mine\r\n") && !seen.contains("two"), "{seen}");
}

#[tokio::test]
async fn a_query_place_is_replaced_and_the_judge_sees_neither_value() {
    let (_, session) = upstream(&[OK], 4096).token("t/k+12345678").at(HttpPlace::Query("api_key".into())).ask(&request("")).await;
    assert!(session.seen().starts_with("GET /v1?a=1&api_key=t%2Fk%2B12345678 HTTP/1.1\r\n"), "{}", session.seen());
    assert_eq!(lock(&session.gate.asked)[0].query.as_deref(), Some("a=1"));
}

#[tokio::test]
async fn fails_closed_when_the_credential_is_missing() {
    let (answer, session) = upstream(&[OK], 4096).no_credential().ask(&request("Authorization: mine\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && answer.contains("retry-after: 5\r\n"), "{answer}");
    assert_eq!(session.dials.load(Ordering::SeqCst), 0);
    assert!(lock(&session.gate.asked)[0].headers.iter().all(|(name, _)| name != "authorization"));
}

#[tokio::test]
async fn a_credential_goes_to_the_names_it_is_meant_for_only() {
    let mut kit = upstream(&[OK], 4096).token("tok-12345678");
    kit.names = vec!["api.internal".into()];
    let (answer, session) = kit.ask(&request("")).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert_eq!(session.dials.load(Ordering::SeqCst), 0);
    let mut kit = upstream(&[OK], 4096).token("tok-12345678");
    kit.names = vec!["api.internal".into()];
    let (answer, _) = kit.ask(CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn an_echoed_credential_is_masked_everywhere() {
    let echo = "HTTP/1.1 200 tok-12345678\r\nX-Echo: <tok-12345678>\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\nConnection: close\r\n\r\n\
        e\r\na tok-12345678\r\n8\r\n tok%2D1\r\n9\r\n2345678 z\r\n0\r\nX-T: tok-12345678\r\n\r\n";
    for piece in [1, 7, 4096] {
        let ask = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
        let (answer, _) = upstream(&[echo], piece).token("tok-12345678").ask(ask).await;
        assert!(answer.contains("X-Echo: <***>\r\n") && answer.to_lowercase().contains("x-t: ***\r\n"), "{answer}");
        assert!(!answer.contains("12345678"), "{answer}");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn the_injected_credential_cannot_be_named_away() {
    let ask = request("Connection: Authorization, keep-alive\r\nAuthorization: mine\r\nProxy-Authorization: Basic bWluZQ==\r\n");
    let (answer, session) = upstream(&[OK], 4096).token("tok-12345678").ask(&ask).await;
    assert!(answer.ends_with("ok"), "{answer}");
    let seen = session.seen();
    assert!(seen.contains(": Bearer tok-12345678\r\n") && !seen.contains("mine\r\n") && !seen.contains("bWluZQ"), "{seen}");
    assert!(matches!(&lock(&session.gate.events)[0], Event::CredentialInjected { .. }));
}

#[tokio::test]
async fn a_reload_that_changes_the_credential_ends_the_connection_before_the_next_request_goes_up() {
    let mut session = upstream(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], 4096).token("tok-12345678").start().await;
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    session.client.write_all(ask).await.unwrap();
    assert!(session.one().await.ends_with("ok"));
    *lock(&session.gate.renewed) = Some(permit(&set(&["mask: [{name: m, jsonKeys: [pin]}]"])));
    session.client.write_all(ask).await.unwrap();
    let answer = session.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(session.seen().matches("GET /").count(), 1);
}
