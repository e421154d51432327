//! What can go wrong at the kernel boundary.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Operation, subject, cause.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    #[error("{}: another weir agent runs here, pid {pid}; stop it first", pin_dir.display())]
    AlreadyRunning { pid: u32, pin_dir: PathBuf },
    #[error("load the kernel programs: {0}")]
    Load(#[from] Box<aya::EbpfError>),
    #[error("update map {map}: {cause}")]
    Map { map: &'static str, cause: Box<aya::maps::MapError> },
    #[error("the programs' object holds no {0}: it is damaged")]
    Missing(&'static str),
    #[error(
        "no cgroup v2 hierarchy is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup`), or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup2,
    #[error("{}: not on a BPF file system: choose a directory below /sys/fs/bpf", .0.display())]
    NotBpffs(PathBuf),
    #[error("{operation} {}: {cause}", path.display())]
    Os { operation: &'static str, path: PathBuf, cause: io::Error },
    #[error(
        "{}: the programs are attached to another cgroup (id {attached}, not {wanted}): run the agent with that --top-cgroup, or remove the pins with `rm -r` and start again",
        pin_dir.display()
    )]
    OtherTop { attached: u64, wanted: u64, pin_dir: PathBuf },
    #[error("{}: pins of layout {found}, this agent has {ours}: stop the workloads, then remove them with `rm -r`", pin_dir.display())]
    OtherVersion { found: u32, ours: u32, pin_dir: PathBuf },
    #[error("{operation} program {program}: {cause}")]
    Program { operation: &'static str, program: &'static str, cause: Box<aya::programs::ProgramError> },
}

impl InterceptError {
    pub(super) fn os(operation: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self::Os { operation, path: path.to_owned(), cause: cause.into() }
    }

    pub(super) fn map(map: &'static str, cause: impl Into<aya::maps::MapError>) -> Self {
        Self::Map { map, cause: Box::new(cause.into()) }
    }

    pub(super) fn program(operation: &'static str, program: &'static str, cause: impl Into<aya::programs::ProgramError>) -> Self {
        Self::Program { operation, program, cause: Box::new(cause.into()) }
    }
}
