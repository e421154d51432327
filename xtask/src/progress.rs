//! Steps that say when they begin, how long they took and how they ended.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Runs named steps one after another and remembers how they ended.
#[derive(Debug)]
pub(crate) struct Steps {
    began: Instant,
    done: Vec<Done>,
    total: usize,
}

#[derive(Debug)]
struct Done {
    name: String,
    outcome: Outcome,
    took: Duration,
}

#[derive(Debug)]
enum Outcome {
    Failed(String),
    Passed,
    Skipped(String),
}

impl Steps {
    pub(crate) fn of(total: usize) -> Self {
        Self { began: Instant::now(), done: Vec::new(), total }
    }

    /// Runs one step. A failure is printed and remembered; the next step runs all the same.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        let began = Instant::now();
        println!("\n[{}/{} {}] {name}", self.done.len() + 1, self.total, clock(self.began.elapsed()));
        let outcome = match step() {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        if let Outcome::Failed(error) = &outcome {
            eprintln!("FAILED {name}: {error}");
        }
        self.done.push(Done { name: name.to_owned(), outcome, took: began.elapsed() });
    }

    /// Records that a step cannot run here, and why.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("\n[{}/{} {}] {name}: skipped, {why}", self.done.len() + 1, self.total, clock(self.began.elapsed()));
        self.done.push(Done { name: name.to_owned(), outcome: Outcome::Skipped(why.to_owned()), took: Duration::ZERO });
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// A step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{:<34} {:>8}  result", "step", "time");
        for done in &self.done {
            let result = match &done.outcome {
                Outcome::Failed(error) => format!("FAILED: {}", error.lines().next().unwrap_or_default()),
                Outcome::Passed => "passed".to_owned(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
            };
            println!("{:<34} {:>8}  {result}", done.name, clock(done.took));
        }
        let count = |wanted: fn(&Outcome) -> bool| self.done.iter().filter(|done| wanted(&done.outcome)).count();
        let (passed, failed) = (count(|o| matches!(o, Outcome::Passed)), count(|o| matches!(o, Outcome::Failed(_))));
        println!("\n{} in all", clock(self.began.elapsed()));
        println!("{passed} passed, {failed} failed");
        if failed > 0 {
            bail!("{failed} steps failed");
        }
        Ok(())
    }
}

/// `m:ss`.
pub(crate) fn clock(elapsed: Duration) -> String {
    format!("{}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}
