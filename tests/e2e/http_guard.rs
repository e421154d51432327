//! Requests that are refused, in HTTP's own words.

use anyhow::{Result, ensure};
use e2e::Scene;
use serde_json::Value;

const RULES: &str = "  rules:
    - {name: read-only, deny: {methods: [DELETE, PUT]}, message: \"This API is read-only here.\"}
    - {name: no-admin, deny: {paths: [\"/v1/admin/**\"]}}
";

fn guarded() -> Result<(Scene, e2e::Agent)> {
    let scene = Scene::with_api()?;
    let agent = scene.agent(&scene.api_policy("{mode: off}", "", RULES))?;
    Ok((scene, agent))
}

#[test]
fn a_refused_request_is_403_with_a_problem_that_names_the_session() -> Result<()> {
    let (scene, _agent) = guarded()?;
    let seen = scene.curl("/v1/items", &["-X", "DELETE", "-w", "\n%{http_code} %{content_type}"])?;
    let (body, tail) = seen.stdout.rsplit_once('\n').unwrap_or_default();
    ensure!(tail.starts_with("403 application/problem+json"), "{}", seen.all());
    let problem: Value = serde_json::from_str(body)?;
    ensure!(problem.to_string().contains("This API is read-only here."), "{problem}");
    let sessions = scene.journaled("session_opened")?;
    ensure!(sessions.iter().filter_map(|entry| entry.session()).any(|id| problem.to_string().contains(id)), "{problem}");
    ensure!(scene.http()?.requests().is_empty(), "the refused request reached the server");
    Ok(())
}

#[test]
fn the_connection_serves_on_after_a_refusal() -> Result<()> {
    let (scene, _agent) = guarded()?;
    let url = format!("http://127.0.0.5:{}", scene.http()?.port());
    let (refused, fine) = (format!("{url}/v1/admin/users"), format!("{url}/v1/items"));
    let write = "%{http_code} %{num_connects}\n";
    let seen = scene.client(["curl", "-sS", "-o", "/dev/null", "-w", write, &refused, "-o", "/dev/null", &fine]).run()?;
    ensure!(seen.stdout == "403 1\n200 0\n", "{}", seen.all());
    Ok(())
}

#[test]
fn no_spelling_of_a_path_gets_around_a_rule() -> Result<()> {
    let (scene, _agent) = guarded()?;
    for path in [
        "/v1/admin/users",
        "/v1/x/../admin/users",
        "/v1/%61dmin/users",
        "//v1//admin/users",
        "/v1/./admin/users",
        "/v1/admin%2fusers",
        "/v1/admin;x=1/users",
        "/v1/x/..;/admin/users",
    ] {
        let seen = scene.curl(path, &["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"])?;
        ensure!(seen.stdout == "403" || seen.stdout == "400", "{path}: {}", seen.all());
    }
    ensure!(scene.http()?.requests().is_empty());
    Ok(())
}

#[test]
fn a_large_body_behind_a_refused_head_does_not_reach_the_server() -> Result<()> {
    let (scene, _agent) = guarded()?;
    let url = format!("http://127.0.0.5:{}/v1/items", scene.http()?.port());
    let client = scene.client(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "--data-binary", "@-", &url]);
    let seen = client.input(vec![b'x'; 8 << 20]).run()?;
    ensure!(seen.stdout == "403", "{}", seen.all());
    ensure!(scene.http()?.requests().is_empty());
    Ok(())
}
