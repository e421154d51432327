//! What a client and a server notice of weir: nothing.

use super::*;

#[tokio::test]
async fn messages_pass_unchanged_but_for_what_is_hop_by_hop() {
    let answer = "HTTP/1.1 299 Quite Fine\r\nX-ONE: a\r\nServer: me\r\nx-two:  b\r\nX-ONE: c\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (answer, session) = upstream(&[answer], 4096)
        .ask("POST //a/%2e?q=%20 HTTP/1.1\r\nhOSt: api.internal\r\nX-CaSe: 1\r\nCONTENT-length: 3\r\nAccept: */*\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\nabc")
        .await;
    assert_eq!(
        answer,
        "HTTP/1.1 299 Quite Fine\r\nX-ONE: a\r\nX-ONE: c\r\nServer: me\r\nx-two: b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    );
    let seen = session.seen();
    assert!(
        seen.starts_with(
            "POST //a/%2e?q=%20 HTTP/1.1\r\nhOSt: api.internal\r\nX-CaSe: 1\r\nCONTENT-length: 3\r\nAccept: */*\r\n"
        ),
        "{seen}"
    );
    assert!(seen.ends_with("\r\n\r\nabc") && !seen.contains("X-Hop") && !seen.to_lowercase().contains("via"), "{seen}");
    let (outcome, gate) = session.outcome().await;
    assert_eq!(outcome.reason, Reason::DownstreamClosed);
    let asked = lock(&gate.asked);
    assert_eq!(
        (asked[0].path.as_str(), asked[0].path_normal.as_str(), asked[0].query.as_deref()),
        ("//a/%2e", "/a/", Some("q=%20"))
    );
    assert!(
        matches!(&lock(&gate.events)[..], [Event::Finished { number: 1, status, bytes: 2, error: None, .. }] if &**status == "299")
    );
}

#[tokio::test]
async fn answers_are_the_same_whatever_the_cuts() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"pas\r\n14\r\nsword\":\"hunter2\",\"a\"\r\n4\r\n: 1}\r\n0\r\n\r\n";
    for piece in 1..answer.len() {
        let (answer, _) = upstream(&[answer], piece).keys(&["password"]).ask(CLOSE).await;
        assert_eq!(dechunk(&answer), "{\"password\":\"***\",\"a\": 1}", "pieces of {piece}");
    }
}

#[tokio::test]
async fn one_upstream_connection_serves_a_kept_alive_client_and_pipelined_requests_in_order() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nc",
    ];
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (answer, session) = upstream(&answers, 9).ask(&format!("{request}{request}{CLOSE}")).await;
    let bodies: Vec<_> = answer.split("\r\n\r\n").skip(1).map(|part| &part[..1]).collect();
    assert_eq!(bodies, ["a", "b", "c"]);
    assert_eq!(session.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_between_requests_is_dialled_again() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: connection: close\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb",
    ];
    let mut session = upstream(&answers, 4096).start().await;
    for body in ["a", "b"] {
        session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(body_of(&session.one().await), body);
    }
    assert_eq!(session.dials.load(Ordering::SeqCst), 2);
}

/// Answers the first request of the first connection, takes the second and closes without a word.
fn forgetful() -> Kit {
    scripted(Arc::new(|count, mut stream| {
        Box::pin(async move {
            let mut inbox = Vec::new();
            while read_message(&mut stream, &mut inbox).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await.unwrap();
                if count == 0 {
                    read_message(&mut stream, &mut inbox).await;
                    return;
                }
            }
        })
    }))
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again_when_a_used_connection_closes_before_the_answer() {
    let mut session = forgetful().start().await;
    for _ in 0..2 {
        session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(session.one().await.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(session.dials.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_that_may_have_taken_effect_is_not_sent_again() {
    let mut session = forgetful().start().await;
    session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    session.one().await;
    session.client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    assert!(session.one().await.starts_with("HTTP/1.1 502 "));
    assert_eq!(session.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn head_keeps_its_length_and_has_no_body() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1234\r\nContent-Encoding: gzip\r\n\r\n";
    let (answer, _) = upstream(&[answer], 4096)
        .keys(&["a"])
        .known("known-secret")
        .ask("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.contains("Content-Length: 1234\r\n") && body_of(&answer).is_empty(), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_pass() {
    for status in ["204 No Content", "304 Not Modified"] {
        let (answer, _) = upstream(&[&format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\n\r\n")], 4096).keys(&["a"]).ask(CLOSE).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\n")) && body_of(&answer).is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (answer, session) = upstream(&[answer], 4096).known("known-secret").ask("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && !answer.to_lowercase().contains("chunked"), "{answer}");
    assert_eq!(body_of(&answer), "abc");
    assert_eq!(lock(&session.gate.asked)[0].host, "127.0.0.1");
}

#[tokio::test]
async fn chunked_requests_and_their_trailers_go_up() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n";
    let (answer, session) =
        upstream(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"], 4096).ask(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let seen = session.seen().to_lowercase();
    assert!(seen.contains("transfer-encoding: chunked") && seen.contains("abc") && seen.contains("x-sum: 6"), "{seen}");
}

#[tokio::test]
async fn a_body_is_only_asked_for_after_the_verdict_and_when_the_upstream_wants_it() {
    let script: Script = Arc::new(|_, mut stream| {
        Box::pin(async move {
            let mut head = Vec::new();
            while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
                let mut buffer = [0; 1024];
                let count = stream.read(&mut buffer).await.unwrap();
                head.extend_from_slice(&buffer[..count]);
            }
            assert!(head.ends_with(b"\r\n\r\n"), "the body came uninvited");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 3];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
            assert_eq!(stream.read(&mut body).await.unwrap(), 0);
        })
    });
    let mut session = scripted(script).start().await;
    session.client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await.unwrap();
    let mut interim = [0; 25];
    session.client.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    session.client.write_all(b"abc").await.unwrap();
    assert_eq!(body_of(&session.one().await), "abc");
}

#[tokio::test]
async fn a_refused_expectation_gets_the_final_answer_without_an_invitation() {
    let expecting = |path: &str| format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n");
    let (answer, session) = upstream(&[], 4096).ask(&expecting("/denied")).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert_eq!(session.dials.load(Ordering::SeqCst), 0);
    let script: Script = Arc::new(|_, mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(buffer[..count].ends_with(b"\r\n\r\n"));
            stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
        })
    });
    let (answer, _) = scripted(script).ask(&expecting("/")).await;
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n") && answer.ends_with("no"), "{answer}");
}

#[tokio::test]
async fn large_bodies_stream_both_ways_with_back_pressure() {
    let size = 8 * 1024 * 1024;
    let script: Script = Arc::new(move |_, mut stream| {
        Box::pin(async move {
            let mut inbox = Vec::new();
            let request = read_message(&mut stream, &mut inbox).await.unwrap();
            assert!(request.len() > size);
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            stream.write_all(&vec![b'x'; size]).await.unwrap();
        })
    });
    let mut session = scripted(script).known("xxxxxxxy-known").start().await;
    session
        .client
        .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    session.client.write_all(&vec![b'y'; size]).await.unwrap();
    let answer = session.rest().await;
    assert_eq!(dechunk(&answer).len(), size);
}

#[tokio::test]
async fn a_client_that_sends_no_more_gets_its_answer() {
    let (tell, mut told) = tokio::sync::mpsc::channel::<()>(1);
    let told = Arc::new(tokio::sync::Mutex::new(told.try_recv().err().map(|_| told)));
    let script: Script = Arc::new(move |_, mut stream| {
        let told = Arc::clone(&told);
        Box::pin(async move {
            read_message(&mut stream, &mut Vec::new()).await;
            told.lock().await.as_mut().unwrap().recv().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        })
    });
    let mut session = scripted(script).start().await;
    session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    session.client.shutdown().await.unwrap();
    while session.dials.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tell.send(()).await.unwrap();
    assert!(session.rest().await.ends_with("\r\n\r\nok"));
    assert_eq!(session.served.await.unwrap().reason, Reason::DownstreamClosed);
}
