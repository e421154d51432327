//! Samples, medians and ratios: a table on the terminal, JSON in `target/bench/`.

use std::{collections::BTreeMap, fs, time::SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Effort;
use crate::project;

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    measured_at_unix_s: u64,
    kernel: String,
    cpus: usize,
    rounds: usize,
    seconds: u32,
    rows: Vec<Row>,
}

/// One thing that was measured for several subjects.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    better: Better,
    subjects: Vec<Subject>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Higher,
    Lower,
}

#[derive(Debug, Serialize)]
struct Subject {
    name: &'static str,
    median: f64,
    samples: Vec<f64>,
    /// This subject's median over each other's: above 1 is better where higher is better.
    ratio_to: BTreeMap<&'static str, f64>,
}

/// Samples of one thing, taken in turns.
#[derive(Debug, Default)]
pub(super) struct Samples {
    subjects: Vec<(&'static str, Vec<f64>)>,
}

impl Samples {
    pub(super) fn add(&mut self, subject: &'static str, value: f64) {
        match self.subjects.iter_mut().find(|(name, _)| *name == subject) {
            Some((_, values)) => values.push(value),
            None => self.subjects.push((subject, vec![value])),
        }
    }
}

impl Report {
    pub(super) fn new(effort: Effort) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self { measured_at_unix_s: now, kernel, cpus, rounds: effort.rounds, seconds: effort.seconds, rows: Vec::new() }
    }

    /// Adds a row and prints it.
    pub(super) fn row(&mut self, what: &str, unit: &'static str, better: Better, samples: Samples) {
        let medians: Vec<(&'static str, f64)> = samples.subjects.iter().map(|(name, values)| (*name, median(values))).collect();
        let subjects = samples.subjects.into_iter().map(|(name, values)| {
            let own = median(&values);
            let others = medians.iter().filter(|(other, value)| *other != name && *value > 0.0);
            Subject { name, median: own, samples: values, ratio_to: others.map(|(other, value)| (*other, own / value)).collect() }
        });
        let row = Row { what: what.to_owned(), unit, better, subjects: subjects.collect() };
        print(&row);
        self.rows.push(row);
    }

    /// Writes the JSON, and says where it is.
    pub(super) fn finish(self) -> Result<()> {
        let directory = project::target().join("bench");
        fs::create_dir_all(&directory)?;
        let text = serde_json::to_string_pretty(&self)?;
        for name in [format!("{}.json", self.measured_at_unix_s), "latest.json".to_owned()] {
            let path = directory.join(name);
            fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
        }
        println!("\nbench: {} rows, in {}", self.rows.len(), directory.join("latest.json").display());
        Ok(())
    }
}

/// A line a subject: median, spread, and how weir compares with it.
fn print(row: &Row) {
    println!("\n{} ({}, {} is better)", row.what, row.unit, if row.better == Better::Higher { "higher" } else { "lower" });
    for subject in &row.subjects {
        let (low, high) =
            subject.samples.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        let weirs = row.subjects.iter().filter(|other| other.name.starts_with("weir") && other.name != subject.name);
        let ratios = weirs.filter_map(|weir| Some(format!("{} = {:.2} x", weir.name, weir.ratio_to.get(subject.name)?)));
        let ratios = if subject.name.starts_with("weir") { String::new() } else { ratios.collect::<Vec<_>>().join(", ") };
        println!("  {:<24} {:>12.1}  [{low:.1} .. {high:.1}]  {ratios}", subject.name, subject.median);
    }
}

/// The middle value; of an even number of values the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => at(odd / 2),
        even => f64::midpoint(at(even / 2 - 1), at(even / 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_middle() {
        assert!((median(&[9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
