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

pub(crate) fn run(args: &Args) -> Result<()> {
    let missing = all_missing();
    if missing.is_empty() {
        println!("setup: everything is there, nothing to do");
        return Ok(());
    }
    for item in &missing {
        println!("setup: {} is missing: {}", item.name, item.why);
    }
    if args.check {
        bail!("{} things are missing; `cargo xtask setup` installs them", missing.len());
    }
    install()
}

/// As `run`, for the commands that need everything; prints nothing when nothing is missing.
pub(crate) fn ensure() -> Result<()> {
    if all_missing().is_empty() { Ok(()) } else { run(&Args { check: false }) }
}

fn all_missing() -> Vec<Missing> {
    let mut missing = apt::missing();
    missing.extend(cargo_tools::missing());
    missing
}

fn install() -> Result<()> {
    let began = std::time::Instant::now();
    let packages = apt::missing();
    if !packages.is_empty() {
        require_root(&packages)?;
        apt::install(&packages)?;
    }
    // Looked at again: a tool may have come as a package.
    for tool in cargo_tools::missing() {
        cargo_tools::install(&tool)?;
    }
    let left = all_missing();
    if let Some(item) = left.first() {
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
