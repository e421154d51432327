//! When a part fails: every row of the table "When a part fails" in ARCHITECTURE.md. Nothing passes in the open.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Authority, SERVER_V4, Scene};

use crate::{ensure_contains, ensure_lacks};

#[test]
fn fails_closed_when_the_credentials_file_is_missing() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    fs::remove_file(scene.secret_file("postgres"))?;
    let seen = scene.psql_at(SERVER_V4, "sslmode=disable", &["select 1"])?;
    ensure_contains(&seen.stderr, "FATAL")?;
    let session = scene.journaled("session_closed")?;
    ensure!(session.iter().any(|entry| entry.text("reason") == "credential-unavailable"), "{session:?}");
    // Where the secret lies is for the journal, not for the workload.
    let file = scene.secret_file("postgres").display().to_string();
    ensure!(session.iter().any(|entry| entry.text("detail").contains(&file)), "{session:?}");
    ensure_contains(&seen.stderr, "credential db-app")?;
    ensure_lacks(&seen.stderr, &file)?;
    let id = session.first().and_then(|entry| entry.session()).unwrap_or("no session").to_owned();
    ensure_contains(&seen.stderr, &id)?;
    scene.scratch.secret("postgres", scene.db()?.password())?;
    let works = || scene.psql("select 1").is_ok_and(|seen| seen.success());
    e2e::wait_until("the file that came back is read", Duration::from_secs(20), works)
}

#[test]
fn fails_closed_when_the_server_rejects_the_credential() -> Result<()> {
    let scene = Scene::with_postgres()?;
    fs::write(scene.secret_file("postgres"), "not-the-password")?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    let told =
        crate::tells(&scene, "link = connect()\nlink.sendall(startup())\nkind, body = read(link)\nprint(kind, fields(body))")?;
    ensure_contains(&told, "'S': 'FATAL'")?;
    ensure_contains(&told, "'C': '28000'")?;
    ensure_lacks(&told, "not-the-password")?;
    ensure!(scene.journaled("session_closed")?.iter().any(|entry| entry.text("reason") == "credential-rejected"));
    Ok(())
}

#[test]
fn fails_closed_when_the_tokens_file_is_missing_and_the_clients_own_is_not_sent_instead() -> Result<()> {
    let scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy("{mode: off}", "", ""))?;
    fs::remove_file(scene.secret_file("api"))?;
    let own = format!("Authorization: Bearer {}", scene.http()?.secret());
    let seen = scene.curl("/v1/items", &["-H", &own, "-w", "\n%{http_code}"])?;
    ensure!(!seen.stdout.ends_with("200"), "{}", seen.all());
    ensure!(
        scene.http()?.requests().iter().all(|request| !request.to_string().contains(scene.http().map_or("", |api| api.secret())))
    );
    Ok(())
}

#[test]
fn an_upstream_that_is_down_is_told_in_postgres_words() -> Result<()> {
    let mut scene = Scene::with_postgres()?;
    let policy = scene.postgres_policy("");
    let _agent = scene.agent(&policy)?;
    scene.postgres.as_mut().context("no server")?.stop()?;
    let seen = scene.psql("select 1")?;
    ensure_contains(&seen.stderr, "FATAL")?;
    ensure!(scene.journaled("session_closed")?.iter().any(|entry| entry.text("reason") == "upstream-unreachable"));
    Ok(())
}

#[test]
fn an_upstream_that_is_down_is_told_in_https_words() -> Result<()> {
    let mut scene = Scene::with_api()?;
    let _agent = scene.agent(&scene.api_policy("{mode: off}", "", ""))?;
    scene.api.as_mut().context("no server")?.stop()?;
    let seen = scene.curl("/v1/items", &["-w", "\n%{http_code}"])?;
    ensure!(["502", "503", "504"].iter().any(|status| seen.stdout.ends_with(status)), "{}", seen.all());
    Ok(())
}

#[test]
fn an_upstream_that_resets_is_told_in_https_words() -> Result<()> {
    let scene = Scene::with_api()?;
    let agent = scene.agent(&scene.api_policy("{mode: off}", "", ""))?;
    let seen = scene.curl("/reset", &["-w", "\n%{http_code}"])?;
    ensure!(["502", "503"].iter().any(|status| seen.stdout.ends_with(status)), "{}", seen.all());
    ensure!(agent.lives());
    Ok(())
}

#[test]
fn a_wrong_certificate_is_refused_before_the_credential_is_sent() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let other = Authority::new(&scene.scratch.directory("other")?, "other")?;
    let tls = format!("{{mode: verify-full, ca: {}}}", other.pem().display());
    let _agent = scene.agent(&scene.postgres_policy_with(&tls, "app", ""))?;
    let seen = scene.psql("select 1")?;
    ensure_contains(&seen.stderr, "FATAL")?;
    ensure_contains(&seen.stderr.to_lowercase(), "certificate")?;
    ensure_lacks(&scene.db()?.log(), "authorized: user=app")?;
    ensure!(scene.journaled("session_closed")?.iter().any(|entry| entry.text("reason") == "upstream-tls"));
    ensure!(scene.journaled("credential_injected")?.is_empty());
    Ok(())
}

#[test]
fn a_certificate_for_another_name_is_refused_by_verify_full_and_taken_by_verify_ca() -> Result<()> {
    let mut scene = Scene::empty()?;
    let tls = Some(scene.authority.leaf("elsewhere", &["elsewhere.example"], &[])?);
    scene.start_postgres(&e2e::PostgresOptions { tls, ..Default::default() })?;
    let ca = scene.authority.pem().display().to_string();
    for (mode, works) in [("verify-full", false), ("verify-ca", true)] {
        let mut agent = scene.agent(&scene.postgres_policy_with(&format!("{{mode: {mode}, ca: {ca}}}"), "app", ""))?;
        let seen = scene.psql("select 1")?;
        ensure!(seen.success() == works, "{mode}: {}", seen.all());
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn an_https_upstream_with_a_wrong_certificate_never_sees_the_token() -> Result<()> {
    let mut scene = Scene::empty()?;
    scene.start_api(true)?;
    let other = Authority::new(&scene.scratch.directory("other")?, "other")?;
    let _agent = scene.agent(&scene.api_policy(&format!("{{mode: verify-full, ca: {}}}", other.pem().display()), "", ""))?;
    let seen = scene.curl("/v1/items", &["-w", "\n%{http_code}"])?;
    ensure!(seen.stdout.ends_with("502") || seen.stdout.ends_with("503"), "{}", seen.all());
    ensure!(scene.http()?.requests().is_empty());
    Ok(())
}

/// A small file system of its own; unmounted on drop.
struct Tmpfs {
    at: PathBuf,
}

impl Tmpfs {
    fn mount(at: PathBuf, size: &str) -> Result<Self> {
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]).arg(&at).status()?;
        ensure!(status.success(), "mount a tmpfs at {}", at.display());
        Ok(Self { at })
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn fails_closed_when_the_journals_disk_is_full() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let small = Tmpfs::mount(scene.places.journal.clone(), "24m")?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    scene.psql("select 'while there is room'")?.require_success()?;
    // Whatever the journal reserved for itself is used up by statements; the rest of the disk by this file.
    let filler =
        Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", small.at.join("filler").display())).output()?;
    ensure!(!filler.status.success(), "the disk did not fill");
    let text = "x".repeat(100_000);
    let refused = (0..600)
        .map(|turn| scene.psql(&format!("select {turn}, length('{text}')")))
        .find(|seen| seen.as_ref().map_or(true, |seen| !seen.success()));
    let seen = refused.context("every statement passed although the journal's disk is full")??;
    ensure_contains(&seen.stderr.to_lowercase(), "journal")?;
    let next = scene.psql("select 'nobody will know'")?;
    ensure!(!next.success(), "{}", next.all());
    ensure_lacks(&scene.db()?.log(), "nobody will know")
}

#[test]
fn fails_closed_when_no_agent_was_ever_started_again() -> Result<()> {
    let scene = Scene::with_api()?;
    let mut agent = scene.agent(&scene.api_policy("{mode: off}", "", ""))?;
    agent.kill()?;
    for _ in 0..5 {
        let seen = scene.curl("/plain", &[])?;
        ensure!(seen.status.code() == Some(7), "curl's exit code for a refused connection is 7: {}", seen.all());
    }
    ensure!(scene.http()?.requests().is_empty());
    Ok(())
}

#[test]
fn a_client_that_hangs_up_does_not_leave_a_session_behind() -> Result<()> {
    let scene = Scene::with_postgres()?;
    let _agent = scene.agent(&scene.postgres_policy(""))?;
    crate::tells(&scene, "link = login()\nlink.sendall(query('select 1'))\nuntil_ready(link)\nlink.close()")?;
    let closed = || scene.journaled("session_closed").is_ok_and(|entries| entries.len() == 1);
    e2e::wait_until("the session is closed", Duration::from_secs(20), closed)?;
    let gone = || {
        scene
            .db()
            .and_then(|db| db.admin("select count(*) from pg_stat_activity where usename = 'app'"))
            .is_ok_and(|count| count == "0")
    };
    e2e::wait_until("the server's backend is gone", Duration::from_secs(20), gone)
}
