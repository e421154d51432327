//! The control socket: one JSON request a line, one JSON answer a line, for root on this host.

use std::{
    fs, io,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream as BlockingStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{app::App, proxy::sessions::SessionRow};

/// What may be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Ask {
    /// Protects the processes of a cgroup, as a workload of this name, while the asking connection stays open.
    Enroll {
        name: String,
        cgroup: PathBuf,
    },
    Reload,
    Sessions,
    Status,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    Enrolled,
    Failed { error: String },
    Reloaded { generation: u64, digest: String },
    Sessions { sessions: Vec<SessionRow> },
    Status(Box<Status>),
}

/// The running agent, as `weir status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub version: String,
    pub uptime_s: u64,
    pub top_cgroup: PathBuf,
    pub pins: PathBuf,
    /// The certificate that TLS clients of protected workloads have to trust.
    pub ca: PathBuf,
    pub listeners: Vec<std::net::SocketAddr>,
    pub policy: PolicyStatus,
    pub designated: Vec<String>,
    pub sessions_open: usize,
    pub sessions_total: u64,
    pub refused_total: u64,
    pub journal: JournalStatus,
    pub observe: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    pub generation: u64,
    pub digest: String,
    pub policies: Vec<String>,
    pub upstreams: Vec<String>,
    /// Why the last reload was refused; the set above stayed in force.
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalStatus {
    pub directory: PathBuf,
    pub records: u64,
    pub healthy: bool,
    pub error: Option<String>,
}

/// Binds the socket, readable by root alone, replacing what a dead agent left.
///
/// # Errors
/// The directory or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // The interceptor's lock is held by now: whoever left this socket is dead.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The umask alone would leave a moment in which others may connect; peers are asked for their uid as well.
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the task is dropped.
pub async fn serve(listener: UnixListener, app: Arc<App>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                tokio::spawn(async move {
                    converse(stream, &app).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "control: accept failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, app: &App) {
    let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw());
    let (reader, mut writer) = stream.split();
    let mut reader = tokio::io::BufReader::new(reader);
    let mut enrolled = None;
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let answer = if allowed { answer(&line, app, &mut enrolled).await } else { failed("only root may ask") };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        if !matches!(timeout(WRITE_TIMEOUT, writer.write_all(&text)).await, Ok(Ok(()))) {
            break;
        }
    }
    if let Some(cgroup) = enrolled {
        app.withdraw(&cgroup);
    }
}

async fn answer(line: &[u8], app: &App, enrolled: &mut Option<PathBuf>) -> Answer {
    let ask = match serde_json::from_slice(line) {
        Ok(ask) => ask,
        Err(error) => return failed(format!("not a request: {error}")),
    };
    match ask {
        Ask::Enroll { .. } if enrolled.is_some() => failed("this connection has enrolled a workload already"),
        Ask::Enroll { name, cgroup } => match app.enroll(&name, &cgroup) {
            Ok(()) => {
                *enrolled = Some(cgroup);
                Answer::Enrolled
            }
            Err(error) => failed(error.to_string()),
        },
        Ask::Reload => match app.reload().await {
            Ok((generation, digest)) => Answer::Reloaded { generation, digest },
            Err(error) => failed(error),
        },
        Ask::Sessions => Answer::Sessions { sessions: app.sessions() },
        Ask::Status => Answer::Status(Box::new(app.status())),
    }
}

fn failed(error: impl Into<String>) -> Answer {
    Answer::Failed { error: error.into() }
}

/// The asking side, for subcommands: blocking, one request at a time.
pub struct Client {
    stream: BufReader<BlockingStream>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent answers at {path}: {cause}; is `weir agent` running?")]
    NoAgent { path: PathBuf, cause: io::Error },
    #[error("control {path}: {cause}")]
    Broken { path: PathBuf, cause: String },
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// Connects to a running agent.
    ///
    /// # Errors
    /// Nobody listens there, or we may not connect.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let no_agent = |cause| ClientError::NoAgent { path: path.to_owned(), cause };
        let stream = BlockingStream::connect(path).map_err(no_agent)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(no_agent)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The agent said no, or went away.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        let broken = |cause: String| ClientError::Broken { path: PathBuf::from("socket"), cause };
        let mut text = serde_json::to_vec(ask).map_err(|error| broken(error.to_string()))?;
        text.push(b'\n');
        self.stream.get_mut().write_all(&text).map_err(|error| broken(error.to_string()))?;
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(ANSWER_BYTES_MAX);
        limited.read_until(b'\n', &mut line).map_err(|error| broken(error.to_string()))?;
        match serde_json::from_slice(&line).map_err(|error| broken(error.to_string()))? {
            Answer::Failed { error } => Err(ClientError::Refused(error)),
            answer => Ok(answer),
        }
    }
}

const CONNECTIONS_MAX: usize = 256;
const LINE_BYTES_MAX: u64 = 64 * 1024;
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
