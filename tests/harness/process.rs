//! Programs that run: daemons that end with their guard, clients that are waited for with a deadline.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Cgroup, SERVER_V4, SERVER_V6};

/// A background program; killed by pid and reaped on drop.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    stop_signal: Signal,
}

impl Daemon {
    /// Starts a program with its output in `log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.with_context(|| format!("start {name}: {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), stop_signal: Signal::TERM })
    }

    /// Uses another signal than SIGTERM for `stop` and drop.
    #[must_use]
    pub fn stops_on(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such pid")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Waits until the program is ready, which `ready` finds out; a program that ends first is an error with its log.
    ///
    /// # Errors
    /// The program ended, or was not ready in time.
    pub fn wait_ready(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + deadline;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.log());
            }
            if Instant::now() > end {
                bail!("{} was not ready after {deadline:?}:\n{}", self.name, self.log());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits for the program's own end.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        wait_child(&mut self.child, deadline).with_context(|| format!("wait for {}:\n{}", self.name, self.log()))
    }

    /// Stops the program and waits for it.
    ///
    /// # Errors
    /// It did not stop in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(self.stop_signal)?;
        self.wait(STOP_WAIT_MAX)
    }

    /// SIGKILL, and the wait for it.
    ///
    /// # Errors
    /// The process is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.kill();
        }
    }
}

/// What a client printed and how it ended.
#[derive(Clone, Debug)]
pub struct Seen {
    pub stdout: String,
    pub stderr: String,
    pub status: ExitStatus,
}

impl Seen {
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output and standard error, for messages and for "appears nowhere" assertions.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// # Errors
    /// The client failed.
    pub fn require_success(self) -> Result<Self> {
        if !self.success() {
            bail!("client ended with {}:\n{}\n{}", self.status, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// A command, inside a cgroup if one is given, with an environment that holds nothing but what it needs.
#[derive(Debug)]
pub struct Client {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    cgroup: Option<PathBuf>,
    input: Vec<u8>,
    deadline: Duration,
}

impl Client {
    pub fn new<S: AsRef<OsStr>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            arguments: command.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            cgroup: None,
            input: Vec::new(),
            deadline: Duration::from_secs(30),
        }
    }

    #[must_use]
    pub fn within(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(cgroup.directory().to_owned());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// The same command, started by another one that takes it as its last arguments.
    #[must_use]
    pub fn inside<S: AsRef<OsStr>>(mut self, outer: impl IntoIterator<Item = S>) -> Self {
        let outer = outer.into_iter().map(|word| word.as_ref().to_owned());
        self.arguments = outer.chain(self.arguments).collect();
        self
    }

    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The command as it will be started. A shell enters the cgroup and becomes the program: what the program opens is inside.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match &self.cgroup {
            Some(directory) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(directory.join("cgroup.procs"));
                shell.args(&self.arguments);
                shell
            }
            None => {
                let mut words = self.arguments.iter();
                let mut direct = Command::new(words.next().map_or(OsStr::new("true"), OsString::as_os_str));
                direct.args(words);
                direct
            }
        };
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LANG", "C.UTF-8")
            .env("HOME", "/nonexistent")
            .env("PGCONNECT_TIMEOUT", "20");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The command cannot be started, or still runs at the deadline (it is killed then).
    pub fn run(&self) -> Result<Seen> {
        let mut child = self.spawn_piped()?;
        let mut stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let input = self.input.clone();
        let writer = thread::spawn(move || stdin.take().map(|mut pipe| pipe.write_all(&input)));
        let (out, err) = (thread::spawn(move || slurp(stdout)), thread::spawn(move || slurp(stderr)));
        let status = wait_child(&mut child, self.deadline);
        if status.is_err() {
            child.kill().and_then(|()| child.wait()).context("kill a client that hangs")?;
        }
        let text = |reader: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
        let (stdout, stderr) = (text(out), text(err));
        let _ = writer.join();
        let status = status.with_context(|| format!("{:?}\n{stdout}\n{stderr}", self.arguments))?;
        Ok(Seen { stdout, stderr, status })
    }

    /// Starts it in the background with its output in `log`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn start(&self, log: &Path) -> Result<Daemon> {
        let name = self.arguments.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
        Daemon::start(&name, &mut self.command(), log)
    }

    fn spawn_piped(&self) -> Result<Child> {
        let mut command = self.command();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.with_context(|| format!("start {:?}", self.arguments))
    }
}

/// Polls until `done`, at most until the deadline.
///
/// # Errors
/// The deadline passed; the error says what was waited for.
pub fn wait_until(what: &str, deadline: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + deadline;
    while !done() {
        if Instant::now() > end {
            bail!("not so after {deadline:?}: {what}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// A port that is free on both server addresses.
///
/// # Errors
/// None was found.
pub fn free_port() -> Result<u16> {
    for _ in 0..PORT_TRIES_MAX {
        let first = TcpListener::bind((SERVER_V4, 0)).context("bind the servers' address")?;
        let port = first.local_addr()?.port();
        if TcpListener::bind((SERVER_V6, port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free on both {SERVER_V4} and {SERVER_V6}")
}

fn wait_child(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            bail!("still runs after {deadline:?}");
        }
        thread::sleep(POLL);
    }
}

fn slurp(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    }
    bytes
}

impl Seen {
    /// The signal that ended the client, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

const POLL: Duration = Duration::from_millis(15);
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
const PORT_TRIES_MAX: usize = 50;
const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// PostgreSQL's own programs come first: Debian's `/usr/bin/psql` is a script that looks for them.
const SEARCH_PATH: &str = "/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
