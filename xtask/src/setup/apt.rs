//! Debian packages.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{Missing, Need};
use crate::project;

/// What needs it, a package, the file that tells that it (or an equal thing from elsewhere) is there, and what it is for.
const PACKAGES: &[(Need, &str, &[&str], &str)] = &[
    (Need::Build, "gcc", &["/usr/bin/cc"], "links Rust programs, compiles PostgreSQL's parser and the TLS library's assembly"),
    (Need::Build, "libc6-dev", &["/usr/include/stdlib.h"], "C headers for the same"),
    (Need::Build, "make", &["/usr/bin/make"], "builds PostgreSQL's parser"),
    (
        Need::Build,
        "libclang-dev",
        &["/usr/lib/llvm-*/lib/libclang.so", "/usr/lib/x86_64-linux-gnu/libclang.so"],
        "makes Rust bindings of PostgreSQL's parser",
    ),
    (Need::Tests, "git", &["/usr/bin/git"], "lists the files that tidy looks at"),
    (Need::Tests, "iproute2", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"], "network namespaces for the kernel tests"),
    (Need::Tests, "bpftool", &["/usr/sbin/bpftool"], "shows programs and maps when a kernel test fails"),
    (
        Need::Servers,
        "postgresql-15",
        &["/usr/lib/postgresql/15/bin/postgres"],
        "the real server of demo, tests and benchmark (its own cluster is not started)",
    ),
    (Need::Servers, "postgresql-client-15", &["/usr/lib/postgresql/15/bin/psql"], "psql, the real client"),
    (Need::Servers, "curl", &["/usr/bin/curl"], "the real HTTP client"),
    (Need::Servers, "python3", &["/usr/lib/python3*/http/server.py"], "the small HTTP API, and clients that misbehave"),
    (Need::Rivals, "pgbouncer", &["/usr/sbin/pgbouncer"], "rival in the benchmark"),
    (Need::Rivals, "haproxy", &["/usr/sbin/haproxy"], "rival in the benchmark"),
    (Need::Rivals, "nginx-light", &["/usr/sbin/nginx"], "rival in the benchmark, and the benchmark's HTTP server"),
    (Need::Rivals, "wrk", &["/usr/bin/wrk"], "HTTP load for the benchmark"),
    (Need::Programs, "rustc-web", &["/usr/bin/rustc"], "compiles the kernel programs"),
    (Need::Programs, "cargo-web", &["/usr/bin/cargo"], "the same"),
    (Need::Programs, "rust-web-src", &["/usr/src/rustc-*/library/core/Cargo.toml"], "the kernel programs' core library"),
    (Need::Programs, "llvm-22-dev", &["/usr/lib/llvm-22/include/llvm/IR/Module.h"], "builds the linker of the kernel programs"),
    (Need::Programs, "llvm-22", &["/usr/lib/llvm-22/bin/llvm-strip"], "strips the kernel programs"),
    (Need::Programs, "libzstd-dev", &["/usr/include/zstd.h"], "builds the linker of the kernel programs"),
    (Need::Programs, "zlib1g-dev", &["/usr/include/zlib.h"], "builds the linker of the kernel programs"),
    (Need::Programs, "libxml2-dev", &["/usr/include/libxml2/libxml/parser.h"], "builds the linker of the kernel programs"),
    (Need::Tests, "g++", &["/usr/bin/g++"], "links the fuzz targets"),
];

pub(super) fn missing(needs: &[Need]) -> Vec<Missing> {
    let needed = PACKAGES.iter().filter(|(need, ..)| needs.contains(need));
    let absent = needed.filter(|(_, _, files, _)| !files.iter().any(|file| present(file)));
    absent
        .map(|(_, name, _, why)| Missing {
            command: format!("apt-get install --no-install-recommends {name}"),
            name: (*name).to_owned(),
            why,
        })
        .collect()
}

pub(super) fn install(packages: &[Missing]) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    println!("setup: apt-get installs {}", names.join(" "));
    keep_cluster_down(&names)?;
    let mut update = apt_get();
    project::run(update.args(["-qq", "update"]))?;
    let mut install = apt_get();
    // Services of these packages stay down: demo, tests and benchmark start their own.
    let held = ServicesHeld::new()?;
    let outcome =
        project::run(install.args(["-qq", "-y", "-o", "Dpkg::Use-Pty=0", "install", "--no-install-recommends"]).args(&names));
    drop(held);
    outcome
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Debian makes and starts a cluster when the server is installed, unless told before.
fn keep_cluster_down(names: &[&str]) -> Result<()> {
    let settings = Path::new("/etc/postgresql-common/createcluster.conf");
    if !names.iter().any(|name| name.starts_with("postgresql-15")) || settings.exists() {
        return Ok(());
    }
    fs::create_dir_all("/etc/postgresql-common").context("make /etc/postgresql-common")?;
    fs::write(settings, "create_main_cluster = false\n").context("keep Debian from starting a cluster")
}

/// Debian's way to install a daemon without starting it: a policy-rc.d that says no. Ours is removed again; another's is left alone.
struct ServicesHeld {
    ours: bool,
}

impl ServicesHeld {
    fn new() -> Result<Self> {
        let ours = !Path::new(POLICY_RC_D).exists();
        if ours {
            fs::write(POLICY_RC_D, "#!/bin/sh\nexit 101\n").context("hold services")?;
            fs::set_permissions(POLICY_RC_D, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY_RC_D);
        }
    }
}

/// Whether a file is there; one `*` may stand in one part of the path.
fn present(path: &str) -> bool {
    let Some((before, after)) = path.split_once('*') else {
        return Path::new(path).exists();
    };
    let Some((directory, prefix)) = before.rsplit_once('/') else { return false };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.into_iter().any(|entry| entry.path().join(after.trim_start_matches('/')).exists())
}

const POLICY_RC_D: &str = "/usr/sbin/policy-rc.d";
