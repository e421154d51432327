//! What the journal says afterwards, and that it can be believed.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{Entry, Scene, weir};

use crate::{NO_DROP, ensure_contains, ensure_lacks};

fn story() -> Result<(Scene, e2e::Agent)> {
    let mut scene = Scene::with_postgres()?;
    scene.start_api(false)?;
    let both = format!("{}\n---\n{}", scene.postgres_policy(NO_DROP), scene.api_policy("{mode: off}", "", ""));
    let agent = scene.agent(&both)?;
    scene.psql("select count(*) from orders")?.require_success()?;
    scene.psql("drop table x")?;
    scene.curl("/v1/items?page=2", &[])?.require_success()?;
    Ok((scene, agent))
}

fn find<'e>(entries: &'e [Entry], kind: &str, text: &str) -> Result<&'e Entry> {
    let found = entries.iter().find(|entry| entry.kind() == kind && entry.0.to_string().contains(text));
    found.with_context(|| format!("no {kind} with {text:?} among {} entries", entries.len()))
}

#[test]
fn a_session_is_told_from_open_to_close() -> Result<()> {
    let (scene, _agent) = story()?;
    let entries = scene.journal()?;
    let allowed = find(&entries, "statement", "select count(*) from orders")?;
    ensure!(allowed.allowed() == Some(true), "{allowed:?}");
    let session = allowed.session().context("a statement without a session")?;
    let of_session: Vec<&str> = entries.iter().filter(|entry| entry.session() == Some(session)).map(Entry::kind).collect();
    for kind in ["session_opened", "login", "credential_injected", "statement", "finished", "session_closed"] {
        ensure!(of_session.contains(&kind), "{kind} is missing: {of_session:?}");
    }
    let opened = find(&entries, "session_opened", session)?.body()["workload"].clone();
    ensure!(opened["exe"].as_str().is_some_and(|exe| exe.contains("psql")), "{opened}");
    ensure!(
        opened["cgroup"] == scene.workload.path()
            && opened["uid"] == 0
            && opened["exe_sha256"].as_str().is_some_and(|hash| hash.len() == 64),
        "{opened}"
    );
    ensure!(opened["argv"].to_string().contains("select count"), "{opened}");
    Ok(())
}

#[test]
fn a_password_in_a_command_line_is_not_journaled() -> Result<()> {
    let (scene, _agent) = story()?;
    let options = "sslmode=disable password=my-own-s3cret";
    scene.psql_at("127.0.0.5", options, &["select 7"])?.require_success()?;
    let port = scene.http()?.port();
    let url = format!("http://ann:an0ther-s3cret@127.0.0.5:{port}/v1/items");
    scene.client(["curl", "-sS", "-H", "X-Api-Key: third-s3cret", &url]).run()?;
    let opened = format!("{:?}", scene.journaled("session_opened")?);
    ensure_contains(&opened, "password=***")?;
    ensure_contains(&opened, "http://ann:***@127.0.0.5")?;
    ensure_lacks(&opened, "s3cret")
}

#[test]
fn a_head_that_was_noted_is_looked_for() -> Result<()> {
    let (scene, mut agent) = story()?;
    agent.stop()?;
    let directory = scene.places.journal.as_os_str();
    let verify = |more: &[&str]| {
        let fixed = ["journal".as_ref(), "verify".as_ref(), "--json".as_ref(), "--journal".as_ref(), directory];
        weir(fixed.into_iter().chain(more.iter().map(|word| std::ffi::OsStr::new(*word))))
    };
    let report: serde_json::Value = serde_json::from_str(&verify(&[])?.require_success()?.stdout)?;
    let hash = report["head"]["hash"].as_str().context("no head")?;
    verify(&["--expect", hash])?.require_success()?;
    let other = verify(&["--expect", &"0".repeat(64)])?;
    ensure!(other.status.code() == Some(1), "{:?}", other.status);
    ensure_contains(&other.stdout, "missing")?;
    ensure!(verify(&["--expect", "abc"])?.status.code() == Some(2));
    Ok(())
}

#[test]
fn a_refusal_names_its_rule() -> Result<()> {
    let (scene, _agent) = story()?;
    let entries = scene.journal()?;
    let refused = find(&entries, "statement", "drop table x")?;
    ensure!(refused.allowed() == Some(false) && refused.rule() == "orders/no-drop", "{refused:?}");
    ensure!(refused.body()["effects"].to_string().contains("drop"), "{refused:?}");
    Ok(())
}

#[test]
fn a_request_and_its_answer_are_told() -> Result<()> {
    let (scene, _agent) = story()?;
    let entries = scene.journal()?;
    let request = find(&entries, "request", "/v1/items?page=2")?;
    ensure!(request.text("method") == "GET" && request.allowed() == Some(true), "{request:?}");
    let same = |entry: &&Entry| entry.kind() == "finished" && entry.session() == request.session();
    ensure!(entries.iter().filter(same).any(|entry| entry.text("status") == "200"), "no status of the answer");
    Ok(())
}

#[test]
fn no_file_of_the_journal_holds_a_secret() -> Result<()> {
    let (scene, mut agent) = story()?;
    scene.psql(&format!("select '{}'", scene.db()?.password()))?;
    scene.curl("/v1/leak", &["-H", &format!("X-Mine: {}", scene.http()?.secret())])?;
    agent.stop()?;
    let mut searched = 0;
    for entry in fs::read_dir(&scene.places.journal)?.flatten().filter(|entry| entry.path().is_file()) {
        let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
        searched += text.len();
        ensure_lacks(&text, scene.db()?.password())?;
        ensure_lacks(&text, scene.http()?.secret())?;
    }
    ensure!(searched > 0, "the journal has no files");
    ensure_lacks(&agent.log(), scene.db()?.password())
}

#[test]
fn the_journal_verifies_while_the_agent_runs_and_afterwards() -> Result<()> {
    let (scene, mut agent) = story()?;
    scene.verify_journal()?.require_success()?;
    agent.stop()?;
    scene.verify_journal()?.require_success()?;
    Ok(())
}

#[test]
fn every_flipped_byte_is_found() -> Result<()> {
    let (scene, mut agent) = story()?;
    agent.stop()?;
    let copy = scene.scratch.directory("copy")?;
    let files: Vec<_> =
        fs::read_dir(&scene.places.journal)?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    for file in &files {
        fs::copy(file, copy.join(file.file_name().context("no name")?))?;
    }
    let verify = || weir(["journal".as_ref(), "verify".as_ref(), "--journal".as_ref(), copy.as_os_str()]);
    verify()?.require_success()?;
    let largest = files.iter().max_by_key(|file| fs::metadata(file).map_or(0, |data| data.len())).context("no file")?;
    let target = copy.join(largest.file_name().context("no name")?);
    let original = fs::read(&target)?;
    let content = original.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for part in 1..10 {
        let mut changed = original.clone();
        let at = content * part / 10;
        *changed.get_mut(at).context("the file is empty")? ^= 1;
        fs::write(&target, changed)?;
        ensure!(!verify()?.success(), "byte {at} of {content} was changed, and it verifies");
    }
    Ok(())
}

#[test]
fn ls_lists_the_sessions_and_show_tells_one() -> Result<()> {
    let (scene, _agent) = story()?;
    let directory = scene.places.journal.as_os_str();
    let list = weir(["journal".as_ref(), "ls".as_ref(), "--journal".as_ref(), directory])?.require_success()?;
    ensure!(list.stdout.lines().count() >= 3, "{}", list.stdout);
    let entries = scene.journal()?;
    let session = find(&entries, "statement", "drop table x")?.session().context("no session")?.to_owned();
    ensure_contains(&list.stdout, &session)?;
    let show =
        weir(["journal".as_ref(), "show".as_ref(), "--journal".as_ref(), directory, session.as_ref()])?.require_success()?;
    ensure_contains(&show.stdout, "drop table x")?;
    ensure_lacks(&show.stdout, "/v1/items")
}
