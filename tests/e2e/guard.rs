//! Statements that are refused: in the client's own words, with the connection alive and the server untouched.

use anyhow::{Result, ensure};
use e2e::{SERVER_V4, Scene};

use crate::{NO_DROP, ensure_contains, ensure_lacks, tells};

#[test]
fn drop_is_refused_with_the_rules_message_and_the_table_is_still_there() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let seen = scene.psql_at(SERVER_V4, "sslmode=disable", &["\\set VERBOSITY verbose", "drop table x"])?;
    ensure_contains(&seen.stderr, "42501")?;
    ensure_contains(&seen.stderr, "Destructive DDL needs a change ticket.")?;
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    ensure_lacks(&scene.db()?.log(), "drop table x")
}

#[test]
fn a_drop_that_is_hidden_in_code_is_refused() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let seen = scene.psql("do $$begin execute 'drop'||' table x'; end$$")?;
    ensure!(!seen.success(), "{}", seen.all());
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    Ok(())
}

#[test]
fn a_drop_behind_another_statement_of_the_same_message_is_refused_as_a_whole() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    ensure!(!scene.psql("insert into x values (2); drop table x")?.success());
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    Ok(())
}

#[test]
fn the_word_drop_in_a_string_or_comment_is_no_drop() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let seen = scene.psql("select 'DROP TABLE x' /* drop table x */")?.require_success()?;
    ensure!(seen.stdout.trim() == "DROP TABLE x");
    Ok(())
}

#[test]
fn a_text_that_cannot_be_read_is_refused() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let seen = scene.psql_at(SERVER_V4, "sslmode=disable", &["\\set VERBOSITY verbose", "selct 1 frm nowhere"])?;
    ensure_contains(&seen.stderr, "42601: weir cannot read this statement: syntax error at or near \"selct\"")?;
    ensure_contains(&seen.stderr, "onUnreadable")?;
    ensure_lacks(&scene.db()?.log(), "selct 1")
}

#[test]
fn settings_that_would_hide_later_statements_are_refused_and_the_session_stays_usable() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let statements = [
        "begin",
        "set standard_conforming_strings = off",
        "set client_encoding = 'SJIS'",
        "select set_config('client_encoding', 'big5', false)",
        "rollback",
        "select 'still ' || current_setting('standard_conforming_strings')",
    ];
    let seen = scene.psql_at(SERVER_V4, "sslmode=disable", &statements)?;
    ensure!(seen.stderr.matches("weir could not read later statements").count() == 3, "{}", seen.all());
    ensure_contains(&seen.stdout, "still on")?;
    for options in ["client_encoding=SJIS", "options='-c standard_conforming_strings=off'"] {
        let seen = scene.psql_at(SERVER_V4, &format!("sslmode=disable {options}"), &["select 1"])?;
        ensure!(!seen.success());
        ensure_contains(&seen.stderr, "FATAL")?;
        ensure_contains(&seen.stderr, "weir could not read later statements")?;
    }
    Ok(())
}

#[test]
fn the_connection_lives_on_after_a_refusal() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let seen = scene.psql_at(SERVER_V4, "sslmode=disable", &["drop table x", "select 'still here'"])?;
    ensure_contains(&seen.stdout, "still here")
}

#[test]
fn a_refusal_outside_a_transaction_leaves_the_status_idle() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(query('drop table x'))\nseen = until_ready(link)\nprint(kinds(seen), seen[-1][1].decode(), fields(seen[0][1])['C'])",
    )?;
    ensure!(told.trim() == "EZ I 42501", "{told}");
    Ok(())
}

#[test]
fn a_refusal_inside_a_transaction_tells_the_true_status() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(query('begin'))\nuntil_ready(link)\nlink.sendall(query('drop table x'))\n\
         seen = until_ready(link)\nprint(kinds(seen), seen[-1][1].decode())\nlink.sendall(query('select 7'))\nseen = until_ready(link)\n\
         print(kinds(seen), rows(seen))",
    )?;
    // The server's transaction never saw the refused statement: it is still open, and usable.
    ensure!(told.lines().eq(["EZ T", "TDCZ [[b'7']]"]), "{told}");
    Ok(())
}

#[test]
fn a_refused_parse_skips_the_pipeline_to_its_sync_and_no_further() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\n\
         link.sendall(parse('insert into x values (5)') + bind() + execute() + parse('drop table x') + bind() + execute()\n\
         \x20   + parse('insert into x values (6)') + bind() + execute() + SYNC\n\
         \x20   + parse('select 9') + bind() + describe() + execute() + SYNC)\n\
         first, second = until_ready(link), until_ready(link)\n\
         print(kinds(first), kinds(second), rows(second))",
    )?;
    ensure!(told.trim() == "12CEZ 12TDCZ [[b'9']]", "{told}");
    ensure!(scene.db()?.admin("select count(*) from x where id = 6")? == "0", "a message behind the refused one took effect");
    Ok(())
}

#[test]
fn a_refused_prepared_statement_cannot_be_bound_later() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(parse('drop table x', 'later') + SYNC)\nprint(kinds(until_ready(link)))\n\
         link.sendall(bind('later') + execute() + SYNC)\nprint(kinds(until_ready(link)))",
    )?;
    ensure!(told.lines().eq(["EZ", "EZ"]), "{told}");
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    Ok(())
}

#[test]
fn the_fast_path_function_call_is_refused() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(NO_DROP))?;
    let told = tells(
        &scene,
        "link = login()\nlink.sendall(message('F', struct.pack('!IHHH', 1598, 0, 0, 1)))\nprint(rest(link, 3)[:1].decode())",
    )?;
    ensure!(told.trim() == "E", "{told}");
    Ok(())
}

#[test]
fn a_rule_with_hold_denies_and_says_that_nobody_can_approve() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let rules = "  rules:\n    - {name: wide, hold: {effects: [delete]}, when: \"!stmt.hasWhere\", approval: {group: oncall, timeout: 10m}}\n";
    let _agent = scene.agent(&scene.postgres_policy(rules))?;
    ensure_contains(&scene.psql("delete from x")?.stderr, "no approval desk")?;
    scene.psql("delete from x where id = 77")?.require_success()?;
    ensure!(scene.db()?.admin("select count(*) from x")? == "1");
    Ok(())
}
