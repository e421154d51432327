//! `weir policy`.

use super::Exit;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(args: Args) -> Exit {
    let _ = args;
    todo!()
}
