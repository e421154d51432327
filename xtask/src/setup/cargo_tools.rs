//! Tools that cargo builds: the kernel programs' linker, the test runner, the licence check.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{Missing, Need};
use crate::project;

/// A tool, its exact version, further arguments, and what it is for.
#[derive(Debug)]
struct Tool {
    need: Need,
    name: &'static str,
    version: &'static str,
    arguments: &'static [&'static str],
    why: &'static str,
    /// Only this version will do: the committed object depends on it.
    exact: bool,
}

const TOOLS: &[Tool] = &[
    Tool {
        need: Need::Programs,
        name: "bpf-linker",
        version: "0.13.0",
        arguments: &["--no-default-features", "--features", "llvm-22"],
        why: "links the kernel programs",
        exact: true,
    },
    Tool {
        need: Need::Tests,
        name: "cargo-nextest",
        version: "0.9.143",
        arguments: &[],
        why: "runs the tests, each in its own process",
        exact: false,
    },
    Tool {
        need: Need::Tests,
        name: "cargo-deny",
        version: "0.20.2",
        arguments: &[],
        why: "checks licences, bans and sources",
        exact: false,
    },
];

pub(super) fn missing(needs: &[Need]) -> Vec<Missing> {
    TOOLS.iter().filter(|tool| needs.contains(&tool.need) && !is_there(tool)).map(describe).collect()
}

/// Builds and installs one tool; minutes on a small machine.
pub(super) fn install(item: &Missing) -> Result<()> {
    let tool = TOOLS.iter().find(|tool| tool.name == item.name).with_context(|| format!("no tool {}", item.name))?;
    println!("setup: cargo builds {} {} ({}); this takes minutes", tool.name, tool.version, tool.why);
    let mut command = project::cargo();
    // Debug information and link-time optimisation would double the time and buy nothing here.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command.env_remove("CARGO_TARGET_DIR").envs(LLVM.iter().copied());
    command.args(["install", "--locked", "--version", tool.version, tool.name]).args(tool.arguments);
    project::run(&mut command)
}

fn is_there(tool: &Tool) -> bool {
    let Some(program) = find(tool.name) else { return false };
    if !tool.exact {
        return true;
    }
    let version = project::output(Command::new(program).arg("--version")).unwrap_or_default();
    version.split_whitespace().any(|word| word == tool.version)
}

/// On the search path, or where cargo installs to: that directory may be missing on the path.
fn find(name: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain([home.join("bin")]).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn describe(tool: &Tool) -> Missing {
    let arguments = std::iter::once(&tool.name).chain(tool.arguments).copied().collect::<Vec<_>>().join(" ");
    Missing {
        command: format!("cargo install --locked --version {} {arguments}", tool.version),
        name: tool.name.to_owned(),
        why: tool.why,
    }
}

/// Where the linker's build finds LLVM.
const LLVM: [(&str, &str); 2] = [("LLVM_PREFIX", "/usr/lib/llvm-22"), ("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22")];
