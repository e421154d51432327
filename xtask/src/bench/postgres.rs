//! pgbench: select-only and TPC-B, 1 and 16 clients, simple and prepared, and select-only with 128, where a durable journal commits for
//! many at once; direct, through pgbouncer, through weir.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{SERVER_V4, postgres_program};

use super::{
    Effort,
    report::{Better, Report, Samples},
    rivals::PgBouncer,
    stage::Stage,
};

/// One pgbench setting.
#[derive(Clone, Copy, Debug)]
struct Load {
    select_only: bool,
    clients: u32,
    mode: &'static str,
}

pub(super) fn run(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let rival = PgBouncer::start(&stage.scene)?;
    for load in loads() {
        let mut samples = Samples::default();
        for _ in 0..effort.rounds {
            for subject in subjects(stage) {
                samples.add(subject, pgbench(stage, &rival, subject, load, load.seconds(effort))?);
            }
        }
        let what = if load.select_only { "select-only" } else { "TPC-B" };
        report.row(
            &format!("pgbench {what}, {}, {} clients", load.mode, load.clients),
            "transactions/s",
            Better::Higher,
            samples,
        );
    }
    Ok(())
}

impl Load {
    /// Time for the work itself: pgbench counts the logins in, and a hundred of them take seconds on a slow disk.
    fn seconds(self, effort: Effort) -> u32 {
        effort.seconds + self.clients / 32
    }
}

fn loads() -> Vec<Load> {
    let mut loads = Vec::new();
    for select_only in [true, false] {
        for clients in [1, 16] {
            loads.extend(["simple", "prepared"].map(|mode| Load { select_only, clients, mode }));
        }
    }
    loads.push(Load { select_only: true, clients: 128, mode: "prepared" });
    loads
}

fn subjects(stage: &Stage) -> Vec<&'static str> {
    let weir = ["weir (bounded)", "weir (durable)"].into_iter().filter(|_| stage.agent.is_some());
    ["direct", "pgbouncer"].into_iter().chain(weir).collect()
}

fn pgbench(stage: &Stage, rival: &PgBouncer, subject: &'static str, load: Load, seconds: u32) -> Result<f64> {
    let db = stage.scene.db()?;
    let (host, port) = if subject == "pgbouncer" { ("127.0.0.1", rival.port) } else { (SERVER_V4, db.port()) };
    let mut words = vec![
        postgres_program("pgbench").into_os_string(),
        "-n".into(),
        "-h".into(),
        host.into(),
        "-p".into(),
        port.to_string().into(),
    ];
    words.extend(["-U".into(), "app".into(), "-M".into(), load.mode.into(), "-c".into(), load.clients.to_string().into()]);
    words.extend(["-j".into(), load.clients.min(2).to_string().into(), "-T".into(), seconds.to_string().into()]);
    words.extend(load.select_only.then(|| "-S".into()));
    words.push("app".into());
    let deadline = Duration::from_secs(u64::from(seconds) + 60);
    let mut client = stage.client(subject, words).env("PGSSLMODE", "disable").deadline(deadline);
    if subject == "direct" {
        client = client.env("PGPASSWORD", db.password());
    }
    let seen = client.run()?.require_success().with_context(|| format!("pgbench, {subject}, {load:?}"))?;
    transactions_per_second(&seen.stdout).with_context(|| format!("pgbench did not say how fast it was:\n{}", seen.stdout))
}

fn transactions_per_second(output: &str) -> Option<f64> {
    output.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pgbench_says() {
        assert_eq!(
            transactions_per_second("latency average = 0.1 ms\ntps = 1234.5 (without initial connection time)\n"),
            Some(1234.5)
        );
        assert_eq!(transactions_per_second("nothing"), None);
    }
}
