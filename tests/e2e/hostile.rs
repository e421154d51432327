//! Clients that do not keep to the protocol: an error or a close, bounded time and memory, and the agent lives.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{Agent, Scene};

use crate::{by_hand, ensure_contains, ensure_lacks, tells};

/// The agent may use this much more than before a hostile client came.
const GROWTH_BYTES_MAX: u64 = 400 << 20;

fn hostile() -> Result<(Scene, Agent)> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent_with(&scene.postgres_policy(crate::NO_DROP), &["--handshake-timeout", "2"])?;
    scene.psql("select 1")?.require_success()?;
    Ok((scene, agent))
}

fn resident_bytes(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Afterwards: the same agent serves the next client, and the journal knows how each session ended.
fn unharmed(scene: &Scene, agent: &Agent) -> Result<()> {
    ensure!(agent.status()?["pid"] == agent.pid());
    scene.psql("select 1")?.require_success()?;
    ensure_lacks(&agent.log(), "panicked")?;
    let closed = scene.journaled("session_closed")?;
    ensure!(closed.iter().all(|entry| !entry.text("reason").is_empty() && entry.text("reason") != "internal"), "{closed:?}");
    Ok(())
}

#[test]
fn garbage_is_answered_or_closed() -> Result<()> {
    let (scene, agent) = hostile()?;
    let told = tells(
        &scene,
        "for data in (b'GET / HTTP/1.1\\r\\n\\r\\n', b'\\0' * 4096, b'\\xff' * 4096, bytes(range(256)) * 64, b'\\x16\\x03\\x01\\x00\\x05hello'):\n\
         \x20   link = connect()\n    push(link, data)\n    end = rest(link, 8)\n    print(end.endswith((b'<closed>', b'<reset>')), len(end) < 4096)",
    )?;
    ensure!(told.lines().count() == 5 && told.lines().all(|line| line == "True True"), "{told}");
    unharmed(&scene, &agent)
}

#[test]
fn half_a_message_and_a_silent_client_are_closed_in_time() -> Result<()> {
    let (scene, agent) = hostile()?;
    let told = tells(
        &scene,
        "for data in (b'', b'\\0', startup()[:20]):\n    link = connect()\n    push(link, data)\n    began = time.time()\n    end = rest(link, 20)\n\
         \x20   print(end.endswith((b'<closed>', b'<reset>')), 1 < time.time() - began < 15)",
    )?;
    ensure!(told.lines().count() == 3 && told.lines().all(|line| line == "True True"), "{told}");
    unharmed(&scene, &agent)
}

#[test]
fn lying_lengths_are_refused() -> Result<()> {
    let (scene, agent) = hostile()?;
    let told = tells(
        &scene,
        "for length in (0, 3, 2**31 - 1, 2**31, 2**32 - 1):\n    link = connect()\n    push(link, struct.pack('!I', length) + b'x' * 100)\n    print(rest(link, 8)[-8:])\n\
         for length in (0, 3, 2**31, 2**32 - 1):\n    link = login()\n    push(link, b'Q' + struct.pack('!I', length) + b'x' * 100)\n    print(rest(link, 8)[-8:])",
    )?;
    ensure!(told.lines().count() == 9 && told.lines().all(|line| line.contains("closed>") || line.contains("reset>")), "{told}");
    unharmed(&scene, &agent)
}

#[test]
fn messages_of_the_wrong_kind_or_at_the_wrong_time_are_refused() -> Result<()> {
    let (scene, agent) = hostile()?;
    let told = tells(
        &scene,
        "for data in (message('R', b'\\0\\0\\0\\0'), message('!'), message('p', b'a password\\0'), message('Q', b'no terminator'), message('B', b'\\0'), message('P', b'\\0')):\n\
         \x20   link = login()\n    push(link, data + SYNC)\n    print(rest(link, 4)[:1])",
    )?;
    ensure!(told.lines().count() == 6, "{told}");
    unharmed(&scene, &agent)
}

#[test]
fn a_statement_of_64_mib_is_refused_or_served_in_bounded_memory() -> Result<()> {
    let (scene, agent) = hostile()?;
    let before = resident_bytes(&agent)?;
    let seen = by_hand(
        &scene,
        "link = login()\npush(link, query(\"select '\" + 'x' * (64 << 20) + \"'\"))\nprint(rest(link, 30)[:200])",
    )?;
    ensure_lacks(&seen.stderr, "Traceback")?;
    let growth = resident_bytes(&agent)?.saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "the agent grew by {growth} bytes");
    unharmed(&scene, &agent)
}

#[test]
fn a_hundred_thousand_parentheses_are_refused_quickly() -> Result<()> {
    let (scene, agent) = hostile()?;
    let told = tells(
        &scene,
        "began = time.time()\nlink = login()\nlink.sendall(query('select ' + '(' * 100000 + '1' + ')' * 100000))\nseen = until_ready(link)\n\
         print(kinds(seen), time.time() - began < 10)",
    )?;
    ensure!(told.trim() == "EZ True", "{told}");
    unharmed(&scene, &agent)
}

#[test]
fn plaintext_stuffed_behind_a_request_for_tls_is_refused() -> Result<()> {
    let (scene, agent) = hostile()?;
    let told =
        tells(&scene, "link = connect()\npush(link, struct.pack('!II', 8, 80877103) + startup())\nprint(rest(link, 8)[-9:])")?;
    ensure!(told.contains("closed>") || told.contains("reset>"), "{told}");
    unharmed(&scene, &agent)
}

#[test]
fn many_prepared_statements_are_bounded() -> Result<()> {
    let (scene, agent) = hostile()?;
    let before = resident_bytes(&agent)?;
    by_hand(
        &scene,
        "link = login()\ntry:\n    for turn in range(200):\n        push(link, b''.join(parse('select 1', f's{turn}-{n}') for n in range(500)) + SYNC)\n        until_ready(link)\n\
         except (EOFError, OSError):\n    pass",
    )?
    .require_success()?;
    let growth = resident_bytes(&agent)?.saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "the agent grew by {growth} bytes");
    unharmed(&scene, &agent)
}

#[test]
fn a_client_that_does_not_read_does_not_fill_the_agent() -> Result<()> {
    let (scene, agent) = hostile()?;
    let before = resident_bytes(&agent)?;
    by_hand(
        &scene,
        "link = login()\nlink.sendall(query(\"select repeat('x', 1000000) from generate_series(1, 1000)\"))\ntime.sleep(3)\nlink.close()",
    )?
    .require_success()?;
    let growth = resident_bytes(&agent)?.saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "the agent grew by {growth} bytes");
    unharmed(&scene, &agent)
}

#[test]
fn hostile_http_is_refused_and_never_smuggled() -> Result<()> {
    let scene = Scene::with_api()?;
    let agent = scene.agent_with(
        &scene.api_policy("{mode: off}", "", "  rules:\n    - {name: no-admin, deny: {paths: [\"/v1/admin/**\"]}}\n"),
        &["--handshake-timeout", "2"],
    )?;
    let port = scene.http()?.port().to_string();
    let program = "import socket, sys\n\
        inner = b'GET /v1/admin/x HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'\n\
        heads = [b'\\0' * 4096, b'GET / HTTP/9.9\\r\\n\\r\\n', b'GET / HTTP/1.1\\r\\nX: ' + b'y' * 2000000,\n\
        \x20 b'POST /plain HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n' + inner,\n\
        \x20 b'POST /plain HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 0\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(inner) + inner,\n\
        \x20 b'POST /plain HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding : chunked\\r\\n\\r\\n0\\r\\n\\r\\n' + inner,\n\
        \x20 b'POST /plain HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\nffffffffffffffffff\\r\\n']\n\
        for head in heads:\n    link = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)\n    try:\n        link.sendall(head)\n        \
        link.settimeout(6)\n        data = b''\n        while part := link.recv(65536):\n            data += part\n    \
        except (TimeoutError, ConnectionError):\n        pass\n    print(data.split(b'\\r\\n')[0] if data else b'closed')\n";
    let seen = scene.python(program, &["127.0.0.5", &port])?.require_success()?;
    ensure!(seen.stdout.lines().count() == 7, "{}", seen.all());
    let requests = scene.http()?.requests();
    ensure!(
        requests.iter().all(|request| !request["target"].as_str().is_some_and(|target| target.contains("admin"))),
        "{requests:?}"
    );
    ensure_contains(&scene.curl("/v1/items", &[])?.require_success()?.stdout, "lamp")?;
    ensure!(agent.lives());
    ensure_lacks(&agent.log(), "panicked")
}
