//! Refusals, hostile clients, broken upstreams, a lost journal.

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[tokio::test]
async fn a_denial_says_why_in_problem_json_and_the_connection_lives_on() {
    let mut session = upstream(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], 4096).start().await;
    session.client.write_all(b"POST /x/../denied HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    let answer = session.one().await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\n"), "{answer}");
    assert!(answer.contains("x-weir-session: 00000000-0000-0000-0000-000000000000\r\n"), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body_of(&answer)).unwrap();
    assert_eq!(problem["status"], 403);
    assert_eq!(problem["detail"], "Ask #ops first.");
    assert_eq!(problem["rule"], "shop/no");
    session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(session.one().await.ends_with("ok"));
    assert!(!session.seen().contains("denied"));
}

#[tokio::test]
async fn a_denied_body_is_read_to_its_end_so_that_the_denial_arrives() {
    let mut session = upstream(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], 4096).start().await;
    let size = 900 * 1024;
    session
        .client
        .write_all(format!("POST /denied HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    session.client.write_all(&vec![b'x'; size]).await.unwrap();
    assert!(session.one().await.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(session.one().await.ends_with("ok"));
}

#[tokio::test]
async fn a_denied_body_without_end_is_not_read_for_ever() {
    let mut session = upstream(&[], 4096).start().await;
    session.client.write_all(b"POST /denied HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").await.unwrap();
    while session.client.write_all(&[b'x'; 65536]).await.is_ok() {}
    assert!(session.served.await.unwrap().detail.len() > 1);
}

#[tokio::test]
async fn methods_that_would_show_or_hide_the_traffic_are_refused() {
    for request in [
        "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n",
    ] {
        let (answer, session) = upstream(&[OK], 4096).ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert_eq!(session.dials.load(Ordering::SeqCst), 0);
        assert!(matches!(&lock(&session.gate.events)[..], [Event::Request { verdict, .. }] if !verdict.allowed));
    }
}

#[tokio::test]
async fn upgrades_are_refused_and_an_offer_of_h2c_is_ignored() {
    let upgrade =
        |protocol: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: {protocol}\r\n\r\n");
    let (answer, session) = upstream(&[OK], 4096).ask(&upgrade("websocket")).await;
    assert!(answer.starts_with("HTTP/1.1 501 ") && session.dials.load(Ordering::SeqCst) == 0, "{answer}");
    let (answer, session) = upstream(&[OK], 4096).ask(&upgrade("h2c")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !session.seen().to_lowercase().contains("upgrade"), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_is_not_believed() {
    let (answer, _) =
        upstream(&["HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes"], 4096).ask(CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("bytes\""), "{answer}");
}

#[tokio::test]
async fn what_two_servers_could_read_differently_is_refused_or_rewritten() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GARBAGE\r\n\r\n", "400"),
        ("\x16\x03\x01\x02garbage\r\n\r\n", "400"),
    ] {
        let (answer, session) = upstream(&[OK], 4096).ask(request).await;
        assert!(answer.get(9..12) == Some(status), "{request:?}: {answer}");
        assert_eq!(session.dials.load(Ordering::SeqCst), 0, "{request:?}");
    }
}

#[tokio::test]
async fn a_length_beside_chunks_never_goes_up() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let (_, session) = upstream(&[OK], 4096).ask(request).await;
    let seen = session.seen().to_lowercase();
    assert!(!(seen.contains("content-length") && seen.contains("chunked")), "{seen}");
    assert!(seen.is_empty() || seen.ends_with("1\r\nx\r\n0\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn a_bad_chunk_ends_the_connection_and_the_exchange_is_journaled() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n";
    let (answer, session) = upstream(&[OK], 4096).ask(request).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 502") || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let (_, gate) = session.outcome().await;
    assert!(matches!(&lock(&gate.events)[..], [Event::Finished { error: Some(_), .. }]));
}

#[tokio::test]
async fn heads_over_the_limit_are_refused() {
    let long = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    let (answer, _) = upstream(&[OK], 4096).ask(&long(60 * 1024)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (answer, session) = upstream(&[OK], 4096).ask(&long(65 * 1024)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(session.dials.load(Ordering::SeqCst), 0);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let (answer, _) = upstream(&[OK], 4096).ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn silence_ends_the_connection_in_bounded_time() {
    for half in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut kit = upstream(&[OK], 4096);
        kit.limits.head_read_timeout = Duration::from_millis(20);
        let (_, session) = kit.ask(half).await;
        let (outcome, _) = session.outcome().await;
        assert_eq!(outcome.reason, Reason::TimedOut, "{half:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn fails_closed_when_the_upstream_is_down() {
    let mut kit = upstream(&[OK], 4096).token("tok-12345678");
    kit.unreachable = true;
    let (answer, session) = kit.ask(CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && answer.contains("connect upstream: "), "{answer}");
    assert!(answer.contains("urn:weir:upstream-unreachable") && !answer.contains("tok-"), "{answer}");
    let events = lock(&session.gate.events);
    assert!(matches!(events.last(), Some(Event::Finished { error: Some(_), status, .. }) if &**status == "502"), "{events:?}");
}

#[tokio::test]
async fn an_upstream_that_speaks_something_else_is_a_bad_gateway() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 2",
    ] {
        let (answer, _) = upstream(&[answer], 4096).ask(CLOSE).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_hides_the_body_is_a_bad_gateway() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (answer, _) = upstream(&[answer], 4096).known("known-secret").ask(CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_the_upstream_breaks_off_is_broken_off_for_the_client() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n";
    let (answer, session) = upstream(&[answer], 4096).known("known-secret").ask(CLOSE).await;
    assert!(answer.contains("abc") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    let (outcome, gate) = session.outcome().await;
    assert_eq!(outcome.reason, Reason::UpstreamClosed);
    assert!(matches!(&lock(&gate.events)[..], [Event::Finished { error: Some(_), .. }]));
}

#[tokio::test]
async fn fails_closed_when_the_journal_is_down() {
    for (journal_down, barrier_down) in [(true, false), (false, true)] {
        let mut kit = upstream(&[OK], 4096);
        kit.gate.journal_down = journal_down;
        kit.gate.barrier_down = barrier_down;
        let (answer, session) = kit.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(session.dials.load(Ordering::SeqCst), 0);
        let (outcome, _) = session.outcome().await;
        assert_eq!(outcome.reason, Reason::JournalUnavailable);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_exchange() {
    let script: Script = Arc::new(|_, mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 1024];
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        })
    });
    let mut kit = scripted(script);
    kit.limits.half_closed_timeout = Duration::from_millis(20);
    let mut session = kit.start().await;
    session.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while session.dials.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let (outcome, gate) = session.outcome().await;
    assert_eq!(outcome.reason, Reason::DownstreamClosed);
    assert!(matches!(&lock(&gate.events)[..], [Event::Finished { error: Some(_), .. }]));
}

#[tokio::test]
async fn an_answer_with_two_framings_is_a_bad_gateway_in_words() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 300\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
    ] {
        let (answer, _) = upstream(&[answer], 4096).ask(CLOSE).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("application/problem+json"), "{answer}");
    }
}
