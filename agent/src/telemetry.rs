//! Logs: one line an event, to standard error, where systemd and containers pick them up.

use std::io::{self, IsTerminal};

use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging at this level (`info`, `debug`, ...); a directive such as `weir=debug` is understood as well.
/// A second call in one process changes nothing.
pub fn start(level: &str) {
    // Not `EnvFilter`: it looks its spans up whenever a session's task is polled.
    let filter = level.parse::<Targets>().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let terminal = io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal).with_target(false);
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}
