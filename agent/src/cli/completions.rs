//! `weir completions` and the man pages: both are made from the same definition as the parser.

use std::{fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{
    Cli, Exit,
    output::{complain, print},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(args: Args) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weir", &mut text);
    print(&String::from_utf8_lossy(&text));
    Exit::Fine
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Directory to write `weir.1`, `weir-run.1`, ... into
    directory: PathBuf,
}

pub fn man(args: ManArgs) -> Exit {
    let write = || -> io::Result<()> {
        fs::create_dir_all(&args.directory)?;
        clap_mangen::generate_to(Cli::command(), &args.directory)
    };
    match write() {
        Ok(()) => Exit::Fine,
        Err(error) => {
            complain(format!("man pages: write {}: {error}", args.directory.display()));
            Exit::Failed
        }
    }
}
