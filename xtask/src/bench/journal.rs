//! The journal alone: records a second that were durable before their writers went on, from sessions on one thread.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Effort,
    report::{Better, Report, Samples},
    stage::Stage,
};
use crate::project;

pub(super) fn run(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    for sessions in [1, 128] {
        let (mut rates, mut waits) = (Samples::default(), Samples::default());
        for round in 0..effort.rounds {
            let directory = stage.scene.scratch.join(&format!("journal-{sessions}-{round}"));
            let mut command = project::cargo();
            command.args(["run", "--quiet", "--locked", "--release", "--package", "weir", "--example", "journal-bench", "--"]);
            command.args([sessions.to_string(), effort.seconds.to_string()]).arg(directory);
            let printed = project::output(&mut command).context("measure the journal")?;
            let measured: Value = serde_json::from_str(&printed).context("the measurement is not JSON")?;
            let field = |name: &str| measured[name].as_f64().with_context(|| format!("no {name} in {printed}"));
            rates.add("weir", field("records_per_second")?);
            waits.add("weir", field("wait_p50_us")?);
        }
        report.row(&format!("durable records, {sessions} sessions"), "records/s", Better::Higher, rates);
        report.row(&format!("wait for a durable record, {sessions} sessions"), "µs", Better::Lower, waits);
    }
    Ok(())
}
