//! Where a story plays: servers, a workload's cgroup, a place for everything that an agent needs.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    Agent, Authority, Cgroup, Client, Entry, HttpApi, Places, Postgres, PostgresOptions, SERVER_V4, Scratch, Seen,
    postgres_program, weir,
};

/// One story's stage. Fields are dropped in order: cgroups last, after everyone inside has gone.
#[derive(Debug)]
pub struct Scene {
    pub postgres: Option<Postgres>,
    pub api: Option<HttpApi>,
    pub authority: Authority,
    pub places: Places,
    pub workload: Cgroup,
    pub top: Cgroup,
    _pins: Pins,
    pub scratch: Scratch,
}

/// What agents pinned and a kill left behind: removed when the stage is, by the path that the agent's log names.
#[derive(Debug)]
struct Pins {
    log: PathBuf,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let paths = log.split_whitespace().filter_map(|word| word.strip_prefix("pins=/"));
        for path in paths.map(|path| PathBuf::from("/").join(path)).filter(|path| path.starts_with("/sys/fs/bpf")) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Scene {
    /// A stage without servers.
    ///
    /// # Errors
    /// Not root, or no cgroup v2.
    pub fn empty() -> Result<Self> {
        let scratch = Scratch::new()?;
        let top = Cgroup::top()?;
        let workload = top.child("workload")?;
        let places = Places {
            policies: scratch.directory("policies")?,
            journal: scratch.directory("journal")?,
            runtime: scratch.directory("run")?,
            log: scratch.join("agent.log"),
            top_cgroup: top.directory().to_owned(),
        };
        let authority = Authority::new(&scratch.directory("tls")?, "servers")?;
        let pins = Pins { log: places.log.clone() };
        Ok(Self { postgres: None, api: None, authority, places, workload, top, _pins: pins, scratch })
    }

    /// A stage with a PostgreSQL that speaks TLS with a certificate of `authority`.
    ///
    /// # Errors
    /// As `empty`; or the server does not start.
    pub fn with_postgres() -> Result<Self> {
        let mut scene = Self::empty()?;
        let tls = Some(scene.authority.server_leaf("postgres")?);
        scene.start_postgres(&PostgresOptions { tls, ..PostgresOptions::default() })?;
        Ok(scene)
    }

    /// A stage with an HTTP API in clear text.
    ///
    /// # Errors
    /// As `empty`; or the server does not start.
    pub fn with_api() -> Result<Self> {
        let mut scene = Self::empty()?;
        scene.start_api(false)?;
        Ok(scene)
    }

    /// # Errors
    /// The server does not start.
    pub fn start_postgres(&mut self, options: &PostgresOptions) -> Result<()> {
        let server = Postgres::start(self.scratch.path(), options)?;
        self.scratch.secret("postgres", server.password())?;
        self.postgres = Some(server);
        Ok(())
    }

    /// # Errors
    /// The server does not start.
    pub fn start_api(&mut self, tls: bool) -> Result<()> {
        let leaf = tls.then(|| self.authority.server_leaf("api")).transpose()?;
        let server = HttpApi::start(self.scratch.path(), leaf.as_ref())?;
        self.scratch.secret("api", server.secret())?;
        self.api = Some(server);
        Ok(())
    }

    /// The PostgreSQL of this stage.
    ///
    /// # Errors
    /// It has none.
    pub fn db(&self) -> Result<&Postgres> {
        self.postgres.as_ref().context("this scene has no PostgreSQL")
    }

    /// The HTTP API of this stage.
    ///
    /// # Errors
    /// It has none.
    pub fn http(&self) -> Result<&HttpApi> {
        self.api.as_ref().context("this scene has no HTTP API")
    }

    /// Where a secret's file is.
    #[must_use]
    pub fn secret_file(&self, name: &str) -> PathBuf {
        self.scratch.join("secrets").join(name)
    }

    /// The selector of this stage's workload, for `workloads:`.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("{{cgroup: \"{}\"}}", self.workload.path())
    }

    /// An Upstream, a Credential and a Policy for the PostgreSQL, upstream leg under verify-full, with further lines for
    /// the policy's `spec` (indented by two).
    #[must_use]
    pub fn postgres_policy(&self, spec: &str) -> String {
        let tls = format!("{{mode: verify-full, ca: {}}}", self.authority.pem().display());
        self.postgres_policy_with(&tls, "app", spec)
    }

    /// As `postgres_policy`, with the upstream's `tls:` and the user to log in as.
    #[must_use]
    pub fn postgres_policy_with(&self, tls: &str, user: &str, spec: &str) -> String {
        let port = self.postgres.as_ref().map_or(5432, Postgres::port);
        let (selector, secret) = (self.selector(), self.secret_file("postgres"));
        format!(
            "apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: db}}\nspec:\n  hosts: [127.0.0.5, \"::1\"]\n  ports: [{port}]\n  \
             protocol: postgres\n  tls: {tls}\n---\napiVersion: weir/v1\nkind: Credential\nmetadata: {{name: db-app}}\nspec:\n  \
             user: {user}\n  password: {{file: {}}}\n---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: orders}}\nspec:\n  \
             workloads: [{selector}]\n  upstreams: [{{name: db}}]\n  inject: {{credential: db-app}}\n{spec}",
            secret.display()
        )
    }

    /// An Upstream, a Credential and a Policy for the HTTP API, with `inject:` options (such as `, bearer: true`) and further
    /// lines for the policy's `spec`.
    #[must_use]
    pub fn api_policy(&self, tls: &str, inject: &str, spec: &str) -> String {
        let port = self.api.as_ref().map_or(80, HttpApi::port);
        let (selector, secret) = (self.selector(), self.secret_file("api"));
        format!(
            "apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: api}}\nspec:\n  hosts: [127.0.0.5, \"::1\"]\n  ports: [{port}]\n  \
             protocol: http\n  tls: {tls}\n---\napiVersion: weir/v1\nkind: Credential\nmetadata: {{name: api-token}}\nspec:\n  \
             user: robot\n  token: {{file: {0}}}\n  password: {{file: {0}}}\n---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: web}}\n\
             spec:\n  workloads: [{selector}]\n  upstreams: [{{name: api}}]\n  inject: {{credential: api-token{inject}}}\n{spec}",
            secret.display()
        )
    }

    /// Writes the policies and starts an agent.
    ///
    /// # Errors
    /// The agent does not start.
    pub fn agent(&self, policies: &str) -> Result<Agent> {
        self.agent_with(policies, &[])
    }

    /// As `agent`, with further arguments for `weir agent`.
    ///
    /// # Errors
    /// The agent does not start.
    pub fn agent_with(&self, policies: &str, arguments: &[&str]) -> Result<Agent> {
        self.write_policies(policies)?;
        Agent::start(&self.places, arguments)
    }

    /// Replaces the policy file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_policies(&self, policies: &str) -> Result<()> {
        fs::write(self.places.policies.join("policy.yaml"), policies).context("write the policy")
    }

    /// A command inside the workload's cgroup.
    pub fn client<S: AsRef<std::ffi::OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Client {
        Client::new(command).within(&self.workload)
    }

    /// psql in the workload, without a password, towards the server's IPv4 address.
    ///
    /// # Errors
    /// psql cannot be run.
    pub fn psql(&self, sql: &str) -> Result<Seen> {
        self.psql_at(SERVER_V4, "sslmode=disable", &[sql])
    }

    /// psql in the workload with some connection options, several `-c`.
    ///
    /// # Errors
    /// psql cannot be run.
    pub fn psql_at(&self, host: &str, options: &str, statements: &[&str]) -> Result<Seen> {
        let target = format!("host={host} port={} dbname=app user=nobody {options}", self.db()?.port());
        let psql = postgres_program("psql").into_os_string();
        let mut words = vec![psql, "-X".into(), "-w".into(), "-A".into(), "-t".into(), "-d".into(), target.into()];
        statements.iter().for_each(|sql| words.extend(["-c".into(), (*sql).into()]));
        self.client(words).run()
    }

    /// curl in the workload; `path` is appended to the API's address, `arguments` come first.
    ///
    /// # Errors
    /// curl cannot be run.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Result<Seen> {
        let url = format!("http://{SERVER_V4}:{}{path}", self.http()?.port());
        let fixed = ["curl", "-sS", "--max-time", "20"].into_iter();
        self.client(fixed.chain(arguments.iter().copied()).chain([url.as_str()])).run()
    }

    /// A Python program in the workload; `arguments` are its `sys.argv[1:]`.
    ///
    /// # Errors
    /// Python cannot be run, or still runs after a minute and a half.
    pub fn python(&self, program: &str, arguments: &[&str]) -> Result<Seen> {
        let fixed = ["/usr/bin/python3", "-c", program].into_iter();
        self.client(fixed.chain(arguments.iter().copied())).deadline(Duration::from_secs(90)).run()
    }

    /// Everything in the journal. A client sees its connection end a moment before the agent has written so: sessions that are
    /// about to be closed are waited for.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn journal(&self) -> Result<Vec<Entry>> {
        let deadline = Instant::now() + CLOSE_WAIT;
        loop {
            let entries = self.journal_now()?;
            let count = |kind: &str| entries.iter().filter(|entry| entry.kind() == kind).count();
            if count("session_closed") == count("session_opened") || Instant::now() >= deadline {
                return Ok(entries);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn journal_now(&self) -> Result<Vec<Entry>> {
        let directory = self.places.journal.as_os_str();
        let seen = weir(["journal".as_ref(), "show".as_ref(), "--json".as_ref(), "--journal".as_ref(), directory])?;
        Entry::parse_all(&seen.require_success()?.stdout)
    }

    /// The journal's entries of one kind.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn journaled(&self, kind: &str) -> Result<Vec<Entry>> {
        Ok(self.journal()?.into_iter().filter(|entry| entry.kind() == kind).collect())
    }

    /// `weir journal verify`.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn verify_journal(&self) -> Result<Seen> {
        weir(["journal".as_ref(), "verify".as_ref(), "--journal".as_ref(), self.places.journal.as_os_str()])
    }
}

/// How long the agent may take to journal the end of a session that its client has seen.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
