//! Where things are, and how cargo and other programs are called.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The root of the work tree.
pub(crate) fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Cargo as it called us, with the project's root as directory.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a command to its end with the terminal as its own.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", describe(command)))?;
    ensure!(status.success(), "{} ended with {status}", describe(command));
    Ok(())
}

/// Runs a command quietly; gives its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", describe(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} ended with {}:\n{text}{}",
        describe(command),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// Builds a package's binary and gives its path.
pub(crate) fn build_weir(release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--locked", "--package", "weir"]);
    if release {
        command.arg("--release");
    }
    run(&mut command).context("build weir")?;
    Ok(target().join(if release { "release" } else { "debug" }).join("weir"))
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
