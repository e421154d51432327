//! What the demo shows, one function a check.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Scene, weir};
use serde_json::Value;

use super::{Stage, memory, report::Evidence};

/// One thing that must hold.
pub(super) struct Check {
    pub(super) title: &'static str,
    pub(super) run: fn(&mut Stage) -> Result<Evidence>,
}

pub(super) const ALL: [Check; 8] = [
    Check { title: "psql without a password gets rows, with masked columns", run: masked_rows },
    Check { title: "DROP TABLE is refused, and the table is still there", run: drop_refused },
    Check { title: "DROP TABLE hidden in a code block is refused", run: hidden_drop_refused },
    Check { title: "curl without a token gets an answer, with api_key masked", run: masked_json },
    Check { title: "the workload holds no secret: environment, command line, open files, whole memory", run: no_secret },
    Check { title: "without its agent the workload gets nowhere", run: refused_without_agent },
    Check { title: "the journal lists the sessions, shows the statements, and verifies", run: journal_tells },
    Check { title: "one flipped byte in a copy of the journal is found", run: flipped_byte_found },
];

fn masked_rows(stage: &mut Stage) -> Result<Evidence> {
    let sql = "select id, name, email, password from users order by id";
    let seen = stage.scene.psql(sql)?;
    let server = statements_seen(&stage.scene, "from users")?;
    Ok(Evidence::default()
        .did(format!("psql -w -h 127.0.0.5 -U nobody app -c \"{sql}\""))
        .client(&seen.all())
        .server(&server)
        .holds(seen.success(), "psql succeeds")
        .holds(seen.stdout.contains("1|Ann|***@example.com|"), "the e-mail address keeps only its domain")
        .holds(!seen.all().contains("hunter2"), "no stored password is shown")
        .holds(server.starts_with("app "), "the server saw the injected user"))
}

fn drop_refused(stage: &mut Stage) -> Result<Evidence> {
    refused(stage, "drop table x", "Destructive DDL needs a change ticket.")
}

fn hidden_drop_refused(stage: &mut Stage) -> Result<Evidence> {
    refused(stage, "do $$begin execute 'drop'||' table x'; end$$", "Code that weir cannot read does not run here.")
}

fn refused(stage: &Stage, sql: &str, message: &str) -> Result<Evidence> {
    let seen = stage.scene.psql(sql)?;
    let server = statements_seen(&stage.scene, sql)?;
    let rows = stage.scene.db()?.admin("select count(*) from x")?;
    Ok(Evidence::default()
        .did(format!("psql -w -h 127.0.0.5 -U nobody app -c \"{sql}\""))
        .client(&seen.all())
        .server(if server.is_empty() { "nothing" } else { &server })
        .server(&format!("table x has {rows} row"))
        .holds(!seen.success(), "psql fails")
        .holds(seen.stderr.contains(message), "the client is told the rule's message")
        .holds(server.is_empty(), "the statement does not reach the server")
        .holds(rows == "1", "the table is still there"))
}

fn masked_json(stage: &mut Stage) -> Result<Evidence> {
    let seen = stage.scene.curl("/v1/items", &["-w", "\n%{http_code}"])?;
    let api = stage.scene.http()?;
    let authorization = api.last_header("authorization");
    let injected = authorization == [format!("Bearer {}", api.secret())];
    Ok(Evidence::default()
        .did("curl http://127.0.0.5/v1/items")
        .client(&seen.all())
        .server(if injected {
            "GET /v1/items, Authorization: Bearer (the token that only weir knows)"
        } else {
            "GET /v1/items, no token"
        })
        .holds(seen.stdout.ends_with("200"), "the answer is 200")
        .holds(seen.stdout.contains("lamp"), "what is not masked is there")
        .holds(!seen.stdout.contains("key-of-the-lamp") && !seen.stdout.contains("hunter2"), "api_key and password are masked")
        .holds(injected, "the server saw the injected token, and only that"))
}

fn no_secret(stage: &mut Stage) -> Result<Evidence> {
    let scene = &stage.scene;
    let (db, api) = (scene.db()?, scene.http()?);
    let target = format!("host=127.0.0.5 port={} dbname=app user=nobody sslmode=disable", db.port());
    let sleep = "select pg_sleep(60), 'a-mark-to-be-found'";
    let client = scene.client(["psql", "-X", "-w", "-d", &target, "-c", sleep]).start(&scene.scratch.join("held.log"))?;
    let sleeping = || db.admin("select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'");
    e2e::wait_until("psql sleeps on the server", Duration::from_secs(20), || sleeping().is_ok_and(|count| count == "1"))?;
    let secrets: Vec<Vec<u8>> = [db.password(), api.secret()].into_iter().flat_map(forms).collect();
    let scan = memory::scan(client.pid(), &secrets)?;
    // A search that finds nothing proves something only when it would have found what is there.
    let control = memory::scan(client.pid(), &[b"a-mark-to-be-found".to_vec()])?;
    Ok(Evidence::default()
        .did(format!("read /proc/{}/{{environ,cmdline,fd,maps,mem}} while psql waits for its rows", client.pid()))
        .client(&format!(
            "{} KiB and {} open files searched for {} forms of 2 secrets",
            scan.bytes / 1024,
            scan.open_files,
            secrets.len()
        ))
        .client(&format!("a word of the statement, for comparison, is found in: {}", control.found.join(", ")))
        .holds(control.found.len() >= 2, "the search finds what is there")
        .holds(scan.bytes > MEMORY_BYTES_MIN, "the whole memory was read")
        .holds(scan.found.is_empty(), format!("a secret was found in {}", scan.found.join(", "))))
}

fn refused_without_agent(stage: &mut Stage) -> Result<Evidence> {
    let pid = stage.agent.pid();
    stage.agent.kill()?;
    let psql = stage.scene.psql("select 1")?;
    let curl = stage.scene.curl("/plain", &[])?;
    Ok(Evidence::default()
        .did(format!("kill -9 {pid}; psql ...; curl ..."))
        .client(&psql.stderr)
        .client(&curl.stderr)
        .holds(psql.stderr.contains("Connection refused"), "psql is refused")
        .holds(!curl.success() && curl.stdout.is_empty(), "curl is refused")
        .holds(stage.scene.db()?.admin("select 1")? == "1", "the server itself is up"))
}

fn journal_tells(stage: &mut Stage) -> Result<Evidence> {
    let scene = &stage.scene;
    let directory = scene.places.journal.as_path();
    let list = journal("ls", directory, &[])?;
    let entries = scene.journal()?;
    let said = |text: &str| entries.iter().find(|entry| entry.kind() == "statement" && entry.0.to_string().contains(text));
    let refused = said("drop table x").is_some_and(|entry| entry.allowed() == Some(false) && entry.rule().contains("no-drop"));
    let verified = journal("verify", directory, &[])?;
    let text = entries.iter().map(|entry| entry.0.to_string()).collect::<String>();
    let clean = [scene.db()?.password(), scene.http()?.secret()]
        .into_iter()
        .flat_map(forms)
        .all(|secret| memchr::memmem::find(text.as_bytes(), &secret).is_none());
    Ok(Evidence::default()
        .did("weir journal ls; weir journal show; weir journal verify")
        .client(&list.stdout)
        .client(&said("drop table x").map(|entry| brief(&entry.0)).unwrap_or_default())
        .client(&verified.all())
        .holds(list.success() && list.stdout.lines().count() >= SESSIONS_MIN, "every session is listed")
        .holds(said("from users").is_some_and(|entry| entry.allowed() == Some(true)), "the allowed statement is there")
        .holds(refused, "the refused statement is there with its rule")
        .holds(verified.success(), "it verifies")
        .holds(clean, "it holds no secret"))
}

fn flipped_byte_found(stage: &mut Stage) -> Result<Evidence> {
    let copy = stage.scene.scratch.directory("journal-copy")?;
    let segment = copy_files(&stage.scene.places.journal, &copy)?;
    let before = journal("verify", &copy, &[])?;
    let mut bytes = fs::read(&segment)?;
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    let middle = written / 2;
    let byte = bytes.get_mut(middle).context("the segment is empty")?;
    *byte ^= 1;
    fs::write(&segment, bytes)?;
    let after = journal("verify", &copy, &[])?;
    Ok(Evidence::default()
        .did(format!("cp -r journal copy; flip one bit of byte {middle} of {}; weir journal verify", file_name(&segment)))
        .client(&after.all())
        .holds(before.success(), "the untouched copy verifies")
        .holds(!after.success(), "the changed copy does not"))
}

/// The lines of the server's log that hold a statement, without what varies.
fn statements_seen(scene: &Scene, sql: &str) -> Result<String> {
    let log = scene.db()?.log();
    let lines = log.lines().filter(|line| line.contains(sql) && !line.starts_with("postgres "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn journal(what: &str, directory: &Path, further: &[&str]) -> Result<e2e::Seen> {
    let fixed = ["journal".as_ref(), what.as_ref(), "--journal".as_ref(), directory.as_os_str()];
    weir(fixed.into_iter().chain(further.iter().map(AsRef::as_ref)))
}

fn brief(entry: &Value) -> String {
    format!("{} {} {}", entry["event"].as_str().unwrap_or_default(), entry["text"], entry["verdict"])
}

/// Copies the files of a directory; gives the copy of the largest one.
fn copy_files(from: &Path, to: &Path) -> Result<std::path::PathBuf> {
    let mut largest = (0, None);
    for entry in fs::read_dir(from)?.flatten().filter(|entry| entry.path().is_file()) {
        let target = to.join(entry.file_name());
        let length = fs::copy(entry.path(), &target)?;
        if length > largest.0 {
            largest = (length, Some(target));
        }
    }
    let (length, path) = largest;
    ensure!(length > 0, "the journal is empty");
    path.context("the journal has no file")
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A secret as it is, in upper case hexadecimal, and in base64 at each of three alignments (the part that does not depend on neighbours).
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut forms = vec![secret.as_bytes().to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    forms.extend((0..3).map(|skip| base64(secret.as_bytes().get(skip..).unwrap_or_default())));
    forms
}

/// Base64 (RFC 4648, section 4) of the whole groups of three.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|group| group.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)));
    let digits = groups.flat_map(|group| [18, 12, 6, 0].map(|shift| (group >> shift & 63) as usize));
    digits.filter_map(|digit| ALPHABET.get(digit).copied()).collect()
}

const MEMORY_BYTES_MIN: u64 = 1024 * 1024;
/// Three times psql, once curl, and the psql whose memory was read.
const SESSIONS_MIN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_like_the_standard_says() {
        assert_eq!(base64(b"foobar"), b"Zm9vYmFy");
        assert_eq!(base64(b"foob"), b"Zm9v");
    }
}
