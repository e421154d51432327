//! `weir journal show`.

use std::{collections::HashMap, fmt::Write};

use super::{Exit, Source, neutral, output};
use crate::{
    flow::{Effects, SessionId, Workload},
    journal::{
        event::{Event, VerdictEntry},
        read::Entry,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Session to show: its id, or the beginning of it if no other begins so; without it, everything
    #[arg(value_name = "SESSION", value_parser = prefix)]
    session: Option<String>,
}

/// The hexadecimal digits of an id's beginning.
fn prefix(text: &str) -> Result<String, String> {
    let digits: String =
        text.chars().filter(|character| *character != '-').map(|character| character.to_ascii_lowercase()).collect();
    let hexadecimal = (1..=32).contains(&digits.len()) && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    if hexadecimal { Ok(digits) } else { Err("expected a session id, or the beginning of one".to_owned()) }
}

pub(super) fn run(args: &Args) -> Exit {
    let session = match args.session.as_deref().map(|prefix| choose(args, prefix)).transpose() {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    let walk = match args.source.open() {
        Ok(walk) => walk,
        Err(exit) => return exit,
    };
    let mut teller = Teller::new(output::colour(), session.is_none());
    let mut text = String::new();
    walk.for_each(super::complain, |entry| {
        if session.is_none() || entry.session == session {
            text += &if args.source.json { entry.to_json() + "\n" } else { teller.tell(&entry) };
        }
        if text.len() > PRINT_BYTES {
            output::print(&std::mem::take(&mut text));
        }
    });
    output::print(&text);
    Exit::Fine
}

fn choose(args: &Args, prefix: &str) -> Result<SessionId, Exit> {
    let mut found: Vec<SessionId> = Vec::new();
    args.source.open()?.for_each(
        |_| {},
        |entry| {
            let fits = |session: &SessionId| session.0.as_simple().to_string().starts_with(prefix);
            if let Some(session) = entry.session.filter(fits).filter(|session| !found.contains(session)) {
                found.push(session);
            }
        },
    );
    match found.as_slice() {
        [session] => Ok(*session),
        [] => {
            output::complain(format_args!("journal {}: no session {prefix}", args.source.journal.display()));
            Err(Exit::Failed)
        }
        [first, second, ..] => {
            let number = found.len();
            output::complain(format_args!(
                "{number} sessions begin with {prefix}, among them {first} and {second}: give more of the id"
            ));
            Err(Exit::Usage)
        }
    }
}

/// Turns events into lines for a person.
pub(super) struct Teller {
    colour: bool,
    /// Events of several sessions: each line begins with its session.
    names_sessions: bool,
    /// What `Executed` refers to, by number; forgotten when the session closes.
    statements: HashMap<SessionId, HashMap<u64, String>>,
}

impl Teller {
    pub(super) fn new(colour: bool, names_sessions: bool) -> Self {
        Self { colour, names_sessions, statements: HashMap::new() }
    }

    pub(super) fn tell(&mut self, entry: &Entry) -> String {
        let what = match &entry.event {
            Some(event) => self.event(entry.session, event),
            None => neutral(&entry.line),
        };
        let session = match entry.session.filter(|_| self.names_sessions) {
            Some(session) => format!("{session}  "),
            None if self.names_sessions => "agent  ".to_owned(),
            None => String::new(),
        };
        // Further lines of a statement stay under the first.
        let what = what.replace('\n', "\n    ");
        format!("{}  {session}{what}\n", entry.time)
    }

    fn event(&mut self, session: Option<SessionId>, event: &Event) -> String {
        match event {
            Event::AgentStarted { version, pid, .. } => format!("agent {} started, pid {pid}", neutral(version)),
            Event::AgentStopped {} => "agent stopped".to_owned(),
            Event::ConnectionRefused { peer, reason } => format!("connection from {} refused: {reason}", peer.0),
            Event::CredentialInjected { credential, version, method } => {
                format!("credential {} version {} injected by {}", neutral(credential), neutral(version), neutral(method))
            }
            Event::Executed { number, statement } => {
                let text = session.and_then(|session| self.statements.get(&session)?.get(statement));
                format!("[{number}] executed again [{statement}] {}", text.map_or("", String::as_str))
            }
            Event::Finished { number, status, rows, bytes, duration_us, error } => {
                let rows = rows.map_or_else(String::new, |rows| format!(", {rows} rows"));
                let error = error.as_ref().map_or_else(String::new, |error| format!(": {}", neutral(error.as_str())));
                format!("[{number}] finished {}{rows}, {bytes} bytes, {}{error}", neutral(status), milliseconds(*duration_us))
            }
            Event::Gap { records, since } => format!("GAP: {records} records were refused since {since}"),
            Event::JournalOpened { cause, abandoned } => {
                let cause =
                    serde_json::to_value(cause).ok().and_then(|cause| cause.as_str().map(str::to_owned)).unwrap_or_default();
                let void = if abandoned.is_empty() {
                    String::new()
                } else {
                    format!(", parts of {} segments are void", abandoned.len())
                };
                format!("journal segment opened: {cause}{void}")
            }
            Event::JournalSealed { records, .. } => format!("journal closed after {records} records"),
            Event::Login { number, login, verdict } => {
                let database = login.database.as_ref().map_or_else(String::new, |database| format!(" database {database}"));
                let application = login.application.as_ref().map_or_else(String::new, |name| format!(" application {name}"));
                let login = neutral(&format!("login user {}{database}{application}", login.user));
                format!("[{number}] {}  {login}", self.verdict(verdict))
            }
            Event::Masks { mask, what, count } => format!("masked {count} values of {} by {}", neutral(what), neutral(mask)),
            Event::PolicyApplied { generation, digest } => format!("policies in force: generation {generation}, digest {digest}"),
            Event::PolicyRejected { errors } => {
                let errors = errors.iter().map(|error| neutral(error.as_str())).collect::<Vec<_>>().join("\n");
                format!("policies rejected, the last good ones stay in force:\n{errors}")
            }
            Event::Request { number, method, host, target, verdict } => {
                let request = neutral(&format!("{method} {host}{target}"));
                format!("[{number}] {}  {request}", self.verdict(verdict))
            }
            Event::SessionClosed { reason, detail, bytes_up, bytes_down, duration_us } => {
                session.and_then(|session| self.statements.remove(&session));
                let detail = if detail.as_str().is_empty() { String::new() } else { format!(": {}", neutral(detail.as_str())) };
                format!("closed: {reason}{detail}, {bytes_up} bytes up, {bytes_down} bytes down, {}", milliseconds(*duration_us))
            }
            Event::SessionOpened { peer, orig_dst, protocol, upstream, workload, verdict } => {
                let upstream = upstream.as_ref().map_or_else(String::new, |name| format!(" ({})", neutral(name)));
                let route = format!("opened {} to {}{upstream}, {protocol}", peer.0, orig_dst.0);
                format!("{}  {route}\n{}", self.verdict(verdict), neutral(&who(workload)))
            }
            Event::Statement { number, text, effects, verdict, .. } => {
                let text = neutral(text.as_str());
                let told = format!("[{number}] {}{}  {text}", self.verdict(verdict), words(*effects));
                if let Some(session) = session {
                    self.statements.entry(session).or_default().insert(*number, text);
                }
                told
            }
            Event::Stream { number, verdict } => format!("[{number}] {}  the whole connection", self.verdict(verdict)),
        }
    }

    fn verdict(&self, verdict: &VerdictEntry) -> String {
        let (word, code) = match (verdict.allowed, &verdict.would_deny) {
            (true, None) => ("ALLOWED", "32"),
            (true, Some(_)) => ("OBSERVED", "33"),
            (false, _) => ("DENIED", "31"),
        };
        let mut text = if self.colour { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() };
        let rule = verdict.would_deny.as_ref().or(verdict.rule.as_ref());
        if let Some(rule) = rule {
            let _ = write!(text, " by {}", neutral(rule)); // a String takes everything
        }
        if let Some(message) = &verdict.message {
            let _ = write!(text, " ({})", neutral(message));
        }
        text
    }
}

fn who(workload: &Workload) -> String {
    let mut text = format!("pid {} uid {} gid {}", workload.pid, workload.uid, workload.gid);
    let exe = workload.exe.as_ref().map(|exe| exe.display().to_string());
    for (word, value) in [("name", &workload.name), ("exe", &exe), ("unit", &workload.unit)] {
        if let Some(value) = value {
            let _ = write!(text, " {word} {value}");
        }
    }
    let _ = write!(text, " cgroup {}", workload.cgroup);
    if !workload.argv.is_empty() {
        let _ = write!(text, "\n{}", workload.argv.join(" "));
    }
    text
}

fn words(effects: Effects) -> String {
    let words: Vec<&str> = effects.iter().map(crate::flow::Effect::word).collect();
    if words.is_empty() { String::new() } else { format!(" [{}]", words.join(" ")) }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03} ms", microseconds / 1000, microseconds % 1000)
}

/// Printed at once: a write for every record would be slow.
const PRINT_BYTES: usize = 64 * 1024;
