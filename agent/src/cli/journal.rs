//! `weir journal`: the reading side, also of a journal that is being written.
//!
//! Exit codes: 0 fine; 1 `verify` found a problem, `show` found no such session; 2 usage, or there is no journal.

mod ls;
mod show;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use super::{Exit, output};
use crate::{
    config::state_dir,
    journal::read::{Problem, Walk},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sessions
    Ls(ls::Args),
    /// Print what happened, in order: one session's events, or everything
    Show(show::Args),
    /// Check that the journal is what the agent wrote
    Verify(verify::Args),
}

/// What every reader of a journal is told.
#[derive(Debug, clap::Args)]
struct Source {
    /// Directory of the journal [default: journal below $WEIR_STATE_DIR or /var/lib/weir]
    #[arg(long, value_name = "DIR", default_value_os_t = state_dir().join("journal"), hide_default_value = true)]
    journal: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Ls(args) => ls::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}

impl Source {
    /// Says what is wrong if there is nothing to read.
    fn open(&self) -> Result<Walk, Exit> {
        Walk::open(&self.journal).map_err(|error| {
            output::fail(error, self.json);
            Exit::Usage
        })
    }
}

/// A listing goes on behind a bad frame, but not silently.
fn complain(problem: &Problem) {
    output::complain(format_args!("journal segment {} byte {}: {}", problem.file, problem.offset, problem.detail));
}

/// Text from a journal may hold an attacker's bytes: what could move a cursor, set a title, or reverse the reading order is shown
/// escaped, line feeds and tabs are kept.
fn neutral(text: &str) -> String {
    let plain = |character: char| matches!(character, '\n' | '\t') || !(character.is_control() || is_reordering(character));
    let mut neutral = String::with_capacity(text.len());
    for character in text.chars() {
        if plain(character) { neutral.push(character) } else { neutral.extend(character.escape_unicode()) }
    }
    neutral
}

/// Unicode's bidirectional controls ("Trojan Source", CVE-2021-42574).
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
