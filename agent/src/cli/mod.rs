//! The command line: one file per subcommand.
//!
//! Exit codes: 0 fine, 1 the thing asked for failed, 2 usage or invalid input, 3 the host cannot do it; `run` gives its
//! command's own. Human output is a table on a terminal and plain when piped; `--json` is for scripts; `NO_COLOR` is honoured.

pub mod agent;
pub mod check;
pub mod completions;
pub mod doctor;
pub mod journal;
pub mod output;
pub mod policy;
pub mod reload;
pub mod run;
pub mod sessions;
pub mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Puts credentials in, masks secrets in what comes back, guards commands and journals every session, for workloads that stay as they are.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  fine
  1  what was asked for failed
  2  usage, or invalid input
  3  this host cannot do it: see `weir doctor`
  `weir run` gives its command's own status.

Environment:
  WEIR_RUNTIME_DIR  sockets and locks [default: /run/weir]
  WEIR_STATE_DIR    journal, authority and keys [default: /var/lib/weir]
  NO_COLOR          no colour when set";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command as a protected workload
    Run(run::Args),
    /// Run the daemon
    Agent(agent::Args),
    /// Validate policy files and run their tests
    Check(check::Args),
    /// Test, explain and describe policies
    Policy(policy::Args),
    /// Say what this host can do, and what to do about the rest
    Doctor(doctor::Args),
    /// Show the running agent
    Status(status::Args),
    /// Show the running agent's open sessions
    Sessions(sessions::Args),
    /// Make the running agent read its policies again
    Reload(reload::Args),
    /// Read the journal
    Journal(journal::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Print man pages into a directory
    #[command(hide = true)]
    Man(completions::ManArgs),
    /// Enter a cgroup and become a command (used by `run`)
    #[command(hide = true, name = "__enter")]
    Enter(run::EnterArgs),
}

/// How a subcommand ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    Fine,
    Failed,
    Usage,
    Host,
    /// `run`: the command's own status.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Host => 3,
            Exit::Code(code) => code,
        })
    }
}

/// Parses the arguments, runs the subcommand, returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Check(args) => check::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Status(args) => status::run(args),
        Command::Sessions(args) => sessions::run(args),
        Command::Reload(args) => reload::run(args),
        Command::Journal(args) => journal::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::man(args),
        Command::Enter(args) => run::enter(args),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_names_exit_codes_and_the_environment() {
        let help = Cli::command().render_help().to_string();
        for word in ["Exit codes", "WEIR_RUNTIME_DIR", "WEIR_STATE_DIR"] {
            assert!(help.contains(word), "{word} is missing: {help}");
        }
    }
}
