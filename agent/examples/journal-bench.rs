//! Measures the journal alone, for `cargo xtask bench`: sessions, seconds and a fresh directory; prints one line of JSON.

use std::env;

use anyhow::{Context, Result};
use weir::journal::bench::bench;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = |what| arguments.next().with_context(|| format!("usage: journal-bench SESSIONS SECONDS DIRECTORY: no {what}"));
    let (sessions, seconds, directory) = (next("SESSIONS")?, next("SECONDS")?, next("DIRECTORY")?);
    let measured = bench(sessions.parse()?, seconds.parse()?, directory)?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
