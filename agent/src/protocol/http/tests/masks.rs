//! What is masked, and what happens where it cannot be.

use super::*;

fn json(body: &str, head: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn small_json_keeps_a_true_content_length() {
    let (answer, session) =
        upstream(&[&json("{\"api_key\": \"hunter22\", \"n\": 1.0}", "")], 4096).keys(&["api_key"]).ask(CLOSE).await;
    assert!(answer.contains("Content-Length: 28\r\n"), "{answer}");
    assert_eq!(body_of(&answer), "{\"api_key\": \"***\", \"n\": 1.0}");
    let events = lock(&session.gate.events);
    assert!(
        matches!(&events[0], Event::Masks { mask, what, count: 1 } if &**mask == "shop/api" && &**what == "api_key"),
        "{events:?}"
    );
    assert!(matches!(&events[1], Event::Finished { bytes: 28, error: None, .. }), "{events:?}");
}

#[tokio::test]
async fn large_json_is_masked_as_it_streams() {
    let rows: String = (0..20_000).map(|n| format!("{{\"id\":{n},\"token\":\"secret-{n}\"}},")).collect();
    let (answer, _) = upstream(&[&json(&format!("[{rows}null]"), "")], 5000).keys(&["token"]).ask(CLOSE).await;
    assert!(!answer.contains("Content-Length") && !answer.contains("secret-"));
    let body: Vec<serde_json::Value> = serde_json::from_str(&dechunk(&answer)).unwrap();
    assert_eq!(body.len(), 20_001);
    assert_eq!(body[7]["token"], "***");
}

#[tokio::test]
async fn headers_are_masked_in_all_their_values_but_framing_stays() {
    let answer =
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX: y\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (answer, _) = upstream(&[answer], 4096).headers(&["set-cookie", "content-length"]).ask(CLOSE).await;
    assert_eq!(answer.to_lowercase().matches("set-cookie: ***\r\n").count(), 2, "{answer}");
    assert!(answer.contains("X: y\r\n") && answer.contains("Content-Length: 2\r\n") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn json_that_calls_itself_something_else_is_masked() {
    for kind in [
        "",
        "Content-Type: text/html\r\n",
        "Content-Type: application/vnd.api+json; charset=utf-8\r\n",
        "Content-Type: application/x-ndjson\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{kind}Connection: close\r\n\r\n {{\"Password\":\"hunter22\"}}");
        let (answer, _) = upstream(&[&answer], 3).keys(&["password"]).ask(CLOSE).await;
        assert_eq!(dechunk(&answer), " {\"Password\":\"***\"}", "{kind}");
    }
}

#[tokio::test]
async fn text_that_is_no_json_passes() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\nConnection: close\r\n\r\n[ok] fine.";
    let (answer, _) = upstream(&[answer], 4096).keys(&["password"]).ask(CLOSE).await;
    assert!(answer.contains("Content-Length: 10\r\n") && answer.ends_with("[ok] fine."), "{answer}");
}

#[tokio::test]
async fn fails_closed_when_a_body_is_encoded() {
    for head in ["Content-Encoding: gzip\r\n", "Content-Encoding: identity, br\r\n"] {
        let (answer, session) = upstream(&[&json("\u{1f}xyz-secret", head)], 4096).keys(&["password"]).ask(CLOSE).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && !answer.contains("xyz-secret"), "{answer}");
        assert!(session.seen().contains("accept-encoding: identity\r\n"), "{}", session.seen());
        assert!(
            matches!(&lock(&session.gate.events)[..], [Event::Finished { error: Some(_), status, .. }] if &**status == "502")
        );
    }
}

#[tokio::test]
async fn an_encoded_body_passes_when_nothing_is_due() {
    let (answer, session) = upstream(&[&json("xyz", "Content-Encoding: gzip\r\n")], 4096).ask(CLOSE).await;
    assert!(answer.contains("Content-Encoding: gzip\r\n") && answer.ends_with("xyz"), "{answer}");
    assert!(!session.seen().contains("identity"));
}

#[tokio::test]
async fn fails_closed_when_small_json_is_malformed() {
    let (answer, _) = upstream(&[&json("{\"password\" \"hunter22\"}", "")], 4096).keys(&["password"]).ask(CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && !answer.contains("hunter22"), "{answer}");
}

#[tokio::test]
async fn fails_closed_when_streamed_json_is_malformed() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1,\r\n16\r\n\"password\" \"hunter22\"}\r\n0\r\n\r\n";
    let (answer, session) = upstream(&[answer], 4096).keys(&["password"]).ask(CLOSE).await;
    assert!(!answer.contains("hunter22") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    let (outcome, gate) = session.outcome().await;
    assert_eq!(outcome.reason, Reason::MaskImpossible);
    assert!(matches!(&lock(&gate.events)[..], [Event::Finished { error: Some(_), .. }]));
}

#[tokio::test]
async fn fails_closed_when_only_a_part_of_json_comes() {
    let part = json("\"hunter22\"}", "Content-Range: bytes 12-22/23\r\n").replace("200 OK", "206 Partial Content");
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=12-\r\nIf-Range: \"x\"\r\nConnection: close\r\n\r\n";
    let (answer, session) = upstream(&[&part], 4096).keys(&["password"]).ask(ask).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("hunter22"), "{answer}");
    assert!(!session.seen().to_lowercase().contains("range"), "{}", session.seen());
}

#[tokio::test]
async fn events_of_a_stream_pass_as_they_come() {
    let (tell, mut told) = tokio::sync::mpsc::channel::<()>(1);
    let told = Arc::new(tokio::sync::Mutex::new(told.try_recv().err().map(|_| told)));
    let script: Script = Arc::new(move |_, mut stream| {
        let told = Arc::clone(&told);
        Box::pin(async move {
            let mut inbox = Vec::new();
            read_message(&mut stream, &mut inbox).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n").await.unwrap();
            // The second event comes only after the client saw the first.
            told.lock().await.as_mut().unwrap().recv().await.unwrap();
            stream.write_all(b"data: known-secret\n\n").await.unwrap();
        })
    });
    let mut session = scripted(script).keys(&["a"]).known("known-secret").start().await;
    session.client.write_all(CLOSE.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"data: one\n\n\r\n") {
        let mut buffer = [0; 1024];
        let count = session.client.read(&mut buffer).await.unwrap();
        assert!(count > 0);
        answer.extend_from_slice(&buffer[..count]);
    }
    tell.send(()).await.unwrap();
    let rest = session.rest().await;
    assert!(rest.contains("data: ***\n\n") && !rest.contains("known-secret"), "{rest}");
}

#[tokio::test]
async fn a_known_secret_is_not_given_out_in_ranges() {
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-5\r\nIf-Range: \"x\"\r\nConnection: close\r\n\r\n";
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nknown-secret";
    let (answer, session) = upstream(&[whole], 4096).known("known-secret").ask(ask).await;
    assert_eq!(body_of(&answer), "***");
    assert!(!session.seen().to_lowercase().contains("range"), "{}", session.seen());
    let part =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-5/12\r\nContent-Length: 6\r\nConnection: close\r\n\r\nknown-";
    let (answer, _) = upstream(&[part], 4096).known("known-secret").ask(ask).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_reload_that_changes_masks_is_in_force_at_the_next_request_of_a_live_connection() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"pin\":1}";
    let renewed = permit(&set(&["mask: [{name: m, jsonKeys: [pin]}]"]));
    let mut kit = upstream(&[answer, answer], 4096);
    kit.purpose = Purpose::of(&renewed);
    let mut session = kit.start().await;
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    session.client.write_all(ask).await.unwrap();
    assert_eq!(body_of(&session.one().await), "{\"pin\":1}");
    *lock(&session.gate.renewed) = Some(renewed);
    session.client.write_all(ask).await.unwrap();
    assert_eq!(body_of(&session.one().await), "{\"pin\":null}");
    assert_eq!(session.dials.load(Ordering::SeqCst), 1);
}

fn typed(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_are_masked_wherever_a_text_holds_them() {
    for (kind, body, expected) in [
        ("text/event-stream", "data: {\"api_key\":\"hunter22\"}\n\n", "data: {\"api_key\":\"***\"}\n\n"),
        ("application/javascript", "cb({\"api_key\":\"hunter22\"})", "cb({\"api_key\":\"***\"})"),
        ("text/plain", "result: {\"api_key\":\"hunter22\"}", "result: {\"api_key\":\"***\"}"),
        ("text/html", "<script>x={\"api_key\":\"hunter22\"}</script>", "<script>x={\"api_key\":\"***\"}</script>"),
        (
            "multipart/mixed; boundary=b",
            "--b\r\n\r\n{\"api_key\":\"hunter22\"}\r\n--b--",
            "--b\r\n\r\n{\"api_key\":\"***\"}\r\n--b--",
        ),
        ("application/json", "{\"msg\":\"{\\\"api_key\\\":\\\"hunter22\\\"}\"}", "{\"msg\":\"{\\\"api_key\\\":\\\"***\\\"}\"}"),
        ("image/png", "{\"api_key\":\"hunter22\"}", "{\"api_key\":\"***\"}"),
        ("application/octet-stream", "\u{1}\0{\"api_key\":\"hunter22\"}", "\u{1}\0{\"api_key\":\"***\"}"),
        ("application/x-www-form-urlencoded", "a=1&api_key=hunter22&b=2", "a=1&api_key=***&b=2"),
        ("application/yaml", "api_key: hunter22\nb: 2", "api_key: ***\nb: 2"),
    ] {
        let (answer, session) = upstream(&[&typed(kind, body)], 4096).keys(&["api_key"]).ask(CLOSE).await;
        assert_eq!(body_of(&answer), expected, "{kind}");
        assert!(matches!(&lock(&session.gate.events)[0], Event::Masks { count: 1, .. }), "{kind}");
    }
}

#[tokio::test]
async fn fails_closed_when_a_type_cannot_be_looked_through() {
    let types = ["application/msgpack", "application/cbor", "application/x-protobuf", "text/html; charset=utf-16le"];
    for kind in types.into_iter().chain(["text/plain; charset=\"utf-7\""]) {
        let (answer, _) = upstream(&[&typed(kind, "hunter22")], 4096).keys(&["api_key"]).ask(CLOSE).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("hunter22"), "{kind}: {answer}");
    }
    let (answer, _) = upstream(&[&typed("text/plain", "{\0\"\0a\0")], 4096).keys(&["api_key"]).ask(CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}
