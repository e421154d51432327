//! The rivals, doing the same work as weir: logging in for the client, or putting the same header in.

use std::{fs, net::TcpStream, os::unix::process::CommandExt, process::Command, time::Duration};

use anyhow::{Context, Result};
use e2e::{Daemon, SERVER_V4, Scene, free_port};

use super::stage::TOKEN;

/// pgbouncer with session pooling, which logs in as `app` for whoever comes.
pub(super) struct PgBouncer {
    _daemon: Daemon,
    pub(super) port: u16,
}

impl PgBouncer {
    pub(super) fn start(scene: &Scene) -> Result<Self> {
        let (db, port) = (scene.db()?, free_port()?);
        let directory = scene.scratch.directory("pgbouncer")?;
        let config = directory.join("pgbouncer.ini");
        let text = format!(
            "[databases]\napp = host={SERVER_V4} port={} dbname=app user=app password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = session\nmax_client_conn = 1000\ndefault_pool_size = 500\nserver_tls_sslmode = disable\n\
             log_connections = 0\nlog_disconnections = 0\nignore_startup_parameters = extra_float_digits\n",
            db.port(),
            db.password(),
        );
        fs::write(&config, text)?;
        let owner = fs::metadata(db.socket_directory())?;
        let ids = (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg(&config).uid(ids.0).gid(ids.1);
        let mut daemon = Daemon::start("pgbouncer", &mut command, &directory.join("log"))?;
        daemon.wait_ready(START_WAIT_MAX, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { _daemon: daemon, port })
    }
}

/// haproxy on one thread, setting the header.
pub(super) struct HaProxy {
    _daemon: Daemon,
    pub(super) port: u16,
}

impl HaProxy {
    pub(super) fn start(scene: &Scene, server: u16) -> Result<Self> {
        let port = free_port()?;
        let directory = scene.scratch.directory("haproxy")?;
        let config = directory.join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
             http-reuse always\nlisten front\n  bind 127.0.0.1:{port}\n  http-request set-header Authorization \"Bearer {TOKEN}\"\n  \
             server web {SERVER_V4}:{server}\n"
        );
        fs::write(&config, text)?;
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(&config);
        let mut daemon = Daemon::start("haproxy", &mut command, &directory.join("log"))?;
        daemon.wait_ready(START_WAIT_MAX, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { _daemon: daemon, port })
    }
}

/// nginx with one worker: as the server that wants the token, or as the proxy that sets it.
pub(super) struct Nginx {
    _daemon: Daemon,
    port: u16,
}

impl Nginx {
    /// The HTTP server of all subjects: a small JSON answer for the right token, 401 otherwise.
    pub(super) fn server(scene: &Scene) -> Result<Self> {
        let location = format!(
            "if ($http_authorization != \"Bearer {TOKEN}\") {{ return 401; }}\n    default_type application/json;\n    \
             return 200 '{{\"id\": 1, \"name\": \"lamp\", \"tags\": [\"a\", \"b\", \"c\"], \"note\": \"{}\"}}';",
            "plain text ".repeat(40)
        );
        Self::start(scene, "nginx-server", SERVER_V4, "", &location)
    }

    pub(super) fn proxy(scene: &Scene, server: u16) -> Result<Self> {
        let upstream = format!("upstream web {{ server {SERVER_V4}:{server}; keepalive 128; keepalive_requests 1000000000; }}");
        let location = format!(
            "proxy_pass http://web;\n    proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n    \
             proxy_set_header Authorization \"Bearer {TOKEN}\";"
        );
        Self::start(scene, "nginx-proxy", "127.0.0.1", &upstream, &location)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn start(scene: &Scene, name: &str, host: &str, upstream: &str, location: &str) -> Result<Self> {
        let port = free_port()?;
        let directory = scene.scratch.directory(name)?;
        let config = directory.join("nginx.conf");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .fold(String::new(), |text, kind| text + &format!("  {kind}_temp_path {}/{kind};\n", directory.display()));
        let text = format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 8192; }}\n\
             http {{\n  access_log off;\n{temporary}  keepalive_requests 1000000000;\n  {upstream}\n  server {{\n    listen {host}:{port} backlog=4096;\n    \
             location / {{\n    {location}\n    }}\n  }}\n}}\n",
            directory.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(&config).arg("-e").arg(directory.join("error.log"));
        let mut daemon = Daemon::start(name, &mut command, &directory.join("log"))?;
        daemon
            .wait_ready(START_WAIT_MAX, || TcpStream::connect((host, port)).is_ok())
            .with_context(|| format!("start {name}"))?;
        Ok(Self { _daemon: daemon, port })
    }
}

const START_WAIT_MAX: Duration = Duration::from_secs(20);
