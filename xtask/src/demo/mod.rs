//! `cargo xtask demo`: the whole idea on real parts, with what the client saw and what the server saw.

mod checks;
mod memory;
mod report;

use anyhow::{Context, Result, bail};
use e2e::{Agent, Scene};

use crate::{project, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use this weir instead of building one
    #[arg(long)]
    weir: Option<std::path::PathBuf>,
}

/// The stage with the agent between workload and servers.
struct Stage {
    scene: Scene,
    agent: Agent,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !project::is_root() {
        bail!("the demo needs root: it loads eBPF programs and makes cgroups; run `sudo -E cargo xtask demo`");
    }
    setup::ensure(setup::FOR_DEMO)?;
    if args.weir.is_none() {
        println!("demo: cargo builds weir (minutes the first time, seconds afterwards)");
        project::build_weir(false)?;
    }
    let weir = args.weir.clone().unwrap_or_else(|| project::target().join("debug/weir"));
    e2e::use_weir(weir);
    println!("demo: starting PostgreSQL 15, an HTTP API and weir; only weir knows their credentials");
    let mut stage = Stage::set().context("set the stage")?;
    let mut report = report::Report::default();
    for check in checks::ALL {
        report.check(check.title, (check.run)(&mut stage));
    }
    report.finish()
}

impl Stage {
    fn set() -> Result<Self> {
        let mut scene = Scene::with_postgres()?;
        scene.start_api(false)?;
        let database = scene.postgres_policy(DATABASE_RULES);
        let api = scene.api_policy("{mode: off}", "", API_RULES);
        let agent = scene.agent(&format!("{database}\n---\n{api}"))?;
        Ok(Self { scene, agent })
    }
}

const DATABASE_RULES: &str = "  rules:
    - {name: no-drop, deny: {effects: [drop, truncate]}, message: \"Destructive DDL needs a change ticket.\"}
    - {name: no-hidden-code, deny: {effects: [exec-code]}, message: \"Code that weir cannot read does not run here.\"}
  mask:
    - {name: passwords, columns: [\"*.users.password\"], with: \"null\"}
    - {name: people, columns: [\"public.users.email\"], with: {keepDomain: true}}
  tests:
    - {proto: postgres, sql: \"drop table x\", expect: deny}
    - {proto: postgres, sql: \"do $$begin execute 'drop'||' table x'; end$$\", expect: deny}
    - {proto: postgres, sql: \"select 'drop table x'\", expect: allow}
";

const API_RULES: &str = "  mask:
    - {name: keys, jsonKeys: [api_key, password], headers: [Set-Cookie]}
";
