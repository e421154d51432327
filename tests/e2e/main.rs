//! Everything that needs the kernel, root, and real clients and servers: one binary, a module per feature.

mod cancel;
mod failures;
mod guard;
mod hostile;
mod http;
mod http_guard;
mod journal;
mod kernel;
mod lifecycle;
mod login;
mod mask;
mod policy;
mod protocol;
mod run;
mod servers;

use anyhow::{Result, bail, ensure};
use e2e::{SERVER_V4, Scene, Seen};

/// Rules that most stories share.
const NO_DROP: &str =
    "  rules:\n    - {name: no-drop, deny: {effects: [drop, truncate]}, message: \"Destructive DDL needs a change ticket.\"}\n";

/// Runs a Python program that speaks PostgreSQL by hand, inside the workload.
fn by_hand(scene: &Scene, program: &str) -> Result<Seen> {
    let port = scene.db()?.port().to_string();
    scene.python(&format!("{}\n{program}", include_str!("pg.py")), &[SERVER_V4, &port])
}

/// As `by_hand`, for programs that print their findings: they must end well.
fn tells(scene: &Scene, program: &str) -> Result<String> {
    Ok(by_hand(scene, program)?.require_success()?.stdout)
}

/// Says what was seen when a text is missing.
fn ensure_contains(text: &str, wanted: &str) -> Result<()> {
    ensure!(text.contains(wanted), "expected {wanted:?} in:\n{text}");
    Ok(())
}

/// Says what was seen when a text is there.
fn ensure_lacks(text: &str, unwanted: &str) -> Result<()> {
    let Some(at) = text.find(unwanted) else { return Ok(()) };
    let around: String = text.chars().skip(text[..at].chars().count().saturating_sub(200)).take(400).collect();
    bail!("expected no {unwanted:?}, found at byte {at}: ...{around}...")
}
