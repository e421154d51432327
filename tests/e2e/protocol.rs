//! Everything else of PostgreSQL's protocol passes as if weir were not there.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{SERVER_V4, Scene};

use crate::{NO_DROP, ensure_contains, tells};

fn pgbench(scene: &Scene, arguments: &[&str]) -> Result<e2e::Seen> {
    let port = scene.db()?.port().to_string();
    let fixed = ["pgbench", "-h", SERVER_V4, "-p", &port, "-U", "nobody"];
    let words = fixed.into_iter().chain(arguments.iter().copied()).chain(["app"]);
    scene.client(words).deadline(Duration::from_secs(60)).run()
}

#[test]
fn pgbench_runs_in_every_protocol_mode_with_several_clients() -> Result<()> {
    let scene = Scene::with_postgres()?;
    scene.db()?.admin("alter role app superuser")?;
    // pgbench sets its tables up with DROP TABLE IF EXISTS, COPY and VACUUM: no guard here.
    let mut agent = scene.agent(&scene.postgres_policy(""))?;
    pgbench(&scene, &["-i", "-q", "-s", "1"])?.require_success()?;
    agent.stop()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    for mode in ["simple", "extended", "prepared"] {
        let seen = pgbench(&scene, &["-n", "-M", mode, "-c", "4", "-j", "2", "-t", "50"])?.require_success()?;
        ensure_contains(&seen.stdout, "number of transactions actually processed: 200/200")?;
        ensure_contains(&seen.stdout, "number of failed transactions: 0")?;
    }
    ensure!(scene.db()?.admin("select count(*) from pgbench_history")? == "600");
    Ok(())
}

pub(crate) fn pg_dump(scene: &Scene, arguments: &[&str]) -> Result<e2e::Seen> {
    let port = scene.db()?.port().to_string();
    let fixed = ["pg_dump", "-h", SERVER_V4, "-p", &port, "-U", "nobody"];
    let words = fixed.into_iter().chain(arguments.iter().copied()).chain(["app"]);
    scene.client(words).deadline(Duration::from_secs(60)).run()
}

#[test]
fn pg_dump_dumps_functions_views_and_sequences() -> Result<()> {
    let scene = Scene::with_postgres()?;
    scene.db()?.admin(
        "create sequence numbers; create view named as select id, name from users;
         create function twice(n int) returns int language sql as 'select n * 2'; create procedure nothing() language sql as 'select 1';
         create aggregate total(int) (sfunc = int4pl, stype = int); create domain positive as int check (value > 0);
         create type mood as enum ('good', 'bad'); create type pair as (a int, b text); create type span as range (subtype = int);
         create index on users (twice(id)); alter role app superuser",
    )?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    for arguments in [&["-s"][..], &[]] {
        let seen = pg_dump(&scene, arguments)?.require_success()?;
        for text in [
            "CREATE FUNCTION public.twice",
            "CREATE VIEW public.named",
            "CREATE SEQUENCE public.numbers",
            "CREATE DOMAIN",
            "CREATE TYPE public.span",
        ] {
            ensure_contains(&seen.stdout, text)?;
        }
        ensure!(seen.stdout.contains("COPY public.users") == arguments.is_empty());
    }
    Ok(())
}

#[test]
fn prepared_statements_of_sql_are_executed_by_name() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let statements = ["prepare p(int) as select $1 + 1", "execute p(41)", "deallocate p", "execute p(1)"];
    let seen = scene.psql_at(SERVER_V4, "sslmode=disable", &statements)?;
    ensure_contains(&seen.stdout, "42")?;
    ensure_contains(&seen.stderr, "runs code that cannot be seen through")?;
    let decided = scene.journaled("statement")?;
    ensure!(decided.iter().any(|entry| entry.body().to_string().contains("execute p(41)")), "{decided:?}");
    Ok(())
}

#[test]
fn a_client_library_may_bind_16_mib_and_is_told_of_a_statement_over_the_limit() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "size = 20 << 20\nlink = login()\n\
         body = b'\\0\\0' + struct.pack('!HHi', 0, 1, size) + b'v' * size + struct.pack('!H', 0)\n\
         link.sendall(parse('select length($1::text)') + message('B', body) + execute() + SYNC + query(\"select '\" + 'v' * size + \"'\") + query('select 2'))\n\
         for _ in range(3):\n    seen = until_ready(link)\n    print(kinds(seen), rows(seen), [fields(body)['C'] for kind, body in seen if kind == 'E'])",
    )?;
    ensure!(told.lines().eq(["12DCZ [[b'20971520']] []", "EZ [] ['54000']", "TDCZ [[b'2']] []"]), "{told}");
    Ok(())
}

#[test]
fn what_is_no_startup_packet_is_answered_in_words() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "for data in (b'GET / HTTP/1.1\\r\\n\\r\\n', b'SSH-2.0-OpenSSH_9.2\\r\\n', b'\\0' * 64, struct.pack('!I', 2**31) + b'x' * 100000):\n\
         \x20   link = connect()\n    push(link, data)\n    end = rest(link, 8)\n    print(end[:1], b'FATAL' in end, b'08P01' in end, end[-8:])",
    )?;
    ensure!(told.lines().count() == 4 && told.lines().all(|line| line == "b'E' True True b'<closed>'"), "{told}");
    Ok(())
}

#[test]
fn large_results_arrive_whole() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let seen = scene.psql("select repeat(n::text || '-', 1000) from generate_series(1, 5000) n")?.require_success()?;
    ensure!(seen.stdout.lines().count() == 5000);
    ensure!(seen.stdout.lines().enumerate().all(|(index, line)| line == format!("{}-", index + 1).repeat(1000)));
    Ok(())
}

#[test]
fn a_cell_of_many_megabytes_arrives_whole() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let seen = scene.psql("select repeat('x', 20000000)")?.require_success()?;
    ensure!(seen.stdout.len() == 20_000_001, "{} bytes", seen.stdout.len());
    Ok(())
}

#[test]
fn gss_encryption_is_declined_and_clear_text_goes_on() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let told = tells(
        &scene,
        "link = connect()\nlink.sendall(struct.pack('!II', 8, 80877104))\nprint(exactly(link, 1).decode())\nlink.sendall(startup())\n\
         print(kinds(until_ready(link))[0])",
    )?;
    ensure!(told.lines().eq(["N", "R"]), "{told}");
    Ok(())
}

#[test]
fn portals_flow_in_parts() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(parse('select id from orders order by id') + bind() + describe() + execute(rows=3) + execute(rows=2) + SYNC)\n\
         seen = until_ready(link)\nprint(kinds(seen), rows(seen)[-1])",
    )?;
    ensure!(told.trim() == "12TDDDsDDsZ [b'5']", "{told}");
    Ok(())
}

#[test]
fn messages_that_arrive_byte_by_byte_are_understood() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = connect()\nfor byte in startup():\n    link.sendall(bytes([byte]))\nuntil_ready(link)\n\
         for byte in query('drop table x') + query('select 3'):\n    link.sendall(bytes([byte]))\n\
         print(kinds(until_ready(link)), kinds(until_ready(link)))",
    )?;
    ensure!(told.trim() == "EZ TDCZ", "{told}");
    Ok(())
}

#[test]
fn notifications_and_notices_reach_the_client() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let seen = scene.psql_at(
        SERVER_V4,
        "sslmode=disable",
        &["listen news", "notify news, 'paper'", "create table if not exists x (id int)"],
    )?;
    ensure_contains(&seen.stdout, "Asynchronous notification \"news\" with payload \"paper\"")?;
    ensure_contains(&seen.stderr, "already exists, skipping")
}

#[test]
fn a_half_closed_client_still_gets_its_answer() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(query(\"select 'last words'\") + message('X'))\nlink.shutdown(socket.SHUT_WR)\nprint(rest(link, 5))",
    )?;
    ensure_contains(&told, "last words")?;
    ensure_contains(&told, "<closed>")
}
