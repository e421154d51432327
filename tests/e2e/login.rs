//! Logging in: weir answers the client, and logs in itself with what only it knows.

use anyhow::{Context, Result, ensure};
use e2e::{APP_USERS, AppUser, PostgresOptions, SERVER_V4, SERVER_V6, Scene};

use crate::{ensure_contains, ensure_lacks};

const WHO: &str =
    "select current_user || ' ' || coalesce((select version from pg_stat_ssl where pid = pg_backend_pid()), 'clear')";

fn verified(scene: &Scene) -> String {
    format!("{{mode: verify-full, ca: {}}}", scene.authority.pem().display())
}

#[test]
fn psql_without_a_password_is_the_injected_user_on_both_families() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    for host in [SERVER_V4, SERVER_V6] {
        let seen = scene.psql_at(host, "sslmode=disable", &[WHO])?.require_success()?;
        ensure!(seen.stdout.trim() == "app TLSv1.3", "{host}: {}", seen.all());
    }
    Ok(())
}

#[test]
fn downstream_tls_is_taken_in_every_mode_of_libpq() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let agent = scene.agent(&scene.postgres_policy(""))?;
    let status = agent.status()?;
    let ca = status["ca"].as_str().context("status does not name the authority's certificate")?;
    for host in [SERVER_V4, SERVER_V6] {
        for options in
            ["sslmode=prefer".to_owned(), "sslmode=require".to_owned(), format!("sslmode=verify-full sslrootcert={ca}")]
        {
            let seen = scene.psql_at(host, &options, &["\\conninfo", WHO])?.require_success()?;
            ensure_contains(&seen.stdout, "SSL connection")?;
            ensure_contains(&seen.stdout, "app TLSv1.3")?;
        }
    }
    Ok(())
}

#[test]
fn downstream_tls_is_declined_where_the_policy_says_so() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let policy =
        scene.postgres_policy("").replacen("  protocol: postgres\n", "  protocol: postgres\n  downstream: {tls: decline}\n", 1);
    let _agent = scene.agent(&policy)?;
    ensure_lacks(&scene.psql_at(SERVER_V4, "sslmode=prefer", &["\\conninfo"])?.require_success()?.stdout, "SSL connection")?;
    ensure_contains(&scene.psql_at(SERVER_V4, "sslmode=require", &["select 1"])?.stderr, "does not support SSL")
}

#[test]
fn every_login_method_of_the_server_is_answered_under_verified_tls() -> Result<()> {
    let scene = Scene::with_postgres()?;
    for user in APP_USERS {
        let mut agent = scene.agent(&scene.postgres_policy_with(&verified(&scene), user.name(), ""))?;
        let seen = scene.psql(WHO)?.require_success()?;
        ensure!(seen.stdout.trim() == format!("{} TLSv1.3", user.name()), "{user:?}: {}", seen.all());
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn scram_is_bound_to_the_channel_where_the_server_offers_it() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("select 1")?.require_success()?;
    let injected = scene.journaled("credential_injected")?;
    let method = injected.first().map(|entry| entry.text("method").to_lowercase()).unwrap_or_default();
    ensure!(method == "scram-sha-256-plus", "{injected:?}");
    Ok(())
}

#[test]
fn a_clear_upstream_leg_takes_scram_and_md5_but_never_a_password_in_clear() -> Result<()> {
    let scene = Scene::with_postgres()?;
    for (user, works) in [(AppUser::Scram, true), (AppUser::Md5, true), (AppUser::Cleartext, false)] {
        let mut agent = scene.agent(&scene.postgres_policy_with("{mode: off}", user.name(), ""))?;
        let seen = scene.psql(WHO)?;
        ensure!(seen.success() == works, "{user:?}: {}", seen.all());
        ensure_lacks(&seen.all(), scene.db()?.password())?;
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn an_encrypted_but_unverified_leg_sends_no_password_in_clear_either() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy_with("{mode: require}", AppUser::Cleartext.name(), ""))?;
    ensure!(!scene.psql(WHO)?.success());
    Ok(())
}

#[test]
fn what_the_client_sent_as_password_and_user_is_dropped() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let target = format!("host={SERVER_V4} port={} dbname=app user=postgres password=from-the-client", scene.db()?.port());
    let seen = scene.client(["psql", "-XAtd", &target, "-c", "select current_user"]).run()?.require_success()?;
    ensure!(seen.stdout.trim() == "app", "{}", seen.all());
    Ok(())
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_demanded_and_used_where_it_is_off() -> Result<()> {
    let mut scene = Scene::empty()?;
    scene.start_postgres(&PostgresOptions::default())?;
    let mut agent = scene.agent(&scene.postgres_policy(""))?;
    let seen = scene.psql("select 1")?;
    ensure!(!seen.success() && seen.stderr.to_lowercase().contains("tls"), "{}", seen.all());
    ensure!(!scene.db()?.log().contains("user=app"), "the login reached a server without TLS");
    agent.stop()?;
    let _agent = scene.agent(&scene.postgres_policy_with("{mode: off}", "app", ""))?;
    ensure!(scene.psql(WHO)?.require_success()?.stdout.trim() == "app clear");
    Ok(())
}
