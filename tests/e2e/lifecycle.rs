//! An agent comes, goes, dies, and is followed by another; the workload is never in the open.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Agent, Client, Scene, wait_until};

use crate::{ensure_contains, ensure_lacks};

/// A command of `weir run` lives on when the agent that it runs under is replaced: it must not get the open network.
#[test]
fn a_command_of_run_stays_covered_when_the_agent_is_replaced() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let policies = scene.postgres_policy("").replace(&scene.selector(), "{name: me}");
    let mut agent = scene.agent(&policies)?;
    let (go, done) = (scene.scratch.join("go"), scene.scratch.join("done"));
    let script = format!(
        "touch {}; while ! test -e {}; do sleep 0.05; done; psql -XAtw -d 'host=127.0.0.5 port={} dbname=app user=nobody' -c 'select 1'",
        done.display(),
        go.display(),
        scene.db()?.port()
    );
    let control = scene.places.control();
    let mut words: Vec<std::ffi::OsString> = vec![e2e::weir_binary()?.into(), "run".into(), "--name".into(), "me".into()];
    words.extend(["--control".into(), control.into(), "--".into(), "sh".into(), "-c".into(), script.into()]);
    let mut client =
        Client::new(words).env("WEIR_RUNTIME_DIR", &scene.places.runtime).start(&scene.scratch.join("client.log"))?;
    wait_until("the command runs", Duration::from_secs(20), || done.exists())?;
    agent.kill()?;
    let _next = scene.agent(&policies)?;
    std::fs::write(&go, "")?;
    client.wait(Duration::from_secs(30))?;
    let log = client.log();
    ensure!(log.contains("no policy names this workload") || log.contains("refused"), "{log}");
    ensure!(!log.contains("no password supplied"), "it reached the server itself: {log}");
    Ok(())
}

#[test]
fn a_killed_agent_leaves_the_workload_refused_and_the_next_one_takes_over() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let mut agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("select 1")?.require_success()?;
    agent.kill()?;
    ensure_contains(&scene.psql("select 1")?.stderr, "Connection refused")?;
    let _next = Agent::start(&scene.places, &[])?;
    ensure!(scene.psql("select current_user")?.require_success()?.stdout.trim() == "app");
    scene.verify_journal()?.require_success()?;
    Ok(())
}

#[test]
fn a_task_outside_the_workload_is_not_touched_by_any_of_this() -> Result<()> {
    let scene = Scene::with_api()?;
    let mut agent = scene.agent(&scene.api_policy("{mode: off}", "", ""))?;
    let url = format!("http://127.0.0.5:{}/v1/items", scene.http()?.port());
    let outside = e2e::Client::new(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    ensure!(outside.run()?.stdout == "401");
    agent.kill()?;
    ensure!(outside.run()?.stdout == "401");
    Ok(())
}

#[test]
fn a_second_agent_is_refused_and_told_the_pid_of_the_first() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent(&scene.postgres_policy(""))?;
    let mut places = scene.places.clone();
    places.log = scene.scratch.join("second.log");
    let mut second = Agent::spawn(&places, &[])?;
    let status = second.wait(Duration::from_secs(20))?;
    ensure!(!status.success(), "{}", second.log());
    ensure_contains(&second.log(), &agent.pid().to_string())?;
    scene.psql("select 1")?.require_success()?;
    Ok(())
}

#[test]
fn an_agent_without_rights_says_so_before_anything_else() -> Result<()> {
    let scene = Scene::empty()?;
    let weir = e2e::weir_binary()?;
    let absent = scene.scratch.join("absent").into_os_string();
    let agent = ["agent".into(), "--config".into(), absent.clone(), "--policies".into(), absent];
    let without = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"].map(Into::into);
    let seen = e2e::Client::new(without.into_iter().chain([weir.into_os_string()]).chain(agent)).run()?;
    ensure!(seen.status.code() == Some(3), "{:?} {}", seen.status, seen.all());
    ensure_contains(&seen.stderr, "needs root")?;
    ensure_lacks(&seen.stderr, "absent")
}

#[test]
fn asking_where_no_agent_runs_fails_in_json_too() -> Result<()> {
    let scene = Scene::empty()?;
    let control = scene.places.control();
    for command in ["status", "sessions", "reload"] {
        let seen = e2e::weir([command.as_ref(), "--json".as_ref(), "--control".as_ref(), control.as_os_str()])?;
        ensure!(seen.status.code() == Some(1), "{command}: {:?}", seen.status);
        let said: serde_json::Value = serde_json::from_str(&seen.stdout)?;
        ensure!(said["error"].as_str().is_some_and(|error| error.contains("control.sock")), "{command}: {said}");
    }
    Ok(())
}

#[test]
fn versions_of_credentials_can_be_compared_over_restarts() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let mut agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("select 1")?.require_success()?;
    agent.stop()?;
    let _next = Agent::start(&scene.places, &[])?;
    scene.psql("select 1")?.require_success()?;
    let injected = scene.journaled("credential_injected")?;
    let [first, second] = injected.as_slice() else { anyhow::bail!("{injected:?}") };
    ensure!(!first.text("version").is_empty() && first.text("version") == second.text("version"), "{injected:?}");
    Ok(())
}

#[test]
fn status_and_sessions_tell_what_runs() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent(&scene.postgres_policy(""))?;
    ensure!(agent.status()?["pid"] == agent.pid(), "{}", agent.status()?);
    let target = format!("host=127.0.0.5 port={} dbname=app user=nobody", scene.db()?.port());
    let _held = scene.client(["psql", "-Xwd", &target, "-c", "select pg_sleep(20)"]).start(&scene.scratch.join("held.log"))?;
    let control = scene.places.control();
    let sessions = || {
        let words = ["sessions".as_ref(), "--json".as_ref(), "--control".as_ref(), control.as_os_str()];
        e2e::weir(words).map(|seen| seen.stdout).unwrap_or_default()
    };
    e2e::wait_until("the open session is listed", Duration::from_secs(20), || sessions().contains("postgres"))
}

#[test]
fn a_clean_stop_ends_well_and_says_nothing_secret() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let mut agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("select 1")?.require_success()?;
    agent.stop()?;
    ensure_lacks(&agent.log(), scene.db()?.password())?;
    ensure!(!scene.journaled("agent_stopped")?.is_empty());
    Ok(())
}

#[test]
fn open_sessions_are_in_the_journal_after_a_kill() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let mut agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("select 'before the kill'")?.require_success()?;
    agent.kill()?;
    let _next = Agent::start(&scene.places, &[])?;
    let statements = scene.journaled("statement")?;
    ensure!(statements.iter().any(|entry| entry.text("text").contains("before the kill")), "{statements:?}");
    Ok(())
}
