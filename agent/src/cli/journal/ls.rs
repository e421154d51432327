//! `weir journal ls`.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use serde::Serialize;

use super::{Exit, Source, output};
use crate::{
    flow::{OrigDst, Protocol, Reason, SessionId},
    journal::{
        event::{Event, OpenCause, VerdictEntry},
        read::Entry,
        time::Stamp,
    },
    mask::MaskedWorkload,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Only sessions of this workload: its name, unit or executable
    #[arg(long, value_name = "WORKLOAD")]
    workload: Option<String>,
    /// Only sessions with this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only sessions opened at or after this time: RFC 3339, or an age such as 10m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = stamp)]
    since: Option<Stamp>,
    /// Only sessions opened before this time
    #[arg(long, value_name = "TIME", value_parser = stamp)]
    until: Option<Stamp>,
    /// Only sessions in which something was denied
    #[arg(long)]
    denied: bool,
}

fn stamp(text: &str) -> Result<Stamp, String> {
    Stamp::parse(text, SystemTime::now()).ok_or_else(|| "expected RFC 3339, or an age such as 10m, 2h, 3d".to_owned())
}

pub(super) fn run(args: &Args) -> Exit {
    let walk = match args.source.open() {
        Ok(walk) => walk,
        Err(exit) => return exit,
    };
    let mut sessions = Sessions::default();
    let running = walk.running;
    walk.for_each(super::complain, |entry| sessions.add(entry));
    if !running {
        sessions.agent_ended();
    }
    let chosen = sessions.in_order().filter(|session| args.wants(session));
    if args.source.json {
        let lines = chosen.filter_map(|session| serde_json::to_string(&session).ok());
        output::print(&lines.map(|line| line + "\n").collect::<String>());
    } else {
        let mut table = output::Table::new(&HEADER);
        chosen.for_each(|session| table.row(session.cells()));
        output::print(&table.render());
    }
    Exit::Fine
}

impl Args {
    fn wants(&self, session: &Session) -> bool {
        self.workload.as_ref().is_none_or(|wanted| session.is_of(wanted))
            && self.upstream.as_deref().is_none_or(|wanted| session.upstream.as_deref() == Some(wanted))
            && self.since.is_none_or(|since| session.opened >= since)
            && self.until.is_none_or(|until| session.opened < until)
            && (!self.denied || session.denied > 0)
    }
}

/// One session as a whole.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    pub(super) session: SessionId,
    pub(super) opened: Stamp,
    pub(super) workload: MaskedWorkload,
    /// The login's user, else the uid.
    pub(super) user: String,
    pub(super) orig_dst: OrigDst,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) protocol: Protocol,
    pub(super) requests: u64,
    pub(super) denied: u64,
    pub(super) masked: u64,
    pub(super) closed: Option<Stamp>,
    /// `None`: open, or the agent ended before it.
    pub(super) reason: Option<Reason>,
    #[serde(skip)]
    agent_ended: bool,
}

impl Session {
    fn workload_text(&self) -> String {
        let exe = self.workload.exe.as_ref().map(|exe| exe.display().to_string());
        self.workload.name.clone().or(exe).or(self.workload.unit.clone()).unwrap_or_else(|| format!("pid {}", self.workload.pid))
    }

    fn is_of(&self, wanted: &str) -> bool {
        let exe = self.workload.exe.as_ref();
        let file_name = exe.and_then(|exe| exe.file_name());
        self.workload.name.as_deref() == Some(wanted)
            || self.workload.unit.as_deref() == Some(wanted)
            || exe.is_some_and(|exe| exe.as_os_str() == wanted)
            || file_name.is_some_and(|name| name == wanted)
    }

    fn cells(&self) -> Vec<String> {
        let end = match self.reason {
            Some(reason) => reason.to_string(),
            None if self.agent_ended => "agent ended".to_owned(),
            None => "open".to_owned(),
        };
        vec![
            self.session.to_string(),
            self.opened.to_string(),
            self.workload_text(),
            self.user.clone(),
            self.upstream.as_deref().map_or_else(|| self.orig_dst.0.to_string(), str::to_owned),
            self.protocol.to_string(),
            self.requests.to_string(),
            self.denied.to_string(),
            self.masked.to_string(),
            end,
        ]
    }
}

/// Sessions as they are told, in the order in which they were opened.
#[derive(Default)]
pub(super) struct Sessions {
    order: Vec<Session>,
    places: HashMap<SessionId, usize>,
    /// Sessions before this place belong to an agent that has ended.
    ended: usize,
}

impl Sessions {
    pub(super) fn add(&mut self, entry: Entry) {
        let Some(event) = entry.event else { return };
        match (entry.session, event) {
            (Some(session), Event::SessionOpened { orig_dst, protocol, upstream, workload, verdict, .. }) => {
                self.places.insert(session, self.order.len());
                self.order.push(Session {
                    session,
                    opened: entry.time,
                    user: format!("uid {}", workload.uid),
                    workload,
                    orig_dst,
                    upstream,
                    protocol,
                    requests: 0,
                    denied: u64::from(!verdict.allowed),
                    masked: 0,
                    closed: None,
                    reason: None,
                    agent_ended: false,
                });
            }
            (Some(session), event) => {
                let place = self.places.get(&session).copied();
                if let Some(session) = place.and_then(|place| self.order.get_mut(place)) {
                    session.tell(entry.time, event);
                }
            }
            (None, Event::JournalOpened { cause: OpenCause::Start | OpenCause::UncleanStop, .. }) => self.agent_ended(),
            (None, _) => {}
        }
    }

    /// Whoever wrote so far has ended: none of its sessions is open.
    pub(super) fn agent_ended(&mut self) {
        self.ended = self.order.len();
    }

    pub(super) fn in_order(self) -> impl Iterator<Item = Session> {
        let ended = self.ended;
        self.order.into_iter().enumerate().map(move |(place, session)| Session { agent_ended: place < ended, ..session })
    }
}

impl Session {
    fn tell(&mut self, time: Stamp, event: Event) {
        match event {
            Event::Executed { .. } => self.requests += 1,
            Event::Login { login, verdict, .. } => {
                login.user.as_str().clone_into(&mut self.user);
                self.judged(&verdict);
            }
            Event::Masks { count, .. } => self.masked += count,
            Event::Request { verdict, .. } | Event::Statement { verdict, .. } | Event::Stream { verdict, .. } => {
                self.requests += 1;
                self.judged(&verdict);
            }
            Event::SessionClosed { reason, .. } => (self.closed, self.reason) = (Some(time), Some(reason)),
            _ => {}
        }
    }

    fn judged(&mut self, verdict: &VerdictEntry) {
        self.denied += u64::from(!verdict.allowed);
    }
}

const HEADER: [&str; 10] =
    ["SESSION", "OPENED", "WORKLOAD", "USER", "UPSTREAM", "PROTOCOL", "REQUESTS", "DENIED", "MASKED", "CLOSED"];
