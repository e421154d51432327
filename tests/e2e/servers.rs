//! The harness itself: the servers that the other modules put behind weir work without it.

use anyhow::{Result, ensure};
use e2e::{APP_USERS, Client, HttpApi, PostgresOptions, SERVER_V4, SERVER_V6, Scene, Scratch, postgres_program};

fn psql(scene: &Scene, host: &str, user: &str, options: &str, password: &str) -> Result<e2e::Seen> {
    let target = format!("host={host} port={} dbname=app user={user} {options}", scene.db()?.port());
    Client::new([postgres_program("psql").as_os_str(), "-XAtwd".as_ref(), target.as_ref(), "-c".as_ref(), "select 1".as_ref()])
        .env("PGPASSWORD", password)
        .run()
}

#[test]
fn postgres_takes_every_kind_of_login_on_both_families_with_and_without_tls() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let root = format!("sslmode=verify-full sslrootcert={}", scene.authority.pem().display());
    for (host, options) in
        [(SERVER_V4, "sslmode=disable"), (SERVER_V6, "sslmode=disable"), (SERVER_V4, root.as_str()), (SERVER_V6, &root)]
    {
        for user in APP_USERS {
            let seen = psql(&scene, host, user.name(), options, scene.db()?.password())?;
            ensure!(seen.stdout.trim() == "1", "{host} {} {options}: {}", user.name(), seen.all());
        }
    }
    Ok(())
}

#[test]
fn postgres_refuses_a_wrong_password_and_clear_text_where_tls_is_demanded() -> Result<()> {
    let mut scene = Scene::empty()?;
    let tls = Some(scene.authority.server_leaf("postgres")?);
    scene.start_postgres(&PostgresOptions { tls, tls_only: true, ..PostgresOptions::default() })?;
    ensure!(psql(&scene, SERVER_V4, "app", "sslmode=require", "wrong")?.stderr.contains("password authentication failed"));
    ensure!(psql(&scene, SERVER_V4, "app", "sslmode=disable", scene.db()?.password())?.stderr.contains("no pg_hba.conf entry"));
    Ok(())
}

#[test]
fn the_api_wants_its_token_and_remembers_what_it_saw() -> Result<()> {
    let scratch = Scratch::new()?;
    let api = HttpApi::start(scratch.path(), None)?;
    let url = format!("http://{SERVER_V4}:{}/v1/items", api.port());
    let without = Client::new(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url]).run()?;
    ensure!(without.stdout == "401", "{}", without.all());
    let with = Client::new(["curl", "-s", "-H", &format!("Authorization: Bearer {}", api.secret()), &url]).run()?;
    ensure!(with.stdout.contains("key-of-the-lamp"), "{}", with.all());
    ensure!(api.requests().len() == 2);
    ensure!(api.last_header("authorization") == [format!("Bearer {}", api.secret())]);
    Ok(())
}

#[test]
fn a_client_runs_inside_the_workloads_cgroup() -> Result<()> {
    let scene = Scene::empty()?;
    let seen = scene.client(["cat", "/proc/self/cgroup"]).run()?;
    let line = format!("0::{}", scene.workload.path());
    ensure!(seen.stdout.lines().any(|found| found == line), "{}", seen.all());
    Ok(())
}

#[test]
fn the_api_leaks_its_secret_in_every_encoding_when_asked() -> Result<()> {
    let scene = Scene::with_api()?;
    let api = scene.http()?;
    let seen = Client::new(["curl", "-s", &format!("http://[{SERVER_V6}]:{}/v1/leak?key={}", api.port(), api.secret())]).run()?;
    let leaked: serde_json::Value = serde_json::from_str(&seen.stdout)?;
    ensure!(leaked["raw"] == api.secret() && leaked["unicode"] == api.secret(), "{leaked}");
    ensure!(leaked["hex"].as_str().is_some_and(|hex| hex.len() == 2 * api.secret().len()));
    Ok(())
}
