//! HTTP/1.1 keep-alive, 64 connections: direct, haproxy and nginx (one thread each) setting the same header, weir.

use anyhow::{Context, Result, ensure};
use e2e::SERVER_V4;

use super::{
    Effort,
    report::{Better, Report, Samples},
    rivals::{HaProxy, Nginx},
    stage::{Stage, TOKEN},
};

pub(super) fn run(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let haproxy = HaProxy::start(&stage.scene, stage.web.port())?;
    let nginx = Nginx::proxy(&stage.scene, stage.web.port())?;
    let mut subjects = vec![
        ("direct", SERVER_V4, stage.web.port()),
        ("haproxy", "127.0.0.1", haproxy.port),
        ("nginx", "127.0.0.1", nginx.port()),
    ];
    if stage.agent.is_some() {
        subjects.extend(["weir (bounded)", "weir (durable)"].map(|name| (name, SERVER_V4, stage.web.port())));
    }
    let (mut rates, mut tails) = (Samples::default(), Samples::default());
    for _ in 0..effort.rounds {
        for (subject, host, port) in &subjects {
            let measured = wrk(stage, subject, host, *port, effort.seconds)?;
            rates.add(subject, measured.requests_per_second);
            tails.add(subject, measured.p99_us);
        }
    }
    report.row("HTTP/1.1 keep-alive, 64 connections", "requests/s", Better::Higher, rates);
    report.row("HTTP/1.1 keep-alive, 64 connections, 99th percentile", "µs", Better::Lower, tails);
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Measured {
    requests_per_second: f64,
    p99_us: f64,
}

fn wrk(stage: &Stage, subject: &'static str, host: &str, port: u16, seconds: u32) -> Result<Measured> {
    let (url, time) = (format!("http://{host}:{port}/v1/items"), format!("{seconds}s"));
    let mut words = vec!["wrk", "-t1", "-c64", "--latency", "-d", &time];
    let header = format!("Authorization: Bearer {TOKEN}");
    if subject == "direct" {
        words.extend(["-H", &header]);
    }
    words.push(&url);
    let seen = stage.client(subject, words).run()?.require_success()?;
    ensure!(!seen.stdout.contains("Non-2xx"), "{subject} does not put the header in:\n{}", seen.stdout);
    ensure!(!seen.stdout.contains("Socket errors"), "{subject} loses connections:\n{}", seen.stdout);
    read(&seen.stdout).with_context(|| format!("wrk did not say how fast it was:\n{}", seen.stdout))
}

fn read(output: &str) -> Option<Measured> {
    let after = |prefix: &str| output.lines().find_map(|line| line.trim().strip_prefix(prefix).map(str::trim));
    Some(Measured { requests_per_second: after("Requests/sec:")?.parse().ok()?, p99_us: microseconds(after("99%")?)? })
}

/// `831.00us`, `1.20ms`, `1.05s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let output =
            "  Latency Distribution\n     50%    1.00ms\n     99%    2.50ms\n  100 requests in 1.00s\nRequests/sec:  10012.34\n";
        assert_eq!(read(output), Some(Measured { requests_per_second: 10_012.34, p99_us: 2500.0 }));
        assert_eq!(microseconds("831.00us"), Some(831.0));
        assert_eq!(microseconds("1.05s"), Some(1_050_000.0));
    }
}
