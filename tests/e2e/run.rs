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
