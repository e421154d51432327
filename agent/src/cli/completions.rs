//! `weir completions`.

use super::Exit;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(args: Args) -> Exit {
    let _ = args;
    todo!()
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {}

pub fn man(args: ManArgs) -> Exit {
    let _ = args;
    todo!()
}
