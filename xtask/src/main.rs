//! The project's own commands: `cargo xtask setup | ebpf | demo | test | bench | tidy`.

mod bench;
mod demo;
mod ebpf;
mod progress;
mod project;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, tests, measures and shows weir.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure weir against direct connections, pgbouncer, haproxy and nginx
    Bench(bench::Args),
    /// Show the whole idea on real parts: PostgreSQL, psql, curl, the kernel
    Demo(demo::Args),
    /// Build the kernel programs, or check the committed object
    Ebpf(ebpf::Args),
    /// Install what is missing; does nothing the second time
    Setup(setup::Args),
    /// Run everything: format, lints, tidy, licences, unit, policies, eBPF, kernel and end-to-end tests
    Test(test::Args),
    /// Check file and function sizes, the module table, and words that must not be committed
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Ebpf(args) => ebpf::run(args),
        Command::Setup(args) => setup::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
