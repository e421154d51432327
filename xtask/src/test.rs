//! `cargo xtask test`: everything, in one command; what passes here passes in CI, because CI calls nothing else.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    progress::Steps,
    project::{self, cargo},
    setup, tidy,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs root: kernel and end-to-end tests
    #[arg(long)]
    no_root: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::of(STEPS);
    steps.run("setup", || if args.no_root { Ok(()) } else { setup::ensure(setup::FOR_TEST) });
    steps.run("format", || project::run(cargo().args(["fmt", "--all", "--check"])));
    steps.run("lints", || {
        project::run(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    steps.run("tidy", tidy::run);
    steps.run("licences, bans, sources", licences);
    steps.run("build", || project::build_weir(false).map(drop));
    steps.run("unit tests", unit_tests);
    steps.run("documentation tests", || project::run(cargo().args(["test", "--locked", "--workspace", "--doc"])));
    steps.run("policies", check_policies);
    steps.run("fuzz targets", fuzz_targets);
    if args.no_root {
        steps.skip("eBPF object", "--no-root");
        steps.skip("kernel and end to end", "--no-root");
    } else {
        steps.run("eBPF object", check_object);
        steps.run("kernel and end to end", end_to_end);
    }
    steps.finish()
}

/// Advisories are left out: they need a database that is not part of the lock file.
fn licences() -> Result<()> {
    project::run(cargo().args(["fetch", "--locked", "--quiet"]))?;
    project::run(cargo().args(["deny", "--offline", "--log-level", "error", "check", "bans", "licenses", "sources"]))
}

fn unit_tests() -> Result<()> {
    project::run(cargo().args(["nextest", "run", "--locked", "--workspace", "--exclude", "e2e"]))
}

fn check_policies() -> Result<()> {
    let directory = project::root().join("policies");
    ensure!(directory.is_dir(), "no policies at {}", directory.display());
    let check = |path: &Path| project::run(Command::new(weir()).arg("check").arg(path));
    // One by one, because each is there to be copied, and each folder as a whole, as an agent would read it.
    let files = yaml_files(&directory)?;
    files.iter().try_for_each(|file| check(file))?;
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    folders.into_iter().try_for_each(check)
}

fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Rebuilds the kernel programs, compares them with the committed object, and loads each through the verifier.
fn check_object() -> Result<()> {
    let xtask = env::current_exe().context("find xtask")?;
    project::run(Command::new(&xtask).args(["ebpf", "check"]))?;
    project::run(Command::new(&xtask).args(["ebpf", "size"]))
}

fn end_to_end() -> Result<()> {
    ensure!(project::is_root(), "kernel and end-to-end tests need root: eBPF programs, cgroups, other users' processes");
    project::run(cargo().args(["nextest", "run", "--locked", "--package", "e2e"]).env("WEIR_BIN", weir()))
}

fn weir() -> PathBuf {
    project::target().join("debug/weir")
}

/// Builds every fuzz target with coverage instrumentation and runs each for a few seconds. The stable compiler can do this;
/// only the address sanitizer, which safe code has no need for, wants a nightly.
fn fuzz_targets() -> Result<()> {
    let manifest = project::root().join("agent/wire/fuzz/Cargo.toml");
    let triple = host_triple()?;
    let target = project::target().join("fuzz");
    let mut build = cargo();
    build.args(["build", "--locked", "--release", "--target", &triple, "--manifest-path"]).arg(&manifest);
    build.env("RUSTFLAGS", FUZZ_FLAGS).env("CARGO_TARGET_DIR", &target);
    project::run(&mut build)?;
    let text = fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    let names = fuzz_names(&text);
    ensure!(!names.is_empty(), "no fuzz target in {}", manifest.display());
    for name in names {
        println!("fuzz {name} for {FUZZ_SECONDS} s");
        let corpus = target.join("corpus").join(&name);
        fs::create_dir_all(&corpus)?;
        let mut fuzz = Command::new(target.join(&triple).join("release").join(&name));
        fuzz.current_dir(&target).arg(corpus).args([format!("-max_total_time={FUZZ_SECONDS}"), "-verbosity=0".to_owned()]);
        fuzz.args(["-rss_limit_mb=2048", "-timeout=10"]);
        project::run(&mut fuzz)?;
    }
    Ok(())
}

/// The names of the `[[bin]]` tables.
fn fuzz_names(manifest: &str) -> Vec<String> {
    let tables = manifest.split("[[bin]]").skip(1);
    let name = |table: &str| {
        table.lines().find_map(|line| Some(line.strip_prefix("name = \"")?.trim_end().strip_suffix('"')?.to_owned()))
    };
    tables.filter_map(name).collect()
}

fn host_triple() -> Result<String> {
    let version = project::output(Command::new("rustc").current_dir(project::root()).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}

const STEPS: usize = 12;
const FUZZ_SECONDS: u32 = 5;
/// What cargo-fuzz passes, without the sanitizer.
const FUZZ_FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                          -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                          -Cllvm-args=-sanitizer-coverage-trace-compares";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_names_of_fuzz_targets() {
        assert_eq!(
            fuzz_names("[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\npath = \"x\"\n\n[[bin]]\nname = \"c\"\n"),
            ["b", "c"]
        );
    }
}
