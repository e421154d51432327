//! Logs: one line an event, to standard error, where systemd and containers pick them up.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging at this level (`info`, `debug`, ...); a directive such as `weir=debug` is understood as well.
/// A second call in one process changes nothing.
pub fn start(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let _ = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal).with_target(false).try_init();
}
