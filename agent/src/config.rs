//! File and flags become one validated configuration. The only reader of the environment.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Everything the agent is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    pub policies: Vec<PathBuf>,
    pub journal: PathBuf,
    /// `None`: the root of the v2 hierarchy.
    pub top_cgroup: Option<PathBuf>,
    pub control: PathBuf,
    /// Locks live here.
    pub runtime_dir: PathBuf,
    /// The authority lives here.
    pub state_dir: PathBuf,
    pub pin_dir: PathBuf,
    pub handshake_timeout: Duration,
    pub on_stop: OnStop,
    /// Every policy only observes, whatever it says.
    pub observe: bool,
}

/// What a clean stop leaves behind. A crash always refuses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// The kernel programs stay: designated workloads get "connection refused" until an agent runs again.
    #[default]
    Refuse,
    /// The kernel programs go: designated workloads reach the network unprotected.
    Release,
}

/// The configuration file: every key may also be a flag, and the flag wins.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct File {
    policies: Vec<PathBuf>,
    journal: Option<PathBuf>,
    top_cgroup: Option<PathBuf>,
    control: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    handshake_timeout_s: Option<u64>,
    on_stop: Option<OnStop>,
}

/// What the command line may set.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Policy file or directory; may be given several times [default: /etc/weir/policies]
    #[arg(long, value_name = "PATH")]
    pub policies: Vec<PathBuf>,
    /// Journal directory [default: /var/lib/weir/journal]
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// Attach the kernel programs here instead of the root of the cgroup v2 hierarchy
    #[arg(long, value_name = "PATH")]
    pub top_cgroup: Option<PathBuf>,
    /// Control socket [default: /run/weir/control.sock]
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// Where weir's own certificate authority lives [default: /var/lib/weir]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Time from accept to a client's first complete request, such as 30s or 2m [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub handshake_timeout: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("config {path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("config {path}: {cause}")]
    Parse { path: PathBuf, cause: String },
    #[error("config: handshake timeout of {0} s is not between 1 and {HANDSHAKE_TIMEOUT_S_MAX}")]
    HandshakeTimeout(u64),
}

impl Config {
    /// Joins flags and file; flags win, then the file, then the defaults.
    ///
    /// # Errors
    /// The file cannot be read or has an unknown key; a value is out of range.
    pub fn load(file: Option<&Path>, flags: Flags, on_stop: Option<OnStop>) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let runtime_dir = runtime_dir();
        let seconds = flags.handshake_timeout.or(file.handshake_timeout_s).unwrap_or(HANDSHAKE_TIMEOUT_S);
        if !(1..=HANDSHAKE_TIMEOUT_S_MAX).contains(&seconds) {
            return Err(ConfigError::HandshakeTimeout(seconds));
        }
        let policies = if flags.policies.is_empty() { file.policies } else { flags.policies };
        let policies = if policies.is_empty() { vec![PathBuf::from(POLICIES)] } else { policies };
        let state_dir = flags.state_dir.or(file.state_dir).unwrap_or_else(state_dir);
        Ok(Self {
            policies,
            journal: flags.journal.or(file.journal).unwrap_or_else(|| state_dir.join("journal")),
            top_cgroup: flags.top_cgroup.or(file.top_cgroup),
            control: flags.control.or(file.control).unwrap_or_else(default_control),
            pin_dir: pin_dir(&runtime_dir),
            runtime_dir,
            state_dir,
            handshake_timeout: Duration::from_secs(seconds),
            on_stop: on_stop.or(file.on_stop).unwrap_or_default(),
            observe: false,
        })
    }
}

/// Where a control socket is looked for when no flag says otherwise.
#[must_use]
pub fn default_control() -> PathBuf {
    runtime_dir().join("control.sock")
}

/// `WEIR_RUNTIME_DIR`, else `/run/weir`: a second instance on one host gets its own.
#[must_use]
pub fn runtime_dir() -> PathBuf {
    directory("WEIR_RUNTIME_DIR", RUNTIME)
}

/// `WEIR_STATE_DIR`, else `/var/lib/weir`.
#[must_use]
pub fn state_dir() -> PathBuf {
    directory("WEIR_STATE_DIR", STATE)
}

/// The bpffs directory of an instance: named after its runtime directory, so that both are unique together.
#[must_use]
pub fn pin_dir(runtime_dir: &Path) -> PathBuf {
    if runtime_dir == Path::new(RUNTIME) {
        return PathBuf::from(PINS);
    }
    let digest = Sha256::digest(runtime_dir.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!("{PINS}-{name}"))
}

/// Reads `30`, `30s` or `2m` as seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let count: u64 = number.parse().map_err(|_| "not a time: write it as 30s or 2m".to_owned())?;
    count.checked_mul(factor).ok_or_else(|| "too long".to_owned())
}

fn directory(variable: &str, default: &str) -> PathBuf {
    env::var_os(variable).filter(|value| !value.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
    serde_saphyr::from_str(&text).map_err(|error| ConfigError::Parse { path: path.to_owned(), cause: error.to_string() })
}

const POLICIES: &str = "/etc/weir/policies";
const RUNTIME: &str = "/run/weir";
const STATE: &str = "/var/lib/weir";
const PINS: &str = "/sys/fs/bpf/weir";
const HANDSHAKE_TIMEOUT_S: u64 = 60;
const HANDSHAKE_TIMEOUT_S_MAX: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.yaml");
        fs::write(&path, "journal: /from/file\nonStop: release\n").unwrap();
        let flags = Flags { state_dir: Some("/from/flag".into()), ..Flags::default() };
        let config = Config::load(Some(&path), flags, None).unwrap();
        assert_eq!(config.journal, Path::new("/from/file"));
        assert_eq!(config.state_dir, Path::new("/from/flag"));
        assert_eq!(config.on_stop, OnStop::Release);
        assert_eq!(config.policies, [Path::new(POLICIES)]);
    }

    #[test]
    fn refuses_an_unknown_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.yaml");
        fs::write(&path, "jurnal: /x\n").unwrap();
        let error = Config::load(Some(&path), Flags::default(), None).unwrap_err().to_string();
        assert!(error.contains("jurnal"), "{error}");
    }

    #[test]
    fn refuses_a_timeout_out_of_range() {
        let flags = Flags { handshake_timeout: Some(0), ..Flags::default() };
        assert!(Config::load(None, flags, None).is_err());
    }
}
