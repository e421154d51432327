//! A small real HTTP API that wants a credential, in Python: another implementation than ours on the other end.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Daemon, Leaf, SERVER_V4, SERVER_V6, free_port, random_hex};

/// A running API server; it writes down every request that it sees.
#[derive(Debug)]
pub struct HttpApi {
    daemon: Daemon,
    port: u16,
    secret: String,
    secret_file: PathBuf,
    requests: PathBuf,
}

impl HttpApi {
    /// Starts the server on both server addresses; with `tls`, it speaks https.
    ///
    /// # Errors
    /// Python is missing, or the server does not start.
    pub fn start(directory: &Path, tls: Option<&Leaf>) -> Result<Self> {
        let (port, id) = (free_port()?, random_hex(4)?);
        let script = directory.join("http_api.py");
        fs::write(&script, include_str!("http_api.py")).context("write the API's script")?;
        let secret = random_hex(16)?;
        let secret_file = directory.join(format!("api-{id}.token"));
        fs::write(&secret_file, &secret)?;
        let requests = directory.join(format!("api-{id}.requests"));
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(port.to_string()).arg(&requests).arg(&secret_file);
        if let Some(leaf) = tls {
            command.arg(&leaf.certificate).arg(&leaf.key);
        }
        let mut daemon = Daemon::start("http api", &mut command, &directory.join(format!("api-{id}.log")))?;
        let listens = |host| TcpStream::connect((host, port)).is_ok();
        daemon.wait_ready(Duration::from_secs(20), || listens(SERVER_V4) && listens(SERVER_V6))?;
        Ok(Self { daemon, port, secret, secret_file, requests })
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The credential that `/v1/` wants.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    #[must_use]
    pub fn secret_file(&self) -> &Path {
        &self.secret_file
    }

    /// Every request that the server saw: `method`, `target`, `headers`, `body`.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.requests).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The values of one header of the last request, in order.
    #[must_use]
    pub fn last_header(&self, name: &str) -> Vec<String> {
        let requests = self.requests();
        let pairs = requests.last().and_then(|request| request["headers"].as_array().cloned()).unwrap_or_default();
        let named = pairs.iter().filter(|pair| pair[0].as_str().is_some_and(|given| given.eq_ignore_ascii_case(name)));
        named.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
    }

    /// Stops the server: the port then refuses.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop().map(drop)
    }
}
