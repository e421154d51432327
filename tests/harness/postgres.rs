//! A real PostgreSQL 15 on loopback, with users for every way of logging in.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{FlockOperation, flock},
    process::Signal,
};

use crate::{Daemon, Leaf, SERVER_V4, SERVER_V6, free_port, random_hex};

/// How the server is set up.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// TLS with this certificate.
    pub tls: Option<Leaf>,
    /// Refuse connections over TCP without TLS.
    pub tls_only: bool,
    /// Further lines for postgresql.conf.
    pub settings: String,
}

/// Users that may log in over TCP, one a method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppUser {
    Cleartext,
    Md5,
    Scram,
}

pub const APP_USERS: [AppUser; 3] = [AppUser::Cleartext, AppUser::Md5, AppUser::Scram];

impl AppUser {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cleartext => "app_clear",
            Self::Md5 => "app_md5",
            Self::Scram => "app",
        }
    }
}

/// A running server. Its password is random and known to nobody but the test and weir's credential file.
#[derive(Debug)]
pub struct Postgres {
    daemon: Daemon,
    directory: PathBuf,
    port: u16,
    password: String,
}

impl Postgres {
    /// Starts a server with its data below `directory`, and makes users and tables.
    ///
    /// # Errors
    /// A program is missing, the server does not start, or the SQL fails.
    pub fn start(directory: &Path, options: &PostgresOptions) -> Result<Self> {
        let data = directory.join(format!("postgres-{}", random_hex(4)?));
        let account = Account::find("postgres")?;
        copy_template(&account, &data)?;
        let port = free_port()?;
        configure(&account, &data, port, options)?;
        let mut command = Command::new(postgres_program("postgres"));
        account.apply(&mut command).arg("-D").arg(&data).env_clear().env("LANG", "C.UTF-8");
        // SIGINT is PostgreSQL's fast shutdown: sessions are ended, the sockets are free afterwards.
        let daemon = Daemon::start("postgres", &mut command, &directory.join("postgres.log"))?.stops_on(Signal::INT);
        let mut server = Self { daemon, directory: data, port, password: random_hex(16)? };
        let socket = server.directory.join(format!(".s.PGSQL.{port}"));
        let pid_file = server.directory.join("postmaster.pid");
        let ready = || socket.exists() && fs::read_to_string(&pid_file).is_ok_and(|text| text.contains("ready"));
        server.daemon.wait_ready(START_WAIT_MAX, ready)?;
        server.populate()?;
        Ok(server)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of every application user.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Where the unix socket is: also the data directory.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        &self.directory
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The server's own log: what it saw.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Runs SQL as superuser over the unix socket, unseen by weir; gives unaligned rows.
    ///
    /// # Errors
    /// The SQL fails.
    pub fn admin(&self, sql: &str) -> Result<String> {
        let mut command = Command::new(postgres_program("psql"));
        command.env_clear().args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "app", "-h"]);
        command.arg(&self.directory).args(["-p", &self.port.to_string(), "-c", sql]);
        let output = command.output().context("run psql")?;
        ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Stops the server: the port then refuses.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop().map(drop)
    }

    fn populate(&self) -> Result<()> {
        let psql = |sql: &str, database: &str| -> Result<()> {
            let mut command = Command::new(postgres_program("psql"));
            command.env_clear().args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"]);
            command.arg(&self.directory).args(["-p", &self.port.to_string(), "-c", sql]);
            let output = command.output().context("run psql")?;
            ensure!(output.status.success(), "set up the database: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        psql("create database app", "postgres")?;
        psql(&SCHEMA.replace("$PASSWORD", &self.password), "app")
    }
}

/// Where Debian keeps the server's programs.
#[must_use]
pub fn postgres_program(name: &str) -> PathBuf {
    let packaged = Path::new("/usr/lib/postgresql/15/bin").join(name);
    if packaged.exists() { packaged } else { PathBuf::from(name) }
}

/// Runs initdb once a machine, and copies its result: initdb takes longer than most tests.
fn copy_template(account: &Account, data: &Path) -> Result<()> {
    let base = std::env::temp_dir().join("weir-e2e-initdb-15");
    fs::create_dir_all(&base)?;
    std::os::unix::fs::chown(&base, Some(account.uid), Some(account.gid))?;
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
    let lock = File::options().create(true).truncate(false).write(true).open(base.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the template")?;
    let template = base.join("data");
    if !base.join("complete").exists() {
        let _ = fs::remove_dir_all(&template);
        let mut command = Command::new(postgres_program("initdb"));
        account.apply(&mut command).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.arg("-D").arg(&template).args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync"]);
        run(&mut command).context("initdb")?;
        fs::write(base.join("complete"), "")?;
    }
    run(Command::new("cp").arg("-a").arg(&template).arg(data)).context("copy the template")
}

fn configure(account: &Account, data: &Path, port: u16, options: &PostgresOptions) -> Result<()> {
    let mut settings = format!(
        "listen_addresses = '127.0.0.1,{SERVER_V4},{SERVER_V6}'\nport = {port}\nunix_socket_directories = '{}'\nmax_connections = 200\n\
         fsync = off\npassword_encryption = 'scram-sha-256'\nlog_statement = 'all'\nlog_connections = on\nlog_line_prefix = '%u '\n{}\n",
        data.display(),
        options.settings,
    );
    if let Some(leaf) = &options.tls {
        for (source, name) in [(&leaf.certificate, "server.crt"), (&leaf.key, "server.key")] {
            let target = data.join(name);
            fs::copy(source, &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
            std::os::unix::fs::chown(&target, Some(account.uid), Some(account.gid))?;
        }
        settings += "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
    }
    let kind = if options.tls_only { "hostssl" } else { "host" };
    let rules = format!(
        "local all postgres trust\n{kind} all app_md5 all md5\n{kind} all app_clear all password\n{kind} all all all scram-sha-256\n"
    );
    fs::write(data.join("postgresql.auto.conf"), settings)?;
    fs::write(data.join("pg_hba.conf"), rules).context("write pg_hba.conf")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A system account, from /etc/passwd.
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    fn find(name: &str) -> Result<Self> {
        let table = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let line = table.lines().find(|line| line.split(':').next() == Some(name));
        let fields: Vec<&str> = line.with_context(|| format!("no account {name}: run `cargo xtask setup`"))?.split(':').collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse().ok()).context("/etc/passwd is malformed");
        Ok(Self { uid: number(2)?, gid: number(3)? })
    }

    fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.uid(self.uid).gid(self.gid).current_dir("/")
    }
}

const START_WAIT_MAX: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
create role app login password '$PASSWORD';
create role app_clear login password '$PASSWORD';
set password_encryption = 'md5';
create role app_md5 login password '$PASSWORD';
create table users (id int primary key, name text not null, email text, password text);
insert into users values (1, 'Ann', 'ann@example.com', 'hunter2-ann'), (2, 'Bob', 'bob@example.org', 'hunter2-bob');
create table orders (id int primary key, item text not null, amount numeric(10,2));
insert into orders select n, 'item ' || n, n * 1.5 from generate_series(1, 100) n;
create table x (id int);
insert into x values (1);
grant all on all tables in schema public to app, app_md5, app_clear;
grant create on schema public to app, app_md5, app_clear;
alter table x owner to app;
alter table orders owner to app;
alter table users owner to app;
";
