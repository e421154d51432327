//! `weir run`: one command as a protected workload, with an agent inside this process unless one is running.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, ExitStatus},
    sync::Arc,
    time::Duration,
};

use rustix::{
    net::{AddressFamily, getpeername, sockopt},
    process::{Pid, Resource, Rlimit, Signal, geteuid, getrlimit, kill_process, setrlimit},
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use tracing::info;
use weir_abi::sys::close_on_exec;

use super::{Exit, output::complain};
use crate::{
    app::{App, StartError},
    config::{Config, Flags, OnStop, default_control, pin_dir, runtime_dir},
    control::{Answer, Ask, Client, ClientError},
    intercept::{cgroup2_root, remove_abandoned},
    journal::JournalError,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Name of the workload, for `workloads: [{name: ...}]` in policies [default: the command's file name]
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// Journal what would have happened, refuse and mask nothing
    #[arg(long)]
    observe: bool,
    /// Say what weir does, on standard error; twice for more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub fn run(args: Args) -> Exit {
    telemetry::start(match args.verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Host, format!("run: start the runtime: {error}")),
    };
    runtime.block_on(async {
        match protect(args).await {
            Ok(code) => Exit::Code(code),
            Err(failure) => fail(failure.exit, failure.message),
        }
    })
}

/// What kept the command from running.
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

async fn protect(args: Args) -> Result<u8, Failure> {
    let cgroup2 = preflight()?;
    let name = args.name.clone().unwrap_or_else(|| default_name(&args.command));
    // An agent that is running protects with its own policies; a run with policies of its own brings its own agent.
    let control = args.flags.control.clone().unwrap_or_else(default_control);
    if args.flags.policies.is_empty()
        && let Ok(client) = Client::connect(&control)
    {
        return with_running_agent(client, &args, &name).await;
    }
    with_own_agent(args, &name, &cgroup2).await
}

/// Says exactly what is missing, before anything is touched.
fn preflight() -> Result<PathBuf, Failure> {
    if !geteuid().is_root() {
        let message = format!(
            "run: needs root to load kernel programs and to make a cgroup; this is uid {}: run it with sudo",
            geteuid().as_raw()
        );
        return Err(Failure::new(Exit::Host, message));
    }
    cgroup2_root().map_err(|error| Failure::new(Exit::Host, format!("run: {error}")))
}

fn default_name(command: &[OsString]) -> String {
    let file_name = command.first().and_then(|program| Path::new(program).file_name());
    file_name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn with_running_agent(mut client: Client, args: &Args, name: &str) -> Result<u8, Failure> {
    if args.observe || args.flags.journal.is_some() {
        let message =
            "run: an agent is running and has its own mode and journal: drop --observe and --journal, or give --policies";
        return Err(Failure::new(Exit::Usage, message));
    }
    let refused = |error: ClientError| Failure::new(Exit::Failed, format!("run: {error}"));
    let Answer::Status(status) = client.ask(&Ask::Status).map_err(refused)? else {
        return Err(Failure::new(Exit::Failed, "run: the agent answered something else"));
    };
    // Below the agent's own attach point: elsewhere the kernel programs would not see the command.
    let cgroup = RunCgroup::create(&status.top_cgroup)?;
    let ask = Ask::Enroll { name: name.to_owned(), cgroup: cgroup.workload.clone() };
    client.ask(&ask).map_err(refused)?;
    let status = execute(&args.command, &cgroup.workload, getrlimit(Resource::Core), &[]).await?;
    // The agent withdraws the workload when this connection closes.
    drop(client);
    Ok(status)
}

async fn with_own_agent(args: Args, name: &str, cgroup2: &Path) -> Result<u8, Failure> {
    sweep(args.flags.top_cgroup.as_deref().unwrap_or(cgroup2));
    let cgroup = RunCgroup::create(args.flags.top_cgroup.as_deref().unwrap_or(cgroup2))?;
    let core_limit = getrlimit(Resource::Core);
    let named_journal = args.flags.journal.is_some();
    let mut config = Config::load(None, args.flags, Some(OnStop::Release))
        .map_err(|error| Failure::new(Exit::Usage, format!("run: {error}")))?;
    let instance = instance_dir(process::id());
    config.pin_dir = pin_dir(&instance);
    config.control = instance.join("control.sock");
    config.runtime_dir = instance.clone();
    config.observe = args.observe;
    config.top_cgroup = Some(config.top_cgroup.unwrap_or_else(|| cgroup.top.clone()));
    let app = start(config, named_journal).await?;
    app.enroll(name, &cgroup.workload).map_err(|error| Failure::new(Exit::Failed, format!("run: {error}")))?;
    let status = execute(&args.command, &cgroup.workload, core_limit, app.secret_variables()).await;
    app.wait_idle(LAST_SESSIONS_TIMEOUT).await;
    // Processes that the command left behind stay refused: releasing the kernel programs would give them the open network.
    let abandoned = !cgroup.is_empty();
    app.stop(if abandoned { OnStop::Refuse } else { OnStop::Release }).await;
    if !abandoned {
        let _ = fs::remove_dir_all(&instance);
    }
    status
}

/// Starts the agent of this run. When another run holds the journal of the host, this one keeps its own beside it, and says so.
async fn start(mut config: Config, named_journal: bool) -> Result<Arc<App>, Failure> {
    match App::start(config.clone()).await {
        Err(StartError::Journal(JournalError::Locked { directory, pid })) if !named_journal => {
            let mut own = config.journal.into_os_string();
            own.push(format!("-run-{}", process::id()));
            config.journal = PathBuf::from(own);
            info!(journal = %config.journal.display(), "journal {directory} is in use by pid {pid}: this run has its own");
            Ok(App::start(config).await?)
        }
        started => Ok(started?),
    }
}

/// Runs the command inside the cgroup and waits for it, passing signals on. `core_limit` is the command's own: the agent's
/// forbids core files.
async fn execute(command: &[OsString], cgroup: &Path, core_limit: Rlimit, secret_variables: &[String]) -> Result<u8, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::new(Exit::Host, format!("run: find weir itself: {error}")))?;
    let mut entering = Command::new(program);
    // What weir injects, the command must not hold.
    secret_variables.iter().map(String::as_str).chain(["CREDENTIALS_DIRECTORY"]).for_each(|name| {
        entering.env_remove(name);
    });
    let mut child = entering
        .arg("__enter")
        .arg(cgroup)
        .arg("--core-limit")
        .arg(core_limit.current.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string()))
        .arg("--")
        .args(command)
        .spawn()
        .map_err(|error| Failure::new(Exit::Failed, format!("run: start the command: {error}")))?;
    let status =
        wait(&mut child).await.map_err(|error| Failure::new(Exit::Failed, format!("run: wait for the command: {error}")))?;
    Ok(exit_code(status))
}

async fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let (tx, mut signals) = mpsc::channel(SIGNALS_MAX);
    let kinds = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];
    for kind in kinds {
        let mut stream = signal(SignalKind::from_raw(kind.as_raw()))?;
        let tx = tx.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && tx.send(kind).await.is_ok() {} });
    }
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    loop {
        tokio::select! {
            status = child.wait() => return status,
            Some(kind) = signals.recv() => {
                // The terminal sends these to the whole foreground group: the command has them already.
                let from_terminal = matches!(kind, Signal::INT | Signal::QUIT) && is_foreground();
                if let (false, Some(pid)) = (from_terminal, pid) {
                    let _ = kill_process(pid, kind);
                }
            }
        }
    }
}

fn is_foreground() -> bool {
    let group = rustix::process::getpgrp();
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == group)
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// The cgroups of one run: `top` carries the kernel programs, `workload` below it the command. Removed on drop, when empty.
struct RunCgroup {
    top: PathBuf,
    workload: PathBuf,
}

impl RunCgroup {
    fn create(root: &Path) -> Result<Self, Failure> {
        let top = root.join(format!("{CGROUP_PREFIX}{}", process::id()));
        let workload = top.join("workload");
        fs::create_dir_all(&workload)
            .map_err(|error| Failure::new(Exit::Host, format!("run: create the cgroup {}: {error}", workload.display())))?;
        Ok(Self { top, workload })
    }

    fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.top.join("cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
    }
}

/// Cleans up after runs that were killed: their kernel programs go when no process of theirs is left to be refused.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().take(SWEEP_MAX) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(CGROUP_PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| !Path::new("/proc").join(pid.to_string()).exists()) else { continue };
        let abandoned = RunCgroup { workload: entry.path().join("workload"), top: entry.path() };
        if abandoned.is_empty() {
            let instance = instance_dir(pid);
            if let Err(error) = remove_abandoned(&pin_dir(&instance)) {
                info!(%error, pid, "cannot remove what a killed run left");
                continue;
            }
            let _ = fs::remove_dir_all(&instance);
            drop(abandoned);
        }
    }
}

/// Where one run's own agent keeps its control socket; its pins are named after it.
fn instance_dir(pid: u32) -> PathBuf {
    runtime_dir().join(format!("run-{pid}"))
}

impl Drop for RunCgroup {
    fn drop(&mut self) {
        // Fails while a process of the command lives on; the programs on the cgroup then keep refusing it.
        let _ = fs::remove_dir(&self.workload);
        let _ = fs::remove_dir(&self.top);
    }
}

#[derive(Debug, clap::Args)]
pub struct EnterArgs {
    cgroup: PathBuf,
    /// Soft limit of the command's core files, in bytes, or `unlimited`.
    #[arg(long)]
    core_limit: String,
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

/// Moves this process into the cgroup and becomes the command: no moment of it runs outside.
pub fn enter(args: EnterArgs) -> Exit {
    if let Err(error) = fs::write(args.cgroup.join("cgroup.procs"), "0") {
        return fail(Exit::Host, format!("run: enter {}: {error}", args.cgroup.display()));
    }
    let limit = Rlimit { current: args.core_limit.parse().ok(), maximum: getrlimit(Resource::Core).maximum };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        return fail(Exit::Host, format!("run: restore the limit of core files: {error}"));
    }
    keep_out_inherited_sockets();
    if let Some(stream) = unconnected_standard_stream() {
        let message =
            format!("run: standard {stream} is a socket that is not connected: connected by the command, it would pass weir by");
        return fail(Exit::Usage, message);
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return fail(Exit::Usage, "run: no command");
    };
    let error = process::Command::new(program).args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    fail(Exit::Code(code), format!("run: {}: {error}", program.to_string_lossy()))
}

/// The standard stream, if any, that is an internet socket without a peer.
fn unconnected_standard_stream() -> Option<&'static str> {
    let is_loose = |fd: BorrowedFd<'_>| {
        let internet = [AddressFamily::INET, AddressFamily::INET6];
        sockopt::socket_domain(fd).is_ok_and(|family| internet.contains(&family)) && getpeername(fd).is_err()
    };
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [("input", input.as_fd()), ("output", output.as_fd()), ("error", error.as_fd())];
    streams.into_iter().find(|(_, fd)| is_loose(*fd)).map(|(name, _)| name)
}

/// A socket that was made outside belongs to the outside for the kernel programs on this run's own cgroup: the command could
/// connect it past them. Standard input, output and error stay.
fn keep_out_inherited_sockets() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
    });
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for fd in numbers.filter(|fd| *fd > 2).collect::<Vec<_>>() {
        let _ = close_on_exec(fd);
    }
}

fn fail(exit: Exit, message: impl std::fmt::Display) -> Exit {
    complain(message);
    exit
}

/// Sessions that outlive the command by a moment (a last message under way) may end by themselves.
const LAST_SESSIONS_TIMEOUT: Duration = Duration::from_secs(2);
const CGROUP_PREFIX: &str = "weir-run-";
/// Entries of the hierarchy's root that a start looks at.
const SWEEP_MAX: usize = 4096;
const SIGNALS_MAX: usize = 16;
/// As shells say it: command not found, and found but not executable.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
