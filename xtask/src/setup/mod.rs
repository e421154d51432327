//! `cargo xtask setup`: looks first, installs only what is missing, says what and why, and does nothing the second time.

mod apt;
mod cargo_tools;

use anyhow::{Result, bail};

use crate::{progress::clock, project::is_root};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what is missing and install nothing; fails if something is
    #[arg(long)]
    check: bool,
}

/// Something that must be there, and what brings it.
#[derive(Debug)]
pub(crate) struct Missing {
    /// What an operator types to get it.
    pub(crate) command: String,
    pub(crate) name: String,
    pub(crate) why: &'static str,
}

/// What something is needed for: the demo must not wait for a compiler that only the tests use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Need {
    /// Building weir.
    Build,
    /// Building the kernel programs.
    Programs,
    /// The benchmark's other proxies and its load.
    Rivals,
    /// Real servers and clients.
    Servers,
    /// What only the tests use.
    Tests,
}

pub(crate) const FOR_DEMO: &[Need] = &[Need::Build, Need::Servers];
pub(crate) const FOR_BENCH: &[Need] = &[Need::Build, Need::Rivals, Need::Servers];
pub(crate) const FOR_TEST: &[Need] = &[Need::Build, Need::Programs, Need::Servers, Need::Tests];
const EVERYTHING: &[Need] = &[Need::Build, Need::Programs, Need::Rivals, Need::Servers, Need::Tests];

pub(crate) fn run(args: &Args) -> Result<()> {
    let missing = missing(EVERYTHING);
    if missing.is_empty() {
        println!("setup: everything is there, nothing to do");
        return Ok(());
    }
    if args.check {
        tell(&missing);
        bail!("{} things are missing; `cargo xtask setup` installs them", missing.len());
    }
    install(EVERYTHING)
}

/// Installs what the other commands need; prints nothing when nothing is missing.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    if missing(needs).is_empty() { Ok(()) } else { install(needs) }
}

fn missing(needs: &[Need]) -> Vec<Missing> {
    let mut missing = apt::missing(needs);
    missing.extend(cargo_tools::missing(needs));
    missing
}

fn tell(missing: &[Missing]) {
    missing.iter().for_each(|item| println!("setup: {} is missing: {}", item.name, item.why));
}

fn install(needs: &[Need]) -> Result<()> {
    let began = std::time::Instant::now();
    tell(&missing(needs));
    let packages = apt::missing(needs);
    if !packages.is_empty() {
        require_root(&packages)?;
        apt::install(&packages)?;
    }
    // Looked at again: a tool may have come as a package.
    for tool in cargo_tools::missing(needs) {
        cargo_tools::install(&tool)?;
    }
    if let Some(item) = missing(needs).first() {
        bail!("{} is still missing after the installation; try: {}", item.name, item.command);
    }
    println!("setup: done in {}", clock(began.elapsed()));
    Ok(())
}

fn require_root(packages: &[Missing]) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    bail!("installing packages needs root; run as root:\n  apt-get install --no-install-recommends {}", names.join(" "))
}
