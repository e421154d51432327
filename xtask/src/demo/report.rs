//! What held and what did not, as it is shown.

use anyhow::{Result, bail};

/// What a check found out: lines for the reader, and what should have been so but was not.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    lines: Vec<(&'static str, String)>,
    broken: Vec<String>,
}

impl Evidence {
    pub(super) fn did(mut self, command: impl Into<String>) -> Self {
        self.lines.push(("$", command.into()));
        self
    }

    pub(super) fn client(mut self, saw: &str) -> Self {
        self.lines.extend(shown(saw).map(|line| ("client saw", line)));
        self
    }

    pub(super) fn server(mut self, saw: &str) -> Self {
        self.lines.extend(shown(saw).map(|line| ("server saw", line)));
        self
    }

    /// Requires a fact.
    pub(super) fn holds(mut self, fact: bool, what: impl Into<String>) -> Self {
        if !fact {
            self.broken.push(what.into());
        }
        self
    }
}

fn shown(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES_SHOWN_MAX)
        .map(|line| line.chars().take(WIDTH_SHOWN_MAX).collect())
}

/// Counts what held.
#[derive(Debug, Default)]
pub(super) struct Report {
    held: usize,
    total: usize,
}

impl Report {
    pub(super) fn check(&mut self, title: &str, outcome: Result<Evidence>) {
        self.total += 1;
        println!("\n{}. {title}", self.total);
        let broken = match outcome {
            Ok(evidence) => {
                evidence.lines.iter().for_each(|(who, line)| println!("   {who:>10}  {line}"));
                evidence.broken
            }
            Err(error) => vec![format!("{error:#}")],
        };
        if broken.is_empty() {
            self.held += 1;
            println!("   held");
        }
        broken.iter().for_each(|what| println!("   DID NOT HOLD: {what}"));
    }

    /// # Errors
    /// Something did not hold.
    pub(super) fn finish(self) -> Result<()> {
        println!("\ndemo: {} of {} held", self.held, self.total);
        if self.held < self.total {
            bail!("the demo did not hold");
        }
        Ok(())
    }
}

const LINES_SHOWN_MAX: usize = 12;
const WIDTH_SHOWN_MAX: usize = 150;
