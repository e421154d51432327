//! `weir journal verify`.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use super::{Exit, Source, output};
use crate::journal::{
    segment::Link,
    verify::{Expected, Head, Report, State, verify_expecting},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Fail also if the journal was not closed, so that frames could have been cut off its end
    #[arg(long)]
    sealed: bool,
    /// Fail also if no frame has this hash: a head that an earlier `verify` printed and that was noted elsewhere
    #[arg(long, value_name = "HASH", value_parser = hash)]
    expect: Option<Link>,
}

fn hash(text: &str) -> Result<Link, &'static str> {
    Link::parse(text).ok_or("not 64 hexadecimal digits: give the head that `weir journal verify` printed")
}

pub(super) fn run(args: &Args) -> Exit {
    let mut progress = Progress::new();
    let report = verify_expecting(&args.source.journal, args.expect, |done, total| progress.show(done, total));
    progress.clear();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            output::fail(error, args.source.json);
            return Exit::Usage;
        }
    };
    output::print(&if args.source.json { json(&report) } else { text(&report) });
    let open_end = args.sealed && report.state != State::Sealed;
    let is_good = report.problems.is_empty() && report.expected != Some(Expected::Missing);
    if is_good && !open_end { Exit::Fine } else { Exit::Failed }
}

pub(super) fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default() + "\n"
}

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let Report { records, frames, segments, bytes, .. } = report;
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}"); // a String takes everything
    };
    let missing = report.expected == Some(Expected::Missing);
    line(format_args!("{}", if missing && report.problems.is_empty() { CUT_OFF } else { conclusion(report.state) }));
    line(format_args!("{records} good records in {frames} frames, {segments} segments, {bytes} bytes"));
    if let (Some(first), Some(last)) = (report.first, report.last) {
        line(format_args!("from {first} to {last}"));
    }
    if let Some(Head { segment, frame, hash }) = &report.head {
        line(format_args!("head: segment {segment} frame {frame} hash {hash}"));
    }
    match report.expected {
        Some(Expected::Contained) => line(format_args!("the expected head is in it, and later frames follow")),
        Some(Expected::Head) => line(format_args!("the head is the expected one")),
        Some(Expected::Missing) => line(format_args!("no frame has the expected hash: what led to it was removed or replaced")),
        None => {}
    }
    for stop in &report.unclean_stops {
        let tail = stop.tail_bytes.map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
        let cause = serde_json::to_value(stop.cause).ok().and_then(|cause| cause.as_str().map(str::to_owned)).unwrap_or_default();
        line(format_args!("on record: {cause} in segment {}, {tail} bytes void, continued {}", stop.segment, stop.continued));
    }
    for problem in &report.problems {
        let kind = serde_json::to_value(problem.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
        let frame = problem.frame.map_or_else(String::new, |frame| format!(" frame {frame}"));
        let since = problem.since.map_or_else(String::new, |since| format!("; good until {since}"));
        line(format_args!("{kind}: {}{frame} byte {}: {}{since}", problem.file, problem.offset, super::neutral(&problem.detail)));
    }
    if report.more_problems > 0 {
        line(format_args!("and {} more problems", report.more_problems));
    }
    text
}

/// What the files prove, and what they do not.
fn conclusion(state: State) -> &'static str {
    match state {
        State::Running => "ok: every frame is good; an agent is writing",
        State::Sealed => {
            "ok: every frame is good; the log ends with a seal; whether newer segments were removed only a head noted elsewhere \
             can tell (--expect)"
        }
        State::Tampered => "TAMPERED: something was changed, removed or put in",
        State::Torn => "TORN: the last write was cut short, as a crash does; the next agent records it",
        State::Unreadable => "UNREADABLE: some of it cannot be read",
        State::Unsealed => {
            "ok so far: every frame is good, but the journal was not closed and no agent is writing: a crash, or frames were cut \
             off its end; the files alone cannot tell"
        }
    }
}

/// Every frame that is there is good, but not every frame is there.
const CUT_OFF: &str = "TAMPERED: every frame is good, but the journal does not lead to the expected head";

/// On a terminal, for those who wait longer than a second.
struct Progress {
    begin: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { begin: Instant::now(), shown: None, terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, done: u64, total: u64) {
        let due = self.shown.unwrap_or(self.begin).elapsed() > PROGRESS_INTERVAL;
        if self.terminal && due {
            eprint!("\rweir: {} of {} MiB", done >> 20, total >> 20);
            self.shown = Some(Instant::now());
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
