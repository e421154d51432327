//! What is measured against what: one PostgreSQL, one nginx as HTTP server, weir with two workloads that differ in durability.

use anyhow::{Context, Result};
use e2e::{Agent, Cgroup, Client, PostgresOptions, SERVER_V4, Scene, postgres_program};

use super::rivals::Nginx;

pub(super) struct Stage {
    /// Dropped first: the agent ends before the servers do.
    pub(super) agent: Option<Agent>,
    pub(super) bounded: Cgroup,
    pub(super) durable: Cgroup,
    pub(super) web: Nginx,
    pub(super) scene: Scene,
}

/// The token that every HTTP subject puts in.
pub(super) const TOKEN: &str = "a-token-of-thirty-two-characters";

impl Stage {
    pub(super) fn set(with_weir: bool) -> Result<Self> {
        println!("bench: starting PostgreSQL 15 and nginx; PostgreSQL runs without fsync: proxies are measured, not its disk");
        let mut scene = Scene::empty()?;
        let settings =
            "max_connections = 700\nlog_statement = 'none'\nlog_connections = off\nshared_buffers = '256MB'\n".to_owned();
        scene.start_postgres(&PostgresOptions { settings, ..PostgresOptions::default() })?;
        fill(&scene)?;
        let web = Nginx::server(&scene)?;
        let (bounded, durable) = (scene.top.child("bounded")?, scene.top.child("durable")?);
        let mut stage = Self { agent: None, bounded, durable, web, scene };
        if with_weir {
            stage.agent = Some(stage.scene.agent(&stage.policies()?)?);
        }
        Ok(stage)
    }

    /// The cgroup of one of weir's subjects; `None` for everyone else.
    pub(super) fn place(&self, subject: &str) -> Option<&Cgroup> {
        match subject {
            "weir (bounded)" => Some(&self.bounded),
            "weir (durable)" => Some(&self.durable),
            _ => None,
        }
    }

    /// A client where the subject's clients run.
    pub(super) fn client<S: AsRef<std::ffi::OsStr>>(&self, subject: &str, command: impl IntoIterator<Item = S>) -> Client {
        let client = Client::new(command);
        match self.place(subject) {
            Some(cgroup) => client.within(cgroup),
            None => client,
        }
    }

    /// Guard, mask and journal on for both workloads; one journals bounded, one durable.
    fn policies(&self) -> Result<String> {
        let token = self.scene.scratch.secret("api", TOKEN)?;
        let (db, web) = (self.scene.db()?.port(), self.web.port());
        let password = self.scene.secret_file("postgres");
        let servers = format!(
            "apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: db}}\nspec:\n  hosts: [{SERVER_V4}]\n  ports: [{db}]\n  protocol: postgres\n  \
             tls: {{mode: off}}\n---\napiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: web}}\nspec:\n  hosts: [{SERVER_V4}]\n  ports: [{web}]\n  \
             protocol: http\n  tls: {{mode: off}}\n---\napiVersion: weir/v1\nkind: Credential\nmetadata: {{name: db}}\nspec:\n  user: app\n  \
             password: {{file: {}}}\n---\napiVersion: weir/v1\nkind: Credential\nmetadata: {{name: web}}\nspec:\n  token: {{file: {}}}\n",
            password.display(),
            token.display(),
        );
        let policy = |durability: &str, cgroup: &Cgroup, upstream: &str, rules: &str| {
            format!(
                "---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: {upstream}-{durability}}}\nspec:\n  workloads: [{{cgroup: \"{}\"}}]\n  \
                 upstreams: [{{name: {upstream}}}]\n  inject: {{credential: {upstream}}}\n  journal: {{statements: {durability}}}\n{rules}",
                cgroup.path()
            )
        };
        let workloads = [("bounded", &self.bounded), ("durable", &self.durable)];
        let all = workloads
            .into_iter()
            .flat_map(|(name, cgroup)| [policy(name, cgroup, "db", DATABASE_RULES), policy(name, cgroup, "web", "")]);
        Ok(servers + &all.collect::<String>())
    }
}

fn fill(scene: &Scene) -> Result<()> {
    let db = scene.db()?;
    let socket = db.socket_directory().to_owned();
    let port = db.port().to_string();
    let fixed = [
        postgres_program("pgbench").into_os_string(),
        "-i".into(),
        "-q".into(),
        "-s".into(),
        SCALE.into(),
        "-h".into(),
        socket.into(),
    ];
    let words = fixed.into_iter().chain(["-p".into(), port.into(), "-U".into(), "postgres".into(), "app".into()]);
    Client::new(words).deadline(std::time::Duration::from_secs(120)).run()?.require_success().context("fill pgbench's tables")?;
    db.admin("grant all on all tables in schema public to app")?;
    db.admin("vacuum analyze").map(drop)
}

const DATABASE_RULES: &str = "  rules:
    - {name: no-drop, deny: {effects: [drop, truncate]}}
  mask:
    - {name: filler, columns: [\"public.pgbench_accounts.filler\", \"*.users.password\"]}
";

const SCALE: &str = "10";
