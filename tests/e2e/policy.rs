//! Policies as an operator meets them: mistakes, modes, destinations that nobody named, reload.

use std::fs;

use anyhow::{Result, ensure};
use e2e::{PostgresOptions, Scene, Scratch, wait_until, weir};

use crate::{NO_DROP, ensure_contains, ensure_lacks};

/// One mistake a line, marked; what stands around them is right.
const MISTAKES: &str = "apiVersion: weir/v1
kind: Upstream
metadata: {name: db}
spec:
  hosts: [10.0.0.1/99]
  ports: [70000]
  protocol: postgress
  tls: {mode: verify}
---
apiVersion: weir/v1
kind: Credential
metadata: {name: c}
spec:
  user: app
  passwort: {file: /etc/weir/secrets/c}
---
apiVersion: weir/v1
kind: Policy
metadata: {name: p}
spec:
  workloads: [{cgroup: relative/path}]
  upstreams: [{name: nosuch}]
  unmatched: perhaps
  rules:
    - {name: r, deny: {effects: [drip]}}
    - {name: s, deny: {effects: [drop]}, when: \"stmt.nosuch\"}
  mask:
    - {name: m, columns: [\"password\"]}
";

#[test]
fn ten_mistakes_are_ten_errors_with_their_places() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.join("mistakes.yaml");
    fs::write(&file, MISTAKES)?;
    let seen = weir(["check".as_ref(), file.as_os_str()])?;
    ensure!(seen.status.code() == Some(2), "{:?} {}", seen.status, seen.all());
    let said = seen.all();
    for line in [5, 6, 7, 8, 15, 21, 22, 23, 25, 26, 28] {
        ensure_contains(&said, &format!("mistakes.yaml:{line}:"))?;
    }
    for suggestion in ["postgres", "password", "drop"] {
        ensure_contains(&said, &format!("did you mean `{suggestion}`"))?;
    }
    Ok(())
}

#[test]
fn a_policy_whose_own_test_fails_is_not_loaded() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let failing = scene.postgres_policy("  tests:\n    - {proto: postgres, sql: \"drop table x\", expect: deny}\n");
    let error = scene.agent(&failing).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure_contains(&error, "drop table x")
}

#[test]
fn a_bad_file_at_start_is_not_started_with() -> Result<()> {
    let scene = Scene::empty()?;
    let error = scene.agent(MISTAKES).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure_contains(&error, "policy.yaml:7:")
}

#[test]
fn a_bad_file_at_reload_keeps_the_last_good_set_and_says_so() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    scene.write_policies(MISTAKES)?;
    let reload = agent.reload()?;
    ensure!(!reload.success(), "{}", reload.all());
    ensure_contains(&reload.all(), "policy.yaml:7:")?;
    ensure_contains(&scene.psql("drop table x")?.stderr, "change ticket")?;
    scene.psql("select 1")?.require_success()?;
    ensure_contains(&agent.status()?.to_string(), "policy.yaml")?;
    ensure!(!scene.journaled("policy_rejected")?.is_empty());
    Ok(())
}

#[test]
fn a_good_file_takes_effect_on_reload_and_on_hang_up() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("drop table if exists nosuch")?.require_success()?;
    scene.write_policies(&scene.postgres_policy(NO_DROP))?;
    agent.reload()?.require_success()?;
    ensure_contains(&scene.psql("drop table if exists nosuch")?.stderr, "change ticket")?;
    scene.write_policies(&scene.postgres_policy(""))?;
    agent.hang_up()?;
    let allowed = || scene.psql("drop table if exists nosuch").is_ok_and(|seen| seen.success());
    wait_until("the policy without the rule is in force", std::time::Duration::from_secs(20), allowed)
}

#[test]
fn a_new_policy_judges_sessions_that_are_open() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let told = across_a_reload(&scene, NO_DROP, "drop table x", "kinds(until_ready(link))")?;
    ensure!(told == "EZ", "{told}");
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    Ok(())
}

#[test]
fn a_session_does_not_go_on_under_other_masks_than_it_began_with() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let masked = "  mask:\n    - {name: pii, columns: [\"public.users.email\"], with: redact}\n";
    let told = across_a_reload(&scene, masked, "select email from users", "rest(link)")?;
    ensure_contains(&told, "connect again")?;
    ensure_lacks(&told, "@")
}

/// Logs in without rules or masks, reloads with these, asks, and gives what `shown` makes of the answer.
fn across_a_reload(scene: &Scene, then: &str, asked: &str, shown: &str) -> Result<String> {
    let agent = scene.agent(&scene.postgres_policy(""))?;
    let (go, done) = (scene.scratch.join("go"), scene.scratch.join("done"));
    let program = format!(
        "{}\nimport os\nlink = login()\nopen('{}', 'w').close()\nwhile not os.path.exists('{}'):\n    time.sleep(0.02)\n\
         link.sendall(query('{asked}'))\nprint({shown})",
        include_str!("pg.py"),
        done.display(),
        go.display(),
    );
    let port = scene.db()?.port().to_string();
    let mut client =
        scene.client(["/usr/bin/python3", "-c", &program, "127.0.0.5", &port]).start(&scene.scratch.join("client.log"))?;
    wait_until("the client is logged in", std::time::Duration::from_secs(20), || done.exists())?;
    scene.write_policies(&scene.postgres_policy(then))?;
    agent.reload()?.require_success()?;
    fs::write(&go, "")?;
    client.wait(std::time::Duration::from_secs(20))?;
    Ok(client.log().trim().to_owned())
}

#[test]
fn observe_changes_nothing_and_journals_what_it_would_have_refused() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let rules = format!("  mode: observe\n{NO_DROP}  mask:\n    - {{name: people, columns: [\"public.users.email\"]}}\n");
    let _agent = scene.agent(&scene.postgres_policy(&rules))?;
    ensure_contains(&scene.psql("select email from users")?.stdout, "ann@example.com")?;
    scene.psql("drop table x")?.require_success()?;
    let statements = scene.journaled("statement")?;
    let would = statements.iter().find(|entry| entry.text("text").contains("drop table x"));
    ensure!(
        would.is_some_and(|entry| entry.allowed() == Some(true) && entry.body()["verdict"]["would_deny"] == "orders/no-drop"),
        "{statements:?}"
    );
    Ok(())
}

#[test]
fn a_destination_that_nobody_named_is_refused() -> Result<()> {
    let mut scene = Scene::with_postgres()?;
    scene.start_api(false)?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let seen = scene.curl("/plain", &[])?;
    ensure!(!seen.success() || !seen.stdout.contains("ok"), "{}", seen.all());
    ensure!(scene.http()?.requests().is_empty(), "the request reached a server that no policy names");
    Ok(())
}

#[test]
fn a_destination_that_nobody_named_passes_untouched_where_the_policy_allows() -> Result<()> {
    let mut scene = Scene::with_postgres()?;
    scene.start_api(false)?;
    let _agent = scene.agent(&scene.postgres_policy("  unmatched: allow\n"))?;
    let seen = scene.curl("/plain", &[])?.require_success()?;
    ensure_contains(&seen.stdout, "ok")?;
    ensure_lacks(&format!("{:?}", scene.http()?.last_header("authorization")), "Bearer")?;
    let port = scene.http()?.port().to_string();
    ensure!(
        scene.journaled("session_opened")?.iter().any(|entry| entry.text("orig_dst").ends_with(&port)),
        "the session is not in the journal"
    );
    Ok(())
}

#[test]
fn a_name_in_hosts_is_resolved_by_the_agent() -> Result<()> {
    let mut scene = Scene::empty()?;
    // Not every machine's `localhost` has an IPv6 address.
    let settings = "listen_addresses = '127.0.0.1'\n".to_owned();
    let tls = Some(scene.authority.leaf("named", &["localhost"], &[])?);
    scene.start_postgres(&PostgresOptions { settings, tls, ..PostgresOptions::default() })?;
    let named = scene.postgres_policy("").replacen("hosts: [127.0.0.5, \"::1\"]", "hosts: [localhost]", 1);
    let _agent = scene.agent(&named)?;
    let seen = scene.psql_at("127.0.0.1", "sslmode=disable", &["select current_user"])?.require_success()?;
    ensure!(seen.stdout.trim() == "app");
    Ok(())
}

#[test]
fn a_workload_that_no_policy_names_is_refused_in_its_own_protocol() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let another = scene.selector().replace('}', ", uid: 54321}");
    let _agent = scene.agent(&scene.postgres_policy("").replace(&scene.selector(), &another))?;
    for tls in ["sslmode=disable", "sslmode=require"] {
        let seen = scene.psql_at("127.0.0.5", tls, &["select 1"])?;
        ensure!(!seen.success());
        ensure_contains(&seen.stderr, "FATAL:  no policy names this workload")?;
    }
    Ok(())
}

#[test]
fn a_policy_for_another_executable_does_not_apply() -> Result<()> {
    let scene = Scene::with_api()?;
    let curl = fs::canonicalize("/usr/bin/curl")?;
    let only_curl = scene.selector().replace('}', &format!(", exe: {}}}", curl.display()));
    let _agent = scene.agent(&scene.api_policy("{mode: off}", "", "").replace(&scene.selector(), &only_curl))?;
    ensure_contains(&scene.curl("/v1/items", &[])?.require_success()?.stdout, "lamp")?;
    let other = format!(
        "import urllib.request\nprint(urllib.request.urlopen('http://127.0.0.5:{}/v1/items').read())",
        scene.http()?.port()
    );
    ensure!(!scene.python(&other, &[])?.stdout.contains("lamp"));
    Ok(())
}
