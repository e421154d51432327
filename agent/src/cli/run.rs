//! `weir run`.

use super::Exit;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(args: Args) -> Exit {
    let _ = args;
    todo!()
}

#[derive(Debug, clap::Args)]
pub struct EnterArgs {}

pub fn enter(args: EnterArgs) -> Exit {
    let _ = args;
    todo!()
}
