//! A running `weir agent`, and weir's own command line.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Client, Daemon, Seen};

/// The binary under test: the one given to `use_weir`, `$WEIR_BIN`, or the one that was built beside this program.
///
/// # Errors
/// It was not built.
pub fn weir_binary() -> Result<PathBuf> {
    if let Some(path) = CHOSEN.get().cloned().or_else(|| env::var_os("WEIR_BIN").map(PathBuf::from)) {
        return Ok(path);
    }
    let this = env::current_exe().context("find this program")?;
    let built = this.ancestors().skip(1).take(2).map(|directory| directory.join("weir")).find(|path| path.is_file());
    built.with_context(|| format!("no weir beside {}: run `cargo build -p weir`, or set WEIR_BIN", this.display()))
}

/// Chooses the binary for this process; the first choice stays.
pub fn use_weir(path: PathBuf) {
    let _ = CHOSEN.set(path);
}

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Where an agent keeps its things; outlives the agent, so that another one can take over.
#[derive(Clone, Debug)]
pub struct Places {
    pub policies: PathBuf,
    pub journal: PathBuf,
    pub runtime: PathBuf,
    pub log: PathBuf,
    pub top_cgroup: PathBuf,
}

impl Places {
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }
}

/// An agent that answers on its control socket.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
    places: Places,
}

impl Agent {
    /// Starts `weir agent` with further arguments, and waits until `weir status` answers.
    ///
    /// # Errors
    /// The agent ends or does not answer in time.
    pub fn start(places: &Places, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self { daemon: Self::spawn(places, arguments)?, places: places.clone() };
        let pid = u64::from(agent.daemon.pid());
        let answers = || weir_status(places).is_ok_and(|status| status["pid"].as_u64().is_none_or(|of| of == pid));
        agent.daemon.wait_ready(START_WAIT_MAX, answers)?;
        Ok(agent)
    }

    /// Starts `weir agent` without waiting: for agents that must not start.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn(places: &Places, arguments: &[&str]) -> Result<Daemon> {
        let mut command = Command::new(weir_binary()?);
        command.arg("agent").arg("--policies").arg(&places.policies).arg("--journal").arg(&places.journal);
        command.arg("--top-cgroup").arg(&places.top_cgroup).arg("--control").arg(places.control()).args(arguments);
        command.env("WEIR_RUNTIME_DIR", &places.runtime).env("NO_COLOR", "1");
        Daemon::start("weir agent", &mut command, &places.log)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// What the agent printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// `weir status --json`.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn status(&self) -> Result<Value> {
        weir_status(&self.places)
    }

    /// `weir reload`.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn reload(&self) -> Result<Seen> {
        weir(["reload".as_ref(), "--control".as_ref(), self.places.control().as_path()])
    }

    /// SIGHUP.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn hang_up(&self) -> Result<()> {
        self.daemon.signal(Signal::HUP)
    }

    /// SIGKILL: nothing is cleaned up.
    ///
    /// # Errors
    /// The agent is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    /// SIGTERM: a clean stop.
    ///
    /// # Errors
    /// It does not end in time, or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.daemon.stop()?;
        if !status.success() {
            bail!("agent ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    /// True while the process runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.status().is_ok()
    }
}

/// Runs weir's command line to its end.
///
/// # Errors
/// The binary cannot be run, or hangs.
pub fn weir<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Seen> {
    let binary = weir_binary()?.into_os_string();
    let words = std::iter::once(binary).chain(arguments.into_iter().map(|word| word.as_ref().to_owned()));
    Client::new(words).env("NO_COLOR", "1").run()
}

fn weir_status(places: &Places) -> Result<Value> {
    let control = places.control();
    let seen = weir([Path::new("status"), Path::new("--json"), Path::new("--control"), &control])?.require_success()?;
    serde_json::from_str(&seen.stdout).context("weir status --json")
}

const START_WAIT_MAX: Duration = Duration::from_secs(30);
