//! `weir run`: one command, protected, with everything about it its own.

use std::{ffi::OsString, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Client, Scene, weir_binary};

use crate::{NO_DROP, ensure_contains, ensure_lacks};

/// `weir run --name demo ... -- CMD`, with policies that select by that name.
fn run(scene: &Scene, policies: &str, command: &[&str]) -> Result<Client> {
    scene.write_policies(&policies.replace(&scene.selector(), "{name: demo}"))?;
    let mut words: Vec<OsString> = vec![weir_binary()?.into(), "run".into(), "--name".into(), "demo".into(), "--policies".into()];
    words.extend([scene.places.policies.clone().into(), "--journal".into(), scene.places.journal.clone().into()]);
    words.extend(["--control".into(), scene.places.control().into(), "--".into()]);
    words.extend(command.iter().map(OsString::from));
    Ok(Client::new(words).env("WEIR_RUNTIME_DIR", &scene.places.runtime).deadline(Duration::from_secs(60)))
}

fn target(scene: &Scene) -> Result<String> {
    Ok(format!("host=127.0.0.5 port={} dbname=app user=nobody", scene.db()?.port()))
}

#[test]
fn psql_is_protected_by_one_command() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let target = target(&scene)?;
    let client = run(
        &scene,
        &scene.postgres_policy(NO_DROP),
        &["psql", "-XAtwd", &target, "-c", "select current_user", "-c", "drop table x"],
    )?;
    let seen = client.run()?;
    ensure!(seen.stdout.trim() == "app", "{}", seen.all());
    ensure_contains(&seen.stderr, "Destructive DDL needs a change ticket.")?;
    ensure_lacks(&seen.all(), "weir:")?;
    ensure!(seen.status.code() == Some(1));
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    scene.verify_journal()?.require_success()?;
    Ok(())
}

#[test]
fn input_output_and_exit_status_are_the_commands_own() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let client = run(&scene, &scene.postgres_policy(""), &["sh", "-c", "cat; echo problem >&2; exit 42"])?;
    let seen = client.input("from the left\n").run()?;
    ensure!(seen.stdout == "from the left\n" && seen.stderr == "problem\n", "{}", seen.all());
    ensure!(seen.status.code() == Some(42), "{:?}", seen.status);
    Ok(())
}

#[test]
fn a_command_that_is_not_there_is_said_so() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let seen = run(&scene, &scene.postgres_policy(""), &["no-such-command-anywhere"])?.run()?;
    ensure!(!seen.success());
    ensure_contains(&seen.stderr, "no-such-command-anywhere")
}

#[test]
fn the_environment_reaches_the_command_as_it_was() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let seen = run(&scene, &scene.postgres_policy(""), &["env"])?.env("MINE", "as it was").run()?.require_success()?;
    ensure_contains(&seen.stdout, "MINE=as it was")?;
    ensure_lacks(&seen.stdout, scene.db()?.password())
}

#[test]
fn a_credential_in_the_environment_is_not_handed_down() -> Result<()> {
    let scene = Scene::with_api()?;
    let policies = "apiVersion: weir/v1\nkind: Credential\nmetadata: {name: c}\nspec: {token: {env: WEIR_TEST_TOKEN}}\n---\n\
         apiVersion: weir/v1\nkind: Upstream\nmetadata: {name: u}\nspec: {hosts: [127.0.0.5], protocol: http, tls: {mode: off}}\n---\n\
         apiVersion: weir/v1\nkind: Policy\nmetadata: {name: p}\nspec: {workloads: [{name: demo}], upstreams: [{name: u}], inject: {credential: c}}\n";
    let token = scene.http()?.secret().to_owned();
    let url = format!("http://127.0.0.5:{}/v1/items", scene.http()?.port());
    let client = run(&scene, policies, &["sh", "-c", &format!("env; curl -s -o /dev/null -w '%{{http_code}}' {url}")])?;
    let seen = client.env("WEIR_TEST_TOKEN", &token).env("WEIR_TEST_OTHER", "kept").run()?.require_success()?;
    ensure_lacks(&seen.stdout, &token)?;
    ensure_contains(&seen.stdout, "WEIR_TEST_OTHER=kept")?;
    ensure!(seen.stdout.ends_with("200"), "the agent itself must have it: {}", seen.all());
    Ok(())
}

#[test]
fn a_socket_made_outside_is_not_handed_down() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let command = run(&scene, &scene.postgres_policy(""), &["ls", "-l", "/proc/self/fd"])?;
    let outer = "import os, socket, sys\n\
        kept = socket.socket()\n\
        os.dup2(kept.fileno(), 9)\n\
        os.set_inheritable(9, True)\n\
        os.execvp(sys.argv[1], sys.argv[1:])\n";
    let seen = command.inside(["python3", "-c", outer]).run()?.require_success()?;
    ensure_lacks(&seen.stdout, "socket:")
}

#[test]
fn a_standard_stream_that_could_be_connected_is_refused() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let command = run(&scene, &scene.postgres_policy(""), &["true"])?;
    let outer = "import os, socket, sys\n\
        kept = socket.socket()\n\
        os.dup2(kept.fileno(), 0)\n\
        os.execvp(sys.argv[1], sys.argv[1:])\n";
    let seen = command.inside(["python3", "-c", outer]).run()?;
    ensure!(seen.status.code() == Some(2), "{}", seen.all());
    ensure_contains(&seen.stderr, "standard input is a socket that is not connected")
}

#[test]
fn two_runs_at_once_keep_two_journals() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let state = scene.scratch.directory("state")?;
    scene.write_policies(&scene.postgres_policy("").replace(&scene.selector(), "{name: demo}"))?;
    let client = |command: &[&str]| -> Result<Client> {
        let mut words: Vec<OsString> =
            vec![weir_binary()?.into(), "run".into(), "--name".into(), "demo".into(), "--policies".into()];
        words.extend([scene.places.policies.clone().into(), "--".into()]);
        words.extend(command.iter().map(OsString::from));
        let client = Client::new(words).env("WEIR_RUNTIME_DIR", &scene.places.runtime).env("WEIR_STATE_DIR", &state);
        Ok(client.deadline(Duration::from_secs(60)))
    };
    let inner = format!("exec psql -XAtwd '{}' -c 'select 41 + 1'", target(&scene)?);
    let held = client(&["sleep", "2"])?;
    let outer = std::thread::spawn(move || held.run());
    std::thread::sleep(Duration::from_millis(700));
    let seen = client(&["sh", "-c", &inner])?.run()?.require_success()?;
    ensure!(seen.stdout.trim() == "42", "{}", seen.all());
    ensure!(outer.join().map_err(|_| anyhow::anyhow!("the first run panicked"))??.success());
    Ok(())
}

#[test]
fn an_agent_that_runs_already_is_used() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let target = target(&scene)?;
    let policies = scene.postgres_policy("").replace(&scene.selector(), "{name: demo}");
    let agent = scene.agent_with(&policies, &[])?;
    let mut words: Vec<OsString> = vec![weir_binary()?.into(), "run".into(), "--name".into(), "demo".into(), "--control".into()];
    words.extend([scene.places.control().into(), "--".into()]);
    words.extend(["psql", "-XAtwd", &target, "-c", "select current_user"].map(OsString::from));
    let seen = Client::new(words).env("WEIR_RUNTIME_DIR", &scene.places.runtime).within(&scene.top).run()?;
    ensure!(seen.stdout.trim() == "app", "{}", seen.all());
    ensure!(agent.status()?["pid"] == agent.pid());
    Ok(())
}

#[test]
fn without_root_it_says_exactly_what_is_missing() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let copy = scene.scratch.join("weir");
    std::fs::copy(weir_binary()?, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).args(["run", "--", "true"]);
    let output = command.output().context("run setpriv")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(3), "{:?} {said}", output.status);
    ensure_contains(&said.to_lowercase(), "root")
}
