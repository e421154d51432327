//! Values that do not reach the client, whatever way they are asked for.

use anyhow::{Result, ensure};
use e2e::Scene;

use crate::{ensure_contains, ensure_lacks, tells};

const MASKS: &str = "  mask:
    - {name: passwords, columns: [\"*.users.password\"], with: \"null\"}
    - {name: people, columns: [\"public.users.email\"], with: {keepDomain: true}}
";

fn masked() -> Result<(Scene, e2e::Agent)> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent(&scene.postgres_policy(MASKS))?;
    Ok((scene, agent))
}

#[test]
fn columns_are_masked_and_others_are_not() -> Result<()> {
    let (scene, _agent) = masked()?;
    let seen = scene.psql("select id, name, email, password from users order by id")?.require_success()?;
    ensure!(seen.stdout == "1|Ann|***@example.com|\n2|Bob|***@example.org|\n", "{}", seen.all());
    Ok(())
}

#[test]
fn an_alias_a_star_a_join_and_a_view_do_not_unmask() -> Result<()> {
    let (scene, _agent) = masked()?;
    scene.db()?.admin("create view people as select id, email as contact from users; grant select on people to app")?;
    for sql in [
        "select email as harmless from users",
        "select * from users",
        "table users",
        "select u.email from users u join orders o on o.id = u.id",
        "with t as (select email from users) select * from t",
        "select contact from people",
        "select (select email from users where id = 1) as a",
    ] {
        let seen = scene.psql(sql)?;
        ensure_lacks(&seen.all(), "ann@")?;
        ensure_lacks(&seen.all(), "hunter2")?;
    }
    Ok(())
}

#[test]
fn an_expression_over_a_masked_column_does_not_unmask() -> Result<()> {
    let (scene, _agent) = masked()?;
    for sql in [
        "select upper(email) from users",
        "select email || '' from users",
        "select row_to_json(u)::text from users u",
        "select u::text from users u",
        "select string_agg(password, ',') from users",
        "select md5(password) from users union select password from users",
    ] {
        let seen = scene.psql(sql)?;
        for text in ["ann@", "ANN@", "hunter2"] {
            ensure!(!seen.all().contains(text), "{sql}: {}", seen.all());
        }
    }
    Ok(())
}

#[test]
fn binary_results_are_masked_like_text() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = tells(
        &scene,
        "link = login()\n\
         link.sendall(parse('select id, email, password from users where id = 1') + bind(binary=True) + describe() + execute() + SYNC)\n\
         seen = until_ready(link)\nprint(kinds(seen), rows(seen))",
    )?;
    ensure_contains(&told, r"[[b'\x00\x00\x00\x01', b'***@example.com', None]]")
}

#[test]
fn a_prepared_statement_that_is_not_described_again_is_masked() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(parse('select email from users where id = 1', 's') + describe('S', 's') + SYNC)\nuntil_ready(link)\n\
         for _ in range(3):\n    link.sendall(bind('s') + execute() + SYNC)\n    print(rows(until_ready(link)))",
    )?;
    ensure!(told.lines().count() == 3 && told.lines().all(|line| line == "[[b'***@example.com']]"), "{told}");
    Ok(())
}

#[test]
fn a_result_that_was_never_described_is_masked_or_refused() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(parse('select email, password from users') + bind() + execute() + SYNC)\nprint(rest(link, 3))",
    )?;
    ensure_lacks(&told, "ann@")?;
    ensure_lacks(&told, "hunter2")
}

#[test]
fn copy_out_of_a_masked_table_is_refused_and_out_of_another_is_not() -> Result<()> {
    let (scene, _agent) = masked()?;
    for sql in ["copy users to stdout", "copy (select email from users) to stdout"] {
        let seen = scene.psql(sql)?;
        ensure!(!seen.success() && !seen.stdout.contains("ann@"), "{sql}: {}", seen.all());
    }
    for sql in [
        "copy (select id from orders where id < 3 order by id) to stdout",
        "copy users (id) to stdout",
        "copy (select id from users where email like '%' order by id) to stdout",
    ] {
        let seen = scene.psql(sql)?.require_success()?;
        ensure!(seen.stdout == "1\n2\n", "{sql}: {}", seen.all());
    }
    Ok(())
}

#[test]
fn copy_in_works() -> Result<()> {
    let (scene, _agent) = masked()?;
    let target = format!("host=127.0.0.5 port={} dbname=app user=nobody", scene.db()?.port());
    let seen = scene.client(["psql", "-XqAtwd", &target, "-c", "copy x from stdin"]).input("10\n11\n").run()?;
    seen.require_success()?;
    ensure!(scene.db()?.admin("select count(*) from x")? == "3");
    Ok(())
}

#[test]
fn errors_and_notices_of_a_masked_table_hold_no_value() -> Result<()> {
    let (scene, _agent) = masked()?;
    scene.db()?.admin("create unique index on users (email)")?;
    for sql in [
        "update users set email = 'bob@example.org' where id = 1",
        "select email::int from users where id = 1",
        "select 1/(case when password = 'hunter2-ann' then 0 else 1 end), password::int from users",
    ] {
        let seen = scene.psql(sql)?;
        for text in ["ann@", "hunter2-"] {
            ensure!(!seen.all().replace(sql, "").contains(text), "{sql}: {}", seen.all());
        }
    }
    Ok(())
}

#[test]
fn the_journal_counts_the_masks() -> Result<()> {
    let (scene, _agent) = masked()?;
    scene.psql("select email from users")?.require_success()?;
    let masks = scene.journaled("masks")?;
    ensure!(masks.iter().any(|entry| entry.text("mask") == "orders/people" && entry.body()["count"] == 2), "{masks:?}");
    Ok(())
}

#[test]
fn masked_columns_are_stored_and_sent_nowhere() -> Result<()> {
    let (scene, _agent) = masked()?;
    scene.db()?.admin("create table kept (id int, name text); grant all on kept to app; grant all on users to app; grant create on schema public to app; insert into kept values (1, 'plain')")?;
    for sql in [
        "listen foo; select pg_notify('foo', email) from users",
        "listen foo; with x as (select email as c from users) select pg_notify('foo', c) from x",
        "insert into kept select id, email from users returning name",
        "insert into users (id, name) values (1, '') on conflict (id) do update set name = users.email returning name",
        "update users set name = email returning name",
        "update kept set name = q.c from (select email as c from users) q returning name",
        "with x as (select email as c from users), y as (insert into kept select 1, c from x returning name) select * from y",
        "create table copied as select email as c from users",
        "create temp table copied as select email as c from users; select * from copied",
        "select email as c into copied from users",
        "merge into kept using users u on true when matched then update set name = u.email",
        "with x as (select email as c from users) merge into kept using x on true when matched then update set name = x.c",
        "select set_config('weir.x', email, false) from users",
        "select lo_from_bytea(0, email::bytea) from users",
        "select pg_logical_emit_message(true, 'x', email) from users",
        "prepare p as select email as c from users; create table copied as execute p",
    ] {
        let seen = scene.psql(sql)?;
        ensure!(!seen.success(), "{sql}: {}", seen.all());
        ensure_lacks(&seen.all(), "ann@")?;
    }
    ensure!(scene.db()?.admin("select count(*) from kept where name <> 'plain'")? == "0");
    let seen = scene.psql("insert into kept values (2, 'a@b.c') returning name")?.require_success()?;
    ensure!(seen.stdout.starts_with("a@b.c\n"), "{}", seen.all());
    Ok(())
}

#[test]
fn statements_that_sql_prepared_are_masked() -> Result<()> {
    let (scene, _agent) = masked()?;
    let statements = [
        "prepare p(int) as select id, upper(email) from users where id = $1",
        "execute p(1)",
        "create table copied as execute p(1)",
    ];
    let seen = scene.psql_at(e2e::SERVER_V4, "sslmode=disable", &statements)?;
    ensure_contains(&seen.stdout, "1|")?;
    ensure_contains(&seen.stderr, "masked columns cannot be copied")?;
    ensure_lacks(&seen.all(), "ANN@")
}

#[test]
fn parameters_over_16_mib_pass_under_masks() -> Result<()> {
    let (scene, _agent) = masked()?;
    let told = tells(
        &scene,
        "size = 20 << 20\nlink = login()\n\
         body = b'\\0\\0' + struct.pack('!HHi', 0, 1, size) + b'v' * size + struct.pack('!HH', 1, 1)\n\
         link.sendall(parse('select length($1::text), email from users where id = 1') + message('B', body) + execute() + SYNC)\n\
         seen = until_ready(link)\nprint(kinds(seen), rows(seen))",
    )?;
    ensure!(told.trim() == r"12DCZ [[b'\x01@\x00\x00', b'***@example.com']]", "{told}");
    Ok(())
}

#[test]
fn pg_dump_takes_what_is_not_masked() -> Result<()> {
    let (scene, _agent) = masked()?;
    let seen = super::protocol::pg_dump(&scene, &["-t", "orders"])?.require_success()?;
    ensure_contains(&seen.stdout, "COPY public.orders")?;
    let seen = super::protocol::pg_dump(&scene, &["-t", "users"])?;
    ensure!(!seen.success());
    ensure_lacks(&seen.all(), "ann@")
}
