//! CancelRequest reaches exactly the backend that it is meant for.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{Scene, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::{ensure_contains, tells};

#[test]
fn interrupting_psql_cancels_its_statement_on_the_server() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let target = format!("host=127.0.0.5 port={} dbname=app user=nobody sslmode=disable", scene.db()?.port());
    let log = scene.scratch.join("psql.log");
    let mut client = scene.client(["psql", "-XAtwd", &target, "-c", "select pg_sleep(60)"]).start(&log)?;
    let active =
        || scene.db()?.admin("select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'");
    wait_until("the statement runs", Duration::from_secs(20), || active().is_ok_and(|count| count == "1"))?;
    let pid = i32::try_from(client.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.ok_or_else(|| anyhow::anyhow!("no pid"))?, Signal::INT)?;
    let asked = Instant::now();
    client.wait(Duration::from_secs(20))?;
    ensure_contains(&client.log(), "canceling statement due to user request")?;
    ensure!(active()? == "0" && asked.elapsed() < Duration::from_secs(20));
    Ok(())
}

#[test]
fn a_cancel_request_with_a_wrong_key_cancels_nothing() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let told = tells(
        &scene,
        "link = connect()\nlink.sendall(startup())\nkey = None\nkind = ''\n\
         while kind != 'Z':\n    kind, body = read(link)\n    key = body if kind == 'K' else key\n\
         link.sendall(query('select pg_sleep(2), 5'))\n\
         wrong = connect()\nwrong.sendall(struct.pack('!II', 16, 80877102) + key[:4] + bytes([key[4] ^ 1]) + key[5:])\nrest(wrong, 2)\n\
         print(kinds(until_ready(link)))",
    )?;
    ensure!(told.trim() == "TDCZ", "{told}");
    Ok(())
}

#[test]
fn a_cancel_request_by_hand_with_the_right_key_cancels() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let told = tells(
        &scene,
        "link = connect()\nlink.sendall(startup())\nkey = None\nkind = ''\n\
         while kind != 'Z':\n    kind, body = read(link)\n    key = body if kind == 'K' else key\n\
         link.sendall(query('select pg_sleep(30)'))\ntime.sleep(0.5)\n\
         other = connect()\nother.sendall(struct.pack('!II', 16, 80877102) + key)\n\
         seen = until_ready(link)\nprint(fields([body for kind, body in seen if kind == 'E'][0])['C'])",
    )?;
    ensure!(told.trim() == "57014", "{told}");
    Ok(())
}
