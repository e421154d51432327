//! The sources: file, environment, program, systemd credential. Each is read at the moment when it is needed, within bounds.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};
use zeroize::Zeroizing;

use super::secret::{SECRET_BYTES_MAX, Secret};
use crate::policy::object::SecretSource;

/// Why a source gave nothing. Names the source, never a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SourceError {
    pub(super) kind: &'static str,
    pub(super) subject: String,
    pub(super) cause: String,
}

/// Reads a secret without its last line feed: at least one byte, at most [`SECRET_BYTES_MAX`]. Cancel safe; at most [`SOURCE_TIMEOUT`].
pub(super) async fn read(source: &SecretSource) -> Result<Secret, SourceError> {
    let answer = tokio::time::timeout(SOURCE_TIMEOUT, read_value(source)).await;
    let value = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", SOURCE_TIMEOUT.as_secs())));
    value.and_then(finish).map_err(|cause| {
        let (kind, subject) = describe(source);
        SourceError { kind, subject, cause }
    })
}

type Value = Zeroizing<Vec<u8>>;

async fn read_value(source: &SecretSource) -> Result<Value, String> {
    match source {
        SecretSource::Env(name) => {
            let value = std::env::var_os(name).ok_or("not set in the agent's environment")?;
            Ok(Zeroizing::new(value.into_vec()))
        }
        SecretSource::Exec(argv) => run(argv).await,
        SecretSource::File(path) => read_file(path.clone()).await,
        SecretSource::Systemd(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or("CREDENTIALS_DIRECTORY is not set: add LoadCredential= to the agent's unit")?;
            read_file(systemd_path(Path::new(&directory), name)?).await
        }
    }
}

/// What a file looks like from outside: when it changes, the secret in it may have changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

/// The stamp of a file source; `None` for sources that are not files, and for files that are not there.
pub(super) fn stamp(source: &SecretSource) -> Option<Stamp> {
    let path = match source {
        SecretSource::File(path) => path.clone(),
        SecretSource::Systemd(name) => systemd_path(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?), name).ok()?,
        SecretSource::Env(_) | SecretSource::Exec(_) => return None,
    };
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        mode: found.mode(),
    })
}

pub(super) fn describe(source: &SecretSource) -> (&'static str, String) {
    match source {
        SecretSource::Env(name) => ("env", name.clone()),
        // Arguments may name accounts: the program is enough to find it.
        SecretSource::Exec(argv) => ("exec", argv.first().cloned().unwrap_or_default()),
        SecretSource::File(path) => ("file", path.display().to_string()),
        SecretSource::Systemd(name) => ("systemd", name.clone()),
    }
}

/// Cuts one line feed off. The large buffer is wiped; the secret takes no more room than it needs.
fn finish(mut value: Value) -> Result<Secret, String> {
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    match value.len() {
        0 => Err("empty".to_owned()),
        1..=SECRET_BYTES_MAX => Ok(Secret::new(value.to_vec())),
        _ => Err(over_limit()),
    }
}

fn over_limit() -> String {
    format!("larger than {SECRET_BYTES_MAX} bytes")
}

/// Never grows: growing would leave copies behind.
fn buffer() -> Value {
    Zeroizing::new(Vec::with_capacity(READ_BYTES_MAX + 1))
}

fn systemd_path(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if plain { Ok(directory.join(name)) } else { Err("not the name of a credential".to_owned()) }
}

async fn read_file(path: PathBuf) -> Result<Value, String> {
    let read = tokio::task::spawn_blocking(move || read_private(&path));
    read.await.map_err(|_| "reading ended unexpectedly".to_owned())?
}

/// Symbolic links are followed (Kubernetes swaps one to change a secret); what counts is the file they lead to.
fn read_private(path: &Path) -> Result<Value, String> {
    let text = |error: io::Error| error.to_string();
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(text)?;
    check_private(&file.metadata().map_err(text)?, geteuid().as_raw())?;
    let mut value = buffer();
    file.take(READ_BYTES_MAX as u64).read_to_end(&mut value).map_err(text)?;
    Ok(value)
}

/// Refuses what is not private to root and the agent: a secret that others can read is none; one that others can write is theirs.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_private(metadata: &Metadata, agent: u32) -> Result<(), String> {
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let owner = metadata.uid();
    if owner != 0 && owner != agent {
        return Err(format!("belongs to uid {owner}, not to root or the agent's uid {agent}: chown it"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o006 != 0 || mode & 0o020 != 0 {
        let who = if mode & 0o006 != 0 { "everybody can read or write it" } else { "its group can write it" };
        return Err(format!("{who} (mode {mode:o}): chmod 600"));
    }
    Ok(())
}

/// Runs a program with nothing but a `PATH`, and takes what it prints.
async fn run(argv: &[String]) -> Result<Value, String> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", EXEC_PATH).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that what the program started ends with it.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut group = Group::of(&child);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("no pipes".to_owned());
    };
    let (value, complaint) = tokio::join!(read_secret(stdout), read_complaint(stderr));
    let value = value.map_err(|error| error.to_string())?;
    if value.len() == READ_BYTES_MAX {
        return Err(over_limit());
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    group.disarm();
    if status.success() { Ok(value) } else { Err(format!("{status}{}", quote(&complaint, &value))) }
}

/// Kills a program's whole group when the wait for it is given up.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// The program was reaped: its number may soon be somebody else's.
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody left is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn read_secret(stdout: impl AsyncRead + Unpin) -> io::Result<Value> {
    let mut value = buffer();
    stdout.take(READ_BYTES_MAX as u64).read_to_end(&mut value).await?;
    Ok(value)
}

/// Keeps the beginning and drains the rest: a full pipe would stop the program.
async fn read_complaint(mut stderr: impl AsyncRead + Unpin) -> Value {
    let mut complaint = Zeroizing::new(Vec::with_capacity(COMPLAINT_BYTES_MAX));
    let kept = (&mut stderr).take(COMPLAINT_BYTES_MAX as u64).read_to_end(&mut complaint).await;
    if kept.is_ok() {
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    }
    complaint
}

/// The first line of what the program complained about, unless it repeats what it printed.
fn quote(complaint: &[u8], value: &[u8]) -> String {
    let line = complaint.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let value = value.trim_ascii();
    if line.is_empty() {
        return String::new();
    }
    if !value.is_empty() && memchr::memmem::find(complaint, value).is_some() {
        return ": (its message is withheld: it repeats its output)".to_owned();
    }
    let text = String::from_utf8_lossy(line);
    format!(": {}", text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect::<String>())
}

/// A source that is slower is down.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);
/// One byte for the line feed and one to see that there is too much.
const READ_BYTES_MAX: usize = SECRET_BYTES_MAX + 2;
const COMPLAINT_BYTES_MAX: usize = 256;
const EXEC_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (TempDir, SecretSource) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, SecretSource::File(path))
    }

    async fn value(source: &SecretSource) -> Result<Vec<u8>, String> {
        read(source).await.map(|secret| secret.expose().to_vec()).map_err(|error| error.cause)
    }

    fn sh(script: &str) -> SecretSource {
        SecretSource::Exec(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()])
    }

    #[tokio::test]
    async fn cuts_exactly_one_line_feed() {
        let (_directory, source) = file(b"hunter22\n", 0o600);
        assert_eq!(value(&source).await.unwrap(), b"hunter22");
        let (_directory, source) = file(b" hunter22\n\n", 0o600);
        assert_eq!(value(&source).await.unwrap(), b" hunter22\n");
        let (_directory, source) = file(b"hunter22", 0o640);
        assert_eq!(value(&source).await.unwrap(), b"hunter22");
    }

    #[tokio::test]
    async fn refuses_an_empty_secret() {
        let (_directory, source) = file(b"\n", 0o600);
        assert_eq!(value(&source).await.unwrap_err(), "empty");
        assert_eq!(value(&sh("true")).await.unwrap_err(), "empty");
    }

    #[tokio::test]
    async fn takes_the_largest_secret_and_refuses_a_larger_one() {
        let mut content = vec![b'x'; SECRET_BYTES_MAX];
        content.push(b'\n');
        let (_directory, at_limit) = file(&content, 0o600);
        assert_eq!(value(&at_limit).await.unwrap().len(), SECRET_BYTES_MAX);
        let (_directory, above) = file(&vec![b'x'; SECRET_BYTES_MAX + 1], 0o600);
        assert!(value(&above).await.unwrap_err().contains("larger than"));
        assert!(value(&sh("head -c 10000000 /dev/zero")).await.unwrap_err().contains("larger than"));
    }

    #[tokio::test]
    async fn refuses_a_file_that_others_can_read_or_write() {
        for mode in [0o604, 0o644, 0o602, 0o620, 0o660] {
            let (_directory, source) = file(b"hunter22", mode);
            assert!(value(&source).await.unwrap_err().ends_with(": chmod 600"), "{mode:o}");
        }
    }

    #[tokio::test]
    async fn follows_links_and_refuses_what_is_no_file() {
        let (directory, SecretSource::File(path)) = file(b"hunter22", 0o600) else { panic!() };
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(value(&SecretSource::File(link)).await.unwrap(), b"hunter22");
        assert_eq!(value(&SecretSource::File(directory.path().to_owned())).await.unwrap_err(), "not a regular file");
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(value(&SecretSource::File(fifo)).await.unwrap_err(), "not a regular file");
    }

    #[tokio::test]
    async fn a_program_gets_no_environment_but_a_path() {
        assert_eq!(
            value(&sh("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort")).await.unwrap(),
            format!("PATH={EXEC_PATH}").as_bytes()
        );
    }

    #[tokio::test]
    async fn a_failing_program_is_quoted_without_its_output() {
        let error = value(&sh("echo s3cret-value; printf 'vault is \\033[1msealed\\nmore' >&2; exit 3")).await.unwrap_err();
        assert_eq!(error, "exit status: 3: vault is  [1msealed");
        let leaking = value(&sh("echo s3cret-value; echo bad s3cret-value >&2; exit 3")).await.unwrap_err();
        assert!(!leaking.contains("s3cret-value") && leaking.contains("withheld"), "{leaking}");
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_ends_the_program_and_its_children() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("child");
        let source = sh(&format!("sleep 600 & echo $! > {0}.tmp; mv {0}.tmp {0}; wait", path.display()));
        let child = tokio::select! {
            _ = read(&source) => panic!("the program ended"),
            child = async {
                loop {
                    if let Ok(child) = std::fs::read_to_string(&path) {
                        break child.trim().parse::<i32>().unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            } => Pid::from_raw(child).unwrap(),
        };
        let alive =
            || std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero())).is_ok_and(|stat| !stat.contains(") Z "));
        let begin = std::time::Instant::now();
        while alive() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the program's child lives on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_program_that_complains_at_length_is_not_stopped_by_it() {
        assert_eq!(value(&sh("head -c 300000 /dev/zero >&2; echo hunter22")).await.unwrap(), b"hunter22");
    }

    #[tokio::test]
    async fn says_which_variable_is_missing() {
        let error = read(&SecretSource::Env("WEIR_TEST_ABSENT".to_owned())).await.err().unwrap();
        assert_eq!((error.kind, error.subject.as_str()), ("env", "WEIR_TEST_ABSENT"));
        let cargo = value(&SecretSource::Env("CARGO_PKG_NAME".to_owned())).await.unwrap();
        assert_eq!(cargo, b"weir");
    }

    #[test]
    fn a_systemd_credential_stays_in_its_directory() {
        let directory = Path::new("/run/credentials/weir.service");
        assert_eq!(systemd_path(directory, "db").unwrap(), directory.join("db"));
        for name in ["", ".", "..", "../other.service/db", "/etc/shadow"] {
            systemd_path(directory, name).unwrap_err();
        }
    }
}
