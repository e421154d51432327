//! HTTP through weir: the credential goes in, what is masked stays in, everything else is as it was.

use anyhow::{Context, Result, ensure};
use e2e::{HttpApi, SERVER_V6, Scene};
use serde_json::Value;

use crate::{ensure_contains, ensure_lacks};

const CLEAR: &str = "{mode: off}";
const MASKS: &str = "  mask:\n    - {name: keys, jsonKeys: [api_key, password], headers: [Set-Cookie]}\n";

/// A scene with an API behind weir, masks on.
fn masked() -> Result<(Scene, e2e::Agent)> {
    let scene = Scene::with_api()?;
    let agent = scene.agent(&scene.api_policy(CLEAR, "", MASKS))?;
    Ok((scene, agent))
}

/// A Python program that speaks HTTP by hand; `link` is connected, `recv_all(link, seconds)` reads to the end.
fn by_hand(scene: &Scene, program: &str) -> Result<String> {
    let prelude = "import socket, sys, time\n\
                   def connect():\n    return socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)\n\
                   def recv_all(link, seconds=2):\n    link.settimeout(seconds)\n    data = b''\n    try:\n        \
                   while part := link.recv(65536):\n            data += part\n    except (TimeoutError, ConnectionError):\n        pass\n    \
                   return data\nlink = connect()\n";
    let port = scene.http()?.port().to_string();
    Ok(scene.python(&format!("{prelude}{program}"), &["127.0.0.5", &port])?.require_success()?.stdout)
}

#[test]
fn curl_without_a_token_gets_an_answer_with_masked_keys() -> Result<()> {
    let (scene, _agent) = masked()?;
    let seen = scene.curl("/v1/items", &["-i"])?.require_success()?;
    ensure_contains(&seen.stdout, "HTTP/1.1 200")?;
    ensure_contains(&seen.stdout, "lamp")?;
    for text in ["key-of-the-lamp", "key-of-the-desk", "hunter2", "server-cookie-value"] {
        ensure_lacks(&seen.stdout, text)?;
    }
    let body = seen.stdout.split("\r\n\r\n").nth(1).context("no body")?;
    let json: Value = serde_json::from_str(body).with_context(|| format!("the masked body is not JSON: {body}"))?;
    ensure!(json["items"][1]["name"] == "desk" && json["owner"]["note"] == "plain", "{json}");
    Ok(())
}

#[test]
fn the_same_over_ipv6() -> Result<()> {
    let (scene, _agent) = masked()?;
    let url = format!("http://[{SERVER_V6}]:{}/v1/items", scene.http()?.port());
    let seen = scene.client(["curl", "-sS", "-g", &url]).run()?.require_success()?;
    ensure_contains(&seen.stdout, "lamp")?;
    ensure_lacks(&seen.stdout, "key-of-the-lamp")
}

#[test]
fn the_clients_own_bearer_is_replaced() -> Result<()> {
    let (scene, _agent) = masked()?;
    scene.curl("/v1/items", &["-H", "Authorization: Bearer from-the-client"])?.require_success()?;
    ensure!(scene.http()?.last_header("authorization") == [format!("Bearer {}", scene.http()?.secret())]);
    Ok(())
}

#[test]
fn basic_goes_in_as_user_and_password() -> Result<()> {
    let scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy(CLEAR, ", as: basic", MASKS))?;
    let seen = scene.curl("/v1/items", &["-u", "client:own", "-w", "\n%{http_code}"])?;
    ensure!(seen.stdout.ends_with("200"), "{}", seen.all());
    let sent = scene.http()?.last_header("authorization");
    ensure!(sent.len() == 1 && sent.iter().all(|value| value.starts_with("Basic ")), "{sent:?}");
    Ok(())
}

#[test]
fn a_header_of_its_own_goes_in_and_every_one_of_the_clients_goes_out() -> Result<()> {
    let scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy(CLEAR, ", as: {header: X-Api-Key}", MASKS))?;
    let seen = scene.curl("/v1/items", &["-H", "X-API-KEY: one", "-H", "x-api-key: two", "-w", "\n%{http_code}"])?;
    ensure!(seen.stdout.ends_with("200"), "{}", seen.all());
    ensure!(scene.http()?.last_header("x-api-key") == [scene.http()?.secret()]);
    Ok(())
}

#[test]
fn a_query_parameter_goes_in_and_the_clients_goes_out() -> Result<()> {
    let scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy(CLEAR, ", as: {query: key}", MASKS))?;
    let seen = scene.curl("/v1/items?a=1&key=own&k%65y=own2&b=2", &["-w", "\n%{http_code}"])?;
    ensure!(seen.stdout.ends_with("200"), "{}", seen.all());
    let requests = scene.http()?.requests();
    let target = requests.last().and_then(|request| request["target"].as_str()).context("no request")?;
    ensure!(target.contains("a=1") && target.contains("b=2") && !target.contains("own"), "{target}");
    ensure!(target.contains(&format!("key={}", scene.http()?.secret())));
    Ok(())
}

#[test]
fn the_upstream_leg_is_https_and_verified() -> Result<()> {
    let mut scene = Scene::empty()?;
    scene.start_api(true)?;
    let tls = format!("{{mode: verify-full, ca: {}}}", scene.authority.pem().display());
    let _agent = scene.agent(&scene.api_policy(&tls, "", MASKS))?;
    let seen = scene.curl("/v1/items", &[])?.require_success()?;
    ensure_contains(&seen.stdout, "lamp")?;
    ensure_lacks(&seen.stdout, "key-of-the-lamp")
}

#[test]
fn a_chunked_answer_of_single_bytes_is_masked_and_keeps_its_trailer() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = by_hand(
        &scene,
        "link.sendall(b'GET /v1/chunked HTTP/1.1\\r\\nHost: a\\r\\nTE: trailers\\r\\n\\r\\n')\nprint(recv_all(link))",
    )?;
    ensure_contains(&told.to_lowercase(), "x-checksum: 42")?;
    let seen = scene.curl("/v1/chunked", &[])?.require_success()?;
    ensure_lacks(&seen.stdout, "key-of-the")?;
    let json: Value = serde_json::from_str(&seen.stdout)?;
    ensure!(json["items"][0]["name"] == "lamp");
    Ok(())
}

#[test]
fn an_answer_in_an_encoding_that_weir_cannot_read_is_502_where_a_mask_is_due() -> Result<()> {
    let (scene, _agent) = masked()?;
    let seen = scene.curl("/v1/gzip", &["-w", "\n%{http_code}"])?;
    ensure!(seen.stdout.ends_with("502"), "{}", seen.all());
    Ok(())
}

#[test]
fn one_connection_serves_many_requests() -> Result<()> {
    let (scene, _agent) = masked()?;
    let url = format!("http://127.0.0.5:{}/v1/items", scene.http()?.port());
    let seen = scene.client([
        "curl",
        "-sS",
        "-w",
        "%{num_connects}\n",
        "-o",
        "/dev/null",
        &url,
        "-o",
        "/dev/null",
        &url,
        "-o",
        "/dev/null",
        &url,
    ]);
    let seen = seen.run()?.require_success()?;
    ensure!(seen.stdout == "1\n0\n0\n", "{}", seen.all());
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = by_hand(
        &scene,
        "link.sendall(b'GET /plain HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nGET /nowhere HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nGET /plain HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n')\n\
         print([part.split()[0] for part in recv_all(link).decode().split('HTTP/1.1 ')[1:]])",
    )?;
    ensure!(told.trim() == "['200', '404', '200']", "{told}");
    Ok(())
}

#[test]
fn a_chunked_request_body_arrives_whole() -> Result<()> {
    let (scene, _agent) = masked()?;
    let body = "0123456789".repeat(20_000);
    let url = format!("http://127.0.0.5:{}/v1/items", scene.http()?.port());
    let client = scene.client([
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Transfer-Encoding: chunked",
        "--data-binary",
        "@-",
        &url,
    ]);
    ensure!(client.input(body.clone()).run()?.stdout == "200");
    let requests = scene.http()?.requests();
    ensure!(requests.last().is_some_and(|request| request["body"] == body.as_str()));
    Ok(())
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = by_hand(
        &scene,
        "link.sendall(b'POST /v1/items HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 3\\r\\nExpect: 100-continue\\r\\n\\r\\n')\n\
         print(link.recv(4096).split(b'\\r\\n')[0].decode())\nlink.sendall(b'abc')\nprint(recv_all(link).split(b'\\r\\n')[0].decode())",
    )?;
    ensure!(told.lines().next().is_some_and(|line| line.starts_with("HTTP/1.1 100")), "{told}");
    ensure!(told.lines().nth(1).is_some_and(|line| line.starts_with("HTTP/1.1 200")), "{told}");
    Ok(())
}

#[test]
fn head_has_the_headers_and_no_body() -> Result<()> {
    let (scene, _agent) = masked()?;
    let seen = scene.curl("/plain", &["-I"])?.require_success()?;
    ensure_contains(&seen.stdout, "HTTP/1.1 200")?;
    let told = by_hand(
        &scene,
        "link.sendall(b'HEAD /plain HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nGET /plain HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n')\n\
         print(recv_all(link).count(b'\"ok\"'))",
    )?;
    ensure!(told.trim() == "1", "{told}");
    Ok(())
}

#[test]
fn an_upgrade_is_refused_where_inspection_is_due() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = by_hand(
        &scene,
        "link.sendall(b'GET /v1/upgrade HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n')\n\
         print(recv_all(link).split(b'\\r\\n')[0].decode())",
    )?;
    ensure_lacks(&told, " 101 ")?;
    ensure!(scene.http()?.last_header("upgrade").is_empty(), "the upgrade reached the server");
    Ok(())
}

/// Every form in which the API leaks its own credential.
fn forms(api: &HttpApi) -> Vec<String> {
    let hex: String = api.secret().bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = api.secret().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let unicode: String = api.secret().bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    vec![api.secret().to_owned(), hex.to_uppercase(), hex, percent, unicode]
}

#[test]
fn an_injected_credential_that_the_server_sends_back_is_masked_in_every_form_without_a_rule() -> Result<()> {
    let scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy(CLEAR, "", ""))?;
    let api = scene.http()?;
    for path in ["/v1/leak", "/v1/leak-chunked"] {
        let seen = scene.curl(path, &["-i"])?.require_success()?;
        ensure_contains(&seen.stdout, "HTTP/1.1 200")?;
        for form in forms(api) {
            ensure!(!seen.stdout.contains(&form), "{path} leaks a form of {} characters", form.len());
        }
        let decode = "import base64, re, sys\ntext, secret = sys.stdin.read(), sys.argv[1].encode()\n\
                      words = re.findall('[A-Za-z0-9+/_-]{16,}', text)\nfound = 0\n\
                      for word in words:\n    for skip in range(4):\n        part = word[skip:].replace('-', '+').replace('_', '/')\n        \
                      data = base64.b64decode(part[:len(part) // 4 * 4])\n        found += secret[:20] in data\nprint(found)";
        let outside =
            e2e::Client::new(["/usr/bin/python3", "-c", decode, api.secret()]).input(seen.stdout).run()?.require_success()?;
        ensure!(outside.stdout.trim() == "0", "{path} leaks base64");
    }
    Ok(())
}

#[test]
fn an_echo_of_the_request_does_not_show_the_injected_credential() -> Result<()> {
    let scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy(CLEAR, "", ""))?;
    let seen = scene.curl("/v1/echo", &["-H", "X-Mine: visible"])?.require_success()?;
    ensure_contains(&seen.stdout, "visible")?;
    ensure_lacks(&seen.stdout, scene.http()?.secret())
}
