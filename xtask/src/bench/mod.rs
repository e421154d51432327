//! `cargo xtask bench`: weir against nothing, pgbouncer, haproxy and nginx, in turns within one run; medians and ratios.

mod connect;
mod http;
mod journal;
mod memory;
mod postgres;
mod report;
mod rivals;
mod stage;

use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::{project, setup};
use report::Report;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One short round: shows that everything works, measures little
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Leave weir out: measures the rivals alone
    #[arg(long)]
    without_weir: bool,
    /// Use this weir instead of building a release
    #[arg(long)]
    weir: Option<std::path::PathBuf>,
    /// Measure connections to an address and print the figures (used by the benchmark itself, inside a cgroup)
    #[arg(long, hide = true)]
    connect_to: Option<SocketAddr>,
    #[arg(long, hide = true, default_value_t = 1000)]
    count: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Part {
    Connect,
    Http,
    Journal,
    Memory,
    Postgres,
}

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    seconds: u32,
    connections: usize,
    idle: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(address) = args.connect_to {
        return connect::measure(address, args.count);
    }
    if !project::is_root() {
        bail!("the benchmark needs root: it loads eBPF programs and makes cgroups");
    }
    setup::ensure(setup::FOR_BENCH)?;
    raise_file_limit()?;
    if !args.without_weir {
        e2e::use_weir(args.weir.clone().map_or_else(|| project::build_weir(true), Ok)?);
    }
    let effort = match args.quick {
        true => Effort { rounds: 1, seconds: 1, connections: 500, idle: 100 },
        false => Effort { rounds: 3, seconds: 4, connections: 5000, idle: 500 },
    };
    let stage = stage::Stage::set(!args.without_weir)?;
    let mut report = Report::new(effort);
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    // First: an agent that has carried load before has memory to spare, and an idle connection would seem to cost nothing.
    if wanted(Part::Memory) {
        memory::run(&stage, effort, &mut report)?;
    }
    if wanted(Part::Connect) {
        connect::run(&stage, effort, &mut report)?;
    }
    if wanted(Part::Http) {
        http::run(&stage, effort, &mut report)?;
    }
    if wanted(Part::Postgres) {
        postgres::run(&stage, effort, &mut report)?;
    }
    if wanted(Part::Journal) && !args.without_weir {
        journal::run(&stage, effort, &mut report)?;
    }
    report.finish()
}

/// Hundreds of connections at once need more descriptors than the usual soft limit.
fn raise_file_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}
